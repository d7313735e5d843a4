"""Client of the control plane for scripts: one method per command, typed errors, safe retries.

A request keeps its id over retries, so a command whose reply was lost is never done twice. Not for
use from several threads at once; make one client per thread.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zmq
from zmq.utils.monitor import recv_monitor_message

from recd import __version__
from recd.clients.entry import (
    HANDSHAKE_FAILED,
    NotRunningError,
    bad_endpoint,
    check_reachable,
    find_key,
    not_allowed,
    parsed,
    turned_away,
    use_key,
)
from recd.config.errors import RecdError, StateError
from recd.config.messages import PROTOCOL_VERSION, Request, decode, new_request_id
from recd.config.paths import (
    closed_folders,
    control_endpoint,
    instance_dir,
    lock_holder,
    running_instances,
    starting_instances,
)
from recd.config.versions import daemon_differs
from recd.shm.clock import NS_PER_MS, now_ns

__all__ = ["NotRunningError", "RecdClient", "ReplyTimeoutError", "find_instance"]

RETRY_AFTER_MS = 2_000
"""Ask again on a fresh connection after this long without a reply; the id makes it harmless."""

REPLY_GRACE_MS = 500
"""The daemon answers at the deadline at the latest; its answer may travel for so long."""


class ReplyTimeoutError(RecdError):
    """The daemon did not answer within the deadline."""

    code = "timeout"


def find_instance(instance: str | None = None) -> Path:
    """Runtime folder of the named instance, or of the only one that runs.

    Raises NotRunningError when there is none, RecdError when there are several to choose from.
    """
    if instance is not None:
        return instance_dir(instance)
    running = running_instances()
    if not running and (starting := starting_instances()):
        raise _still_starting(*next(iter(starting.items())))
    if not running and (closed := closed_folders()):
        raise not_allowed(closed[0])
    if not running:
        raise NotRunningError(
            "no recd daemon is running for this user",
            mend="Start one: recd run CONFIG (try: recd run demo)",
        )
    if len(running) > 1:
        raise RecdError(
            f"several daemons are running: {', '.join(running)}",
            mend=f"Name one: recctl --instance {running[0]} ...",
        )
    return instance_dir(running[0])


class RecdClient:
    """Connection to one daemon.

    instance: name of the daemon, none for the only one; endpoint: a ZeroMQ address instead. key: a
    key file, for a tcp address (RECD_KEY or client.key in the folder of keys when left out); it
    names the daemon, too, and no other is talked to. timeout_s: default deadline of a command.

    on_differs: told once, in words, when the daemon turns out to be of another version.
    """

    def __init__(
        self, instance: str | None = None, *, endpoint: str | None = None,
        key: Path | str | None = None, timeout_s: float = 10.0,
        on_differs: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        directory = None if endpoint else find_instance(instance)
        address = parsed(endpoint or control_endpoint(_existing(directory)))
        self.endpoint = address.text
        self._events_at = address.events
        self._pair = None if address.path else find_key(key, needed=not address.local)
        self._timeout_s = timeout_s
        self._on_differs = on_differs
        # Of the whole process, and never ended: ending one waits for its last socket, and for ever
        # where Ctrl-C came between the two steps in which pyzmq closes that one.
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._news: dict[tuple[str, ...], zmq.Socket[bytes]] = {}
        try:
            check_reachable(self.endpoint)
            self._connected()
        except RecdError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """Drop the connection. Idempotent."""
        self._drop_socket()
        while self._news:
            self._news.popitem()[1].close()

    def call(self, cmd: str, *, timeout_s: float | None = None, **args: Any) -> dict[str, Any]:
        """Send one command and return its result.

        Raises StateError when the session's state forbids it, RecdError (with `code`) for any
        other refusal, NotRunningError as soon as the daemon is found to have ended, and
        ReplyTimeoutError when it is there but does not answer in time.
        """
        timeout_ms = int((self._timeout_s if timeout_s is None else timeout_s) * 1000)
        given = {name: value for name, value in args.items() if value is not None}
        request = Request(new_request_id(), cmd, given, timeout_ms)
        reply = self._exchange(request, timeout_ms)
        if self._on_differs is not None and (how := daemon_differs(reply, PROTOCOL_VERSION)):
            self._on_differs(how)
            self._on_differs = None
        if reply.get("ok"):
            result: dict[str, Any] = reply["result"]
            return result
        raise _error_of(reply.get("error", {}))

    def _exchange(self, request: Request, timeout_ms: int) -> dict[str, Any]:
        deadline_ns = now_ns() + (timeout_ms + REPLY_GRACE_MS) * NS_PER_MS
        packed = request.pack()
        while True:
            socket = self._connected()
            socket.send(packed)
            left_ms = (deadline_ns - now_ns()) // NS_PER_MS
            retry_ns = now_ns() + min(left_ms, RETRY_AFTER_MS) * NS_PER_MS
            while (wait_ms := (retry_ns - now_ns()) // NS_PER_MS) >= 0 and self._heard(wait_ms):
                reply = decode(socket.recv_multipart()[-1])
                if reply.get("re") in (request.id, ""):
                    return reply
            self._drop_socket()
            check_reachable(self.endpoint, request.cmd)
            if now_ns() >= deadline_ns - NS_PER_MS:
                raise ReplyTimeoutError(
                    f"{request.cmd}: no reply within {timeout_ms / 1000:g} s from {self.endpoint}",
                    mend="Is it the daemon's address, and can it be reached from here? Then its "
                    "log tells more; --timeout waits longer.",
                )

    def _heard(self, wait_ms: int) -> bool:
        """Wait for a message. RecdError as soon as the daemon has turned this client away."""
        assert self._socket is not None, "connected before anything is waited for"
        if self._monitor is None:
            return bool(self._socket.poll(wait_ms))
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        until_ns = now_ns() + wait_ms * NS_PER_MS
        while ready := dict(poller.poll(max(0, (until_ns - now_ns()) // NS_PER_MS))):
            if self._socket in ready:
                return True
            failed = recv_monitor_message(self._monitor)["event"]
            raise turned_away(self.endpoint, self._pair, failed)
        return False

    def _connected(self) -> zmq.Socket[bytes]:
        if self._socket is None:
            socket = self._context.socket(zmq.DEALER)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SNDHWM, 16)
            socket.setsockopt(zmq.RCVHWM, 16)
            use_key(socket, self._pair)
            if self.endpoint.startswith("tcp://"):
                self._monitor = socket.get_monitor_socket(HANDSHAKE_FAILED)
            try:
                socket.connect(self.endpoint)
            except zmq.ZMQError as error:
                socket.close()
                raise bad_endpoint(self.endpoint, error.strerror or str(error)) from error
            self._socket = socket
        return self._socket

    def _drop_socket(self) -> None:
        if self._socket is not None:
            if self._monitor is not None:
                self._socket.disable_monitor()
                self._monitor.close(linger=0)
                self._monitor = None
            self._socket.close(linger=0)
            self._socket = None

    def events(
        self, *topics: str, timeout_s: float | None = None
    ) -> Generator[dict[str, Any], None, None]:
        """Messages of the event socket as they come: maps with `topic`, `seq`, `t_ns` and fields.

        topics: only these; all when none is named. Ends after `timeout_s` without a message. A
        jump in `seq` means that messages were lost: ask `status` again.
        """
        with self._subscribed(topics) as socket:
            while socket.poll(None if timeout_s is None else int(timeout_s * 1000)):
                yield _event(socket)

    @contextmanager
    def listening(self, *topics: str) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        """Within it: a function that returns what came since its last call, without waiting."""
        with self._subscribed(topics) as socket:
            yield lambda: _drain(socket)

    def _subscribed(self, topics: tuple[str, ...]) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        use_key(socket, self._pair)
        for topic in topics or ("",):
            socket.subscribe(topic)
        socket.connect(self._events_at)
        return socket

    def pause(self, seconds: float, *topics: str) -> None:
        """Wait until something happens (one of `topics`; any by default), at most `seconds`.

        What happened since the last pause on these topics counts, so that nothing is missed
        between asking for the status and waiting for it to change.
        """
        if topics not in self._news:
            self._news[topics] = self._subscribed(topics)
        socket = self._news[topics]
        if socket.poll(int(seconds * 1000)):
            _drain(socket)

    def hello(self) -> dict[str, Any]:
        """Versions, instance and session id of the daemon."""
        return self.call("hello", version=__version__)

    def status(self) -> dict[str, Any]:
        """Everything about the daemon now."""
        return self.call("status")

    def start(self, *, task: str | None = None, operator: str | None = None) -> dict[str, Any]:
        """Begin an episode. Returns its uid and t0."""
        return self.call("start", task=task, operator=operator)

    def stop(self, *, wait: bool = True, timeout_s: float = 60.0) -> dict[str, Any]:
        """End the episode and keep it; with `wait`, returns when it is durable."""
        return self.call("stop", wait=wait, timeout_s=timeout_s)

    def discard(self) -> dict[str, Any]:
        """End the running episode and put it in the trash."""
        return self.call("discard")

    def rerecord(self, *, uid: str | None = None, timeout_s: float = 60.0) -> dict[str, Any]:
        """Running: discard and start again. Otherwise undo the last episode of this session."""
        return self.call("rerecord", uid=uid, timeout_s=timeout_s)

    def undelete(self, uid: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
        """Bring a discarded or undone episode back."""
        return self.call("undelete", uid=uid, timeout_s=timeout_s)

    def mark(self, label: str) -> dict[str, Any]:
        """Put `success`, `fail` or any text on the running episode."""
        return self.call("mark", label=label)

    def arm(self, pair: str | None = None, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Torque on and follow, after the pose check. Arms that are starting are waited for."""
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        deadline_ns = now_ns() + int(wait_s * 1e9)
        while True:
            try:
                return self.call("arm", pair=pair)
            except RecdError as error:
                if error.code != "starting" or now_ns() >= deadline_ns:
                    raise
            self.pause(0.2, "event", "fault")

    def disarm(self, policy: str | None = None, *, pair: str | None = None) -> dict[str, Any]:
        """Stop following; `policy` hold, park or release says what the torque does."""
        return self.call("disarm", policy=policy, pair=pair)

    def hold(self, pair: str | None = None) -> dict[str, Any]:
        """Stand still with torque on."""
        return self.call("hold", pair=pair)

    def resume(self, pair: str | None = None) -> dict[str, Any]:
        """Go on after hold."""
        return self.call("resume", pair=pair)

    def estop(self, pair: str | None = None) -> dict[str, Any]:
        """Stand still within one control period; a second one applies the torque policy."""
        return self.call("estop", pair=pair)

    def shutdown(self, *, timeout_s: float = 60.0) -> dict[str, Any]:
        """Finish the running episode and end the daemon."""
        return self.call("shutdown", timeout_s=timeout_s)

    def wait_until(self, *states: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """Wait until the session is in one of `states`; its status. ReplyTimeoutError if not."""
        deadline_ns = now_ns() + int(timeout_s * 1e9)
        status = self.status()
        while status["state"] not in states:
            left_s = (deadline_ns - now_ns()) / 1e9
            if left_s <= 0:
                waiting = "; ".join(status["waiting_why"]) or "nothing named"
                raise ReplyTimeoutError(
                    f"expected state {' or '.join(states)} within {timeout_s:g} s, found "
                    f"{status['state']} (waiting for {waiting})",
                    mend="recctl status tells more; the daemon's log tells why.",
                    code="deadline",
                )
            self.pause(min(left_s, 0.25), "state")
            status = self.status()
        return status

    def wait_for_motion(self, wanted: str, *, timeout_s: float = 30.0) -> None:
        """Wait until every pair of arms is in motion state `wanted` (TELEOP after `arm`)."""
        deadline_ns = now_ns() + int(timeout_s * 1e9)
        while True:
            motion = {pair: arm["motion"] for pair, arm in self.status()["arms"].items()}
            if all(said.get("state") == wanted for said in motion.values()):
                return
            if now_ns() > deadline_ns:
                found = ", ".join(
                    f"{pair} {said.get('state')} {said.get('cause', '')}".rstrip()
                    for pair, said in motion.items()
                )
                raise ReplyTimeoutError(
                    f"arms: expected {wanted} within {timeout_s:g} s, found {found}",
                    mend="Bring the leader to the follower's pose; recctl status names the joints.",
                    code="deadline",
                )
            self.pause(0.2, "event")


def _drain(socket: "zmq.Socket[bytes]") -> list[dict[str, Any]]:
    """Events that have come, without waiting."""
    found = []
    while socket.poll(0):
        found.append(_event(socket))
    return found


def _event(socket: "zmq.Socket[bytes]") -> dict[str, Any]:
    name, body = socket.recv_multipart()
    return {"topic": name.decode(), **decode(body)}


def _existing(directory: Path | None) -> Path:
    assert directory is not None, "either an endpoint or a folder is given"
    try:
        there = (directory / "ctl.sock").exists()
    except PermissionError:
        raise not_allowed(directory) from None
    if not there:
        if pid := lock_holder(directory / "recd.lock"):
            raise _still_starting(directory.name, pid)
        raise NotRunningError(
            f"no recd daemon is running as instance {directory.name!r}",
            mend="Start it: recd run CONFIG",
        )
    return directory


def _still_starting(instance: str, pid: int) -> NotRunningError:
    return NotRunningError(
        f"the daemon of instance {instance!r} (process {pid}) is starting or ending: it does not "
        "listen",
        mend="Try again in a few seconds; its own terminal or log tells what it is doing.",
    )


def _error_of(error: dict[str, Any]) -> RecdError:
    message, mend = str(error.get("message", "")), str(error.get("mend", ""))
    if error.get("code") == "state":
        return StateError(
            message,
            state=str(error.get("state", "")),
            legal=tuple(error.get("legal", ())),
            mend=mend,
        )
    return RecdError(message, mend=mend, code=str(error.get("code", "error")))
