"""Which joint value and which action belong to which row, from samples of any regular or irregular
rate. Nothing is invented silently: a value without evidence near its row is there but not valid.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import lru_cache
from itertools import accumulate, chain
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.daemon.align import passes
from recd.daemon.align.cameras import KERNELS
from recd.shm import aot

Int64s = npt.NDArray[np.int64]
Memory = npt.NDArray[np.uint8]


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
    """Values at the rows, and what is known of each; all but the `shared` ones are [K, J].

    values: float32, NaN where there is none. What is known is stored once a row for all joints that
    share it, [K, C]: shared_source: int64 position of the sample used (the older neighbour when
    interpolated), -1 none; shared_error_ns: int64 sample time less row time, for interpolated
    values that of the neighbour further off; shared_flags: uint8, ValueFlag bits. column: int64
    [J], the place of a joint among the C. The properties are copies, one entry a joint.
    """

    values: npt.NDArray[np.float32]
    shared_source: Int64s
    shared_error_ns: Int64s
    shared_flags: npt.NDArray[np.uint8]
    column: Int64s

    @property
    def source(self) -> Int64s:
        """int64 [K, J], see shared_source."""
        return self.shared_source.take(self.column, axis=1)

    @property
    def error_ns(self) -> Int64s:
        """int64 [K, J], see shared_error_ns."""
        return self.shared_error_ns.take(self.column, axis=1)

    @property
    def flags(self) -> npt.NDArray[np.uint8]:
        """uint8 [K, J], ValueFlag bits."""
        return self.shared_flags.take(self.column, axis=1)

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        """bool [K, J]: neither STALE nor NONE."""
        return (self.shared_flags & _BAD == 0).take(self.column, axis=1)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Joints by column as passes.align_samples reads them, and where that lies in memory."""

    words: Int64s
    turns: npt.NDArray[np.float64]
    column: Int64s
    columns: int
    at: int
    turns_at: int


@lru_cache(maxsize=64)
def _plan(rules: bytes, wraps: tuple[Wrap | None, ...], holes: bool) -> _Plan:
    """With holes each joint has a column of its own, else all joints of a rule share one."""
    keys = list(range(len(rules))) if holes else list(rules)
    kinds = sorted(set(keys), key=keys.index)
    joints = [[joint for joint, key in enumerate(keys) if key == kind] for kind in kinds]
    words = np.array(
        [*(rules[some[0]] for some in joints), *accumulate(map(len, joints)), *chain(*joints)],
        np.int64,
    )
    turns = np.array([(wrap.turn, wrap.low) if wrap else (0.0, 0.0) for wrap in wraps], np.float64)
    column = np.array([kinds.index(key) for key in keys], np.int64)
    column.setflags(write=False)  # stands in every result
    return _Plan(words, turns, column, len(kinds), words.ctypes.data, turns.ctypes.data)


def room(rows: int, joints: int) -> Memory:
    """Memory for `rows` rows, to be filled by `align_joints(..., out=)`, as often as wanted."""
    return np.empty(_BLOCK_BYTES + joints * (_NEARBY_BYTES + rows * _VALUE_BYTES), np.uint8)


# Work memory of passes.align_samples: work and shares, then nearby, once a joint.
_SHARES_AT, _BLOCK_BYTES, _NEARBY_BYTES = 3 * 8 * passes.BLOCK, 4 * 8 * passes.BLOCK, 3 * 8
_VALUE_BYTES = 8 + 8 + 4 + 1  # source, error, value, flags


def align_joints(
    times_ns: Int64s,
    values: npt.NDArray[np.float32],
    valid: npt.NDArray[np.bool_] | None,
    ticks_ns: Int64s,
    *,
    rules: Sequence[JointRule],
    reach_ns: int,
    wraps: Sequence[Wrap | None] = (),
    out: Memory | None = None,
) -> JointAlignment:
    """Values of J joints at K rows from N samples, by compiled code, in one pass over both.

    times_ns: int64 [N], never falling; values: float32 [N, J]; valid: bool [N, J], None when all
    are; ticks_ns: int64 [K], never falling. rules: one per joint; wraps: none, or one per joint
    (None: does not turn). reach_ns: two neighbours further apart are not interpolated between (the
    nearest stands in, STALE), and a single sample further off is STALE. out: from `room(K, J)`,
    where the result then lies, until it is used again. ValueError when the shapes disagree.
    """
    count, joints, rows = len(times_ns), len(rules), len(ticks_ns)
    memory = room(rows, joints) if out is None else out
    _check((count, joints), values, valid, wraps)
    work = _BLOCK_BYTES + joints * _NEARBY_BYTES
    if memory.size < work + joints * rows * _VALUE_BYTES:
        raise ValueError(f"expected out from room({rows}, {joints}), got {memory.size} bytes")
    times = np.ascontiguousarray(times_ns, dtype=np.int64)
    ticks = np.ascontiguousarray(ticks_ns, dtype=np.int64)
    samples = np.ascontiguousarray(values, dtype=np.float32)
    usable = None if valid is None or valid.all() else np.ascontiguousarray(valid)
    plan = _plan(bytes(rules), tuple(wraps) or (None,) * joints, usable is not None)
    if usable is not None:
        memory[_BLOCK_BYTES:work] = 0xFF  # -1 of int64
    facts = rows * plan.columns
    error = work + 8 * facts  # the parts of `memory`: work, source, error, value, flags
    value, flags = error + 8 * facts, error + 8 * facts + 4 * rows * joints
    at = _address(memory)
    aot.load(KERNELS)["align_samples"](
        _address(times), _address(samples), 0 if usable is None else _address(usable), count,
        _address(ticks), rows, plan.at, plan.turns_at, plan.columns, joints,
        usable is not None, reach_ns, np.nan,
        at, at + _SHARES_AT, at + _BLOCK_BYTES,
        at + value, at + work, at + error, at + flags,
    )  # fmt: skip
    shape = (rows, plan.columns)
    return JointAlignment(
        np.ndarray((rows, joints), np.float32, memory, value),
        np.ndarray(shape, np.int64, memory, work),
        np.ndarray(shape, np.int64, memory, error),
        np.ndarray(shape, np.uint8, memory, flags),
        plan.column,
    )


def _check(shape: tuple[int, int], values: Any, valid: Any, wraps: Sequence[Any]) -> None:
    """ValueError when the samples do not fit one another."""
    if values.shape != shape or (valid is not None and valid.shape != shape):
        raise ValueError(
            f"expected values and valid of shape {shape}, "
            f"got {values.shape} and {None if valid is None else valid.shape}"
        )
    if wraps and len(wraps) != shape[1]:
        raise ValueError(f"expected {shape[1]} wraps, got {len(wraps)}")


def _address(array: Any) -> int:
    """Where a contiguous array lies, 0.3 us instead of the 1.7 us of `array.ctypes.data`."""
    if array.size and array.flags.writeable:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))
    return int(array.ctypes.data)


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
