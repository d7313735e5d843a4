"""Who may enter: the address beyond the ipc socket, its keys, and the answer to each handshake.

CURVE proves which key a peer holds; only the list says whether that key may enter and as what.
The list is read again whenever it changes; one that cannot be read lets nobody in.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.utils import z85

from recd.config.endpoints import Endpoint, parse_endpoint
from recd.config.errors import RecdError
from recd.config.keys import (
    LIST_FILE,
    SERVER_FILE,
    Allowed,
    KeyFileError,
    Pair,
    fingerprint,
    keys_folder,
    read_list,
    read_pair,
)
from recd.config.models import ControlConfig
from recd.config.paths import group_id
from recd.config.roles import allows, least_roles_for
from recd.daemon import log
from recd.shm.clock import NS_PER_S, now_ns

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_DOMAIN = "recd"
HANDSHAKES_A_TURN = 32
TELL_AGAIN_NS = 60 * NS_PER_S
"""A key that is refused over and over is told once in this time."""
REFUSED_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. fingerprint: of its key; empty for the ipc socket and loopback without keys."""

    name: str
    role: str
    fingerprint: str = ""

    def describe(self) -> dict[str, str]:
        """For logs, replies and the manifest."""
        return {"name": self.name, "role": self.role, "key": self.fingerprint}


LOCAL = Caller("local", "admin")
"""Whoever may open the ipc socket: its mode has checked that."""


class RefusedError(RecdError):
    """A key that is unknown or revoked, or whose role does not reach."""

    code = "role"


@dataclass(frozen=True, slots=True)
class Access:
    """How the control plane is reached. gid: group of the runtime folder; endpoint: the second
    address; server, keys: the daemon's pair and the folder of the list, None without CURVE."""

    gid: int | None = None
    endpoint: Endpoint | None = None
    server: Pair | None = None
    keys: Path | None = None


ONLY_OWNER = Access()
"""The ipc socket of the daemon's user, nothing else."""


def access_of(control: ControlConfig) -> Access:
    """The access that a configuration asks for. RecdError when it would be open to others."""
    gid = group_id(control.group)
    if not control.endpoint:
        return Access(gid)
    endpoint = parse_endpoint(control.endpoint)
    if not endpoint.asks_for_keys(control.curve):
        return Access(gid, endpoint)
    folder = keys_folder(control.keys_dir)
    try:
        server = read_pair(folder / SERVER_FILE)
        if not any(not client.revoked for client in read_list(folder)):
            raise KeyFileError(f"{folder / LIST_FILE}: nobody has a key", mend="")
    except KeyFileError as error:
        raise RecdError(
            f"control.endpoint: {endpoint.text} asks for keys"
            f"{'' if endpoint.local else ' (other computers can reach it)'}: {error.message}",
            mend=(error.mend if "mode" in error.message or "user" in error.message else "")
            or "Make them: recctl keys make NAME --role operate; or leave control.endpoint out and "
            "reach this computer through an ssh tunnel.",
            code="control",
        ) from error
    return Access(gid, endpoint, server, folder)


def check_role(caller: Caller, command: str, least: str) -> None:
    """RefusedError when the caller's role does not reach what `command` asks for."""
    if allows(caller.role, least):
        return
    raise RefusedError(
        f"{command}: expected role {' or '.join(least_roles_for(least))}, "
        f"found {caller.role} (key {caller.name!r}, {caller.fingerprint})",
        mend="Ask who keeps the robot's keys for one that may: recctl keys make NAME --role "
        f"{least}",
    )


class Gate:
    """Answers libzmq's question about every CURVE handshake (ZAP, RFC 27), in the same loop.

    Made before the sockets that it guards. denied: handshakes refused.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", folder: Path) -> None:
        self._folder = folder
        self._stamp: tuple[int, ...] | None = None
        self._clients: dict[str, Allowed] = {}
        self._told: OrderedDict[str, int] = OrderedDict()
        self._log = log.get_logger()
        self.denied = 0
        self.problem = ""
        self.refresh()
        self._zap = context.socket(zmq.ROUTER)
        self._zap.setsockopt(zmq.LINGER, 0)
        self._zap.bind(ZAP_ENDPOINT)

    @property
    def socket(self) -> "zmq.Socket[bytes]":
        """For poll: readable when somebody knocks."""
        return self._zap

    @property
    def entries(self) -> int:
        """Keys that may enter now."""
        return len(self._clients)

    def refresh(self) -> bool:
        """Read the list again if it has changed. True when somebody lost a right by it."""
        stamp = _stamp_of(self._folder / LIST_FILE)
        if stamp == self._stamp:
            return False
        before, self._stamp = self._clients, stamp
        try:
            listed = read_list(self._folder)
            self.problem = ""
        except KeyFileError as error:
            listed, self.problem = (), str(error)
            self._log.error("list of keys refused, nobody may enter", reason=str(error))
        self._clients = {client.public: client for client in listed if not client.revoked}
        lost = [old for key, old in before.items() if self._clients.get(key) != old]
        self._log.info(
            "list of keys read", keys=len(self._clients), lost=[client.name for client in lost]
        )
        return bool(lost)

    def caller(self, public: str) -> Caller:
        """Who holds the key `public` of an open connection. RefusedError when it may no longer."""
        client = self._clients.get(public)
        if client is None:
            raise RefusedError(
                f"key {fingerprint(public) if public else '(none)'}: no longer on this robot's "
                "list of keys",
                mend="It was revoked. Ask who keeps the robot's keys for a new one.",
                code="key",
            )
        return Caller(client.name, client.role, client.fingerprint)

    def serve(self) -> int:
        """Answer the handshakes that wait, up to a batch. How many there were."""
        for answered in range(HANDSHAKES_A_TURN):
            try:
                frames = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return answered
            self._answer(frames)
        return HANDSHAKES_A_TURN

    def _answer(self, frames: list[bytes]) -> None:
        """[peer, "", version, request, domain, address, identity, mechanism, credential...]"""
        peer, _, version, request, domain, address, _, mechanism, *credential = frames
        public = ""
        if (version, domain, mechanism) == (b"1.0", ZAP_DOMAIN.encode(), b"CURVE"):
            public = z85.encode(credential[0]).decode()
        client, origin = self._clients.get(public), address.decode(errors="replace")
        if client is not None:
            self._log.info("key entered", name=client.name, role=client.role,
                           key=client.fingerprint, address=origin)  # fmt: skip
            status = [b"200", b"OK", public.encode(), b""]
        else:
            self.denied += 1
            self._tell_refused(public, origin)
            status = [b"400", b"this key is not on the list", b"", b""]
        self._zap.send_multipart([peer, b"", b"1.0", request, *status], zmq.NOBLOCK)

    def _tell_refused(self, public: str, address: str) -> None:
        key, now = fingerprint(public) if public else "none", now_ns()
        if now - self._told.get(key, -TELL_AGAIN_NS) < TELL_AGAIN_NS:
            return
        self._told[key] = now
        self._told.move_to_end(key)
        while len(self._told) > REFUSED_REMEMBERED:
            self._told.popitem(last=False)
        self._log.warning("key refused", key=key, address=address, refused=self.denied)

    def close(self) -> None:
        """Answer nobody any more."""
        self._zap.close(linger=0)


def _stamp_of(path: Path) -> tuple[int, ...]:
    try:
        facts = path.stat()
    except OSError:
        return ()
    return (facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_size)
