"""Takes multipart/x-mixed-replace apart as bytes come: resumes anywhere, never waits.

Bodies are received straight into the memory of the next picture: with a Content-Length without
looking at them, else until the boundary shows. Headers go through a small buffer of its own.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from recd.daemon.cameras.source import CameraLostError, Into, Pixels
from recd.shm.clock import now_ns

Receive = Callable[[memoryview], int | None]
"""Receives into the view: bytes taken, 0 at the end of the stream, None when there are none now."""

HEADER_BYTES = 16 * 1024
"""A part header longer than this is no header."""

_HEADER_END = re.compile(rb"\r?\n\r?\n")
_DRAIN_BYTES = 64 * 1024


@dataclass(slots=True)
class Part:
    """One part. headers: lower-case names; arrival_ns: when its header was complete; nbytes: body
    bytes in memory; cut: the body was larger than the memory, its rest was thrown away."""

    headers: Mapping[str, str]
    arrival_ns: int
    nbytes: int = 0
    cut: bool = False


@dataclass(slots=True)
class _Body:
    memory: Pixels
    length: int  # -1: until the boundary
    filled: int = 0


@dataclass(slots=True)
class PartReader:
    """Call `header` or `part` whenever there may be bytes; None means: not yet, wait for more.

    CameraLostError at the end of the stream and for bytes that are no multipart stream.
    """

    boundary: bytes
    receive: Receive
    name: str
    _buffer: bytearray = field(default_factory=bytearray)
    _part: Part | None = None
    _body: _Body | None = None

    def __post_init__(self) -> None:
        # Cameras declare the boundary with and without the dashes that precede it.
        self.boundary = b"--" + self.boundary.strip(b"-")

    def push_back(self, data: bytes) -> None:
        """Bytes received before this reader existed."""
        self._buffer[:0] = data

    def header(self) -> Part | None:
        """The part whose header is complete and whose body is to be read."""
        while self._part is None:
            if not self._parse_header() and not self._receive_more():
                return None
        return self._part

    def part(self, into: Into) -> Part | None:
        """The next whole part, its body in the memory that `into` named."""
        part = self.header()
        if part is None:
            return None
        if self._body is None:
            length = part.headers.get("content-length", "")
            self._body = _Body(into(), int(length) if length.isdigit() else -1)
        done = self._fill(part) if self._body.length >= 0 else self._scan(part)
        if not done:
            return None
        part.nbytes = min(self._body.filled, self._body.memory.size)
        self._part = self._body = None
        return part

    def _receive_more(self) -> bool:
        chunk = bytearray(4096)
        taken = self.receive(memoryview(chunk))
        if taken is None:
            return False
        self._ended(taken)
        self._buffer += chunk[:taken]
        return True

    def _ended(self, taken: int) -> None:
        if taken == 0:
            raise CameraLostError(f"{self.name}: the sender closed the stream", code="closed")

    def _parse_header(self) -> bool:
        buffer = self._buffer
        while buffer.startswith((b"\r", b"\n")):
            del buffer[:1]
        end = _HEADER_END.search(buffer)
        if end is None:
            if len(buffer) > HEADER_BYTES:
                raise self._no_multipart()
            return False
        lines = bytes(buffer[: end.start()]).splitlines()
        if not lines[0].startswith(b"--"):
            raise self._no_multipart()
        if lines[0].rstrip().endswith(b"--") and lines[0].rstrip() != self.boundary:
            self._ended(0)  # the closing boundary
        pairs = (line.decode("latin-1").partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        del buffer[: end.end()]
        self._part = Part(headers, now_ns())
        return True

    def _no_multipart(self) -> CameraLostError:
        head = bytes(self._buffer[:40])
        return CameraLostError(
            f"{self.name}: expected the boundary {self.boundary.decode('latin-1')}, found {head!r}",
            mend="Is this the address of an MJPEG stream?",
            code="no_multipart",
        )

    def _fill(self, part: Part) -> bool:
        body = self._body
        assert body is not None
        if self._buffer:
            taken = min(len(self._buffer), body.length - body.filled)
            self._put(body, self._buffer[:taken])
            del self._buffer[:taken]
        while body.filled < body.length:
            room = body.memory.size - body.filled
            if room > 0:
                stop = min(body.length, body.memory.size)
                view = body.memory[body.filled : stop].data
            else:
                view = memoryview(bytearray(min(_DRAIN_BYTES, body.length - body.filled)))
            taken_now = self.receive(view)
            if taken_now is None:
                return False
            self._ended(taken_now)
            body.filled += taken_now
        part.cut = body.length > body.memory.size
        return True

    @staticmethod
    def _put(body: _Body, data: bytearray) -> None:
        room = max(0, body.memory.size - body.filled)
        kept = min(room, len(data))
        body.memory[body.filled : body.filled + kept].data[:] = data[:kept]
        body.filled += len(data)

    def _scan(self, part: Part) -> bool:
        """Body without a length: ends before the boundary."""
        body = self._body
        assert body is not None
        while True:
            if self._buffer:
                fresh, self._buffer = self._buffer, bytearray()
                if len(fresh) > body.memory.size - body.filled:
                    raise self._too_large(body)
                self._put(body, fresh)
            else:
                if body.filled == body.memory.size:
                    raise self._too_large(body)
                taken = self.receive(body.memory[body.filled :].data)
                if taken is None:
                    return False
                self._ended(taken)
                fresh = bytearray(taken)
                body.filled += taken
            if self._found_boundary(body, fresh=len(fresh)):
                part.cut = False
                return True

    def _found_boundary(self, body: _Body, *, fresh: int) -> bool:
        start = max(0, body.filled - fresh - len(self.boundary) + 1)
        at = body.memory[start : body.filled].tobytes().find(self.boundary)
        if at < 0:
            return False
        self._buffer = bytearray(body.memory[start + at : body.filled].tobytes())
        end = start + at
        while end and body.memory[end - 1] in (0x0D, 0x0A):
            end -= 1
        body.filled = end
        return True

    def _too_large(self, body: _Body) -> CameraLostError:
        return CameraLostError(
            f"{self.name}: a picture without length is larger than the {body.memory.size} bytes "
            "of a ring slot",
            mend="Set width and height to what the camera really sends.",
            code="size",
        )
