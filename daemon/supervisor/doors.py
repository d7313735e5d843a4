"""The sockets of the control plane: one door is a ROUTER for requests and a PUB for events.

Everything that bounds a peer below the level of messages is set here: sizes, queues, handshakes,
dead connections, and who may open an ipc socket. libzmq bounds no message's number of parts; parts
beyond the few that a request has are thrown away as they come.
"""

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from recd.config.endpoints import Endpoint
from recd.config.errors import RecdError
from recd.config.keys import Pair
from recd.config.messages import MAX_MESSAGE_BYTES
from recd.config.paths import open_to_group
from recd.daemon.supervisor.access import ZAP_DOMAIN

QUEUED = 256
SUBSCRIPTION_BYTES = 1024
"""Longest message that a subscriber may send: a topic, or its part of a CURVE handshake."""
PARTS_KEPT = 4
PARTS_A_TURN = 512
HANDSHAKE_MS = 5_000
"""A tcp peer that has not said who it is by then is dropped."""
HEARTBEAT_MS, DEAD_AFTER_MS = 5_000, 15_000
"""A tcp peer whose computer vanished is dropped; otherwise its connection would stay for ever."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One message as it came. parts: at most PARTS_KEPT of `count`; public: the sender's key."""

    peer: bytes
    parts: list[bytes]
    count: int
    public: str = ""


class Door:
    """One address, open until `close`. Raises RecdError when it cannot be opened."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: Endpoint,
        *,
        server: Pair | None = None,
        events: bool = True,
        most_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        """events: also publish, at the endpoint's own place for that; most_bytes: of one part."""
        self.endpoint = endpoint
        self._most_bytes = most_bytes
        self.guarded = server is not None
        self._context, self._server = context, server
        self._frames: list[zmq.Frame] = []
        self._count = 0
        self._events: zmq.Socket[bytes] | None = None
        self.router = self._bound(zmq.ROUTER, endpoint.text)
        if not events:
            return
        try:
            self._events = self._bound(zmq.PUB, endpoint.events)
        except RecdError:
            self.close()
            raise

    def _bound(self, kind: int, address: str) -> "zmq.Socket[bytes]":
        socket = self._context.socket(kind)
        _set_limits(socket, kind, self.endpoint, most_bytes=self._most_bytes)
        if self._server is not None:
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._server.secret.encode())
            socket.setsockopt_string(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        try:
            _remove_stale(address)
            socket.bind(address)
            _share(address)
        except RecdError:
            socket.close(linger=0)
            raise
        except (zmq.ZMQError, OSError) as error:
            socket.close(linger=0)
            raise RecdError(
                f"control socket {address} cannot be opened: {error.strerror}",
                mend="Set control.endpoint or control.runtime_dir to a free place.",
                code="control",
            ) from error
        return socket

    def take(self) -> Letter | None:
        """The next whole message, None when there is none yet. Never waits."""
        for _ in range(PARTS_A_TURN):
            try:
                frame = self.router.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return None
            self._count += 1
            if len(self._frames) < PARTS_KEPT:
                self._frames.append(frame)
            if not frame.more:
                return self._letter()
        return None

    def _letter(self) -> Letter:
        (peer, *parts), count = self._frames, self._count - 1
        self._frames, self._count = [], 0
        public = str(parts[-1].get("User-Id")) if self.guarded and parts else ""
        return Letter(peer.bytes, [part.bytes for part in parts], count, public)

    def reply(self, peer: bytes, packed: bytes) -> None:
        """Send or raise ZMQError at once: gone (EHOSTUNREACH), or not reading (EAGAIN)."""
        self.router.send_multipart([peer, packed], zmq.NOBLOCK)

    def send(self, peer: bytes, parts: Sequence[Any]) -> bool:
        """A message of several parts, not copied. False when the peer is gone or does not read."""
        try:
            self.router.send_multipart([peer, *parts], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:
            return False
        return True

    def publish(self, topic: str, packed: bytes) -> bool:
        """One event to whoever listens here; False when it could not be sent."""
        if self._events is None:
            return False
        try:
            self._events.send_multipart([topic.encode(), packed], zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def cut_listeners(self) -> None:
        """Drop everybody who listens; `reopen` lets in who still may, and they come by
        themselves. libzmq has no other way to end one subscription."""
        if self._events is not None:
            self._events.close(linger=0)
            self._events = None

    def reopen(self) -> bool:
        """Publish again after `cut_listeners`. False while libzmq still holds the address."""
        if self._events is None:
            try:
                self._events = self._bound(zmq.PUB, self.endpoint.events)
            except RecdError:
                return False
        return True

    def close(self) -> None:
        """Flush briefly and remove the socket files. Idempotent."""
        self.router.close()
        if self._events is not None:
            self._events.close()
        for address in (self.endpoint.text, self.endpoint.events):
            if address.startswith("ipc://"):
                Path(address.removeprefix("ipc://")).unlink(missing_ok=True)


def _set_limits(
    socket: "zmq.Socket[bytes]", kind: int, endpoint: Endpoint, *, most_bytes: int
) -> None:
    router = kind == zmq.ROUTER
    socket.setsockopt(zmq.LINGER, 200)
    socket.setsockopt(zmq.MAXMSGSIZE, most_bytes if router else SUBSCRIPTION_BYTES)
    socket.setsockopt(zmq.SNDHWM, QUEUED)
    socket.setsockopt(zmq.RCVHWM, QUEUED)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    if router:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    if endpoint.host:
        socket.setsockopt(zmq.IPV6, int(endpoint.host.startswith("[")))
        socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, DEAD_AFTER_MS)


def _share(address: str) -> None:
    """Who may enter the folder of a socket may talk to it: its owner, or a group as well (a
    service's folder, docs/service.md). Said here, whatever the umask was."""
    if address.startswith("ipc://"):
        path = Path(address.removeprefix("ipc://"))
        path.chmod(0o660 if open_to_group(path.parent) else 0o600)


def _remove_stale(address: str) -> None:
    """A socket file that a killed daemon left; nothing else is ever removed."""
    if not address.startswith("ipc://"):
        return
    path = Path(address.removeprefix("ipc://"))
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise RecdError(
            f"control socket {address}: expected a free place, found a file",
            mend="Move the file away, or name another place.",
            code="control",
        )
    path.unlink()
