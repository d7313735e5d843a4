"""Servo steps <-> dataset units, bit-exact with LeRobot: its own arithmetic on Python floats.

One object per joint; its arithmetic is in passes.py, for the control loop's machine code as well.
Another order of operations would round to another step.
"""

from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from typing import Protocol

from recd.daemon.arms.models import STS3215_STEPS_PER_TURN, Unit
from recd.daemon.arms.passes import doubles, steps_at, units_at

_LAST_STEP = STS3215_STEPS_PER_TURN - 1


class Scale(Protocol):
    """Steps and units of one joint.

    low, high: smallest and largest position in units; step: units per servo step; turn: units per
    whole turn for joints whose range is the whole turn, inf for others; row: its values for the
    columns of passes.py.
    """

    @property
    def row(self) -> tuple[float, ...]: ...
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


class _Tabled:
    """A scale by its row of passes.py."""

    __slots__ = ()

    @property
    def row(self) -> tuple[float, ...]:
        raise NotImplementedError

    def to_units(self, steps: int) -> float:
        return float(units_at(self.row, 1, 0, steps))

    def to_steps(self, units: float) -> int:
        return int(steps_at(self.row, 1, 0, units))


@dataclass(frozen=True, slots=True)
class DegreesScale(_Tabled):
    """Degrees from the middle of the range. Neither clamped nor inverted: LeRobot's rule."""

    range_min: int
    range_max: int

    @property
    def row(self) -> tuple[float, ...]:
        return 0.0, (self.range_min + self.range_max) / 2, 360.0, float(_LAST_STEP), 0.0, 0.0

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


@dataclass(frozen=True, slots=True)
class RangeScale(_Tabled):
    """A share of the range: -100..100 (width 200, shift 100) or 0..100 (width 100, shift 0).

    Clamped both ways. inverted: LeRobot's drive_mode; the value is mirrored inside its range.
    """

    range_min: int
    range_max: int
    width: int
    shift: int
    inverted: bool

    @property
    def row(self) -> tuple[float, ...]:
        kind = -1.0 if self.inverted else 1.0
        return kind, *map(float, (self.range_min, self.range_max, self.width, self.shift, 100))

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


def scale_table(scales: Scales) -> MutableSequence[float]:
    """The scales of all joints as columns for passes.py."""
    return doubles(
        value for column in zip(*(s.row for s in scales), strict=True) for value in column
    )
