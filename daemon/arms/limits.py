"""Limits on a joint's goal: range, distance from the arm, speed, growth of speed. Pure functions.

Values in dataset units and units per control period. Speed binds last, so that two goals in a row
never lie further apart than one period allows, whatever the other limits say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isnan

from recd.config.errors import ConfigError, ConfigProblem

CLIP_TOLERANCE = 0.2
"""Units by which a goal may differ from its request before it counts as clipped: two steps."""


@dataclass(frozen=True, slots=True)
class JointLimits:
    """low, high: position; relative: distance from the present position (inf: none); step: largest
    change per period; step_growth: by how much a change may exceed the one before; glide_step:
    largest change while gliding in.
    """

    low: float
    high: float
    relative: float
    step: float
    step_growth: float
    glide_step: float


def glide_share(periods: int, glide_periods: int) -> float:
    """How far a hand-over has come, `periods` after it began: 0 gliding, 1 full speed.

    The glide's own speed first, then for as long again rising to the full one: there is no moment
    at which the follower may suddenly catch up.
    """
    return min(1.0, max(0.0, (periods - glide_periods) / glide_periods))


def speed_bound(limits: JointLimits, share: float) -> float:
    """Largest change per period at that share of a hand-over."""
    return limits.glide_step + (limits.step - limits.glide_step) * share


def limit_goal(
    limits: JointLimits,
    requested: float,
    *,
    present: float,
    relative: float,
    previous: float,
    change: float,
    bound: float,
) -> float:
    """Next goal of one joint.

    present: NaN where unknown (then there is no relative limit); relative: limits.relative or
    tighter; previous: goal of the period before; change: by which it had changed; bound: largest
    change now. Speed may grow only by `step_growth` a period and may always shrink: a stop is
    never delayed. A goal that no limit touches comes out bit for bit: it must truncate to
    LeRobot's step.
    """
    goal = min(limits.high, max(limits.low, requested))
    if relative != inf and not isnan(present):
        goal = min(present + relative, max(present - relative, goal))
    along = change if goal > previous else -change
    most = min(bound, max(0.0, along) + limits.step_growth)
    return min(previous + most, max(previous - most, goal))


def relative_limits(
    limit: float | Mapping[str, float] | None, names: tuple[str, ...], *, key: str
) -> tuple[float, ...]:
    """LeRobot's max_relative_target (number or one per joint) per joint; inf where there is none.

    Raises ConfigError, as LeRobot does, when a map does not name exactly the joints.
    """
    if limit is None:
        return (inf,) * len(names)
    if not isinstance(limit, Mapping):
        return (float(limit),) * len(names)
    if set(limit) != set(names):
        found = ", ".join(sorted(limit))
        raise ConfigError([ConfigProblem(key, "", f"exactly the joints {', '.join(names)}", found)])
    return tuple(float(limit[name]) for name in names)


class Seam:
    """Follows a full-turn joint over its seam: a leader at +181 degrees reports -179.

    Without it the follower would turn back by a whole turn; with it the joint stops at its limit
    until the leader comes back. `reset` at every hand-over; the leader's own reading stays as is.
    """

    __slots__ = ("_last", "_offset", "_turn")

    def __init__(self, turn: float) -> None:
        """turn: units per turn, inf for a joint that cannot pass a seam."""
        self._turn = turn
        self.reset()

    def reset(self) -> None:
        self._offset = 0.0
        self._last = float("nan")

    def follow(self, reading: float) -> float:
        """`reading` continued over the seam."""
        jump = reading - self._last
        self._last = reading
        if jump > self._turn / 2:
            self._offset -= self._turn
        elif jump < -self._turn / 2:
            self._offset += self._turn
        return reading + self._offset
