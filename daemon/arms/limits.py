"""Limits on a joint's goal: range, distance from the arm, speed, growth of speed. Pure.

Values in dataset units and units per control period; what they do to a goal is passes.limited.
Speed binds last there, so that two goals in a row never lie further apart than one period allows,
whatever the other limits say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

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
