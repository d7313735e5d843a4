"""What a control tick computes over the joints of an arm, as plain arithmetic; compiled by
kernels.py.

Called as Python wherever an arm is served outside its loop (no compiler, no cache is needed to let
go of one), as machine code in it: a tick begins with cold caches, and machine code is a tenth of
the memory to fetch (docs/arms.md). Tables are flat, a column of one value per joint after another.
A float constant other than 0.0 would lie beside the code, so each comes in a table.
"""

import ctypes
from collections.abc import Iterable, MutableSequence
from typing import Any, cast

from recd.daemon.arms.registers import (
    TELEMETRY_CURRENT,
    TELEMETRY_LOAD,
    TELEMETRY_STATUS,
    TELEMETRY_TEMPERATURE,
    TELEMETRY_VOLTAGE,
)

# Columns of a scale (float64): KIND is 0 for degrees, 1 for a share of the range, -1 for one
# turned round; what the others are depends on it.
KIND, MIDDLE, WHOLE, LAST = 0, 1, 2, 3
FROM, TO, WIDTH, SHIFT, TOP = 1, 2, 3, 4, 5

# Columns of a goal path: float64 and int64.
LOW, HIGH, RELATIVE, BOUND, GROWTH, TURN, HALF_TURN, GOAL, CHANGE, SENT, READ, OFFSET = range(12)
PATH_COLUMNS = 12
STEPS, MOST, FROZEN = range(3)
PATH_INTEGERS = 3

# Columns of telemetry (int64), in the order of streams.telemetry_dtype.
LOAD, CURRENT, VOLTAGE, TEMPERATURE, STATUS, TORQUE = range(6)
TELEMETRY_COLUMNS = 6
RULE_WORDS = 5

ROOM = 32
"""Bytes of a reply's data that a reading has room for, per joint."""

FRAME_BYTES = 6
"""Bytes of a reply without data: two of header, id, length, error, checksum."""
SOUND_SUM = (0xFF + 0xFF + 0xFF) & 0xFF
"""Low byte of the sum of a whole packet: two header bytes, and the rest with its complement."""
_HEAD_BYTES, _ERROR, _DATA = 4, 4, 5
_LARGEST_ERROR = 0x7F
_SIGN, _MAGNITUDE = 0x8000, 0x7FFF
_LOAD_SIGN, _LOAD_MAGNITUDE = 0x400, 0x3FF
WORD_ENTRY = 3
"""Bytes of a servo in a sync write of one word: its id and the word."""


def doubles(values: Iterable[float]) -> MutableSequence[float]:
    """float64 values at one place in memory, for machine code and for Python."""
    items = list(values)
    return cast(MutableSequence[float], (ctypes.c_double * len(items))(*items))


def doubles_in(memory: memoryview, at: int, count: int) -> MutableSequence[float]:
    """`doubles` over memory that is there, from byte `at` on."""
    return cast(MutableSequence[float], (ctypes.c_double * count).from_buffer(memory, at))


def integers(values: Iterable[int]) -> MutableSequence[int]:
    """int64 values, as `doubles`."""
    items = list(values)
    return cast(MutableSequence[int], (ctypes.c_int64 * len(items))(*items))


def octets(content: bytes) -> bytearray:
    """Bytes, as `doubles`."""
    return cast(bytearray, (ctypes.c_uint8 * len(content))(*content))


def columns(table: Any, joints: int) -> list[Any]:
    """Each column of a table of `doubles` or `integers` as such an array over the same memory."""
    nbytes = ctypes.sizeof(table._type_) * joints
    kind = table._type_ * joints
    return [kind.from_buffer(table, at) for at in range(0, ctypes.sizeof(table), nbytes)]


# --- one joint: steps and units, LeRobot's own arithmetic ----------------------------------------


def units_at(scales: Any, joints: int, joint: int, steps: Any) -> Any:
    """Position in units of a servo position. Bit for bit LeRobot's, by its order of operations."""
    kind = scales[joint]
    if kind == 0.0:
        middle, whole = scales[MIDDLE * joints + joint], scales[WHOLE * joints + joint]
        return (steps - middle) * whole / scales[LAST * joints + joint]
    low, high = scales[FROM * joints + joint], scales[TO * joints + joint]
    shift = scales[SHIFT * joints + joint]
    inside = min(high, max(low, steps))
    units = (inside - low) / (high - low) * scales[WIDTH * joints + joint] - shift
    return (scales[TOP * joints + joint] - shift) - units if kind < 0.0 else units


