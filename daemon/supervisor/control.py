"""The control sockets: requests in, replies out, events to whoever listens.

A request id is answered once and remembered: a retry gets the same bytes again, and a command is
never done twice. Nothing a peer sends or fails to read holds the daemon up: sends never block, and
messages are limited in size before they are looked at.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from recd.config.errors import RecdError
from recd.config.messages import (
    MAX_MESSAGE_BYTES,
    MAX_REQUEST_ITEMS,
    CommandError,
    MessageError,
    Request,
    decode,
    encode,
    parse_request,
    reply_error,
    reply_ok,
    request_id_of,
)
from recd.config.paths import LOCAL_ENDPOINT, control_endpoint, event_endpoint, open_to_group
from recd.daemon import log
from recd.shm.clock import NS_PER_MS, now_ns

REPLIES_KEPT = 1024
REPLIES_BYTES = 16 * 1024 * 1024
"""Memory of replies kept for retries; the oldest go first."""

STRIKES = 16
"""Malformed messages answered per peer; after that its rubbish is only counted."""

PEERS_WATCHED = 256
BATCH = 64
"""Requests served in one turn, so that a flood does not starve the workers' links."""

DEFECT_MEND = "this is a defect of recd: please report it with the daemon's log"

FRAMES_MAX = 2
"""Parts of a request: the sender's identity (added by the socket) and the message."""


@dataclass(frozen=True, slots=True)
class Later:
    """A handler's promise: the reply comes when `resolve(key, ...)` is called."""

    key: str


Outcome = Mapping[str, Any] | Later
Handler = Callable[[Request], Outcome]


@dataclass(slots=True)
class _Pending:
    request: Request
    key: str
    deadline_ns: int
    peers: list[bytes] = field(default_factory=list)


