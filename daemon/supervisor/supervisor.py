"""The supervisor: one poll loop that owns processes, shared memory, session and control sockets.

Level-triggered: every turn hears what happened, compares what should be with what is, and acts on
the difference. It never waits for anything but the poll.
"""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import zmq

from recd import __version__
from recd.config.errors import RecdError
from recd.config.load import dump
from recd.config.models import RobotConfig
from recd.config.paths import runtime_dir
from recd.daemon import log, realtime
from recd.daemon.session import machine
from recd.daemon.session.machine import Event, State
from recd.daemon.supervisor import disk, simulation
from recd.daemon.supervisor.access import access_of
from recd.daemon.supervisor.commands import Commands
from recd.daemon.supervisor.control import ControlPlane
from recd.daemon.supervisor.ending import Ending, Stage
from recd.daemon.supervisor.failures import Absence, Consequences, Loss, consequences
from recd.daemon.supervisor.fleet import Fleet, Happening, Phase
from recd.daemon.supervisor.forks import Forks
from recd.daemon.supervisor.holders import with_holders
from recd.daemon.supervisor.hooks import Hooks
from recd.daemon.supervisor.instance import InstanceLock
from recd.daemon.supervisor.looks import Looks
from recd.daemon.supervisor.motion import Motion
from recd.daemon.supervisor.news import News
from recd.daemon.supervisor.notify import Notifier
from recd.daemon.supervisor.planner import Planner
from recd.daemon.supervisor.processes import Process, process_table
from recd.daemon.supervisor.recording import Recording
from recd.daemon.supervisor.resources import Resources
from recd.daemon.supervisor.rollout import Rollout
from recd.daemon.supervisor.serial_delivery import SerialDelivery
from recd.daemon.supervisor.signals import Signals
from recd.daemon.supervisor.spawn import Surroundings
from recd.daemon.supervisor.status import Meters
from recd.daemon.supervisor.statusline import starting_line, status_line
from recd.daemon.supervisor.steps import Progress
from recd.daemon.supervisor.takes import recording_spec
from recd.daemon.supervisor.timing import EpisodeTimes
from recd.daemon.worker import OPEN_TAKES
from recd.shm import RingReader
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

DISK_EVERY_NS = NS_PER_S
STATE_EVERY_NS = NS_PER_S // 2


