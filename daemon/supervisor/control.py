"""The control sockets: requests in, replies out, events to whoever listens.

A request id is answered once and remembered: a retry gets the same bytes again, and a command is
never done twice. Nothing a peer sends or fails to read holds the daemon up: sends never block,
messages are limited before they are looked at, and a peer of rubbish is not heard for a while.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from recd.config.endpoints import parse_endpoint
from recd.config.errors import RecdError
from recd.config.messages import (
    COMMANDS,
    PROTOCOL_VERSION,
    REQUEST_LIMITS,
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
from recd.config.paths import control_endpoint
from recd.config.versions import client_differs
from recd.daemon import log
from recd.daemon.supervisor.access import (
    LOCAL,
    ONLY_OWNER,
    Access,
    Caller,
    Gate,
    RefusedError,
    check_role,
)
from recd.daemon.supervisor.doors import Door, Letter
from recd.daemon.supervisor.patience import REQUESTS_PER_S, Patience
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

REPLIES_KEPT = 1024
REPLIES_BYTES = 4 * 1024 * 1024
"""Memory of replies kept for retries; the oldest go first."""

ONLY_ASKED = frozenset(name for name, command in COMMANDS.items()
                       if command.role == "observe" and name != "estop")  # fmt: skip
"""Commands that change nothing: a retry is answered anew, and nothing of it is kept."""

WAITING_MOST = 256
PEERS_WAITING_MOST = 16
"""Requests that may wait for something, and connections that may wait for one of them."""

BATCH = 64
SERVE_NS = 10 * NS_PER_MS
"""Messages and time of one turn, so that a flood does not starve the workers' links."""

KEYS_EVERY_NS = NS_PER_S // 2
"""How soon a changed list of keys is seen while nobody calls; a call looks at once."""

VERSIONS_TOLD = 16
"""Versions of clients that are logged, each once."""

REOPEN_AFTER_NS = 20 * NS_PER_MS

HANDSHAKES_EVERY_NS = 50 * NS_PER_MS
"""Handshakes that come sooner after others wait so long and are answered together: each turn of the
loop costs more than they do (104 a second, one by one, made `start` four times as slow)."""

DEFECT_MEND = "this is a defect of recd: please report it with the daemon's log"


@dataclass(frozen=True, slots=True)
class Later:
    """A handler's promise: the reply comes when `resolve(key, ...)` is called."""

    key: str


Outcome = Mapping[str, Any] | Later
Handler = Callable[[Request, Caller], Outcome]


@dataclass(frozen=True, slots=True)
class _Peer:
    """One connection: the door by its number, and what the ROUTER calls it."""

    door: int
    name: bytes


@dataclass(slots=True)
class _Pending:
    request: Request
    key: str
    deadline_ns: int
    peers: list[_Peer] = field(default_factory=list)


