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


_BAD = np.uint8(ValueFlag.STALE | ValueFlag.NONE)


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


def room(rows: int, joints: int) -> JointAlignment:
    """Arrays for `rows` rows, to be filled by `align_joints(..., out=)`, as often as wanted."""
    shape = (rows, joints)
    return JointAlignment(
        values=np.empty(shape, np.float32),
        valid=np.empty(shape, np.bool_),
        source=np.empty(shape, np.int64),
        error_ns=np.empty(shape, np.int64),
        flags=np.empty(shape, np.uint8),
    )


def align_joints(
    times_ns: Int64s,
    values: npt.NDArray[np.float32],
    valid: npt.NDArray[np.bool_],
    ticks_ns: Int64s,
    *,
    rules: Sequence[JointRule],
    reach_ns: int,
    wraps: Sequence[Wrap | None] = (),
    out: JointAlignment | None = None,
) -> JointAlignment:
    """Values of J joints at K rows from N samples, by compiled code, in one pass over both.

    times_ns: int64 [N], never falling; values: float32 [N, J]; valid: bool [N, J]; ticks_ns:
    int64 [K], never falling. rules: one per joint; wraps: none, or one per joint (None: does not
    turn). reach_ns: two neighbours further apart are not interpolated between (the nearest stands
    in, STALE), and a single sample further off is STALE. out: from `room(K, J)`, overwritten and
    returned. ValueError when the shapes disagree.
    """
    count, joints, rows = len(times_ns), len(rules), len(ticks_ns)
    if values.shape != (count, joints) or valid.shape != values.shape:
        raise ValueError(
            f"expected values and valid of shape ({count}, {joints}), "
            f"got {values.shape} and {valid.shape}"
        )
    if wraps and len(wraps) != joints:
        raise ValueError(f"expected {joints} wraps, got {len(wraps)}")
    made = room(rows, joints) if out is None else out
    if made.values.shape != (rows, joints):
        raise ValueError(f"expected out of shape ({rows}, {joints}), got {made.values.shape}")
    times = np.ascontiguousarray(times_ns, dtype=np.int64)
    ticks = np.ascontiguousarray(ticks_ns, dtype=np.int64)
    samples = np.ascontiguousarray(values, dtype=np.float32)
    usable = np.ascontiguousarray(valid).view(np.uint8)
    words = np.full((passes.JOINT_WORDS, joints), -1, np.int64)
    words[0] = rules
    turns = np.array(
        [(wrap.turn, wrap.low) if wrap else (0.0, 0.0) for wrap in wraps or [None] * joints]
    )
    aot.load(KERNELS)["align_samples"](
        times.ctypes.data, samples.ctypes.data, usable.ctypes.data, count,
        ticks.ctypes.data, rows, words.ctypes.data, turns.ctypes.data, joints,
        not usable.all(), reach_ns, np.nan, made.values.ctypes.data, made.source.ctypes.data,
        made.error_ns.ctypes.data, made.flags.ctypes.data,
    )  # fmt: skip
    bad = np.bitwise_and(made.flags, _BAD, out=made.valid.view(np.uint8))
    np.equal(bad, 0, out=made.valid)
    return made


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