class Supervisor:
    """One daemon. `run` returns its exit code once it has ended and left nothing behind.

    rows: the process table; default is the one of `robot`. forks: the fork server, which ends with
    it; without one every worker is started by exec.
    """

    def __init__(
        self, robot: RobotConfig, *, rows: tuple[Process, ...] | None = None,
        forks: Forks | None = None,
    ) -> None:  # fmt: skip
        self.robot = robot
        self.session_id = secrets.token_hex(8)
        self.started_ns = now_ns()
        self.fatal: RecdError | None = None
        self.log = log.get_logger()
        self._access = access_of(robot.control)
        directory = runtime_dir(robot.instance_name, robot.control.runtime_dir)
        self._lock = InstanceLock(directory, robot.instance_name, gid=self._access.gid)
        table = process_table(robot) if rows is None else rows
        try:
            self.resources = Resources(robot, table)
        except BaseException:
            self._lock.release()
            raise
        around = Surroundings(robot.instance_name, str(directory), dump(robot))
        self.fleet = Fleet(table, self.resources, around, forks)
        self.meters = Meters(self.fleet)
        self._times = EpisodeTimes(self.fleet)
        self.looks = Looks(self._readers("cam"), directory)
        self.progress = Progress(self._readers("ticks"), self._readers("cam"))
        self.hooks = Hooks(robot.hooks, robot.instance_name)
        self.news = News(self.hooks)
        self.recording = Recording(
            recording_spec(robot, self.fleet, decided=self.progress.decided), self.fleet, self.news
        )
        self.recordings = {self.recording.spec.name: self.recording}
        self.planner = Planner(
            self.recording,
            hold=self._hold,
            announce=self.news.announce,
            client_lost=robot.control.client_lost,
        )
        self.recording.watchers.append(self._on_take)
        self.motion = Motion(
            self.fleet.of_kind("arm"), self.fleet, self.fleet.unready, self.news.resolve
        )
        self.rollout = Rollout(
            robot, self.recording, arms=self.motion.describe, pause=self._pause,
            announce=self.news.announce,
        )  # fmt: skip
        self.disk = disk.Disk(reserve_bytes=robot.dataset.reserve_mb * 1_000_000)
        wanted = robot.realtime
        self.serial = SerialDelivery(wanted.serial_priority if wanted.enabled else 0)
        self.ending = Ending(self.fleet, self.recordings.values())
        self.notifier = Notifier()
        self.had_episodes = False
        self.policy_said: Mapping[str, Any] = {}
        self.adapter_said: Mapping[str, Any] = {}
        self._task_told = ""
        self._commands = Commands(self)
        self._signals = Signals()
        self._disk_at_ns = 0
        self._state_at_ns = 0
        self._fed_at_ns = 0
        self._published: tuple[object, ...] = ()
        self._said_ready = False

    @property
    def control(self) -> ControlPlane | None:
        """The control sockets once they are open."""
        return self.news.control

    @property
    def directory(self) -> Path:
        """Runtime folder of this instance."""
        return self._lock.directory

    def _readers(self, kind: str) -> dict[str, RingReader]:
        return {name: self.resources.watch_ring(f"{kind}.{name}") for name in self.robot.cameras}

    # --- the loop --------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to end. Raises RecdError when it cannot do its work at all."""
        self.log.info(
            "recd starts",
            version=__version__,
            instance=self.robot.instance_name,
            runtime=str(self.directory),
            shared_memory_mib=round(self.resources.nbytes / 2**20, 1),
            processes=len(self.fleet.seats),
        )
        try:
            while self.ending.stage is not Stage.ENDED:
                self.turn()
        finally:
            self._clean_up()
        if self.fatal is not None:
            raise self.fatal
        return 0

    def turn(self) -> None:
        """One turn of the loop: wait for something, then bring everything up to date."""
        self._poll()
        now = now_ns()
        for _ in range(self._signals.taken()):
            self.end(now, "signal")
        if self.control is not None:
            self.control.serve()
        for happening in self.fleet.listen(now):
            self._hear_safely(happening, now)
        self._judge(now)
        self._prepare_writers()
        self.fleet.converge(now)
        self._watch(now)
        self._open_control(now)
        self.ending.watch(now)
        self._publish_state(now)

    def _poll(self) -> None:
        poller = zmq.Poller()
        poller.register(self._signals.fd, zmq.POLLIN)
        for fd in self.fleet.fds():
            poller.register(fd, zmq.POLLIN)
        if self.control is not None:
            for socket in self.control.sockets:
                poller.register(socket, zmq.POLLIN)
        now = now_ns()
        wait_ns = max(0, self._next_deadline_ns(now) - now)
        poller.poll(-(-wait_ns // NS_PER_MS))

    def _next_deadline_ns(self, now: int) -> int:
        times = [
            self.fleet.next_deadline_ns(now),
            self.planner.next_deadline_ns(now),
            self.motion.next_deadline_ns(),
            self.rollout.next_deadline_ns(now),
            self.control.next_deadline_ns() if self.control is not None else None,
        ]
        return min(at for at in times if at is not None)

    def _watch(self, now: int) -> None:
        for recording in self.recordings.values():
            recording.watch(now)
        if self.ending.running:
            self.planner.watch(now)
            self.rollout.watch(now)
        self.motion.watch(now)
        self.hooks.watch(now)
        self.meters.watch(now)
        self.serial.watch(now)
        self._tell_task()
        self._watch_disk(now)
        self._feed_watchdog(now)
        if self.control is not None:
            self.control.expire(now)

    # --- what workers say ------------------------------------------------------------------

    def _hear_safely(self, happening: Happening, now: int) -> None:
        try:
            self._hear(happening, now)
        except Exception:  # a message that makes no sense must not end a recording
            self.log.exception("message not understood", process=happening.process, ty=happening.ty)

    def _hear(self, happening: Happening, now: int) -> None:
        process, ty, fields = happening.process, happening.ty, happening.fields
        kind = self.fleet.seats[process].row.kind
        match ty:
            case "ready":
                self._worker_ready(process, kind, fields)
            case "left":
                self._worker_left(process, kind, fields, now)
            case "refused" if kind == "writer" and not self.fleet.seats[process].was_ready:
                self._give_up(RecdError(fields["message"], mend=fields.get("mend", "")), now)
            case "refused" | "crashed":
                self.news.announce("fault", f"worker_{ty}", log_it=False, process=process, **fields)
            case "event":
                self._worker_event(process, fields)
            case "policy" if kind == "gateway":
                self.policy_said = fields
                self._note_policies()
            case "adapter" if kind == "adapter":
                self.adapter_said = fields
            case _ if kind == "arm":
                self._arm_said(process, ty, fields, now)
            case _:
                for recording in self.recordings.values():
                    recording.hear(process, kind, ty, fields, now)
                if kind == "writer" and ty == "durable":
                    self._learn_rate(fields)

    def _worker_ready(self, process: str, kind: str, facts: Mapping[str, Any]) -> None:
        self.news.announce("event", "worker_ready", process=process)
        match kind:
            case "gateway":
                self._task_told = ""
            case "sim":
                self._resolve_simulation(facts)
            case "camera":
                self.recording.sources[process.partition(":")[2]] = facts
            case "writer":
                totals = facts.get("totals", {})
                self.recording.totals = totals
                self.recording.calibrations = facts.get("calibrations", {})
                if self.control is None:
                    self.had_episodes = bool(totals.get("episodes"))
                    seconds = totals.get("rows", 0) / self.robot.dataset.fps
                    nbytes = int(facts.get("bytes", 0))
                    self.disk = disk.learn(self.disk, nbytes=nbytes, seconds=seconds)
        if kind in ("writer", "encoder"):
            self.recording.worker_back(process, kind)

    def _resolve_simulation(self, facts: Mapping[str, Any]) -> None:
        for name, seat in self.fleet.seats.items():
            self.fleet.configure(
                name, simulation.resolve(seat.row.kind, seat.row.configured, facts)
            )

    def _worker_left(self, process: str, kind: str, fields: Mapping[str, Any], now: int) -> None:
        if kind == "arm":
            self.motion.forget(process)
        if fields["wanted"]:
            return
        self.recording.worker_left(process, kind, now)
        self.news.announce("fault", "worker_lost", log_it=False, process=process, **fields)

    def _worker_event(self, process: str, message: Mapping[str, Any]) -> None:
        level = str(message.get("level", "info"))
        topic = "fault" if level == "error" else "event"
        fields = message.get("fields", {})
        self.news.announce(
            topic, str(message.get("event", "")), log_it=False, process=process, level=level,
            fields=fields if isinstance(fields, Mapping) else {},
        )  # fmt: skip

    def _arm_said(self, process: str, ty: str, fields: Mapping[str, Any], now: int) -> None:
        if ty == "attached":
            self.recording.arms[process.partition(":")[2]] = fields
            return
        self.motion.hear(process, ty, fields)
        if ty != "motion":
            return
        self.news.announce("event", "motion", log_it=False, process=process, **fields)
        if fields.get("state") == "FAULT":
            cause = fields.get("cause", "fault")
            for recording in self.recordings.values():
                recording.abort(now, f"{process}: {cause}")

    def _learn_rate(self, fields: Mapping[str, Any]) -> None:
        take = self.recording.takes.get(str(fields.get("uid", "")))
        if take is not None:
            nbytes = sum(int(message.get("bytes", 0)) for message in take.closed.values())
            seconds = int(fields.get("duration_ns", 0)) / NS_PER_S
            self.disk = disk.learn(self.disk, nbytes=nbytes, seconds=seconds)

    # --- what absences mean ----------------------------------------------------------------

    def _judge(self, now: int) -> None:
        if not self.ending.running:
            return
        absences = [self._with_cause(absence) for absence in self.fleet.absences()]
        for recording in self.recordings.values():
            running = recording.session.state is State.RECORDING
            self._apply(recording, consequences(absences, recording=running), now)
            if recording.steps:
                self._watch_steps(recording, absences, now)

    def _watch_steps(self, recording: Recording, absences: list[Absence], now: int) -> None:
        """An episode of steps ends by itself when its sources have no further one."""
        spent = [a.process.partition(":")[2] for a in absences if a.loss is Loss.SPENT]
        recording.spent = bool(spent)
        take = recording.current
        if not spent or take is None or recording.session.state is not State.RECORDING:
            return
        rows = self.progress.rows_at_end(spent, take.uid)
        if rows is not None:
            recording.source_ended(now, rows)

    def _prepare_writers(self) -> None:
        """A writer that starts is told which takes are open: it goes on with them. One take that
        has cost too many writers is left to recovery, which has to wait for its files: they must be
        closed before it publishes them."""
        takes = [take for recording in self.recordings.values() for take in recording.open_takes()]
        self.fleet.told_at_start = {
            writer: {OPEN_TAKES: [dict(take.begin) for take in takes if take.resumable(writer)]}
            for writer in self.recording.spec.writers
        }
        self.fleet.held_back = frozenset(
            writer
            for writer in self.recording.spec.writers
            if any(take.being_written and not take.resumable(writer) for take in takes)
        )

    def _with_cause(self, absence: Absence) -> Absence:
        """An arm in FAULT: why, and what takes it up again."""
        if absence.kind != "arm" or absence.why != "fault":
            return absence
        cause = self.motion.cause(absence.process)
        return replace(absence, why=f"fault: {cause}; 'recctl arm' takes it up again")

    def _apply(self, recording: Recording, meant: Consequences, now: int) -> None:
        session = recording.session
        available = not meant.waiting_for
        if available != session.available:
            event = Event.AVAILABLE if available else Event.UNAVAILABLE
            session = machine.advance(session, event)
        for name in sorted(meant.degraded - session.degraded):
            self.news.announce("fault", "degraded", process=name)
        for name in sorted(session.degraded - meant.degraded):
            self.news.announce("event", "recovered", process=name)
        recording.session = replace(
            session, degraded=meant.degraded, waiting_for=meant.waiting_for, why=meant.why
        )
        if meant.end_episode:
            recording.abort(now, meant.end_episode)
        if meant.fault:
            recording.fault(now, meant.fault)

    def _watch_disk(self, now: int) -> None:
        if now < self._disk_at_ns:
            return
        before = self.disk.low
        self.disk = disk.look(self.robot.dataset_root, self.disk)
        # Whoever has made room is not refused once more.
        self._disk_at_ns = now + (DISK_EVERY_NS // 10 if self.disk.low else DISK_EVERY_NS)
        for recording in self.recordings.values():
            recording.session = replace(recording.session, low_disk=self.disk.low)
            if self.disk.full and recording.session.state is State.RECORDING:
                recording.stop(now, "disk nearly full")
        if self.disk.low and not before:
            self.news.announce("fault", "disk_low", **self.disk.describe())

    # --- told to people --------------------------------------------------------------------

    def _on_take(self, what: str, uid: str) -> None:
        if what == "started":
            self._times.began()
            self._note_policies()
        elif what == "ended":
            self.recording.takes[uid].notes["timing"] = self._times.ended()
        self.planner.on_take(what, uid, now_ns())

    def _hold(self, held: bool) -> None:
        try:
            self.motion.command("hold" if held else "resume", now_ns())
        except RecdError as error:
            self.news.announce("fault", "hold_failed", reason=error.message)

    def _note_policies(self) -> None:
        """Who held a lease while an episode ran, for its manifest."""
        take = self.recording.current
        if take is None:
            return
        noted = with_holders(take.notes.get("policies", []), self.policy_said.get("leases", {}))
        if noted:
            take.notes["policies"] = noted

    def _tell_task(self) -> None:
        """The gateway hands the task of the running episode, or of the next one, to policies."""
        if "gateway" not in self.fleet.seats:
            return
        take = self.recording.current
        task = self.recording.task if take is None else str(take.begin["task"])
        if task != self._task_told and self.fleet.send("gateway", "task", text=task):
            self._task_told = task

    def _pause(self) -> None:
        try:
            self.motion.command("policy pause", now_ns())
        except RecdError as error:
            self.news.announce("fault", "pause_failed", reason=error.message)

    def _publish_state(self, now: int) -> None:
        session = self.recording.session
        told = (session.state, tuple(session.flags.items()), session.waiting_for, session.fault,
                self.ending.stage)  # fmt: skip
        if self.control is None or (told == self._published and now < self._state_at_ns):
            return
        self._published, self._state_at_ns = told, now + STATE_EVERY_NS
        brief = self._commands.brief(now)
        self.control.publish("state", "state", brief)
        if self._said_ready:
            self.notifier.status(status_line(brief))

    # --- control sockets and service manager ----------------------------------------------

    def _open_control(self, now: int) -> None:
        """The sockets open once the writer has recovered what an earlier daemon left."""
        if self.control is None and self.ending.running and self._writers_settled():
            self.news.control = ControlPlane(
                self.directory,
                self._commands.handle,
                access=self._access,
                session_id=self.session_id,
            )
            self.log.info("control socket is open", directory=str(self.directory))
        if not self._said_ready and self.ending.running:
            self._tell_start(now)

    def _tell_start(self, now: int) -> None:
        """READY=1 once every process has been ready, or has said why not; until then: what for."""
        awaited = [
            name for name, seat in self.fleet.seats.items() if not (seat.was_ready or seat.error)
        ]
        if awaited or self.control is None:
            self.notifier.starting(starting_line(awaited), now)
            return
        self._said_ready = True
        realtime.spare_from_collections()
        self.notifier.ready(status_line(self._commands.brief(now)))

    def _writers_settled(self) -> bool:
        seats = [self.fleet.seats[name] for name in self.recording.spec.writers]
        return all(seat.was_ready or seat.phase is Phase.GIVEN_UP for seat in seats)

    def _feed_watchdog(self, now: int) -> None:
        interval_ns = self.notifier.watchdog_ns
        if interval_ns and now - self._fed_at_ns >= interval_ns // 4 and self.fleet.arms_alive(now):
            self._fed_at_ns = now
            self.notifier.alive()

    # --- the end ---------------------------------------------------------------------------

    def end(self, now: int, why: str) -> None:
        """Ask the daemon to end; asked again, it hurries."""
        self.log.info("recd ends", reason=why, stage=self.ending.stage.value)
        self.notifier.stopping()
        self.ending.ask(now)

    def _give_up(self, error: RecdError, now: int) -> None:
        """The daemon cannot do its work at all: end, and let `run` raise `error`."""
        if self.fatal is None:
            self.fatal = error
            self.end(now, error.message)

    def _clean_up(self) -> None:
        self.fleet.close()
        if self.control is not None:
            self.news.resolve("shutdown", {"ended": True})
            self.control.close()
        self.serial.close()
        self.hooks.close()
        self.looks.close()
        self.resources.close()
        self.notifier.close()
        self._signals.close()
        self._lock.release()
        self.log.info("recd has ended")
