"""The decisions of alignment as plain arithmetic: called as Python live, compiled for whole takes.

Numbers, tuples and things to index only, no allocation: kernels.py turns the same functions into
machine code over pointers. Positions count from the first sample given; -1 is none.
"""

from typing import Any

import numpy as np

from recd.config.streams import TickFlag
from recd.shm.clock import tick_ns

REPEAT, EXPECTED, MISSING = int(TickFlag.REPEAT), int(TickFlag.EXPECTED), int(TickFlag.MISSING)
LATE, SKIP_BEFORE = int(TickFlag.LATE), int(TickFlag.SKIP_BEFORE)

HYSTERESIS, PREVIOUS = 0, 1
# Words of a camera rule (int64), see cameras.CameraRule.
KIND, T0, NUM, DEN, REACH, TOLERANCE, ADVANCE, MOST, PERIOD, SLOWER, WAIT = range(11)
RULE_WORDS = 11

HOLD, NEAREST, INTERPOLATE = 0, 1, 2
STALE, INTERPOLATED, NONE = 1, 2, 4


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
        tick = tick_ns(rule[T0], k, rule[NUM], rule[DEN])
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


BLOCK = 64
"""Rows that are found, then judged, then filled: short loops, no step waits for another."""

SHIFT, HALF = 16, 1 << 15  # binary places of a guess, and one half in them


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
    work: Any,
    shares: Any,
    nearby: Any,
    out: Any,
    source: Any,
    error: Any,
    flags: Any,
) -> None:
    """Values of all joints at the times `rows`: one forward pass over samples that rise in time.

    Joints of one rule share a column: what is known of their value at a row is found and stored
    once. plan: the rule of each column, where its joints end in what follows, and the joints,
    column by column. With `holes` each column has one joint, without them `valid` is not read.
    turns: (one turn or 0, lowest value) per joint; nothing: the value where there is none. values,
    valid and out are flat [.., joints], source, error and flags flat [.., columns]. work: three
    times, shares: once BLOCK words; nearby: three words a joint, -1 at first, for rows with holes.
    """
    passed = ahead = 0  # samples at or before the last row, how many its block passed
    for first in range(0, ticks, BLOCK):
        count = min(BLOCK, ticks - first)
        guess, tick = passed + ahead, rows[first + count - 1]
        last = count_reached(times, samples, passed, guess, tick, 2 <= guess < samples - 1)
        ahead = last - passed
        # Rates hardly change within a block: looked for on the line between its ends, a row needs
        # four looks, none of which waits for the row before.
        slope = (ahead << SHIFT) // count
        inside = passed >= 2 and last < samples - 1
        for row in range(count):
            guess = passed + (((row + 1) * slope + HALF) >> SHIFT)
            tick = rows[first + row]
            work[row] = count_reached(times, samples, passed, guess, tick, inside)
        passed = last
        begin = 2 * columns
        for column in range(columns):
            kind, end = plan[column], 2 * columns + plan[columns + column]
            if holes:
                find_neighbours(valid, count, samples, work, nearby, plan[begin], joints)
            if holes or not inside:
                odd = judge_any_rows(
                    times, samples, rows, first, count, kind, holes, reach, joints,
                    work, shares, column, columns, source, error, flags,
                )  # fmt: skip
            elif kind == HOLD:  # the same call thrice: in machine code each is a loop of one rule
                odd = judge_rows(
                    times, rows, first, count, HOLD, reach, joints,
                    work, shares, column, columns, source, error, flags,
                )  # fmt: skip
            elif kind == NEAREST:
                odd = judge_rows(
                    times, rows, first, count, NEAREST, reach, joints,
                    work, shares, column, columns, source, error, flags,
                )  # fmt: skip
            else:
                odd = judge_rows(
                    times, rows, first, count, INTERPOLATE, reach, joints,
                    work, shares, column, columns, source, error, flags,
                )  # fmt: skip
            if odd:
                fill_odd_rows(
                    values, first, count, plan, begin, end, joints, turns, nothing, work, shares,
                    flags, column, columns, out,
                )  # fmt: skip
            elif kind == INTERPOLATE:
                fill_between(
                    values, first, count, plan, begin, end, joints, turns, work, shares, out
                )  # fmt: skip
            else:
                fill(values, first, count, plan, begin, end, joints, work, out)
            begin = end


