"""Servo steps <-> dataset units, bit-exact with LeRobot: its own arithmetic on Python floats.

One object per joint. For six joints plain floats are eight times faster than numpy vectors
(docs/arms.md), and another order of operations would round to another step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from recd.daemon.arms.models import STS3215_STEPS_PER_TURN, Unit

_LAST_STEP = STS3215_STEPS_PER_TURN - 1


class Scale(Protocol):
    """Steps and units of one joint.

    low, high: smallest and largest position in units; step: units per servo step; turn: units per
    whole turn for joints whose range is the whole turn, inf for others.
    """

    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def step(self) -> float: ...
    @property
    def turn(self) -> float: ...

    def to_units(self, steps: int) -> float:
        """Position in units."""

    def to_steps(self, units: float) -> int:
        """Servo steps, truncated towards zero as LeRobot does."""


@dataclass(frozen=True, slots=True)
class DegreesScale:
    """Degrees from the middle of the range. Neither clamped nor inverted: LeRobot's rule."""

    range_min: int
    range_max: int

    @property
    def low(self) -> float:
        return self.to_units(self.range_min)

    @property
    def high(self) -> float:
        return self.to_units(self.range_max)

    @property
    def step(self) -> float:
        return 360 / _LAST_STEP

    @property
    def turn(self) -> float:
        whole = self.range_max - self.range_min >= _LAST_STEP
        return self.step * STS3215_STEPS_PER_TURN if whole else float("inf")

    def to_units(self, steps: int) -> float:
        mid = (self.range_min + self.range_max) / 2
        return (steps - mid) * 360 / _LAST_STEP

    def to_steps(self, units: float) -> int:
        mid = (self.range_min + self.range_max) / 2
        return int((units * _LAST_STEP / 360) + mid)


@dataclass(frozen=True, slots=True)
class RangeScale:
    """A share of the range: -100..100 (width 200, shift 100) or 0..100 (width 100, shift 0).

    Clamped both ways. inverted: LeRobot's drive_mode; the value is mirrored inside its range.
    """

    range_min: int
    range_max: int
    width: int
    shift: int
    inverted: bool

    @property
    def low(self) -> float:
        return float(-self.shift)

    @property
    def high(self) -> float:
        return 100.0

    @property
    def step(self) -> float:
        return self.width / (self.range_max - self.range_min)

    @property
    def turn(self) -> float:
        whole = self.shift and self.range_max - self.range_min >= _LAST_STEP
        return self.step * STS3215_STEPS_PER_TURN if whole else float("inf")

    def to_units(self, steps: int) -> float:
        inside = min(self.range_max, max(self.range_min, steps))
        share = (inside - self.range_min) / (self.range_max - self.range_min)
        units = share * self.width - self.shift
        return (100 - self.shift) - units if self.inverted else units

    def to_steps(self, units: float) -> int:
        if self.inverted:
            units = (100 - self.shift) - units
        inside = min(100.0, max(float(-self.shift), units))
        share = (inside + self.shift) / self.width
        return int(share * (self.range_max - self.range_min) + self.range_min)


def joint_scale(range_min: int, range_max: int, *, unit: Unit, inverted: bool) -> Scale:
    """Scale of one calibrated joint."""
    match unit:
        case Unit.DEGREES:
            return DegreesScale(range_min, range_max)
        case Unit.RANGE_M100_100:
            return RangeScale(range_min, range_max, 200, 100, inverted)
        case Unit.RANGE_0_100:
            return RangeScale(range_min, range_max, 100, 0, inverted)


Scales = tuple[Scale, ...]


def units_of(scales: Scales, steps: Sequence[int]) -> list[float]:
    """Positions of all joints in units."""
    return [scale.to_units(step) for scale, step in zip(scales, steps, strict=True)]