def steps_at(scales: Any, joints: int, joint: int, units: Any) -> Any:
    """Servo position of a position in units, truncated towards zero as LeRobot does."""
    kind = scales[joint]
    if kind == 0.0:
        last, whole = scales[LAST * joints + joint], scales[WHOLE * joints + joint]
        return int((units * last / whole) + scales[MIDDLE * joints + joint])
    low, shift = scales[FROM * joints + joint], scales[SHIFT * joints + joint]
    top = scales[TOP * joints + joint]
    if kind < 0.0:
        units = (top - shift) - units
    inside = min(top, max(0.0 - shift, units))
    share = (inside + shift) / scales[WIDTH * joints + joint]
    return int(share * (scales[TO * joints + joint] - low) + low)


# --- one joint: where its goal may go ------------------------------------------------------------


def limited(
    low: float, high: float, relative: float, bound: float, growth: float,
    requested: float, present: float, previous: float, change: float,
) -> float:  # fmt: skip
    """Next goal of one joint.

    present: NaN where unknown (then there is no relative limit); relative: distance from it that is
    allowed, inf without; previous: goal of the period before; change: by which it had changed;
    bound: largest change now. Speed may grow only by `growth` a period and may always shrink: a
    stop is never delayed. A goal that no limit touches comes out bit for bit: it must truncate to
    LeRobot's step.
    """
    goal = min(high, max(low, requested))
    if present == present:
        goal = min(present + relative, max(present - relative, goal))
    along = change if goal > previous else 0.0 - change
    most = min(bound, max(0.0, along) + growth)
    return min(previous + most, max(previous - most, goal))


def over_seam(path: Any, joints: int, joint: int, reading: float) -> Any:
    """`reading` of a full-turn joint continued over its seam: a leader at 181 degrees reports -179.

    Without it the follower would turn back by a whole turn; with it the joint stops at its limit
    until the leader comes back. The leader's own reading stays as it is.
    """
    jump = reading - path[READ * joints + joint]
    path[READ * joints + joint] = reading
    turn, half = path[TURN * joints + joint], path[HALF_TURN * joints + joint]
    if turn > 0.0:
        if jump > half:
            path[OFFSET * joints + joint] -= turn
        elif jump + half < 0.0:  # -half would be made with a mask beside the code
            path[OFFSET * joints + joint] += turn
    return reading + path[OFFSET * joints + joint]


def on_the_turn_of(goal: float, present: float, turn: float) -> Any:
    """`present` on the turn that is nearest to `goal`: beside its seam an arm may read as a turn
    away from its goal, and is right there. turn: 0 for a joint without a seam."""
    if turn > 0.0 and present == present:
        halves = int((goal - present) * 2 / turn)
        turns = (halves + 1) // 2 if halves > 0 else 0 - (1 - halves) // 2
        return present + turns * turn
    return present


# --- all joints ----------------------------------------------------------------------------------


def follow(
    scales: Any, path: Any, whole: Any, wanted: Any, present: Any, joints: int, seams: int
) -> float:
    """One period of every joint towards `wanted` (units, NaN: stay). Returns the largest distance
    that is left.

    path, whole: float64 and int64 columns; present: NaN where unknown; seams: 1 to continue
    `wanted` over seams.
    """
    behind = 0.0
    for joint in range(joints):
        previous = path[GOAL * joints + joint]
        aim = wanted[joint]
        if aim != aim:
            aim = previous
        elif seams != 0:
            aim = over_seam(path, joints, joint, aim)
        goal = previous
        if whole[FROZEN * joints + joint] == 0:
            goal = limited(
                path[LOW * joints + joint], path[HIGH * joints + joint],
                path[RELATIVE * joints + joint], path[BOUND * joints + joint],
                path[GROWTH * joints + joint], aim,
                on_the_turn_of(previous, present[joint], path[TURN * joints + joint]),
                previous, path[CHANGE * joints + joint],
            )  # fmt: skip
            # An arm that rests outside its calibrated range has goals there too, which units in
            # -100..100 or 0..100 cannot say: the way back into the range is bounded in steps.
            before, most = whole[STEPS * joints + joint], whole[MOST * joints + joint]
            steps = min(before + most, max(before - most, steps_at(scales, joints, joint, goal)))
            if steps != before:
                whole[STEPS * joints + joint] = steps
                path[SENT * joints + joint] = units_at(scales, joints, joint, steps)
        path[GOAL * joints + joint] = goal
        path[CHANGE * joints + joint] = goal - previous
        behind = max(behind, goal - aim if goal > aim else aim - goal)
    return behind