def count_reached(times: Any, samples: int, low: int, guess: int, tick: int, inside: bool) -> int:
    """How many samples are at or before `tick`; `low` are known to be.

    Four looks when `guess` is off by one at most, else twice the logarithm of how far it is off.
    inside: there are two samples before `guess` and one after it.
    """
    if inside and times[guess - 2] <= tick and tick < times[guess + 1]:
        return guess - 1 + (times[guess - 1] <= tick) + (times[guess] <= tick)
    below, above = low, samples
    at, step = max(low, guess), 1
    while at < above and times[at] <= tick:
        below = at + 1
        at += step
        step += step
    above = min(at, above)
    at, step = above - 1, 1
    while at >= below and times[at] > tick:
        above = at
        at -= step
        step += step
    below = max(below, at + 1)
    while below < above:
        middle = (below + above) >> 1
        if times[middle] <= tick:
            below = middle + 1
        else:
            above = middle
    return below


def judge_rows(
    times: Any,
    rows: Any,
    first: int,
    count: int,
    kind: int,
    reach: int,
    joints: int,
    work: Any,
    shares: Any,
    column: int,
    columns: int,
    source: Any,
    error: Any,
    flags: Any,
) -> int:
    """What is known of one column at `count` rows from `first` on, each between two valid samples;
    how many of them are not filled the way of their rule.

    work: the samples reached; then where the values of the sample to use begin, and of the next.
    shares: of the way between them.
    """
    odd = 0
    for row in range(count):
        tick, after = rows[first + row], work[row]
        early, late = times[after - 1] - tick, times[after] - tick
        at, off, mark = choose_between(early, late, kind, after - 1, after, reach)
        if kind == INTERPOLATE:
            shares[row] = np.float64(-early) / np.float64(late - early)
            work[2 * BLOCK + row] = after * joints
            odd += mark != INTERPOLATED
        work[BLOCK + row] = at * joints
        fact = (first + row) * columns + column
        source[fact], error[fact], flags[fact] = at, off, mark
    return odd


def judge_any_rows(
    times: Any,
    samples: int,
    rows: Any,
    first: int,
    count: int,
    kind: int,
    holes: int,
    reach: int,
    joints: int,
    work: Any,
    shares: Any,
    column: int,
    columns: int,
    source: Any,
    error: Any,
    flags: Any,
) -> int:
    """judge_rows for rows that may lack a neighbour; with holes, both stand in `work`."""
    odd = 0
    for row in range(count):
        tick, after = rows[first + row], work[row]
        before = after - 1
        if holes:
            before, after = work[BLOCK + row], work[2 * BLOCK + row]
        at, off, mark = choose_sample(times, samples, tick, kind, before, after, reach)
        if mark == INTERPOLATED:
            early, late = times[before] - tick, times[after] - tick
            shares[row] = np.float64(-early) / np.float64(late - early)
        odd += mark == NONE or (kind == INTERPOLATE and mark != INTERPOLATED)
        work[BLOCK + row], work[2 * BLOCK + row] = at * joints, after * joints
        fact = (first + row) * columns + column
        source[fact], error[fact], flags[fact] = at, off, mark
    return odd


def fill(
    values: Any,
    first: int,
    count: int,
    plan: Any,
    begin: int,
    end: int,
    joints: int,
    work: Any,
    out: Any,
) -> None:
    """Values of the joints plan[begin:end] at `count` rows from `first` on, a sample each."""
    if end - begin == 1:  # without the loop over joints [ten minutes: 0.10 ms instead of 0.12]
        joint = plan[begin]
        for row in range(count):
            out[(first + row) * joints + joint] = values[work[BLOCK + row] + joint]
        return
    # Row by row: joint by joint waits longer for memory [six values: 0.54 ms instead of 0.30].
    for row in range(count):
        at, line = work[BLOCK + row], (first + row) * joints
        for place in range(begin, end):
            out[line + plan[place]] = values[at + plan[place]]


