"""The plan of one pair of arms, played at the control rate. Pure: no I/O, time is an argument.

A plan is what is left of the newest chunks, by target time. Rows that are too late are never
played; between rows the goal moves linearly, or by their velocity from what the arm was told; when
nothing valid is left there is no goal, and why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

from recd.config.policy_wire import MOST_QUEUED, Mode, Status
from recd.daemon.arms.motion import Event
from recd.shm.clock import NS_PER_S


@dataclass(frozen=True, slots=True)
class Rules:
    """Of one pair. lead_ns: a row due sooner is late; seam: largest distance, in units, between a
    plan and the goal that the arm is at, start_gap: the same while the arm holds and would glide
    in; latency_ns: how much earlier a goal is sent than it is due; observation_ns: age at which an
    observation no longer justifies movement; low, high: range of each joint; speed: most of each,
    units per second; stepwise: joints that are never blended (the gripper).
    """

    lead_ns: int
    seam: float
    start_gap: float
    latency_ns: int
    observation_ns: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    speed: tuple[float, ...]
    stepwise: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """One chunk for one pair: absolute targets, or velocities until each target time; NaN where a
    joint holds.

    chunk: the policy's number; obs_ns: time of its observation; dt_ns: step, how long the last
    row holds, or its velocity falls to zero; valid_until_ns: nothing of it is played after;
    age_limit_ns: how old the observation may be when the chunk comes; blend: rows over which to
    blend (mode blend).
    """

    chunk: int
    epoch: int
    obs_ns: int
    dt_ns: int
    valid_until_ns: int
    age_limit_ns: int
    mode: Mode
    blend: int
    targets_ns: Sequence[int]
    rows: Sequence[Sequence[float]]
    velocity: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a chunk. first_applied: its first row that is played, -1 none; late: rows
    dropped for their time; clipped: kept rows beyond range or speed of some joint; splice_gap:
    distance (units) from the commanded goal to the plan now; margin_ns: how long the plan before it
    would have lasted; first_goal_ns: when the first kept row is due.
    """

    status: Status
    first_applied: int = -1
    late: int = 0
    clipped: int = 0
    splice_gap: float = 0.0
    margin_ns: int = 0
    first_goal_ns: int = 0


