"""Servo steps <-> dataset units, bit-exact with LeRobot, all joints at once.

Every expression keeps LeRobot's order of operations in float64: another order rounds differently,
and truncation to whole steps turns a rounding error into a step.
"""

import numpy as np
from numpy.typing import NDArray

from recd.daemon.arms.models import STS3215_STEPS_PER_TURN, Unit

F8 = NDArray[np.float64]
I4 = NDArray[np.int32]


class Normalizer:
    """Steps and units of one arm.

    range_min, range_max: servo steps [n]; inverted: LeRobot's drive_mode [n]; units: per joint.
    Degrees are neither clamped nor inverted, ranges are both: that is LeRobot's rule. The work
    arrays are bound once, so that a call allocates nothing; results live in `out`.
    """

    def __init__(
        self,
        range_min: tuple[int, ...],
        range_max: tuple[int, ...],
        *,
        inverted: tuple[bool, ...],
        units: tuple[Unit, ...],
    ) -> None:
        self.joints = len(units)
        self._low = np.array(range_min, dtype=np.float64)
        self._high = np.array(range_max, dtype=np.float64)
        self._span = self._high - self._low
        self._mid = (self._low + self._high) / 2
        self._degrees = np.array([unit is Unit.DEGREES for unit in units])
        self._range = ~self._degrees
        centred = np.array([unit is Unit.RANGE_M100_100 for unit in units])
        self._scale = np.where(centred, 200.0, 100.0)
        self._shift = np.where(centred, 100.0, 0.0)
        self._inverted = np.array(inverted) & self._range
        # LeRobot: -v for -100..100 and 100 - v for 0..100, which is `mirror - v` for both.
        self._mirror = np.where(centred, 0.0, 100.0)
        self._lowest = -self._shift
        self._work = np.empty(self.joints, dtype=np.float64)
        self._other = np.empty(self.joints, dtype=np.float64)

    def to_units(self, raw: I4, out: F8) -> F8:
        """Servo steps [n] -> units [n], written to `out`."""
        work = self._work
        np.subtract(raw, self._mid, out=out)
        np.multiply(out, 360.0, out=out)
        np.divide(out, STS3215_STEPS_PER_TURN - 1, out=out)
        np.clip(raw, self._low, self._high, out=work)
        np.subtract(work, self._low, out=work)
        np.divide(work, self._span, out=work)
        np.multiply(work, self._scale, out=work)
        np.subtract(work, self._shift, out=work)
        np.subtract(self._mirror, work, out=work, where=self._inverted)
        np.copyto(out, work, where=self._range)
        return out

    def to_steps(self, units: F8, out: I4) -> I4:
        """Units [n] -> servo steps [n] (truncated towards zero), written to `out`."""
        work, other = self._work, self._other
        np.copyto(other, units)
        np.subtract(self._mirror, other, out=other, where=self._inverted)
        np.clip(other, self._lowest, 100.0, out=other)
        np.add(other, self._shift, out=other)
        np.divide(other, self._scale, out=other)
        np.multiply(other, self._span, out=other)
        np.add(other, self._low, out=other)
        np.multiply(units, STS3215_STEPS_PER_TURN - 1, out=work)
        np.divide(work, 360.0, out=work)
        np.add(work, self._mid, out=work)
        np.copyto(work, other, where=self._range)
        np.trunc(work, out=work)
        np.copyto(out, work, casting="unsafe")
        return out

    def position_limits(self) -> tuple[F8, F8]:
        """Lowest and highest units [n] inside the calibrated range (order after inversion)."""
        low = self.to_units(self._low.astype(np.int32), np.empty(self.joints))
        high = self.to_units(self._high.astype(np.int32), np.empty(self.joints))
        return np.minimum(low, high), np.maximum(low, high)

    def step_size(self) -> F8:
        """Units per servo step [n]."""
        per_range = self._scale / self._span
        return np.where(self._degrees, 360.0 / (STS3215_STEPS_PER_TURN - 1), per_range)