def fill_between(
    values: Any,
    first: int,
    count: int,
    plan: Any,
    begin: int,
    end: int,
    joints: int,
    turns: Any,
    work: Any,
    shares: Any,
    out: Any,
) -> None:
    """Values of joints at rows which all lie between two samples; see fill."""
    for row in range(count):
        older, newer, line = work[BLOCK + row], work[2 * BLOCK + row], (first + row) * joints
        for place in range(begin, end):
            joint = plan[place]
            out[line + joint] = between(
                np.float64(values[older + joint]), np.float64(values[newer + joint]),
                shares[row], turns[2 * joint], turns[2 * joint + 1],
            )  # fmt: skip


def fill_odd_rows(
    values: Any,
    first: int,
    count: int,
    plan: Any,
    begin: int,
    end: int,
    joints: int,
    turns: Any,
    nothing: float,
    work: Any,
    shares: Any,
    flags: Any,
    column: int,
    columns: int,
    out: Any,
) -> None:
    """Values of joints at rows of any kind; see fill."""
    for row in range(count):
        mark = flags[(first + row) * columns + column]
        at, newer, line = work[BLOCK + row], work[2 * BLOCK + row], (first + row) * joints
        for place in range(begin, end):
            joint = plan[place]
            if mark == NONE:
                out[line + joint] = nothing
            elif mark == INTERPOLATED:
                out[line + joint] = between(
                    np.float64(values[at + joint]), np.float64(values[newer + joint]),
                    shares[row], turns[2 * joint], turns[2 * joint + 1],
                )  # fmt: skip
            else:
                out[line + joint] = values[at + joint]


def find_neighbours(
    valid: Any, count: int, samples: int, work: Any, nearby: Any, joint: int, joints: int
) -> None:
    """The valid samples of one joint around `count` rows, into work; see judge_any_rows."""
    for row in range(count):
        after = work[row]
        before = after - 1
        if not (
            0 < after < samples and valid[before * joints + joint] and valid[after * joints + joint]
        ):
            before, after = neighbours(valid, after, samples, nearby, joint, joints)
        work[BLOCK + row], work[2 * BLOCK + row] = before, after


def neighbours(
    valid: Any, reached: int, samples: int, nearby: Any, joint: int, joints: int
) -> tuple[int, int]:
    """(last valid sample before `reached`, first one from there on) of one joint; -1 and `samples`
    for none. nearby: both of all joints and how far the last call got, -1 at first, kept up here.
    """
    last, coming, looked = joint, joints + joint, 2 * joints + joint
    newest = reached - 1
    while newest > nearby[looked] and not valid[newest * joints + joint]:
        newest -= 1
    if newest > nearby[looked]:
        nearby[last] = newest
    nearby[looked] = reached - 1
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
    if before >= 0 and after < samples:
        return choose_between(
            times[before] - tick, times[after] - tick, kind, before, after, reach
        )  # fmt: skip
    at = after if before < 0 else before
    if at >= samples:
        return -1, 0, NONE
    off = times[at] - tick
    return at, off, STALE if abs(off) > reach or (kind == HOLD and off > 0) else 0


def choose_between(
    early: int, late: int, kind: int, before: int, after: int, reach: int
) -> tuple[int, int, int]:
    """choose_sample between two samples, early <= 0 < late being their times less the row's.

    Products instead of branches: a processor guesses wrong which of both is next.
    """
    later = kind != HOLD and late < -early
    at = before + (after - before) * later
    off = early + (late - early) * later
    mark = STALE * (abs(off) > reach)
    if kind == INTERPOLATE and early < 0:
        if late - early <= reach:
            return before, early + (late - early) * (late > -early), INTERPOLATED
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