def fill_words(packet: Any, first: int, size: int, steps: Any, joints: int) -> None:
    """Goals into a sync write of one word, with its checksum. first: of the first servo's entry."""
    total = 0
    for joint in range(joints):
        step = steps[joint]
        word = (0 - step) | _SIGN if step < 0 else step
        packet[first + WORD_ENTRY * joint + 1] = word & 0xFF
        packet[first + WORD_ENTRY * joint + 2] = word >> 8 & 0xFF
    for at in range(size - 1):
        total += packet[at]
    packet[size - 1] = (SOUND_SUM - total) & 0xFF


def take_replies(
    inbox: Any, held: int, due: Any, count: int, size: int, data: Any, errors: Any
) -> int:
    """How many replies lie in `inbox` from its beginning, each whole, sound and the next one due,
    as the SDK judges it; their data and error bytes are kept.

    due: the first four bytes of each (little endian), then the joint of each; size: bytes of one;
    data: ROOM bytes per joint.
    """
    for reply in range(count):
        at = reply * size
        if at + size > held:
            return reply
        head, total = 0, 0
        for k in range(size):
            total += inbox[at + k]
        for k in range(_HEAD_BYTES):
            head |= inbox[at + k] << 8 * k
        error = inbox[at + _ERROR]
        if head != due[reply] or error > _LARGEST_ERROR or total & 0xFF != SOUND_SUM:
            return reply
        joint = due[count + reply]
        errors[joint] = error
        for k in range(size - FRAME_BYTES):
            data[joint * ROOM + k] = inbox[at + _DATA + k]
    return count


def positions(
    data: Any, offset: int, valid: int, raw: Any, present: Any, scales: Any, joints: int,
    unknown: float,
) -> None:  # fmt: skip
    """Data with a position at byte `offset` to steps and units; a joint that is not valid keeps its
    steps, its units are `unknown`."""
    for joint in range(joints):
        if valid >> joint & 1:
            at = joint * ROOM + offset
            word = data[at] | data[at + 1] << 8
            steps = 0 - (word & _MAGNITUDE) if word & _SIGN else word
            raw[joint] = steps
            present[joint] = units_at(scales, joints, joint, steps)
        else:
            present[joint] = unknown


def take_telemetry(data: Any, valid: int, errors: Any, table: Any, joints: int) -> None:
    """Data of TELEMETRY_BLOCK to columns of integers; joints that are not valid keep theirs."""
    for joint in range(joints):
        if valid >> joint & 1:
            at = joint * ROOM
            load = data[at + TELEMETRY_LOAD] | data[at + TELEMETRY_LOAD + 1] << 8
            size = load & _LOAD_MAGNITUDE
            table[LOAD * joints + joint] = 0 - size if load & _LOAD_SIGN else size
            current = data[at + TELEMETRY_CURRENT] | data[at + TELEMETRY_CURRENT + 1] << 8
            table[CURRENT * joints + joint] = current & _MAGNITUDE
            table[VOLTAGE * joints + joint] = data[at + TELEMETRY_VOLTAGE]
            table[TEMPERATURE * joints + joint] = data[at + TELEMETRY_TEMPERATURE]
            table[STATUS * joints + joint] = data[at + TELEMETRY_STATUS] | errors[joint]


def anything_exceeded(table: Any, joints: int, rules: Any, count: int) -> int:
    """1 when some joint's telemetry exceeds a rule, 0 when none does.

    rules: (bit per joint that it is about, column, threshold, 1 when low is bad, bits of the value
    that count or 0 for its size).
    """
    for rule in range(count):
        about, column = rules[RULE_WORDS * rule], rules[RULE_WORDS * rule + 1]
        threshold, low_is_bad = rules[RULE_WORDS * rule + 2], rules[RULE_WORDS * rule + 3]
        bits = rules[RULE_WORDS * rule + 4]
        for joint in range(joints):
            if not about >> joint & 1:
                continue
            value = table[column * joints + joint]
            if bits != 0:
                value = 1 if value & bits else 0
            elif value < 0:
                value = 0 - value
            if value <= threshold if low_is_bad != 0 else value >= threshold:
                return 1
    return 0


def fill_sample(
    integers: Any, floats: Any, joints: int, raw: Any, sent_raw: Any,
    present: Any, leader: Any, requested: Any, limited: Any, sent: Any,
) -> None:  # fmt: skip
    """The vectors of an arm sample, in their order. integers, floats: the record's memory from
    `present_raw` on, as int32 and as float32; what float32 cannot hold becomes infinite."""
    for joint in range(joints):
        integers[joint] = raw[joint]
        integers[joints + joint] = sent_raw[joint]
        floats[2 * joints + joint] = present[joint]
        floats[3 * joints + joint] = leader[joint]
        floats[4 * joints + joint] = requested[joint]
        floats[5 * joints + joint] = limited[joint]
        floats[6 * joints + joint] = sent[joint]
