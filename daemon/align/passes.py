"""The decisions of alignment as plain arithmetic: called as Python live, compiled for whole takes.

Numbers, tuples and things to index only, no allocation: kernels.py turns the same functions into
machine code over pointers. Positions count from the first sample given; -1 is none.
"""

from typing import Any

import numpy as np

from recd.config.streams import TickFlag

REPEAT, EXPECTED, MISSING = int(TickFlag.REPEAT), int(TickFlag.EXPECTED), int(TickFlag.MISSING)
LATE, SKIP_BEFORE = int(TickFlag.LATE), int(TickFlag.SKIP_BEFORE)

HYSTERESIS, PREVIOUS = 0, 1
# Words of a camera rule (int64), see cameras.CameraRule.
KIND, T0, NUM, DEN, REACH, TOLERANCE, ADVANCE, MOST, PERIOD, SLOWER, WAIT = range(11)
RULE_WORDS = 11

HOLD, NEAREST, INTERPOLATE = 0, 1, 2
STALE, INTERPOLATED, NONE = 1, 2, 4

_NS_PER_S = 1_000_000_000


def tick_time(t0: int, k: int, num: int, den: int) -> int:
    """recd.shm.clock.tick_ns without its overflow: k * 1e9 * den leaves int64 within days."""
    whole = k // num
    return t0 + whole * _NS_PER_S * den + (k - whole * num) * _NS_PER_S * den // num


def choose_frame(capture: Any, end: int, last: int, tick: int, rule: Any) -> tuple[int, bool]:
    """(position of the frame for `tick` among capture[:end], whether later frames can change it).

    last: position used for the tick before. Capture times rise strictly.
    """
    if end == 0:
        return -1, False
    newest = capture[end - 1]
    if rule[KIND] == PREVIOUS:
        at = max(last, 0)
        while at + 1 < end and capture[at + 1] <= tick:
            at += 1
        return at, newest > tick
    if last < 0:
        at = 0
        while at + 1 < end and abs(capture[at + 1] - tick) < abs(capture[at] - tick):
            at += 1
        return at, newest >= tick
    wanted = last + rule[ADVANCE]  # the frame that keeps the offset in force
    at = min(wanted, end - 1)
    latest, earliest = tick + rule[REACH], tick - rule[REACH]
    while at > last and capture[at] > latest:
        at -= 1
    while at + 1 < end and capture[at] < earliest and capture[at + 1] <= latest:
        at += 1
    return at, newest > latest or (end > wanted and newest >= earliest)


def frame_flags(
    capture: Any, end: int, last: int, at: int, tick: int, settled: bool, rule: Any
) -> int:
    """TickFlag bits of using frame `at` for `tick` after `last`."""
    error = capture[at] - tick
    flags = 0 if settled else LATE
    missing = abs(error) > rule[TOLERANCE] or (rule[KIND] == PREVIOUS and error > 0)
    if at == last:
        flags |= REPEAT
        due = error + rule[PERIOD] <= (0 if rule[KIND] == PREVIOUS else rule[REACH])
        came = at + 1 < end and 2 * (capture[at + 1] - capture[at]) <= 3 * rule[PERIOD]
        missing = missing or (due and not came)
        if rule[SLOWER] and not missing:
            flags |= EXPECTED
    elif last >= 0 and at - last > rule[MOST]:
        flags |= SKIP_BEFORE
    return flags | MISSING if missing else flags


def align_frames(
    capture: Any,
    known: Any,
    frames: int,
    rule: Any,
    ticks: int,
    position: Any,
    error: Any,
    flags: Any,
) -> None:
    """Decide every tick of a take: one forward pass into position, error (ns) and flags.

    A frame counts for a tick when it was known at the tick's deadline.
    """
    last, visible = -1, 0
    for k in range(ticks):
        tick = tick_time(rule[T0], k, rule[NUM], rule[DEN])
        while visible < frames and known[visible] <= tick + rule[WAIT]:
            visible += 1
        at, settled = choose_frame(capture, visible, last, tick, rule)
        position[k] = at
        if at < 0:
            error[k] = 0
            flags[k] = MISSING | LATE
        else:
            error[k] = capture[at] - tick
            flags[k] = frame_flags(capture, visible, last, at, tick, settled, rule)
            last = at