class Playback:
    """The queue of one pair. chunk, index: where the present goal comes from, -1 none; ended: the
    event that says why there is no goal any more; changes: how often the plan has changed.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.chunk = self.index = -1
        self.ended = Event.QUEUE_EMPTY
        self._joints = len(rules.low)
        self._out = [0.0] * self._joints
        self._last_chunk = -1
        self.changes = 0
        self.flush()

    def forget(self) -> None:
        """Another holder: chunk numbers begin anew."""
        self.flush()
        self._last_chunk = -1

    def flush(self) -> None:
        """Nothing is planned any more."""
        self._targets_ns: list[int] = []
        self._rows: list[list[float]] = []
        self._from: list[tuple[int, int]] = []  # (chunk, row in it) of each row
        self._moves: list[bool] = []  # rows that are velocities
        self._moved_ns = 0  # velocities were followed up to here
        self._at = 0
        self._left_ns = 0
        self._left: list[float] = [nan] * self._joints
        self._dt_ns = self._valid_until_ns = self._obs_ns = 0
        self.ended = Event.QUEUE_EMPTY
        self.chunk = self.index = -1
        self.changes += 1

    @property
    def queued_until_ns(self) -> int:
        """Target time of the last row, 0 when nothing is planned."""
        return self._targets_ns[-1] if self._targets_ns else 0

    @property
    def queued(self) -> int:
        """Rows that are still ahead."""
        return len(self._targets_ns) - self._at

    @property
    def tail(self) -> Sequence[float] | None:
        """Positions of the last row that is still ahead; None without one, or for a velocity."""
        return self._rows[-1] if self.queued and not self._moves[-1] else None

    def offer(
        self, plan: Plan, now: int, commanded: Sequence[float], *,
        held_ns: int = 0, after_hold: bool = False, dry: bool = False,
    ) -> Verdict:  # fmt: skip
        """Judge a chunk and, unless it is a dry run, splice it in.

        commanded: the goal that the arm is at now; held_ns: when the hold began that its
        observation must be younger than; after_hold: the arm stands and would glide in.
        """
        margin_ns = self.queued_until_ns - now if self._targets_ns else 0
        refused = self._refusal(plan, now, held_ns)
        self._last_chunk = max(self._last_chunk, plan.chunk)
        if refused is not None:
            return Verdict(refused, margin_ns=margin_ns)
        if not plan.targets_ns:
            if not dry:
                self.flush()
            return Verdict(Status.STOPPED, margin_ns=margin_ns)
        first = self._first_kept(plan, now)
        if first == len(plan.targets_ns):
            return Verdict(Status.ALL_LATE, late=first, margin_ns=margin_ns)
        appended = plan.mode is Mode.APPEND and self.queued > 0
        gap = 0.0 if appended or plan.velocity else self._gap(plan, first, now, commanded)
        verdict = Verdict(
            Status.SHADOW if dry else Status.APPLIED, first, first, self._clipped(plan, first),
            gap, margin_ns, plan.targets_ns[first],
        )  # fmt: skip
        if gap > (self.rules.start_gap if after_hold else self.rules.seam):
            return Verdict(Status.SEAM, -1, first, verdict.clipped, gap, margin_ns)
        if not dry:
            self._splice(plan, first, now, commanded, appended=appended)
        return verdict

    def _refusal(self, plan: Plan, now: int, held_ns: int) -> Status | None:
        if plan.chunk <= self._last_chunk:
            same = plan.chunk == self._last_chunk
            return Status.DUPLICATE if same else Status.OUT_OF_ORDER
        if not plan.targets_ns:
            return None
        if now - plan.obs_ns > min(plan.age_limit_ns, self.rules.observation_ns):
            return Status.OLD_OBS
        if held_ns and plan.obs_ns <= held_ns:
            return Status.BEFORE_HOLD
        if now > plan.valid_until_ns:
            return Status.ALL_LATE
        return None

    def _first_kept(self, plan: Plan, now: int) -> int:
        """Number of the first row that is not late; for `append` the first one past the queue."""
        soonest_ns = now + self.rules.lead_ns + self.rules.latency_ns
        if plan.mode is Mode.APPEND and self.queued:
            soonest_ns = max(soonest_ns, self.queued_until_ns + 1)
        for number, target_ns in enumerate(plan.targets_ns):
            if target_ns >= soonest_ns:
                return number
        return len(plan.targets_ns)

    def _gap(self, plan: Plan, first: int, now: int, commanded: Sequence[float]) -> float:
        """How far the plan is, at this moment, from where the arm has been told to be."""
        here = plan.rows[first]
        if first > 0:
            before_ns, after_ns = plan.targets_ns[first - 1], plan.targets_ns[first]
            at_ns = min(after_ns, max(before_ns, now + self.rules.latency_ns))
            share = (at_ns - before_ns) / (after_ns - before_ns)
            here = [a + (b - a) * share for a, b in zip(plan.rows[first - 1], here, strict=True)]
        gaps = [abs(a - b) for a, b in zip(here, commanded, strict=True) if not isnan(a)]
        return max(gaps, default=0.0)

    def _clipped(self, plan: Plan, first: int) -> int:
        low, high = self.rules.low, self.rules.high
        if plan.velocity:
            low, high = tuple(-most for most in self.rules.speed), self.rules.speed
        return sum(
            any(v < low[j] or v > high[j] for j, v in enumerate(row)) for row in plan.rows[first:]
        )

    def _splice(
        self, plan: Plan, first: int, now: int, commanded: Sequence[float], *, appended: bool
    ) -> None:
        targets_ns = list(plan.targets_ns[first:])
        rows = [list(row) for row in plan.rows[first:]]
        numbers = [(plan.chunk, first + k) for k in range(len(rows))]
        moves = [plan.velocity] * len(rows)
        if appended:
            room = MOST_QUEUED - self.queued
            self._targets_ns = self._targets_ns[self._at :] + targets_ns[:room]
            self._rows = self._rows[self._at :] + rows[:room]
            self._from = self._from[self._at :] + numbers[:room]
            self._moves = self._moves[self._at :] + moves[:room]
        else:
            if plan.mode is Mode.BLEND and self.queued:
                self._blend(targets_ns, rows, plan)
            # From what the arm was really told, at the moment it was told, to the first row.
            self._left_ns, self._left = now + self.rules.latency_ns, list(commanded)
            self._moved_ns = self._left_ns
            self._targets_ns, self._rows, self._from = targets_ns, rows, numbers
            self._moves = moves
        self._at = 0
        self._dt_ns, self._valid_until_ns = plan.dt_ns, plan.valid_until_ns
        self._obs_ns = plan.obs_ns
        self.changes += 1

    def show(self, record: Any) -> None:
        """Write what is ahead into a `queue_dtype` record."""
        count = self.queued
        record["plan"], record["rows"] = self.changes, count
        record["until_ns"] = (
            min(self._valid_until_ns, self._obs_ns + self.rules.observation_ns)
            + self.rules.latency_ns
        )  # in times that goals are due, as the targets
        if count:
            record["target_ns"][:count] = self._targets_ns[self._at :]
            record["velocity"][:count] = self._moves[self._at :]
            record["values"][:count] = self._rows[self._at :]

    def _blend(self, targets_ns: list[int], rows: list[list[float]], plan: Plan) -> None:
        """The first rows, from the plan that was there to the new one, as long as both are
        positions or both velocities."""
        for k in range(min(plan.blend, len(rows))):
            weight = (k + 1) / (plan.blend + 1)
            old = self._planned(targets_ns[k], velocity=plan.velocity)
            if old is None:
                return
            for joint, value in enumerate(rows[k]):
                if not self.rules.stepwise[joint] and not isnan(old[joint]):
                    rows[k][joint] = old[joint] + (value - old[joint]) * weight

    def _planned(self, at_ns: int, *, velocity: bool) -> list[float] | None:
        """The plan at a time; None past its end, and where it is of the other kind."""
        left_ns, left = self._left_ns, self._left
        for k in range(self._at, len(self._targets_ns)):
            right_ns = self._targets_ns[k]
            if self._moves[k] is not velocity:
                return None
            if at_ns <= right_ns:
                if velocity:
                    return self._rows[k]
                return _mix(left, self._rows[k], (at_ns - left_ns) / max(1, right_ns - left_ns))
            left_ns, left = right_ns, self._rows[k]
        return None

    def goal(self, now: int, commanded: Sequence[float]) -> list[float] | None:
        """Where the arm has to be now, NaN for joints that hold; None when nothing valid is left
        (`ended` says why). The list is the same one each time: use it before the next call.

        commanded: the goal that the arm is at; velocities go on from there, so that a limit that
        held the arm back is not caught up with.
        """
        at_ns = now + self.rules.latency_ns
        if (why := self._over(now, at_ns)) is not None:
            self.flush()
            self.ended = why
            return None
        out, since_ns = self._out, self._moved_ns
        self._moved_ns = at_ns
        out[:] = commanded
        while self._at < len(self._targets_ns) and self._targets_ns[self._at] <= at_ns:
            row, target_ns = self._rows[self._at], self._targets_ns[self._at]
            if self._moves[self._at]:
                _move(out, row, target_ns - since_ns)
                row = list(out)
            since_ns = max(since_ns, target_ns)
            self._left_ns, self._left = target_ns, row
            self.chunk, self.index = self._from[self._at]
            self._at += 1
        if self._at == len(self._targets_ns):
            return self._last(at_ns, since_ns)
        self.chunk, self.index = self._from[self._at]
        right_ns, right, left = self._targets_ns[self._at], self._rows[self._at], self._left
        if self._moves[self._at]:
            _move(out, right, at_ns - since_ns)
            return _held(out, right)
        share = max(0.0, (at_ns - self._left_ns) / max(1, right_ns - self._left_ns))
        for joint in range(self._joints):
            start = left[joint]
            # A joint that held until now has no place of its own to come from.
            start = right[joint] if isnan(start) else start
            out[joint] = start + (right[joint] - start) * share
        return out

    def _last(self, at_ns: int, since_ns: int) -> list[float]:
        """Past the last row: its position, or its velocity on the way to zero within one step."""
        out = self._out
        if not self._moves[-1]:
            out[:] = self._left
            return out
        row, end_ns = self._rows[-1], self._targets_ns[-1]
        before, after = (
            max(0.0, 1.0 - (ns - end_ns) / self._dt_ns) for ns in (max(since_ns, end_ns), at_ns)
        )
        _move(out, row, round(self._dt_ns * (before**2 - after**2) / 2))
        return _held(out, row)

    def _over(self, now: int, at_ns: int) -> Event | None:
        """Why nothing may be played any more, None while something may."""
        if not self._targets_ns or at_ns > self._targets_ns[-1] + self._dt_ns:
            return Event.QUEUE_EMPTY
        if now > self._valid_until_ns:
            return Event.CHUNK_EXPIRED
        if now - self._obs_ns > self.rules.observation_ns:
            return Event.OBSERVATION_OLD
        return None


def _move(out: list[float], velocity: Sequence[float], for_ns: int) -> None:
    """Move `out` by a velocity, in units per second; NaN leaves a joint where it is."""
    if for_ns > 0:
        for joint, value in enumerate(velocity):
            if not isnan(value):
                out[joint] += value * for_ns / NS_PER_S


def _held(out: list[float], velocity: Sequence[float]) -> list[float]:
    """`out` with NaN for joints that the policy leaves alone."""
    for joint, value in enumerate(velocity):
        if isnan(value):
            out[joint] = value
    return out


def _mix(left: Sequence[float], right: Sequence[float], share: float) -> list[float]:
    share = min(1.0, max(0.0, share))
    return [a + (b - a) * share for a, b in zip(left, right, strict=True)]
