"""The policy's place in a follower's process: whose lease, which plan, what the arm is to do now.

Reads two pieces of shared memory and writes two; never waits, and does a bounded piece of work per
tick however much comes. Motion is decided by the motion machine: a seat only tells it facts.
"""

from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from recd.config.errors import StateError
from recd.config.policy_streams import MODES, STATUSES, VERDICT_DTYPE, Held, plan_dtype
from recd.config.policy_wire import MOST_STEPS, Mode, Status
from recd.config.streams import GoalSource
from recd.daemon.arms.goalpath import GoalPath
from recd.daemon.arms.motion import PLAYING, SEATED, Event, MotionState, Phase, legal_commands
from recd.daemon.arms.passes import doubles
from recd.daemon.arms.side import ArmSide, period_ns
from recd.daemon.policy.ahead import ahead
from recd.daemon.policy.playback import Plan, Playback, Rules, Verdict
from recd.daemon.policy.turns import continued, within
from recd.daemon.worker import WorkerContext
from recd.shm import CellReader, CellWriter, RingReader, RingWriter, Slot
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

CHUNKS_A_TICK = 4
"""Chunks looked at in one period; what comes faster waits, and is late then."""

SOUND = (Status.SHADOW, Status.APPLIED, Status.STOPPED)
"""What a newest chunk may have been told. APPLIED: a policy that is paused and waits."""

SOURCES = {Held.TELEOP: GoalSource.LEADER, Held.POLICY: GoalSource.POLICY,
           Held.REPLAY: GoalSource.REPLAY}  # fmt: skip
"""Who asked for a goal, by the kind of lease."""


@dataclass(frozen=True, slots=True)
class SeatStreams:
    """The shared memory of one seat; it outlives the losses of the arm's bus."""

    plans: RingReader
    verdicts: RingWriter
    lease: CellReader
    cell: CellWriter
    queue: CellWriter


def seat_streams(ctx: WorkerContext, pair: str) -> SeatStreams | None:
    """Streams of a follower's seat, None when the configuration has no policies."""
    if f"plans.{pair}" not in ctx.spec.rings:
        return None
    return SeatStreams(
        plans=ctx.ring_reader(f"plans.{pair}"),
        verdicts=ctx.ring_writer(f"verdicts.{pair}"),
        lease=ctx.cell_reader(f"lease.{pair}"),
        cell=ctx.cell_writer(f"seat.{pair}"),
        queue=ctx.cell_writer(f"queue.{pair}"),
    )


def rules_of(
    policy: dict[str, Any], config: dict[str, Any], side: ArmSide, path: GoalPath
) -> Rules:
    """The rules of one pair, from the sections `policy` and `arms.<pair>`."""
    return Rules(
        lead_ns=period_ns(config),
        seam=float(policy["seam"]),
        start_gap=float(config["limits"]["align_error"]),
        latency_ns=min(latencies_ns(policy, config, side.names)),
        observation_ns=round(policy["observation_s"] * NS_PER_S),
        low=tuple(limit.low for limit in path.limits),
        high=tuple(limit.high for limit in path.limits),
        speed=tuple(limit.step * NS_PER_S / period_ns(config) for limit in path.limits),
        stepwise=tuple(joint.gripper for joint in side.joints),
    )


def latencies_ns(
    policy: dict[str, Any], config: dict[str, Any], names: Sequence[str]
) -> tuple[int, ...]:
    """How much earlier than due each joint of a pair is told its goal."""
    own, usual = config["action_latency_ms"], policy["action_latency_ms"]
    if not isinstance(own, dict):
        own = {} if own is None else dict.fromkeys(names, own)
    return tuple(round(own.get(name, usual) * NS_PER_MS) for name in names)