def align_samples(
    times: Any,
    values: Any,
    valid: Any,
    samples: int,
    rows: Any,
    ticks: int,
    plan: Any,
    turns: Any,
    columns: int,
    joints: int,
    holes: int,
    reach: int,
    nothing: float,
    nearby: Any,
    out: Any,
    source: Any,
    error: Any,
    flags: Any,
) -> None:
    """Values of all joints at the times `rows`: one forward pass over samples that rise in time.

    Joints of one rule share a column: what is known of their value at a row is found and stored
    once [six held joints, 250 Hz onto 30 Hz: 17 ns a row; once a joint 29]. plan: the rule of each
    column, where its joints end in what follows, and the joints, column by column. With `holes`
    each column has one joint, without them `valid` is not read. turns: (one turn or 0, lowest
    value) per joint; nothing: the value where there is none. values, valid and out are flat
    [.., joints], source, error and flags flat [.., columns]. nearby: two words a joint, -1 at
    first, for rows with holes.
    """
    passed = ahead = seen = 0  # samples at or before the row, how many the last row passed
    for k in range(ticks):
        tick = rows[k]
        # As far as for the last row, then step by step: 3 looks a row instead of 8 at 250 Hz onto
        # 30 Hz. Never more than two looks a sample, however irregular they are.
        reached = min(passed + ahead, samples)
        while reached > passed and times[reached - 1] > tick:
            reached -= 1
        while reached < samples and times[reached] <= tick:
            reached += 1
        passed, ahead = reached, reached - passed
        whole = True
        if holes:
            whole = 0 < reached < samples and all_valid(valid, reached - 1, joints)
            whole = whole and all_valid(valid, reached, joints)
        decided, at, off, mark, before, after, begin = -1, -1, 0, 0, -1, -1, 2 * columns
        for column in range(columns):
            kind, end = plan[column], 2 * columns + plan[columns + column]
            if kind != decided or not whole:
                decided, before, after = kind, reached - 1, reached
                if not whole:
                    before, after = neighbours(
                        valid, seen, reached, samples, nearby, plan[begin], joints
                    )
                at, off, mark = choose_sample(times, samples, tick, kind, before, after, reach)
            fact = k * columns + column
            source[fact], error[fact], flags[fact] = at, off, mark
            share = nothing
            if mark == INTERPOLATED:
                early, late = times[before] - tick, times[after] - tick
                share = np.float64(-early) / np.float64(late - early)
            place_values(
                values, at * joints, after * joints, mark, share, plan, begin, end, turns,
                out, k * joints,
            )  # fmt: skip
            begin = end
        if not whole:
            seen = reached


def place_values(
    values: Any,
    first: int,
    second: int,
    mark: int,
    share: float,
    plan: Any,
    begin: int,
    end: int,
    turns: Any,
    out: Any,
    row: int,
) -> None:
    """Values of the joints plan[begin:end] into the row of `out` that begins at `row`.

    first, second: where the samples begin in `values`; mark: ValueFlag bits; share: of the way
    from the first to the second, or the value where there is none.
    """
    if mark == INTERPOLATED:
        for place in range(begin, end):
            joint = plan[place]
            out[row + joint] = between(
                np.float64(values[first + joint]), np.float64(values[second + joint]), share,
                turns[2 * joint], turns[2 * joint + 1],
            )  # fmt: skip
    elif mark == NONE:
        for place in range(begin, end):
            out[row + plan[place]] = share
    else:
        for place in range(begin, end):
            out[row + plan[place]] = values[first + plan[place]]


def all_valid(valid: Any, sample: int, joints: int) -> bool:
    """Whether every joint of a sample is valid."""
    for cell in range(sample * joints, (sample + 1) * joints):  # noqa: SIM110 (machine code)
        if not valid[cell]:
            return False
    return True


def neighbours(
    valid: Any, seen: int, reached: int, samples: int, nearby: Any, joint: int, joints: int
) -> tuple[int, int]:
    """(last valid sample before `reached`, first one from there on) of one joint; -1 and `samples`
    for none. nearby: both of all joints, -1 at first, kept up here; seen: how far the last call
    got.
    """
    newest, last, coming = reached - 1, joint, joints + joint
    while newest >= seen and not valid[newest * joints + joint]:
        newest -= 1
    if newest >= seen:
        nearby[last] = newest
    after = max(reached, nearby[coming])
    while after < samples and not valid[after * joints + joint]:
        after += 1
    nearby[coming] = after
    return nearby[last], after


def choose_sample(
    times: Any, samples: int, tick: int, kind: int, before: int, after: int, reach: int
) -> tuple[int, int, int]:
    """(sample used, its time less `tick`, ValueFlag bits); see joints.py for the rules.

    before, after: the valid samples around `tick`, -1 and `samples` where there is none.
    """
    at = before
    if before < 0 or (
        kind != HOLD and after < samples and times[after] - tick < tick - times[before]
    ):
        at = after
    if at >= samples:
        return -1, 0, NONE
    off = times[at] - tick
    mark = 0
    if off != 0 and kind == INTERPOLATE and before >= 0 and after < samples:
        early, late = times[before] - tick, times[after] - tick
        if late - early <= reach:
            at = before
            off = late if late > -early else early
            mark = INTERPOLATED
        else:
            mark = STALE
    if abs(off) > reach or (kind == HOLD and off > 0):
        mark = STALE
    return at, off, mark


def between(start: float, end: float, share: float, wrap: float, low: float) -> float:
    """The value `share` of the way, the short way round where `wrap` (0: none) is one turn."""
    way = end - start
    if wrap > 0:
        if way + way > wrap:
            way -= wrap
        elif way + way + wrap < 0:  # not -wrap: machine code without constants (shm.aot)
            way += wrap
    value = start + way * share
    if wrap > 0:
        if value < low:
            value += wrap
        elif value >= low + wrap:
            value -= wrap
    return value