class ControlPlane:
    """Binds both sockets in `directory` and serves them. `close` removes them."""

    def __init__(
        self, directory: Path, handle: Handler, *, endpoint: str = "", session_id: str = ""
    ) -> None:
        self._handle = handle
        self._session_id = session_id
        self._context = zmq.Context()
        self._paths = (directory / "ctl.sock", directory / "evt.sock")
        self._router = self._bound(zmq.ROUTER, endpoint or control_endpoint(directory))
        self._events = self._bound(zmq.PUB, event_endpoint(directory))
        self._replies: OrderedDict[str, bytes] = OrderedDict()
        self._reply_bytes = 0
        self._pending: dict[str, _Pending] = {}
        self._strikes: OrderedDict[bytes, int] = OrderedDict()
        self._seq = 0
        self.rejected = 0
        self.unsent = 0
        self._log = log.get_logger()

    def _bound(self, kind: int, endpoint: str) -> "zmq.Socket[bytes]":
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 200)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.SNDHWM, 256)
        socket.setsockopt(zmq.RCVHWM, 256)
        if kind == zmq.ROUTER:
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            _check_local(endpoint)
            _remove_stale(endpoint)
            socket.bind(endpoint)
        except RecdError:
            socket.close(linger=0)
            raise
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise RecdError(
                f"control socket {endpoint} cannot be opened: {error.strerror}",
                mend="set control.endpoint or control.runtime_dir to a free place",
                code="control",
            ) from error
        _share(endpoint)
        return socket

    @property
    def socket(self) -> "zmq.Socket[bytes]":
        """For poll: readable when `serve` has something to do."""
        return self._router

    def serve(self) -> None:
        """Answer what is waiting, up to a batch."""
        for _ in range(BATCH):
            try:
                frames = self._router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            peer, *parts = frames
            if len(parts) == FRAMES_MAX and not parts[0]:
                parts = parts[1:]  # a REQ socket puts an empty frame before the message
            self._serve_one(peer, parts)

    def _serve_one(self, peer: bytes, parts: list[bytes]) -> None:
        request_id = ""
        try:
            if len(parts) != 1:
                raise MessageError(f"expected one frame, found {len(parts)}")
            message = decode(parts[0], max_items=MAX_REQUEST_ITEMS)
            request_id = request_id_of(message)
            if request_id and self._known(peer, request_id):
                return
            request = parse_request(message)
        except MessageError as error:
            self._reject(peer, request_id, error)
            return
        except CommandError as error:
            self._answer([peer], request_id, reply_error(request_id, error))
            return
        self._carry_out(peer, request)

    def _known(self, peer: bytes, request_id: str) -> bool:
        """Answer a retry from memory, or let it wait with the first one."""
        if (packed := self._replies.get(request_id)) is not None:
            self._send(peer, packed)
            return True
        if (pending := self._pending.get(request_id)) is not None:
            if peer not in pending.peers:
                pending.peers.append(peer)
            return True
        return False

    def _carry_out(self, peer: bytes, request: Request) -> None:
        try:
            outcome = self._handle(request)
        except RecdError as error:
            self._answer([peer], request.id, reply_error(request.id, error))
            return
        except Exception as error:  # a defect in one command must not end a recording
            self._log.exception("command failed", cmd=request.cmd)
            told = RecdError(f"{request.cmd}: {type(error).__name__}: {error}", mend=DEFECT_MEND,
                             code="internal")  # fmt: skip
            self._answer([peer], request.id, reply_error(request.id, told))
            return
        if isinstance(outcome, Later):
            deadline_ns = now_ns() + request.deadline_ms * NS_PER_MS
            self._pending[request.id] = _Pending(request, outcome.key, deadline_ns, [peer])
            return
        self._answer([peer], request.id, reply_ok(request.id, outcome))

    def resolve(self, key: str, outcome: Mapping[str, Any] | RecdError) -> None:
        """Answer every request that waits for `key`."""
        for request_id, pending in list(self._pending.items()):
            if pending.key != key:
                continue
            del self._pending[request_id]
            if isinstance(outcome, RecdError):
                self._answer(pending.peers, request_id, reply_error(request_id, outcome))
            else:
                self._answer(pending.peers, request_id, reply_ok(request_id, outcome))

    def expire(self, now: int) -> None:
        """Answer what waited longer than it wanted to. The command itself goes on."""
        for request_id, pending in list(self._pending.items()):
            if now < pending.deadline_ns:
                continue
            del self._pending[request_id]
            error = RecdError(
                f"{pending.request.cmd}: not finished within "
                f"{pending.request.deadline_ms / 1000:g} s; it goes on",
                mend="recctl status and recctl episodes show how it ends",
                code="deadline",
            )
            self._answer(pending.peers, request_id, reply_error(request_id, error))

    def next_deadline_ns(self) -> int | None:
        """When `expire` has something to do, None when nothing waits."""
        return min((pending.deadline_ns for pending in self._pending.values()), default=None)

    def waits_for(self, prefix: str) -> bool:
        """True while a request waits for a key that begins with `prefix`."""
        return any(pending.key.startswith(prefix) for pending in self._pending.values())

    def publish(self, topic: str, event: str, fields: Mapping[str, Any]) -> None:
        """One event to all subscribers; `seq` has no gaps, so a gap at a reader is a loss."""
        self._seq += 1
        head = {"v": 1, "seq": self._seq, "t_ns": now_ns(), "sid": self._session_id}
        try:
            packed = encode({**fields, **head, "event": event})
        except (MessageError, TypeError, ValueError, OverflowError) as error:
            self._log.error("event not sent", topic=topic, name=event, reason=str(error))
            return
        try:
            self._events.send_multipart([topic.encode(), packed], zmq.NOBLOCK)
        except zmq.Again:
            self.unsent += 1

    def _reject(self, peer: bytes, request_id: str, error: MessageError) -> None:
        self.rejected += 1
        strikes = self._strikes.pop(peer, 0) + 1
        self._strikes[peer] = strikes
        while len(self._strikes) > PEERS_WATCHED:
            self._strikes.popitem(last=False)
        if strikes <= STRIKES:
            self._send(peer, encode(reply_error(request_id, error)))
            self._log.warning("message rejected", code=error.code, reason=error.message)

    def _answer(self, peers: list[bytes], request_id: str, reply: Mapping[str, Any]) -> None:
        try:
            packed = encode(reply)
        except (MessageError, TypeError, ValueError, OverflowError) as error:
            self._log.error("reply not sendable", reason=str(error))
            told = RecdError(f"the reply cannot be sent: {error}", code="reply")
            packed = encode(reply_error(request_id, told))
        if request_id:
            self._remember(request_id, packed)
        for peer in peers:
            self._send(peer, packed)

    def _remember(self, request_id: str, packed: bytes) -> None:
        self._replies[request_id] = packed
        self._reply_bytes += len(packed)
        while len(self._replies) > REPLIES_KEPT or self._reply_bytes > REPLIES_BYTES:
            _, old = self._replies.popitem(last=False)
            self._reply_bytes -= len(old)

    def _send(self, peer: bytes, packed: bytes) -> None:
        try:
            self._router.send_multipart([peer, packed], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            # Gone (EHOSTUNREACH) or not reading (EAGAIN): its retry finds the reply remembered.
            self.unsent += 1
            self._log.debug("reply not delivered", reason=error.strerror)

    def close(self) -> None:
        """Flush briefly, then remove the sockets. Idempotent."""
        if self._context.closed:
            return
        self._router.close()
        self._events.close()
        self._context.term()
        for path in self._paths:
            path.unlink(missing_ok=True)


def _check_local(endpoint: str) -> None:
    if not LOCAL_ENDPOINT.fullmatch(endpoint):
        raise RecdError(
            f"control.endpoint: expected ipc:// or tcp:// on this computer, found {endpoint!r}",
            mend="Leave control.endpoint out; reach another computer through an ssh tunnel.",
            code="control",
        )


def _share(endpoint: str) -> None:
    """Who may enter the folder of a socket may talk to it: its owner, or a group as well (a
    service's folder, docs/service.md). Said here, whatever the umask was."""
    if endpoint.startswith("ipc://"):
        path = Path(endpoint.removeprefix("ipc://"))
        path.chmod(0o660 if open_to_group(path.parent) else 0o600)


def _remove_stale(endpoint: str) -> None:
    """A socket file that a killed daemon left; its lock is ours already, so nobody serves it."""
    if endpoint.startswith("ipc://"):
        Path(endpoint.removeprefix("ipc://")).unlink(missing_ok=True)
