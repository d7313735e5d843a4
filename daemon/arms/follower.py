"""A follower's tick: leader in, motion machine, goal out, position in, sample published.

A goal is written only while a person has armed the arm, the line is in step and the torque is
known; whatever is missing, the servos keep the goal they have.
"""

from typing import Any

from recd.config.errors import DeviceError, RecdError
from recd.config.streams import GoalSource, JointFlag, Motion
from recd.daemon.arms.attach import Attached, configure, read_image
from recd.daemon.arms.buswatch import GLIDE_AFTER_NS, BusWatch
from recd.daemon.arms.feetech.bus import ServoBus
from recd.daemon.arms.feetech.port import BusLostError
from recd.daemon.arms.goalpath import PARK_PATIENCE_NS, off_rest
from recd.daemon.arms.guardian import Guardian
from recd.daemon.arms.handover import HandOver, Led
from recd.daemon.arms.leader import OVERRUN_BEFORE, TELEMETRY_SLOT, every
from recd.daemon.arms.leaderview import LeaderView
from recd.daemon.arms.motion import (
    COMMANDS,
    COMPARING,
    DISARM_BY_POLICY,
    FOLLOWING,
    PLAYING,
    SEATED,
    WANTED_FACTS,
    Cause,
    Effect,
    Event,
    MotionState,
    Phase,
    advance,
    command_event,
    found_state,
    legal_commands,
)
from recd.daemon.arms.protection import Action
from recd.daemon.arms.registers import (
    CHECK_BLOCK,
    POSITION_BLOCK,
    TELEMETRY_BLOCK,
)
from recd.daemon.arms.samples import Samples, Telemetry
from recd.daemon.arms.side import ArmSide, goal_path, park_pose, period_ns
from recd.daemon.arms.tickcode import machine_code
from recd.daemon.arms.torque import disengage, engage, patient
from recd.daemon.policy.seat import PolicySeat, SeatStreams
from recd.daemon.worker import WorkerContext
from recd.shm import CellReader, CellWriter, RingWriter
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

LEADER_LOST_NS = 500 * NS_PER_MS
"""A leader silent for longer ends teleoperation; before that the follower holds and goes on."""

DOUBT_AFTER_NS = 50 * NS_PER_MS
"""After so long without a tick the torque is looked at before a goal goes out: the power may have
gone and come back meanwhile, and some servos take torque when they are given a goal."""

REPORT_NS = 200 * NS_PER_MS

_RAMPING = int(JointFlag.RAMPING)
_STALE_LEADER = int(JointFlag.STALE_LEADER)
_WRITE_SKIPPED = int(JointFlag.WRITE_SKIPPED)
"""As plain numbers: `|` of an IntFlag is Python code, a microsecond each time in a warm cache."""

CHECK_SHARE = 0.5
"""Share of a period that a read of position and torque at once may take on the wire (1.6 ms of six
servos at 1 Mbaud). Where it takes more, torque is asked for apart: 0.2 ms less on the wire, 60 us
more of work [250 Hz, three cameras recording]."""

_TORQUE_CHECK_HZ = 10
_TORQUE_SLOT = 3
_REPEATS = 3


