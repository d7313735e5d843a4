"""Which joint value and which action belong to which row, from samples of any regular or irregular
rate. Nothing is invented silently: a value without evidence near its row is there but not valid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

from recd.daemon.align import passes
from recd.daemon.align.cameras import KERNELS
from recd.shm import aot

Int64s = npt.NDArray[np.int64]


class JointRule(IntEnum):
    """How the value of one joint is found."""

    HOLD = passes.HOLD  # the newest at or before the row: what was in force. Actions.
    NEAREST = passes.NEAREST  # the one next in time, the older one at equal distance. Grippers.
    INTERPOLATE = passes.INTERPOLATE  # on the straight line between both neighbours. Joints.


class ValueFlag(IntFlag):
    """How a value came about. Neither STALE nor NONE: it is valid."""

    STALE = passes.STALE  # the sample is further off than the reach, or was not yet in force
    INTERPOLATED = passes.INTERPOLATED
    NONE = passes.NONE  # there is no valid sample at all; the value is NaN


@dataclass(frozen=True, slots=True)
class Wrap:
    """A joint that turns without end: `turn` is one turn, values lie in [low, low + turn)."""

    turn: float
    low: float


@dataclass(frozen=True, slots=True)
class JointAlignment:
    """Values at the rows; every array is [K, J].

    values: float32, NaN where there is none; valid: bool; source: int64 position of the sample used
    (the older neighbour when interpolated), -1 none; error_ns: int64 sample time less row time, for
    interpolated values that of the neighbour further off; flags: uint8, ValueFlag bits.
    """

    values: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    source: Int64s
    error_ns: Int64s
    flags: npt.NDArray[np.uint8]


def align_joints(
    times_ns: Int64s,
    values: npt.NDArray[np.float32],
    valid: npt.NDArray[np.bool_],
    ticks_ns: Int64s,
    *,
    rules: Sequence[JointRule],
    reach_ns: int,
    wraps: Sequence[Wrap | None] = (),
) -> JointAlignment:
    """Values of J joints at K rows from N samples, by compiled code.

    times_ns: int64 [N], never falling; values: float32 [N, J]; valid: bool [N, J]; ticks_ns:
    int64 [K], never falling. rules: one per joint; wraps: none, or one per joint (None: does not
    turn). reach_ns: two neighbours further apart are not interpolated between (the nearest stands
    in, STALE), and a single sample further off is STALE. ValueError when the shapes disagree.
    """
    joints = len(rules)
    if values.shape != (len(times_ns), joints) or valid.shape != values.shape:
        raise ValueError(
            f"expected values and valid of shape ({len(times_ns)}, {joints}), "
            f"got {values.shape} and {valid.shape}"
        )
    if wraps and len(wraps) != joints:
        raise ValueError(f"expected {joints} wraps, got {len(wraps)}")
    times = np.ascontiguousarray(times_ns, dtype=np.int64)
    ticks = np.ascontiguousarray(ticks_ns, dtype=np.int64)
    samples = np.ascontiguousarray(values, dtype=np.float32)
    usable = np.ascontiguousarray(valid, dtype=np.uint8)
    shape = (len(ticks), joints)
    out = np.full(shape, np.nan, dtype=np.float32)
    source, error = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    flags = np.zeros(shape, dtype=np.uint8)
    align_samples = aot.load(KERNELS)["align_samples"]
    for joint, rule in enumerate(rules):
        wrap = (wraps[joint] if wraps else None) or Wrap(0.0, 0.0)
        align_samples(
            times.ctypes.data, samples.ctypes.data, usable.ctypes.data, len(times),
            ticks.ctypes.data, len(ticks), joint, joints, int(rule), reach_ns, wrap.turn, wrap.low,
            out.ctypes.data, source.ctypes.data, error.ctypes.data, flags.ctypes.data,
        )  # fmt: skip
    bad = int(ValueFlag.STALE | ValueFlag.NONE)
    return JointAlignment(out, (flags & bad) == 0, source, error, flags)


def hold_actions(
    times_ns: Int64s,
    values: npt.NDArray[np.float32],
    valid: npt.NDArray[np.bool_],
    ticks_ns: Int64s,
    *,
    reach_ns: int,
) -> JointAlignment:
    """The action in force at each row: `align_joints` with HOLD for every column."""
    rules = [JointRule.HOLD] * values.shape[1]
    return align_joints(times_ns, values, valid, ticks_ns, rules=rules, reach_ns=reach_ns)
