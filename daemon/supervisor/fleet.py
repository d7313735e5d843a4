"""The worker processes: what should run against what runs, compared at every turn of the loop.

Level-triggered: `listen` and `converge` may be called at any time and as often as one likes. It
decides nothing about episodes; it reports what happened and what is away.
"""

import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from recd.config.errors import RecdError
from recd.config.streams import STATUS_STATES
from recd.daemon import log
from recd.daemon.supervisor.failures import Absence, Loss
from recd.daemon.supervisor.forks import Forks
from recd.daemon.supervisor.processes import Process
from recd.daemon.supervisor.resources import Resources
from recd.daemon.supervisor.restarts import NO_RESTARTS, RestartHistory, after_exit
from recd.daemon.supervisor.spawn import Child, Surroundings, spawn, worker_spec
from recd.daemon.worker import GO
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

TRACEBACK_NS = 200 * NS_PER_MS
"""Time for a stuck worker to write where it is stuck (SIGUSR1), before it is killed."""

ARM_ALIVE_NS = 2 * NS_PER_S

LINK_BATCH = 64
"""Messages read from one link in one turn: a chatty worker must not starve the others."""

AWAY_STATES: Mapping[str, frozenset[str]] = {
    "camera": frozenset({"reconnecting", "failed", "ended"}),
    "arm": frozenset({"CONNECTING", "FAULT"}),
}
"""kind -> state words of the status cell that mean: running, but its device is away."""


FILM_ENDED = "its film is at its end; restart recd to play it again"
"""Why a camera in the state `ended` is away."""

AWAY_EVENTS = frozenset({"camera.lost", "bus lost", "bus away"})
"""Events by which a worker tells why its device is away."""


class Phase(StrEnum):
    """Where one process is."""

    WAITING = "waiting"  # for its turn or its back-off; it may load its modules already
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"  # by itself and on purpose, or stopped
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class Happening:
    """What the fleet reports: `ready`, `left` or a worker's own message type in `ty`."""

    process: str
    ty: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Seat:
    """One row of the process table and what sits in it now.

    was_ready: its process said so once; was_there: its device was, too, at least once. missing:
    what it said last about a device that is away; means something only while it is.
    """

    row: Process
    phase: Phase = Phase.WAITING
    child: Child | None = None
    history: RestartHistory = NO_RESTARTS
    not_before_ns: int = 0
    started_ns: int = 0
    stop_sent_ns: int = 0
    kill_at_ns: int = 0
    killed_for: str = ""
    replacing: bool = False
    was_ready: bool = False
    was_there: bool = False
    restarts: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    beat_ns: int = 0
    state_word: str = ""

    @property
    def pid(self) -> int | None:
        """Of its process, once that had its turn."""
        if self.child is None or self.phase is Phase.WAITING:
            return None
        return self.child.pid


