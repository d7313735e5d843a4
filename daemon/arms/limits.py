"""Limits on a goal, all joints at once: range, distance from the arm, speed, growth of speed.

Pure functions over preallocated float64 vectors in dataset units. Speed binds last, so that two
goals in a row never lie further apart than one period allows, whatever the other limits say.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recd.config.errors import ConfigError, ConfigProblem

F8 = NDArray[np.float64]

CLIP_TOLERANCE = 0.2
"""Units by which a goal may differ from its request before it counts as clipped: two steps."""


@dataclass(frozen=True, slots=True)
class GoalLimits:
    """Vectors [n] in units and units per period.

    low, high: position; relative: distance from the present position (inf: none); step: largest
    change per period; step_growth: by how much a change may exceed the one before; glide_step:
    largest change while gliding in; glide_periods: how long the glide lasts.
    """

    low: F8
    high: F8
    relative: F8
    step: F8
    step_growth: F8
    glide_step: F8
    glide_periods: int

    def glide_bound(self, periods: int, out: F8) -> F8:
        """Largest change `periods` after a hand-over.

        First the glide's own speed, then for as long again rising to the full one: no moment at
        which the follower may suddenly catch up.
        """
        share = (periods - self.glide_periods) / self.glide_periods
        np.subtract(self.step, self.glide_step, out=out)
        np.multiply(out, min(1.0, max(0.0, share)), out=out)
        np.add(out, self.glide_step, out=out)
        return np.minimum(out, self.step, out=out)

    def gliding(self, periods: int) -> bool:
        """True while the glide still binds."""
        return periods < 2 * self.glide_periods


def relative_vector(
    limit: float | Mapping[str, float] | None, names: tuple[str, ...], *, key: str
) -> F8:
    """LeRobot's max_relative_target (number or one per joint) as a vector; inf where there is none.

    Raises ConfigError, as LeRobot does, when a map does not name exactly the joints.
    """
    if limit is None:
        return np.full(len(names), np.inf)
    if not isinstance(limit, Mapping):
        return np.full(len(names), float(limit))
    if set(limit) != set(names):
        problem = ConfigProblem(key, "", f"exactly the joints {', '.join(names)}",
                                ", ".join(sorted(limit)))  # fmt: skip
        raise ConfigError([problem])
    return np.array([float(limit[name]) for name in names])


def limit_goal(
    limits: GoalLimits,
    requested: F8,
    *,
    present: F8,
    relative: F8,
    previous: F8,
    change: F8,
    bound: F8,
    work: F8,
    out: F8,
) -> F8:
    """Next goal [n], written to `out`; `change` is updated to what it changes.

    present: NaN where unknown (no relative limit there); relative: limits.relative or tighter;
    previous: goal of the period before; change: last change of goal; bound: largest change now.
    Speed may grow only by `step_growth` a period and may always shrink: a stop is never delayed.
    A goal that no limit touches comes out bit for bit: it must truncate to LeRobot's step.
    """
    np.clip(requested, limits.low, limits.high, out=out)
    np.subtract(present, relative, out=work)
    np.fmax(out, work, out=out)
    np.add(present, relative, out=work)
    np.fmin(out, work, out=out)
    np.subtract(out, previous, out=work)
    np.sign(work, out=work)
    np.multiply(work, change, out=work)
    np.maximum(work, 0.0, out=work)
    np.add(work, limits.step_growth, out=work)
    np.minimum(work, bound, out=work)
    np.subtract(previous, work, out=change)
    np.maximum(out, change, out=out)
    np.add(previous, work, out=change)
    np.minimum(out, change, out=out)
    np.subtract(out, previous, out=change)
    return out


class Unwrapper:
    """Follows a full-turn joint over its seam: a leader at +181 degrees reports -179.

    Without it the follower would turn back by a whole turn; with it the joint stops at its limit
    until the leader comes back. `reset` at every hand-over; the leader's own reading stays as is.
    """

    def __init__(self, turn: F8) -> None:
        """turn: units per turn [n], inf for joints that cannot pass a seam."""
        self._turn = turn
        self._passable = np.isfinite(turn)
        self._half = turn / 2
        self._offset = np.zeros(len(turn))
        self._last = np.full(len(turn), np.nan)
        self._jump = np.empty(len(turn))

    def reset(self) -> None:
        self._offset[:] = 0.0
        self._last[:] = np.nan

    def follow(self, reading: F8, out: F8) -> F8:
        """`reading` [n] continued over the seam, written to `out`."""
        np.subtract(reading, self._last, out=self._jump)
        np.copyto(self._last, reading)
        if self._passable.any():
            np.subtract(self._offset, self._turn, out=self._offset,
                        where=self._passable & (self._jump > self._half))  # fmt: skip
            np.add(self._offset, self._turn, out=self._offset,
                   where=self._passable & (self._jump < -self._half))  # fmt: skip
        return np.add(reading, self._offset, out=out)