class Follower:
    """One follower between attach and loss of its bus. `tick` serves one period.

    state: where the motion machine is.
    """

    def __init__(
        self,
        ctx: WorkerContext,
        bus: ServoBus,
        side: ArmSide,
        attached: Attached,
        *,
        rings: tuple[RingWriter, RingWriter],
        cell: CellReader | None,
        seat: SeatStreams | None,
        meeting: CellWriter | None,
        had_torque: bool,
    ) -> None:
        """rings: samples and telemetry; cell: the leader's, None for a follower alone; seat: for
        policies, None without; meeting: where the leader is told to be, None: it is not driven;
        had_torque: before its bus was lost, False at first."""
        config, joints = ctx.config, len(side.joints)
        self._ctx, self._bus, self._side = ctx, bus, side
        pair = side.bus.partition(".")[0]
        scales = attached.calibration.scales(side.units)
        self._samples = Samples(rings[0], scales, ctx.status, bus.reading, machine_code())
        self._telemetry = Telemetry(rings[1], joints, machine_code())
        self._telemetry_left = 0
        self._telemetry_every = every(config["rate_hz"], config["telemetry_hz"])
        fits = bus.read_ns(CHECK_BLOCK) < CHECK_SHARE * period_ns(config)
        self._check_block = CHECK_BLOCK if fits else POSITION_BLOCK
        self._check_every = every(config["rate_hz"], _TORQUE_CHECK_HZ)
        self._path = goal_path(pair, config, scales, side.names, machine_code())
        self._path.rest_at(attached.goal)
        self._park = park_pose(pair, config, side.names)
        self._guardian = Guardian(ctx, side, self._path, machine_code())
        self._policy = DISARM_BY_POLICY[config["torque_on_exit"]]
        self._align_error = float(config["limits"]["align_error"])
        self._idle_ns = round(config["limits"]["idle_park_s"] * NS_PER_S)
        stale_ns = round(config["limits"]["leader_stale_periods"] * period_ns(config))
        self._leader = None if cell is None else LeaderView(cell, joints, stale_ns=stale_ns)
        if self._leader is not None:
            self._samples.led_by(self._leader.position)
        self._period_ns = period_ns(config)
        self._watch = BusWatch(ctx, bus, side, self._path, self._telemetry)
        self._silent_since_ns = 0
        self._park_until_ns = 0
        self._repeats = 0
        self._coasting = False
        self._seat = None if seat is None else PolicySeat(ctx, side, self._path, seat)
        self._hand_over = HandOver(config["hand_over"], meeting)
        self._led = Led()
        self._handless: MotionState | None = None  # nobody's hand on the leader matters in it
        self._filled: MotionState | None = None  # the sample holds what stays while it does
        self._goals = 0  # written since they were counted
        self._waiting: tuple[str, ...] = ()
        self._reported_ns = 0
        self._source = GoalSource.NONE
        self._telemetry.set_torque(attached.torque)
        self._arming_error: DeviceError | None = None
        self.state = found_state(attached.torque, now_ns(), had_torque=had_torque)

    @property
    def motion(self) -> Motion:
        """Published state of the motion machine."""
        return self.state.trait.motion

    @property
    def finished(self) -> bool:
        """False while the arm is on its way to rest: not a moment to end the process."""
        return self.state.phase is not Phase.PARKING

    def command(self, message: dict[str, Any]) -> None:
        """Carry out a motion command. StateError when the state does not allow it, DeviceError
        when the servos refuse to be armed.
        """
        self._arming_error = None
        event, at_ns = command_event(message, self._policy), now_ns()
        if event is Event.POLICY:
            self._check_seat(at_ns)
        self._apply(event, at_ns)
        self.report()
        if self._arming_error is not None:
            raise self._arming_error

    def _check_seat(self, at_ns: int) -> None:
        """A policy may drive when the state allows it and the policy is ready."""
        if self._seat is None:
            raise RecdError(
                "policy attach: this robot's configuration has no section 'policy'",
                mend="Add one ('policy: {}' is enough) and start recd again.", code="policy",
            )  # fmt: skip
        advance(self.state, Event.POLICY, at_ns)
        if self.state.phase not in SEATED:
            self._seat.check_grant(self.state, at_ns)

    def stop(self) -> None:
        """The daemon ends on purpose: the configured torque policy, as far as it is possible."""
        if self.state.phase is Phase.DISARMED:
            return
        for event in (self._policy, Event.DISARM_HOLD):
            if str(event) in legal_commands(self.state.phase):
                self._apply(event, now_ns())
                break
        if self.state.trait.torque and self.finished:
            self._ctx.event(
                "left holding torque", level="warning", bus=self._side.bus,
                mend="It holds its pose until recctl release CONFIG lets go or the power goes.",
            )  # fmt: skip
        self.report()

    def report(self) -> None:
        """Tell the supervisor where the machine is."""
        state = self.state
        self._reported_ns = now_ns()
        self._ctx.link.send(
            "motion",
            state=self.motion.name,
            phase=state.phase.value,
            cause=state.cause.name.lower(),
            since_ns=state.since_ns,
            armed=state.trait.armed,
            led_ns=self._led.since_ns,
            led_gaps=list(self._led.gaps),
            waiting_joints=list(self._waiting),
            legal=list(legal_commands(state.phase)),
        )

    def report_away(self) -> None:
        """Tell the supervisor that the bus is gone: whatever the servos do, it is not known."""
        self.state = MotionState(Phase.FAULT, Cause.BUS_SILENT, now_ns())
        self.report()

    def _apply(self, event: Event, at_ns: int) -> None:
        before = self.state
        self.state, effect = advance(before, event, at_ns)
        if self.state is before:
            return
        if self.state.phase not in COMPARING:
            self._waiting = ()
        self._carry_out(effect, at_ns)
        if event not in COMMANDS:
            level = "info" if event in WANTED_FACTS else "warning"
            self._ctx.event(
                "motion changed", level=level, bus=self._side.bus, fact=str(event),
                state=self.motion.name,
            )  # fmt: skip
            self.report()

    def _carry_out(self, effect: Effect, at_ns: int) -> None:
        self._coasting &= effect is Effect.NOTHING
        match effect:
            case Effect.ENGAGE:
                self._engage(at_ns)
            case Effect.FOLLOW:
                self._path.begin()
                self._hand_over.follow(self.state.phase)
            case Effect.STOP:
                self._path.halt()
                self._repeats = _REPEATS
            case Effect.COAST:
                self._coasting, self._repeats = True, _REPEATS
            case Effect.PARK:
                self._begin_park(at_ns)
            case Effect.RELEASE:
                self._release()
            case Effect.POLICY:
                self._apply(self._policy, at_ns)
            case Effect.NOTHING:
                pass

    def _engage(self, at_ns: int) -> None:
        bus, side = self._bus, self._side
        try:
            with patient(bus):
                images = [read_image(bus, servo) for servo in side.ids]
                configure(bus, side, images)
                self._path.rest_at(engage(bus))
        except BusLostError:
            raise
        except DeviceError as error:
            self._arming_error = error
            self._say("arming failed", error)
            self._apply(Event.ARMING_FAILED, at_ns)
            return
        self._telemetry.set_torque([True] * len(self._side.joints))
        self._watch.begin()
        if self._leader is None:
            self.state = MotionState(Phase.HELD, Cause.NO_LEADER, at_ns)

    def _release(self) -> None:
        try:
            disengage(self._bus)
            self._telemetry.set_torque([False] * len(self._side.joints))
        except BusLostError:
            raise
        except DeviceError as error:
            self._say("release failed", error)

    def _begin_park(self, at_ns: int) -> None:
        self._path.begin()
        self._park_until_ns = at_ns + PARK_PATIENCE_NS
        if self._park is None:
            hot = self.state.cause is Cause.OVERHEAT
            self._apply(Event.LET_GO if hot else Event.NO_PARK_POSE, at_ns)

    def _say(self, event: str, error: RecdError) -> None:
        self._ctx.event(
            event, level="error", bus=self._side.bus, reason=error.message, mend=error.mend
        )

    def tick(self, tick: int, woke_ns: int, skipped: int) -> Motion:
        """Serve one period: goal out first, so that it is as young as can be, then position in.
        Returns `motion`."""
        flags = OVERRUN_BEFORE if skipped else 0
        if skipped * self._period_ns > DOUBT_AFTER_NS:
            self._after_stall(skipped * self._period_ns, woke_ns)
        if self._leader is not None:
            self._leader.refresh()
            if self.state is not self._handless:
                self._look_at_hand(self._leader, woke_ns)
        if self._seat is not None and (fact := self._seat.look(self.state, woke_ns)) is not None:
            self._apply(fact, woke_ns)
        written_ns, drive_flags = self._drive(woke_ns)
        if self.state.phase is Phase.CORRECTING or self._led.since_ns:
            self._note_led(woke_ns, written_ns)
        full = tick % self._telemetry_every == TELEMETRY_SLOT % self._telemetry_every
        due = tick % self._check_every == _TORQUE_SLOT % self._check_every
        block = TELEMETRY_BLOCK if full else self._check_block if due else POSITION_BLOCK
        reading = self._bus.sync_read(block)
        self._fill_goals(written_ns)
        self._samples.publish(tick, flags | drive_flags)
        if full and reading.valid:
            while self._telemetry_left:
                self._go_on_with_telemetry()
            self._telemetry.take(reading)
            self._telemetry_left = 2
        elif self._telemetry_left:
            self._go_on_with_telemetry()
        fact = self._watch.look(reading, self.state, due=due, torque_read=block is CHECK_BLOCK)
        if fact is not None:
            self._apply(fact, now_ns())
        if due:
            self._ctx.status.count("goals_written", self._goals)
            self._goals = 0
            self._watch_idle(now_ns())
        return self.state.trait.motion

    def _after_stall(self, stalled_ns: int, at_ns: int) -> None:
        """This process did not run for a while; the arm held, and the leader went on."""
        self._watch.doubt = True
        if stalled_ns > LEADER_LOST_NS:
            self._apply(Event.LOOP_STALLED, at_ns)
        if stalled_ns > GLIDE_AFTER_NS:
            self._path.glide()

    def _look_at_hand(self, leader: LeaderView, at_ns: int) -> None:
        """Whether a person has taken hold of the leader, and where it has to be."""
        if self._hand_over.grasped(self.state, leader.position, at_ns):
            self._apply(Event.LEADER_MOVED, at_ns)
        self._hand_over.wish(self.state, self._path.sent, leader.position, at_ns,
                             refused=leader.refused != 0)  # fmt: skip
        self._handless = None if self._hand_over.minds(self.state) else self.state

    def _note_led(self, woke_ns: int, written_ns: int) -> None:
        """Tell from when on, and until when, a correction is led by a person alone."""
        led = self.state.phase is Phase.CORRECTING and self._source is GoalSource.LEADER
        # Until its first goal is out, a row still belongs to the tick before.
        begun_ns = written_ns or woke_ns + self._period_ns
        if self._led.note(led, begun_ns if led else woke_ns):
            self.report()

    def _drive(self, at_ns: int) -> tuple[int, int]:
        """(when a goal was written or 0, flags)."""
        self._source = self.state.trait.source
        match self.state.phase:
            case Phase.TELEOP | Phase.CORRECTING:
                return self._follow(at_ns)
            case Phase.POLICY | Phase.REPLAY:
                return self._play(at_ns)
            case Phase.PARKING:
                return self._approach(at_ns)
            case Phase.WAITING | Phase.TAKING:
                self._compare(at_ns)
        if self._coasting:
            return self._coast(at_ns)
        if self.state.trait.armed and self._guardian.relaxing and self._may_write(at_ns):
            self._path.ease(self._samples.position)
            return self._send(), 0
        if self._repeats and self.state.trait.torque and self._may_write(at_ns):
            self._repeats -= 1
            return self._send(), 0
        return 0, _WRITE_SKIPPED

    def _follow(self, at_ns: int) -> tuple[int, int]:
        leader, path = self._leader, self._path
        assert leader is not None
        flags = 0
        if leader.partly_silent(at_ns):
            if leader.silent(at_ns):
                return self._wait_for(leader, at_ns)
            flags = _STALE_LEADER
        if self._silent_since_ns:
            if at_ns - self._silent_since_ns > GLIDE_AFTER_NS:
                path.glide()
            self._silent_since_ns = 0
        if not self._may_write(at_ns):
            path.halt()
            return 0, flags | _WRITE_SKIPPED
        flags |= path.follow(leader.position, self._samples.position)
        if self._hand_over.gliding:
            self._note_glide(flags)
        return self._send(), flags

    def _wait_for(self, leader: LeaderView, at_ns: int) -> tuple[int, int]:
        """A period without a goal: the leader is silent."""
        self._silent_since_ns = self._silent_since_ns or leader.sample_ns
        self._source = GoalSource.HOLD
        self._path.halt()
        if at_ns - leader.sample_ns > LEADER_LOST_NS:
            self._apply(Event.LEADER_LOST, at_ns)
        return 0, _STALE_LEADER | _WRITE_SKIPPED

    def _note_glide(self, flags: int) -> None:
        self._hand_over.went(flags, self._path.behind)
        if self._hand_over.gliding:
            self._source = GoalSource.HAND_OVER

    def _play(self, at_ns: int) -> tuple[int, int]:
        """One period of the policy's plan; without one, the arm slows down and holds."""
        seat, path = self._seat, self._path
        assert seat is not None
        goal = seat.goal(at_ns)
        if goal is None:
            self._apply(seat.ended, at_ns)
            self._source = GoalSource.HOLD
            return self._coast(at_ns)
        self._source = seat.source
        if not self._may_write(at_ns):
            path.halt()
            return 0, _WRITE_SKIPPED
        flags = path.follow(goal, self._samples.position)
        if self._hand_over.gliding:
            self._note_glide(flags)
        seat.ask(goal)
        return self._send(), flags

    def _coast(self, at_ns: int) -> tuple[int, int]:
        if not self._may_write(at_ns):
            self._path.halt()
            return 0, _WRITE_SKIPPED
        self._coasting = not self._path.coast(self._samples.position)
        return self._send(), 0

    def _approach(self, at_ns: int) -> tuple[int, int]:
        if not self._may_write(at_ns):
            return 0, _WRITE_SKIPPED
        assert self._park is not None
        position = self._samples.position
        arrived = self._path.approach(self._park, position)
        written_ns = self._send()
        if at_ns > self._park_until_ns:
            hot = self.state.cause is Cause.OVERHEAT
            self._apply(Event.LET_GO if hot else Event.PARK_BLOCKED, at_ns)
        elif arrived and not off_rest(position, self._park):
            self._apply(Event.PARKED, at_ns)
        return written_ns, _RAMPING

    def _compare(self, at_ns: int) -> None:
        """Wait until the leader is near the follower; name the joints that are not."""
        leader = self._leader
        waiting: tuple[str, ...] = ()
        if leader is None or leader.silent(at_ns):
            cause = Cause.LEADER_SILENT
        else:
            pairs = zip(self._side.names, leader.position, self._path.sent, strict=True)
            waiting = tuple(n for n, a, b in pairs if not abs(a - b) <= self._align_error)
            brought = leader.driven or self._hand_over.bringing(at_ns)
            if not waiting and (self._coasting or brought):
                return  # first the arm comes to rest, and the leader's servos let go
            if not waiting:
                self._apply(Event.LEADER_AGREES, at_ns)
                return
            cause = Cause.LEADER_DIFFERS
        changed = (waiting, cause) != (self._waiting, self.state.cause)
        if changed and at_ns - self._reported_ns > REPORT_NS:
            self._waiting = waiting
            self.state = MotionState(self.state.phase, cause, self.state.since_ns)
            self.report()

    def _may_write(self, at_ns: int) -> bool:
        """False in doubt, and in a tick that was stopped between waking and here."""
        fresh = now_ns() - at_ns < DOUBT_AFTER_NS
        return fresh and self._bus.line.in_step and not self._watch.doubt

    def _send(self) -> int:
        self._goals += 1
        return self._bus.write_goals(self._path.steps, skip=self._watch.absent)

    def _fill_goals(self, written_ns: int) -> None:
        """The goal path of this tick."""
        samples, leader, seat = self._samples, self._leader, self._seat
        samples.source = self._source
        samples.goal_written_ns = written_ns
        if leader is not None:
            samples.leader_ns = leader.sample_ns
        if self.state is not self._filled or seat is not None:
            self._fill_state(self.state)
        if seat is not None:
            samples.chunk, samples.chunk_index = seat.chunk, seat.index
            seat.publish(self.state)

    def _fill_state(self, state: MotionState) -> None:
        """What stays as long as the state does; NaN and -1 where there is no goal."""
        samples, path, leader, seat = self._samples, self._path, self._leader, self._seat
        samples.motion, samples.cause = state.trait.motion, state.cause
        if not state.trait.torque:
            samples.no_goals()
        elif state.phase in FOLLOWING and leader is not None:
            samples.goals(path, leader.position)
        elif state.phase in PLAYING and seat is not None and seat.asked is not None:
            samples.goals(path, seat.asked)
        else:
            samples.goals(path, path.goal)
        self._filled = state

    def _go_on_with_telemetry(self) -> None:
        """One of two pieces, each in a tick of its own: all in the tick that read it, they were
        half of the ticks beyond p99 [2 % of the ticks, 60 us more than others]."""
        self._telemetry_left -= 1
        if self._telemetry_left:
            self._telemetry.publish()
            self._ctx.status.count("telemetry")
        else:
            self._protect()

    def _protect(self) -> None:
        telemetry = self._telemetry
        for action in self._guardian.assess(telemetry, telemetry.valid, telemetry.sample_ns):
            event = Event.OVERHEAT if action is Action.PARK else Event.OVERLOAD
            self._apply(event, telemetry.sample_ns)

    def _watch_idle(self, at_ns: int) -> None:
        if not self._idle_ns or self._park is None or not self.state.trait.armed:
            return
        active_ns = self.state.since_ns
        if self._leader is not None:
            self._leader.watch_movement(at_ns)
            active_ns = max(active_ns, self._leader.moved_ns)
        if at_ns - active_ns > self._idle_ns:
            self._apply(Event.IDLE, at_ns)
