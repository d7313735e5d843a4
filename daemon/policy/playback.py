"""The plan of one pair of arms, played at the control rate. Pure: no I/O, time is an argument.

A plan is what is left of the newest chunks, by target time. Rows that are too late are never
played; between rows the goal moves linearly; when nothing valid is left there is no goal, and why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan

from recd.config.policy_wire import MOST_STEPS, Mode, Status
from recd.daemon.arms.motion import Event

MOST_QUEUED = 2 * MOST_STEPS
"""Rows that may be queued: appended chunks beyond that replace nothing and are cut."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Of one pair. lead_ns: a row due sooner is late; seam: largest distance, in units, between a
    plan and the goal that the arm is at, start_gap: the same while the arm holds and would glide
    in; latency_ns: how much earlier a goal is sent than it is due; observation_ns: age at which an
    observation no longer justifies movement; low, high: range of each joint; stepwise: joints that
    are never blended (the gripper).
    """

    lead_ns: int
    seam: float
    start_gap: float
    latency_ns: int
    observation_ns: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    stepwise: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """One chunk for one pair: absolute targets, NaN where a joint holds.

    chunk: the policy's number; obs_ns: time of its observation; dt_ns: step, how long the last
    row holds; valid_until_ns: nothing of it is played after; age_limit_ns: how old the observation
    may be when the chunk comes; blend: rows over which to blend (mode blend).
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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a chunk. first_applied: its first row that is played, -1 none; late: rows
    dropped for their time; clipped: kept rows beyond the range of some joint; splice_gap: distance
    (units) from the commanded goal to the plan now; margin_ns: how long the plan before it would
    have lasted; first_goal_ns: when the first kept row is due.
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
    event that says why there is no goal any more.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.chunk = self.index = -1
        self.ended = Event.QUEUE_EMPTY
        self._joints = len(rules.low)
        self._out = [0.0] * self._joints
        self._last_chunk = -1
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
        self._at = 0
        self._left_ns = 0
        self._left: list[float] = [nan] * self._joints
        self._dt_ns = self._valid_until_ns = self._obs_ns = 0
        self.ended = Event.QUEUE_EMPTY
        self.chunk = self.index = -1

    @property
    def queued_until_ns(self) -> int:
        """Target time of the last row, 0 when nothing is planned."""
        return self._targets_ns[-1] if self._targets_ns else 0

    @property
    def queued(self) -> int:
        """Rows that are still ahead."""
        return len(self._targets_ns) - self._at

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
        gap = 0.0 if appended else self._gap(plan, first, now, commanded)
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
        return sum(
            any(v < low[j] or v > high[j] for j, v in enumerate(row)) for row in plan.rows[first:]
        )

    def _splice(
        self, plan: Plan, first: int, now: int, commanded: Sequence[float], *, appended: bool
    ) -> None:
        targets_ns = list(plan.targets_ns[first:])
        rows = [list(row) for row in plan.rows[first:]]
        numbers = [(plan.chunk, first + k) for k in range(len(rows))]
        if appended:
            room = MOST_QUEUED - self.queued
            self._targets_ns = self._targets_ns[self._at :] + targets_ns[:room]
            self._rows = self._rows[self._at :] + rows[:room]
            self._from = self._from[self._at :] + numbers[:room]
        else:
            if plan.mode is Mode.BLEND and self.queued:
                self._blend(targets_ns, rows, plan.blend)
            # From what the arm was really told, at the moment it was told, to the first row.
            self._left_ns, self._left = now + self.rules.latency_ns, list(commanded)
            self._targets_ns, self._rows, self._from = targets_ns, rows, numbers
        self._at = 0
        self._dt_ns, self._valid_until_ns = plan.dt_ns, plan.valid_until_ns
        self._obs_ns = plan.obs_ns

    def _blend(self, targets_ns: list[int], rows: list[list[float]], count: int) -> None:
        """The first `count` rows, from the plan that was there to the new one."""
        for k in range(min(count, len(rows))):
            weight = (k + 1) / (count + 1)
            old = self._between(targets_ns[k])
            if old is None:
                return
            for joint, value in enumerate(rows[k]):
                if not self.rules.stepwise[joint] and not isnan(old[joint]):
                    rows[k][joint] = old[joint] + (value - old[joint]) * weight

    def _between(self, at_ns: int) -> list[float] | None:
        """The plan at a time, None past its end."""
        left_ns, left = self._left_ns, self._left
        for k in range(self._at, len(self._targets_ns)):
            right_ns = self._targets_ns[k]
            if at_ns <= right_ns:
                return _mix(left, self._rows[k], (at_ns - left_ns) / max(1, right_ns - left_ns))
            left_ns, left = right_ns, self._rows[k]
        return None

    def goal(self, now: int) -> list[float] | None:
        """Where the arm has to be now, NaN for joints that hold; None when nothing valid is left
        (`ended` says why). The list is the same one each time: use it before the next call.
        """
        at_ns = now + self.rules.latency_ns
        if (why := self._over(now, at_ns)) is not None:
            self.flush()
            self.ended = why
            return None
        while self._at < len(self._targets_ns) and self._targets_ns[self._at] <= at_ns:
            self._left_ns, self._left = self._targets_ns[self._at], self._rows[self._at]
            self.chunk, self.index = self._from[self._at]
            self._at += 1
        out = self._out
        if self._at == len(self._targets_ns):
            out[:] = self._left
            return out
        self.chunk, self.index = self._from[self._at]
        right_ns, right, left = self._targets_ns[self._at], self._rows[self._at], self._left
        share = max(0.0, (at_ns - self._left_ns) / max(1, right_ns - self._left_ns))
        for joint in range(self._joints):
            start = left[joint]
            # A joint that held until now has no place of its own to come from.
            start = right[joint] if isnan(start) else start
            out[joint] = start + (right[joint] - start) * share
        return out

    def _over(self, now: int, at_ns: int) -> Event | None:
        """Why nothing may be played any more, None while something may."""
        if not self._targets_ns or at_ns > self._targets_ns[-1] + self._dt_ns:
            return Event.QUEUE_EMPTY
        if now > self._valid_until_ns:
            return Event.CHUNK_EXPIRED
        if now - self._obs_ns > self.rules.observation_ns:
            return Event.OBSERVATION_OLD
        return None


def _mix(left: Sequence[float], right: Sequence[float], share: float) -> list[float]:
    share = min(1.0, max(0.0, share))
    return [a + (b - a) * share for a, b in zip(left, right, strict=True)]
