"""MJPEG over HTTP: bodies straight from the socket into the ring, the sender's stamp as a foreign
clock. Frame numbers where the sender gives them. Name resolution is the only wait without deadline.
"""

import base64
import errno
import re
import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from recd.config.errors import DeviceError
from recd.config.streams import FrameFlag
from recd.daemon.cameras import access
from recd.daemon.cameras.clockmap import ClockMap
from recd.daemon.cameras.http_parts import HEADER_BYTES, Part, PartReader
from recd.daemon.cameras.request import CameraRequest
from recd.daemon.cameras.source import CameraFormat, CameraLostError, FrameInfo, Idle, Into
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

OPEN_WITHIN_NS = 3 * NS_PER_S
"""Connecting, answer and first part header must come within this."""

FRAME_NUMBER_HEADER = "x-frame-number"

STAMP_HEADERS = ("x-timestamp-ns", "x-timestamp")
"""Looked for when the configured header is not there; the second is mjpg-streamer's, in seconds."""

STAMP_UNITS_NS = {"-ns": 1, "-us": 1_000, "-ms": 1_000_000}
"""End of a stamp header's name -> ns per unit; any other name means seconds."""

_MOST_REDIRECTS = 3
_IDLE_EVERY_MS = 100
_DECIMAL = re.compile(r"\s*(-?)(\d+)(?:\.(\d+))?\s*$")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    reason: str
    headers: Mapping[str, str]
    rest: bytes