class PolicySeat:
    """One per follower. asked: goal of the newest tick with a plan (`doubles`), None before the
    first; ended: why there is none; chunk, index: where it comes from, -1 none; source: who asked
    for it.
    """

    def __init__(
        self, ctx: WorkerContext, side: ArmSide, path: GoalPath, streams: SeatStreams
    ) -> None:
        policy = ctx.robot["policy"]
        self._pair = side.bus.partition(".")[0]
        self._path = path
        self._plan_dtype = plan_dtype(len(side.joints))
        self._plans, self._verdicts = streams.plans, streams.verdicts
        self._verdict_slots = self._verdicts.views(VERDICT_DTYPE)
        self._lease, self._cell, self._queue = streams.lease, streams.cell, streams.queue
        self._playback = Playback(rules_of(policy, ctx.config, side, path))
        least_ns = self._playback.rules.latency_ns
        latencies = latencies_ns(policy, ctx.config, side.names)
        self._more_ns = tuple(latency_ns - least_ns for latency_ns in latencies)
        self._beat_ns = round(policy["heartbeat_ms"] * NS_PER_MS)
        self._warm_up = int(policy["warm_up_chunks"])
        self._epoch = self._granted = -1
        self._held = Held.NOBODY
        self._held_ns = 0
        self._sound = 0
        self._newest = Status.SHADOW
        self._gap = 0.0
        self._shown = -1
        self._due_ns = 0
        self._grants = 0
        self.asked: MutableSequence[float] | None = None
        record = self._cell.record[0]
        record["low"], record["high"] = self._playback.rules.low, self._playback.rules.high
        self._record, self._goal = record, self._cell.record["goal"][0]

    @property
    def ended(self) -> Event:
        return self._playback.ended

    @property
    def chunk(self) -> int:
        return self._playback.chunk

    @property
    def index(self) -> int:
        return self._playback.index

    @property
    def source(self) -> GoalSource:
        return SOURCES.get(self._held, GoalSource.POLICY)

    def check_grant(self, state: MotionState, at_ns: int) -> None:
        """The start gate: a person lets the policy drive. StateError while it is not ready."""
        self._take_lease()
        why, mend = "", "Start the policy and leave it running: what it sends is judged meanwhile."
        silent_ns = at_ns - int(self._lease.record["beat_ns"][0])
        if self._held is Held.NOBODY or silent_ns > self._beat_ns:
            why = f"no policy holds the lease of {self._pair}"
        elif self._sound < self._warm_up:
            why = f"expected {self._warm_up} sound chunks first, found {self._sound}"
        elif self._newest is Status.SEAM:
            most = self._playback.rules.start_gap
            why = f"its newest chunk begins {self._gap:.0f} units from the arm, at most {most:g}"
            mend = "Bring the arm to where the policy expects it, or ask the policy again."
        elif self._newest not in SOUND:
            why = f"its newest chunk was refused: {self._newest}"
        if why:
            raise StateError(
                f"policy attach: {why}", state=state.trait.motion.name,
                legal=legal_commands(state.phase), mend=f"{mend} recctl policy stats tells more.",
            )  # fmt: skip
        self._granted = self._epoch
        self._grants += 1

    def look(self, state: MotionState, at_ns: int) -> Event | None:
        """Once per tick, before the goal: the lease, then what came. Returns the fact that the
        motion machine has to hear, if there is one.
        """
        self._due_ns = at_ns + self._playback.rules.latency_ns
        if state.phase not in PLAYING and self._playback.queued_until_ns:
            self._playback.flush()
        if self._take_lease() or (state.phase in SEATED and self._granted != self._epoch):
            return Event.LEASE_LOST
        if state.phase is Phase.SEATED:
            self._held_ns = state.since_ns
        event = None
        for _ in range(CHUNKS_A_TICK):
            slot = self._plans.take()
            if slot is None:
                break
            event = self._judge(slot, state, at_ns) or event
        if event is None and state.phase in PLAYING:
            silent_ns = at_ns - int(self._lease.record["beat_ns"][0])
            event = Event.HEARTBEAT_MISSED if silent_ns > self._beat_ns else None
        return event

    def _take_lease(self) -> bool:
        """True when the lease that was known has ended."""
        self._lease.refresh()
        epoch = int(self._lease.record["epoch"][0])
        if epoch == self._epoch:
            return False
        first, self._epoch = self._epoch == -1, epoch
        self._held = Held(int(self._lease.record["held"][0]))
        self._playback.forget()
        self._sound, self._newest = 0, Status.SHADOW
        return not first

    def _judge(self, slot: Slot, state: MotionState, at_ns: int) -> Event | None:
        record = slot.payload[: slot.nbytes].copy().view(self._plan_dtype)[0]
        if not slot.intact():
            return None
        plan = ahead(self._continued(_plan_of(record), at_ns), self._more_ns)
        seated = state.phase in SEATED
        if plan.epoch != self._epoch or self._held is Held.NOBODY:
            verdict = Verdict(Status.STALE_EPOCH)
        else:
            verdict = self._playback.offer(
                plan, at_ns, self._path.goal, held_ns=self._held_ns if seated else 0,
                after_hold=state.phase not in PLAYING, dry=not seated,
            )  # fmt: skip
            self._newest, self._gap = verdict.status, verdict.splice_gap
            self._sound += verdict.status in SOUND[:2]
        self._tell(plan, verdict, at_ns)
        match verdict.status:
            case Status.APPLIED if state.phase is Phase.SEATED:
                return Event.REPLAY_CAME if self._held is Held.REPLAY else Event.CHUNK_CAME
            case Status.STOPPED if state.phase in PLAYING:
                return Event.CHUNK_STOPPED
        return None

    def _continued(self, plan: Plan, at_ns: int) -> Plan:
        """The plan on the turn that the arm is on, or where what it is appended to will end."""
        near, tail = self._path.goal, self._playback.tail
        if plan.mode is Mode.APPEND and tail is not None:
            near = [own if isnan(end) else end for own, end in zip(near, tail, strict=True)]
            at_ns = self._playback.queued_until_ns + 1
        return continued(plan, self._path.turns, near, at_ns)

    def _tell(self, plan: Plan, verdict: Verdict, at_ns: int) -> None:
        record = self._verdict_slots[self._verdicts.begin()][0]
        record["chunk"], record["epoch"], record["at_ns"] = plan.chunk, plan.epoch, at_ns
        record["first_applied"], record["late"] = verdict.first_applied, verdict.late
        record["clipped"], record["status"] = verdict.clipped, STATUSES.index(verdict.status)
        record["splice_gap"], record["margin_ns"] = verdict.splice_gap, verdict.margin_ns
        record["first_goal_ns"] = verdict.first_goal_ns
        self._verdicts.commit(VERDICT_DTYPE.itemsize, t_capture_ns=at_ns, t_arrival_ns=at_ns)

    def goal(self, at_ns: int) -> Sequence[float] | None:
        """Positions for this tick, NaN for joints that hold; None when the plan has ended."""
        return self._playback.goal(at_ns, self._path.goal)

    def ask(self, goal: Sequence[float]) -> None:
        """Note what the plan asks in this tick, as a joint would be read; to stay, where it asks
        nothing."""
        low, turns = self._playback.rules.low, self._path.turns
        self.asked = doubles(
            own if isnan(asked) else within(asked, low[joint], turns[joint])
            for joint, (asked, own) in enumerate(zip(goal, self._path.goal, strict=True))
        )

    def publish(self, state: MotionState) -> None:
        """Tell the gateway where the arm and its motion machine are."""
        record, changes = self._record, self._playback.changes
        if self._shown != changes and self._lease.record["asked_until_ns"][0] > self._due_ns:
            self._playback.show(self._queue.record[0])
            self._queue.publish()  # before the seat says that there is another plan
            self._shown = changes
        record["plan"], record["due_ns"] = changes, self._due_ns
        record["at_ns"], record["since_ns"] = now_ns(), state.since_ns
        record["held_ns"], record["granted"] = self._held_ns, self._granted
        record["queued_until_ns"] = self._playback.queued_until_ns
        record["chunk"], record["index"] = self.chunk, self.index
        record["grants"], record["permitted"] = self._grants, state.phase in SEATED
        record["motion"], record["cause"] = state.trait.motion, state.cause
        self._goal[:] = self._path.goal
        self._cell.publish()


def _plan_of(record: Any) -> Plan:
    steps = min(int(record["steps"]), MOST_STEPS)
    return Plan(
        chunk=int(record["chunk"]),
        epoch=int(record["epoch"]),
        obs_ns=int(record["obs_ns"]),
        dt_ns=int(record["dt_ns"]),
        valid_until_ns=int(record["valid_until_ns"]),
        age_limit_ns=int(record["age_limit_ns"]),
        mode=MODES[int(record["mode"])],
        blend=int(record["blend"]),
        targets_ns=record["target_ns"][:steps].tolist(),
        rows=record["values"][:steps].tolist(),
        velocity=bool(record["velocity"]),
    )