class Fleet:
    """All seats, and the only place that starts, signals and reaps workers."""

    def __init__(
        self, rows: tuple[Process, ...], resources: Resources, around: Surroundings,
        forks: Forks | None = None,
    ) -> None:  # fmt: skip
        self._forks = forks
        self.seats = {row.name: Seat(row) for row in rows}
        self.around = around
        self.held_back: frozenset[str] = frozenset()
        """Processes that must not be started now, although they could."""
        self.told_at_start: Mapping[str, Mapping[str, Any]] = {}
        """process -> what its configuration gets besides, when it is started now."""
        self._resources = resources
        self._status = {row.name: resources.watch_cell(row.status_cell) for row in rows}
        self._happenings: list[Happening] = []
        self._stop_from_ns = 0
        self._log = log.get_logger()

    @property
    def stopping(self) -> bool:
        """True once `stop` was called: nothing is started any more."""
        return self._stop_from_ns != 0

    @property
    def empty(self) -> bool:
        """True when no worker process is left."""
        return all(seat.child is None for seat in self.seats.values())

    def fds(self) -> Iterator[int]:
        """Descriptors that become readable when something happens."""
        for seat in self.seats.values():
            if seat.child is not None:
                yield seat.child.pidfd
                if not seat.child.link.closed:
                    yield seat.child.link.fd

    def send(self, process: str, ty: str, **fields: Any) -> bool:
        """One message to a worker. False when it is not there or does not read."""
        seat = self.seats[process]
        child = seat.child
        if child is None or seat.phase is Phase.WAITING:
            return False
        if not child.link.send(ty, **fields):
            self._log.warning("message not delivered", to=process, ty=ty)
            return False
        return True

    def of_kind(self, *kinds: str) -> list[str]:
        """Names of the processes of these kinds."""
        return [name for name, seat in self.seats.items() if seat.row.kind in kinds]

    def listen(self, now: int) -> list[Happening]:
        """Hear the links and reap the dead; returns what happened since the last call."""
        for seat in self.seats.values():
            if seat.child is not None:
                self._listen(seat, seat.child)
                self._reap(seat, seat.child, now)
        happened, self._happenings = self._happenings, []
        return happened

    def converge(self, now: int) -> None:
        """Bring what runs closer to what should run: start, restart, end the stuck, stop."""
        for seat in self.seats.values():
            if seat.child is not None and seat.phase is not Phase.WAITING:
                self._watch(seat, seat.child, now)
            elif self._may_start(seat, now):
                self._start(seat, now)
            elif self._may_load(seat, now):
                self._load(seat, now)
        if self.stopping:
            self._stop_next(now)

    def next_deadline_ns(self, now: int) -> int:
        """When `converge` has to be called at the latest, if nothing becomes readable."""
        times = [now + NS_PER_S // 2]
        for seat in self.seats.values():
            if (
                seat.child is None
                and seat.phase is Phase.WAITING
                and (seat.row.name not in self.held_back)
            ):
                times.append(seat.not_before_ns)
            if seat.kill_at_ns:
                times.append(seat.kill_at_ns)
        return max(now + NS_PER_MS, min(times))

    def unready(self, process: str, now: int) -> RecdError | None:
        """Why `process` cannot take a command now, with the mend it named itself; None if it can.

        Code `starting`: wait for it; `device`: somebody has to do something first.
        """
        seat = self.seats[process]
        if seat.phase is Phase.RUNNING:
            return None
        message, mend = seat.error.get("message", ""), seat.error.get("mend", "")
        if seat.phase is Phase.STARTING:
            since_s = (now - seat.started_ns) / NS_PER_S
            words = f"{process} is starting, for {since_s:.1f} s now"
            return RecdError(f"{words}, after: {message}" if message else words,
                             mend=mend or "It takes a few seconds.", code="starting")  # fmt: skip
        if seat.phase is Phase.WAITING and not message:
            return RecdError(f"{process} is about to start", mend="It takes a few seconds.",
                             code="starting")  # fmt: skip
        words = f"{process} is not running: {message or seat.phase.value}"
        return RecdError(words, mend=mend or "recctl status tells more.", code="device")

    def absences(self) -> list[Absence]:
        """Everything that does not do its duty now, with the reason in words."""
        return [absence for seat in self.seats.values() if (absence := _absence(seat)) is not None]

    # --- starting -------------------------------------------------------------------------

    def _may_load(self, seat: Seat, now: int) -> bool:
        """Its time has come, whether or not what it comes after is ready."""
        if self.stopping or seat.phase is not Phase.WAITING or now < seat.not_before_ns:
            return False
        return seat.child is None and seat.row.name not in self.held_back

    def _load(self, seat: Seat, now: int) -> None:
        """Let it load its modules while it waits for its turn and its configuration."""
        try:
            spec = worker_spec(seat.row, self.around, self._resources, awaits_go=True)
            seat.child = spawn(spec, self._forks)
        except OSError as error:
            self._log.warning("not loaded ahead", worker=seat.row.name, reason=str(error))
            seat.not_before_ns = now + NS_PER_S

    def _may_start(self, seat: Seat, now: int) -> bool:
        if self.stopping or seat.phase is not Phase.WAITING or now < seat.not_before_ns:
            return False
        if seat.row.name in self.held_back:
            return False
        return all(
            other.phase in (Phase.RUNNING, Phase.ENDED)
            for other in self.seats.values()
            if other.row.kind in seat.row.manners.after
        )

    def _start(self, seat: Seat, now: int) -> None:
        config = {**seat.row.config, **self.told_at_start.get(seat.row.name, {})}
        try:
            if seat.child is None:
                row = replace(seat.row, config=config)
                seat.child = spawn(worker_spec(row, self.around, self._resources), self._forks)
            elif not seat.child.link.send(GO, config=config):
                return  # it ended before its turn, which is heard next
        except OSError as error:
            seat.error = {"code": "spawn", "message": f"could not be started: {error}", "mend": ""}
            self._after_exit(seat, now, failed=True)
            return
        seat.phase, seat.started_ns = Phase.STARTING, now
        seat.killed_for, seat.kill_at_ns, seat.stop_sent_ns = "", 0, 0
        seat.state_word, seat.missing = "", {}
        self._log.info("worker started", worker=seat.row.name, pid=seat.child.pid)

    def configure(self, process: str, config: Mapping[str, Any]) -> None:
        """Give a process another section; a running one is replaced, which is no restart."""
        seat = self.seats[process]
        if config == seat.row.config:
            return
        seat.row = replace(seat.row, config=dict(config))
        if seat.child is not None and seat.phase in (Phase.STARTING, Phase.RUNNING):
            seat.replacing = True
            self._terminate(seat, seat.child, now_ns())

    def revive(self) -> list[str]:
        """Forget what was given up: every process may start again, with a fresh window; names."""
        lost = [seat for seat in self.seats.values() if seat.phase is Phase.GIVEN_UP]
        for seat in lost:
            seat.phase, seat.history, seat.not_before_ns = Phase.WAITING, NO_RESTARTS, 0
        return [seat.row.name for seat in lost]

    # --- listening and reaping ------------------------------------------------------------

    def _listen(self, seat: Seat, child: Child) -> None:
        for _ in range(LINK_BATCH):
            message = child.link.recv()
            if message is None:
                return
            self._hear(seat, message)

    def _hear(self, seat: Seat, message: dict[str, Any]) -> None:
        ty = str(message.pop("ty", ""))
        match ty:
            case "ready":
                seat.facts = message
                seat.was_ready = True
                if seat.phase is Phase.STARTING:
                    seat.phase = Phase.RUNNING
                    seat.error = {}
            case "event" if message.get("event") in AWAY_EVENTS:
                fields = message.get("fields", {})
                seat.missing = {
                    "code": "away", "message": str(fields.get("reason", "")),
                    "mend": str(fields.get("mend", "")),
                }  # fmt: skip
            case "refused" | "crashed":
                seat.error = {
                    "code": str(message.get("code", "crashed")),
                    "message": str(message.get("message", "")),
                    "mend": str(message.get("mend", "")),
                }
        self._happenings.append(Happening(seat.row.name, ty, message))

    def _reap(self, seat: Seat, child: Child, now: int) -> None:
        code = child.reap()
        if code is None:
            return
        while (message := child.link.recv()) is not None:
            self._hear(seat, message)
        child.close()
        seat.child, seat.kill_at_ns = None, 0
        reason = seat.killed_for or describe_exit(code)
        wanted = seat.phase is Phase.STOPPING or self.stopping
        if not wanted and not seat.error:
            seat.error = {"code": "exit", "message": reason, "mend": ""}
        self._after_exit(seat, now, failed=code != 0 or bool(seat.killed_for))
        self._log.log(
            20 if wanted else 40,
            "worker ended",
            worker=seat.row.name,
            reason=reason,
            next=seat.phase.value,
        )
        fields = {"code": code, "reason": reason, "wanted": wanted, "phase": seat.phase.value}
        self._happenings.append(Happening(seat.row.name, "left", {**fields, **seat.error}))

    def _after_exit(self, seat: Seat, now: int, *, failed: bool) -> None:
        if self.stopping:
            seat.phase = Phase.ENDED
            return
        if seat.replacing:
            seat.replacing, seat.phase, seat.not_before_ns = False, Phase.WAITING, now
            return
        decision = after_exit(seat.row.manners.restart, seat.history, failed=failed, now_ns=now)
        seat.history = decision.history
        if decision.at_ns is None:
            seat.phase = Phase.GIVEN_UP if decision.given_up else Phase.ENDED
            return
        seat.phase, seat.not_before_ns = Phase.WAITING, decision.at_ns
        seat.restarts += 1

    # --- watching -------------------------------------------------------------------------

    def _watch(self, seat: Seat, child: Child, now: int) -> None:
        self._read_status(seat)
        if seat.kill_at_ns:
            if now >= seat.kill_at_ns:
                child.signal(signal.SIGKILL)
                seat.kill_at_ns = now + NS_PER_S
            return
        manners = seat.row.manners
        if seat.phase is Phase.STARTING and now - seat.started_ns > manners.ready_after_ns:
            self._kill_stuck(seat, child, now, "not ready", manners.ready_after_ns)
        elif seat.phase is Phase.RUNNING and now - seat.beat_ns > manners.stale_after_ns:
            self._kill_stuck(seat, child, now, "no sign of life", manners.stale_after_ns)

    def _kill_stuck(self, seat: Seat, child: Child, now: int, what: str, after_ns: int) -> None:
        seat.killed_for = f"stuck: {what} for {after_ns / NS_PER_S:g} s"
        self._log.error("worker is stuck", worker=seat.row.name, reason=seat.killed_for)
        child.signal(signal.SIGUSR1)
        seat.kill_at_ns = now + TRACEBACK_NS

    def _read_status(self, seat: Seat) -> None:
        read = self._status[seat.row.name].read()
        if read is None:
            return
        _, record = read
        if seat.child is None or int(record["pid"]) != seat.child.pid:
            seat.beat_ns = max(seat.beat_ns, seat.started_ns)
            return
        seat.beat_ns = max(int(record["beat_ns"]), seat.started_ns)
        words = STATUS_STATES.get(seat.row.kind, ())
        state = int(record["state"])
        seat.state_word = words[state] if state < len(words) else ""
        seat.was_there = seat.was_there or (seat.phase is Phase.RUNNING and not _is_away(seat))

    def arms_alive(self, now: int) -> bool:
        """True unless an arm process that runs gives no sign of life: systemd's watchdog is fed
        only then, whatever cameras do."""
        arms = (self.seats[name] for name in self.of_kind("arm"))
        return all(a.phase is not Phase.RUNNING or now - a.beat_ns < ARM_ALIVE_NS for a in arms)

    def status_record(self, process: str) -> Any:
        """Newest record of a worker's status cell (STATUS_DTYPE), None before its first beat."""
        read = self._status[process].read()
        return None if read is None else read[1]

    # --- stopping -------------------------------------------------------------------------

    def stop(self, now: int) -> None:
        """No restarts from here on; end the workers, group by group, all of a group at once."""
        if self.stopping:
            return
        self._stop_from_ns = now
        for seat in self.seats.values():
            if seat.child is None:
                seat.phase = Phase.ENDED

    def _stop_next(self, now: int) -> None:
        alive = [seat for seat in self.seats.values() if seat.child is not None]
        if not alive:
            return
        order = min(seat.row.manners.stop for seat in alive)
        for seat in alive:
            if seat.row.manners.stop == order and not seat.stop_sent_ns:
                assert seat.child is not None, "only the living are asked to stop"
                # A signal may come from anybody; an arm lets go only when its daemon says the end.
                seat.child.link.send("stop")
                self._terminate(seat, seat.child, now)

    def _terminate(self, seat: Seat, child: Child, now: int) -> None:
        """SIGTERM now, SIGKILL at the deadline; SIGCONT, since a stopped process hears nothing."""
        seat.phase, seat.stop_sent_ns = Phase.STOPPING, now
        seat.kill_at_ns = now + seat.row.manners.stop_after_ns
        child.signal(signal.SIGTERM)
        child.signal(signal.SIGCONT)

    def kill_all(self) -> None:
        """The last resort: SIGKILL to every worker that is left. They are reaped by `converge`."""
        for seat in self.seats.values():
            if seat.child is not None:
                seat.child.signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill what is left, and let the fork server end."""
        self.kill_all()
        if self._forks is not None:
            self._forks.close()


def describe_exit(code: int) -> str:
    """Exit code as words: `killed by SIGKILL`, `exit code 1`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _is_away(seat: Seat) -> bool:
    """Running, but its device is not there, or nothing was heard of it yet."""
    away = AWAY_STATES.get(seat.row.kind)
    return away is not None and (not seat.state_word or seat.state_word in away)


def trouble(seat: Seat) -> Mapping[str, str]:
    """Why a seat does not do its duty: code, message, mend; empty when it does or only starts."""
    if seat.error:
        return seat.error
    return seat.missing if _absence(seat) is not None else {}


def _absence(seat: Seat) -> Absence | None:
    def absent(loss: Loss, why: str) -> Absence:
        return Absence(seat.row.name, seat.row.kind, seat.row.required, loss, why)

    error = seat.error.get("message", "")
    match seat.phase:
        case Phase.RUNNING:
            if not _is_away(seat):
                return None
            if seat.state_word == "ended":
                return absent(
                    Loss.SPENT if seat.row.config.get("step") else Loss.ABSENT, FILM_ENDED
                )
            why = seat.missing.get("message") or seat.state_word.lower()
            if seat.state_word == "FAULT":
                why = "fault"
            return absent(Loss.ABSENT if seat.was_there else Loss.STARTING, why)
        case Phase.GIVEN_UP:
            return absent(Loss.GIVEN_UP, error or "given up")
        case Phase.ENDED:
            return absent(Loss.GIVEN_UP, error or "has ended")
        case _:
            loss = Loss.ABSENT if seat.was_there or seat.error else Loss.STARTING
            return absent(loss, error or seat.missing.get("message") or seat.phase.value)