def parse_stamp(header: str, value: str) -> int | None:
    """A sender's stamp in ns of its own clock, exact; None when `value` is no number.

    The unit follows from the end of the header's name (STAMP_UNITS_NS), seconds otherwise.
    """
    match = _DECIMAL.match(value)
    if match is None:
        return None
    unit = next((ns for end, ns in STAMP_UNITS_NS.items() if header.endswith(end)), NS_PER_S)
    sign, whole, fraction = match.groups()
    digits = fraction or ""
    total = int(whole) * unit + (int(digits) * unit // 10 ** len(digits) if digits else 0)
    return -total if sign else total


class HttpSource:
    """CameraSource of one multipart/x-mixed-replace stream."""

    def __init__(self, request: CameraRequest) -> None:
        self._request = request
        self._sock: socket.socket | None = None
        self._poll = select.poll()
        self._parts: PartReader | None = None
        self._clock = ClockMap()
        self._stamp_header = ""
        self._url = request.device
        self._nothing_yet: tuple[type[OSError], ...] = (BlockingIOError,)

    @property
    def clock(self) -> ClockMap:
        """The map of the sender's clock, for reports."""
        return self._clock

    def open(self, idle: Idle) -> CameraFormat:
        """Connect, follow redirects, read up to the first part's header."""
        self.close()
        deadline_ns = now_ns() + OPEN_WITHIN_NS
        try:
            return self._open(idle, deadline_ns)
        except OSError as error:
            self.close()
            raise self._unreachable(error) from error
        except DeviceError:
            self.close()
            raise

    def _open(self, idle: Idle, deadline_ns: int) -> CameraFormat:
        url = self._request.device
        for _ in range(_MOST_REDIRECTS + 1):
            self._url = url
            answer = self._get(url, idle, deadline_ns)
            location = answer.headers.get("location")
            if answer.status not in (301, 302, 303, 307, 308) or not location:
                break
            url = urljoin(url, location)
            self.close()
        boundary, shown = self._boundary(answer), _without_password(url)
        self._parts = PartReader(boundary, self._receive, f"{self._request.key}: {shown}")
        self._parts.push_back(answer.rest)
        while (part := self._parts.header()) is None:
            self._wait(select.POLLIN, idle, deadline_ns)
        self._stamp_header = self._find_stamp_header(part)
        return CameraFormat(
            payload="mjpeg",
            width=0,
            height=0,
            fps_num=0,
            fps_den=1,
            stamp="foreign" if self._stamp_header else "arrival",
            frame_ids=FRAME_NUMBER_HEADER in part.headers,
            device=shown,
            facts={"server": answer.headers.get("server", ""), "stamp_header": self._stamp_header},
        )

    def _get(self, url: str, idle: Idle, deadline_ns: int) -> _Answer:
        target = urlsplit(url)
        if target.scheme not in ("http", "https") or not target.hostname:
            raise DeviceError(
                f"{self._request.key}.device: expected http://HOST[:PORT]/PATH, "
                f"found {_without_password(url)}",
                mend="Correct the address of the stream.",
                code="url",
            )
        self._connect(target, idle, deadline_ns)
        assert self._sock is not None
        self._sock.sendall(_request_text(target))
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0:
            if len(received) > HEADER_BYTES:
                raise self._no_answer("does not answer as HTTP does")
            chunk = bytearray(4096)
            taken = self._receive(memoryview(chunk))
            if taken is None:
                self._wait(select.POLLIN, idle, deadline_ns)
            elif taken == 0:
                raise self._no_answer("closed without an answer")
            else:
                received += chunk[:taken]
        return _parse_answer(bytes(received[:end]), bytes(received[end + 4 :]))

    def _no_answer(self, what: str) -> CameraLostError:
        shown = _without_password(self._url)
        return CameraLostError(f"{self._request.key}: {shown} {what}", code="no_http")

    def _connect(self, target: SplitResult, idle: Idle, deadline_ns: int) -> None:
        port = target.port or (443 if target.scheme == "https" else 80)
        family, kind, protocol, _, address = socket.getaddrinfo(
            target.hostname, port, type=socket.SOCK_STREAM
        )[0]
        sock = socket.socket(family, kind, protocol)
        self._sock = sock
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(address)
        self._poll.register(sock, select.POLLIN)
        if code == errno.EINPROGRESS:
            self._wait(select.POLLOUT, idle, deadline_ns)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, errno.errorcode.get(code, str(code)))
        if target.scheme == "https":
            import ssl  # a tenth of what this module's import costs, and few cameras have https

            self._nothing_yet = (BlockingIOError, ssl.SSLWantReadError)
            sock.settimeout(OPEN_WITHIN_NS / NS_PER_S)
            secure = ssl.create_default_context().wrap_socket(sock, server_hostname=target.hostname)
            secure.setblocking(False)
            self._sock = secure

    def _wait(self, events: int, idle: Idle, deadline_ns: int) -> None:
        """Until the socket is ready, calling `idle` meanwhile."""
        assert self._sock is not None
        self._poll.modify(self._sock, events)
        while not self._poll.poll(_IDLE_EVERY_MS):
            if not idle() or now_ns() > deadline_ns:
                raise access.never_delivers(
                    self._request.key, _without_password(self._url), waited_ns=OPEN_WITHIN_NS
                )
        self._poll.modify(self._sock, select.POLLIN)

    def _receive(self, view: memoryview) -> int | None:
        assert self._sock is not None
        try:
            return self._sock.recv_into(view)
        except self._nothing_yet:
            return None

    def _boundary(self, answer: _Answer) -> bytes:
        key, url = self._request.key, _without_password(self._url)
        if answer.status == 401:
            raise DeviceError(
                f"{key}.device: {url} asks for a user and password",
                mend="Put them into the address: http://USER:PASSWORD@HOST/...",
                code="permission",
            )
        if answer.status >= 500:
            raise CameraLostError(f"{key}: {url} answers {answer.status} {answer.reason}")
        kind = answer.headers.get("content-type", "")
        if answer.status != 200 or not kind.lower().startswith("multipart/"):
            raise DeviceError(
                f"{key}.device: expected an MJPEG stream (multipart/x-mixed-replace) at "
                f"{url}, found {answer.status} {answer.reason}, "
                f"{kind or 'no content type'}",
                mend="Correct the path; many cameras use /video, /stream.mjpg or /?action=stream.",
                code="url",
            )
        _, _, boundary = kind.partition("boundary=")
        return boundary.split(";")[0].strip().strip('"').encode("latin-1")

    def _find_stamp_header(self, part: Part) -> str:
        for name in (self._request.stamp_header.lower(), *STAMP_HEADERS):
            if name and parse_stamp(name, part.headers.get(name, "")) is not None:
                return name
        return ""

    def next_frame(self, into: Into, deadline_ns: int) -> FrameInfo | None:
        """The next whole part. A part that is half here at the deadline goes on next time."""
        assert self._parts is not None
        while True:
            try:
                part = self._parts.part(into)
            except OSError as error:
                raise self._unreachable(error) from error
            if part is not None:
                return self._frame(part)
            left_ms = -(-(deadline_ns - now_ns()) // NS_PER_MS)
            if left_ms <= 0 or not self._poll.poll(left_ms):
                return None

    def _frame(self, part: Part) -> FrameInfo:
        flags = int(FrameFlag.CORRUPT) if part.cut else 0
        capture, residual = part.arrival_ns, 0
        stamp = parse_stamp(self._stamp_header, part.headers.get(self._stamp_header, ""))
        if stamp is not None:
            mapped = self._clock.map(stamp, part.arrival_ns)
            capture, residual = mapped.local_ns, mapped.residual_ns
            trusted = mapped.trusted
        else:
            trusted = False
        number = part.headers.get(FRAME_NUMBER_HEADER, "")
        return FrameInfo(
            nbytes=part.nbytes,
            t_capture_ns=capture,
            t_arrival_ns=part.arrival_ns,
            source_seq=int(number) if number.isdigit() else -1,
            flags=flags if trusted else flags | FrameFlag.STAMP_ARRIVAL,
            residual_ns=residual,
        )

    def _unreachable(self, error: OSError) -> CameraLostError:
        reason = error.strerror or str(error)
        return CameraLostError(
            f"{self._request.key}: no connection to {_without_password(self._url)}: {reason}",
            mend="Is the camera on, and the address right?",
            code="unreachable",
        )

    def close(self) -> None:
        """Close the connection."""
        if self._sock is not None:
            self._poll = select.poll()
            self._sock.close()
            self._sock = None
        self._parts = None


def _request_text(target: SplitResult) -> bytes:
    path = target.path or "/"
    query = f"?{target.query}" if target.query else ""
    host = target.netloc.rpartition("@")[2]
    # HTTP/1.0: a server may not chunk its answer then.
    lines = [f"GET {path}{query} HTTP/1.0", f"Host: {host}", "Accept: multipart/x-mixed-replace"]
    if target.username is not None:
        pair = f"{unquote(target.username)}:{unquote(target.password or '')}"
        lines.append(f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _parse_answer(head: bytes, rest: bytes) -> _Answer:
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    pairs = (line.partition(":") for line in lines[1:])
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return _Answer(status, words[2] if len(words) > 2 else "", headers, rest)


def _without_password(url: str) -> str:
    target = urlsplit(url)
    host = target.netloc.rpartition("@")[2]
    return target._replace(netloc=host).geturl()