class ControlPlane:
    """Opens the doors and serves them: the ipc sockets in `directory`, and what `access` adds.

    handle: carries out one request of a caller whose role has been checked.
    """

    def __init__(
        self, directory: Path, handle: Handler, *, access: Access = ONLY_OWNER, session_id: str = ""
    ) -> None:
        self._handle = handle
        self._session_id = session_id
        self._context = zmq.Context()
        self._log = log.get_logger()
        self._doors: list[Door] = []
        self._gate: Gate | None = None
        try:
            if access.keys is not None:
                self._gate = Gate(self._context, access.keys)
            local = parse_endpoint(control_endpoint(directory))
            self._doors.append(Door(self._context, local))
            if access.endpoint is not None and access.endpoint != local:
                door = Door(self._context, access.endpoint, server=access.server)
                self._doors.append(door)
        except RecdError:
            self.close()
            raise
        self._replies: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._reply_bytes = 0
        self._pending: dict[tuple[str, str], _Pending] = {}
        self._patience = Patience()
        self._cut: set[int] = set()
        self._versions_told: set[str] = set()
        self._keys_at_ns = 0
        self._handshakes_at_ns = 0
        self._seq = 0
        self._rejected = 0
        self._refused = 0
        self.unsent = 0

    @property
    def sockets(self) -> list["zmq.Socket[bytes]"]:
        """For poll: readable when `serve` has something to do."""
        routers = [door.router for door in self._doors]
        if self._gate is None or now_ns() < self._handshakes_at_ns:
            return routers
        return [*routers, self._gate.socket]

    @property
    def rejected(self) -> int:
        """Malformed messages, those of peers that are not heard included."""
        return self._rejected + self._patience.ignored

    def describe(self) -> dict[str, Any]:
        """The part `control` of `status`: addresses, keys, and what was turned away."""
        gate = self._gate
        return {
            "endpoints": [door.endpoint.text for door in self._doors],
            "guarded": [door.endpoint.text for door in self._doors if door.guarded],
            "keys": gate.entries if gate is not None else 0,
            "keys_problem": gate.problem if gate is not None else "",
            "handshakes_refused": gate.denied if gate is not None else 0,
            "commands_refused": self._refused,
            "messages_rejected": self._rejected,
            "messages_ignored": self._patience.ignored,
        }

    def serve(self) -> None:
        """Answer what is waiting, up to a batch."""
        until_ns = now_ns() + SERVE_NS
        self._look_at_keys()
        if self._gate is not None and (now := now_ns()) >= self._handshakes_at_ns:
            self._handshakes_at_ns = now + HANDSHAKES_EVERY_NS if self._gate.serve() else 0
        for number, door in enumerate(self._doors):
            for _ in range(BATCH):
                letter = door.take()
                if letter is None:
                    break
                self._serve_one(_Peer(number, letter.peer), letter)
                if now_ns() >= until_ns:
                    break

    def _look_at_keys(self) -> None:
        """Who lost a right is not heard from the next message on, and hears no more events."""
        self._keys_at_ns = now_ns() + KEYS_EVERY_NS
        if self._gate is not None and self._gate.refresh():
            for number, door in enumerate(self._doors):
                if door.guarded:
                    door.cut_listeners()
                    self._cut.add(number)
        self._cut = {number for number in self._cut if not self._doors[number].reopen()}

    def _serve_one(self, peer: _Peer, letter: Letter) -> None:
        now = now_ns()
        if self._patience.ignores(peer, now):
            return
        request_id = ""
        try:
            caller = self._caller(peer, letter)
            message = decode(_body(letter), REQUEST_LIMITS)
            request_id = request_id_of(message)
            if request_id and self._known(peer, (caller.fingerprint, request_id)):
                return
            request = parse_request(message)
        except MessageError as error:
            self._reject(peer, request_id, error)
            return
        except RefusedError as error:
            self._tell_refused(peer, "", error)
            return
        except CommandError as error:
            self._send(peer, encode(reply_error(request_id, error)))
            return
        self._patience.good(peer, now)
        self._tell_version(request)
        self._carry_out(peer, request, caller, now)

    def _tell_version(self, request: Request) -> None:
        how = client_differs(request.recd, request.protocol, PROTOCOL_VERSION)
        if how and how not in self._versions_told and len(self._versions_told) < VERSIONS_TOLD:
            self._versions_told.add(how)
            self._log.warning("client of another version", reason=how)

    def _caller(self, peer: _Peer, letter: Letter) -> Caller:
        if self._gate is None or not self._doors[peer.door].guarded:
            return LOCAL
        return self._gate.caller(letter.public)

    def _known(self, peer: _Peer, asked: tuple[str, str]) -> bool:
        """Answer a retry from memory, or let it wait with the first one. An id counts only among
        the requests of one key: no other caller learns a reply by it."""
        if (packed := self._replies.get(asked)) is not None:
            self._send(peer, packed)
            return True
        if (pending := self._pending.get(asked)) is not None:
            if peer not in pending.peers and len(pending.peers) < PEERS_WAITING_MOST:
                pending.peers.append(peer)
            return True
        return False

    def _carry_out(self, peer: _Peer, request: Request, caller: Caller, now: int) -> None:
        asked = (caller.fingerprint, request.id)
        try:
            self._check_rate(peer, request, now)
            check_role(caller, request.cmd, COMMANDS[request.cmd].role)
            outcome = self._handle(request, caller)
        except _BusyError as error:
            if self._patience.tell_busy(peer, now):
                self._send(peer, encode(reply_error(request.id, error)))
            return
        except RefusedError as error:
            self._tell_refused(peer, request.id, error)
            return
        except RecdError as error:
            self._answer([peer], asked, reply_error(request.id, error))
            return
        except Exception as error:  # a defect in one command must not end a recording
            self._log.exception("command failed", cmd=request.cmd)
            told = RecdError(f"{request.cmd}: {type(error).__name__}: {error}", mend=DEFECT_MEND,
                             code="internal")  # fmt: skip
            self._answer([peer], asked, reply_error(request.id, told))
            return
        if isinstance(outcome, Later):
            self._wait(peer, asked, request, outcome)
            return
        kept = request.cmd not in ONLY_ASKED
        self._answer([peer], asked, reply_ok(request.id, outcome), kept=kept)

    def _wait(self, peer: _Peer, asked: tuple[str, str], request: Request, outcome: Later) -> None:
        if len(self._pending) >= WAITING_MOST:  # an emergency stop: done, but not waited for
            self._answer([peer], asked, reply_ok(request.id, {"waited": False}))
            return
        deadline_ns = now_ns() + request.deadline_ms * NS_PER_MS
        self._pending[asked] = _Pending(request, outcome.key, deadline_ns, [peer])

    def _check_rate(self, peer: _Peer, request: Request, now: int) -> None:
        """An emergency stop is always heard; anything else at a rate, and so many waiting."""
        if request.cmd == "estop":
            return
        if not self._patience.has_credit(peer, now):
            raise _BusyError(
                f"{request.cmd}: expected at most {REQUESTS_PER_S} requests a second, found more",
                mend="Ask less often; events (evt.sock) tell changes by themselves.",
            )
        if len(self._pending) >= WAITING_MOST:
            raise _BusyError(
                f"{request.cmd}: expected at most {WAITING_MOST} waiting requests, found more",
                mend="Wait for replies before asking again.",
            )

    def _tell_refused(self, peer: _Peer, request_id: str, error: RefusedError) -> None:
        self._refused += 1
        self._send(peer, encode(reply_error(request_id, error)))
        self._log.warning("command refused", code=error.code, reason=error.message)

    def resolve(self, key: str, outcome: Mapping[str, Any] | RecdError) -> None:
        """Answer every request that waits for `key`."""
        for asked, pending in list(self._pending.items()):
            if pending.key != key:
                continue
            del self._pending[asked]
            if isinstance(outcome, RecdError):
                self._answer(pending.peers, asked, reply_error(pending.request.id, outcome))
            else:
                self._answer(pending.peers, asked, reply_ok(pending.request.id, outcome))

    def expire(self, now: int) -> None:
        """Answer what waited longer than it wanted to. The command itself goes on."""
        if now >= self._keys_at_ns:
            self._look_at_keys()
        for asked, pending in list(self._pending.items()):
            if now < pending.deadline_ns:
                continue
            del self._pending[asked]
            error = RecdError(
                f"{pending.request.cmd}: not finished within "
                f"{pending.request.deadline_ms / 1000:g} s; it goes on",
                mend="recctl status and recctl episodes show how it ends",
                code="deadline",
            )
            self._answer(pending.peers, asked, reply_error(pending.request.id, error))

    def next_deadline_ns(self) -> int | None:
        """When `expire` has something to do, None when nothing waits."""
        times = [pending.deadline_ns for pending in self._pending.values()]
        if self._gate is not None:
            times.append(now_ns() + REOPEN_AFTER_NS if self._cut else self._keys_at_ns)
            if self._handshakes_at_ns:
                times.append(self._handshakes_at_ns)
        return min(times, default=None)

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
        for door in self._doors:
            if not door.publish(topic, packed):
                self.unsent += 1

    def _reject(self, peer: _Peer, request_id: str, error: MessageError) -> None:
        self._rejected += 1
        deaf_ns = self._patience.strike(peer, now_ns())
        if deaf_ns:
            error = MessageError(
                f"too many malformed messages, not heard for {deaf_ns / NS_PER_S:g} s; the last: "
                f"{error.message}",
                mend="docs/control_api.md says what a message is; a new connection is heard.",
                code="ignored",
            )
        self._send(peer, encode(reply_error(request_id, error)))
        if deaf_ns:
            self._log.warning("peer not heard for a while", seconds=deaf_ns / NS_PER_S,
                              reason=error.message, rejected=self.rejected)  # fmt: skip

    def _answer(
        self, peers: list[_Peer], asked: tuple[str, str], reply: Mapping[str, Any], *,
        kept: bool = True,
    ) -> None:  # fmt: skip
        """kept: for a retry."""
        try:
            packed = encode(reply)
        except (MessageError, TypeError, ValueError, OverflowError) as error:
            self._log.error("reply not sendable", reason=str(error))
            told = RecdError(f"the reply cannot be sent: {error}", code="reply")
            packed = encode(reply_error(asked[1], told))
        if kept:
            self._remember(asked, packed)
        for peer in peers:
            self._send(peer, packed)

    def _remember(self, asked: tuple[str, str], packed: bytes) -> None:
        self._replies[asked] = packed
        self._reply_bytes += len(packed)
        while len(self._replies) > REPLIES_KEPT or self._reply_bytes > REPLIES_BYTES:
            _, old = self._replies.popitem(last=False)
            self._reply_bytes -= len(old)

    def _send(self, peer: _Peer, packed: bytes) -> None:
        try:
            self._doors[peer.door].reply(peer.name, packed)
        except zmq.ZMQError as error:
            # Gone (EHOSTUNREACH) or not reading (EAGAIN): its retry finds the reply remembered.
            self.unsent += 1
            self._log.debug("reply not delivered", reason=error.strerror)

    def close(self) -> None:
        """Flush briefly, then remove the sockets. Idempotent."""
        if self._context.closed:
            return
        for door in self._doors:
            door.close()
        if self._gate is not None:
            self._gate.close()
        self._context.term()


class _BusyError(RecdError):
    """More than one peer may ask for. Not remembered: the same request may come again."""

    code = "busy"


def _body(letter: Letter) -> bytes:
    """The message: the one part, or the part behind the empty one that a REQ socket puts first."""
    parts = letter.parts
    if letter.count == 2 and not parts[0]:
        parts = parts[1:]
    elif letter.count != 1:
        raise MessageError(f"expected one frame, found {letter.count}")
    return parts[0]
