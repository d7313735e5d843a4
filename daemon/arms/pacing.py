"""One step of the grid on which a bus is served: account for the tick that ends, sleep, wake.

Called as Python, or as machine code in the control loop (kernels.py): what stands between waking
and the tick's own work runs before the caches are warm again.
"""

from typing import Any

from recd.daemon.arms.exchange import now, sleep_until
from recd.shm.clock import tick_at_or_before, tick_ns

# Words (int64) of a grid. Given: RATE (Hz), PHASE, SPIN (ns). Kept: the others; WAITED: ns asleep
# for the bus so far; WOKE: 0 before the first tick; SKIPPED: ticks left out before TICK.
RATE, PHASE, SPIN, WAITED, TICK, WOKE, SKIPPED, OVERRUNS = range(8)
GRID_WORDS = 8

_TOP = 62
"""Bit to which a value is shifted before its eighth of an octave is read from it."""
_EIGHTH_1, _EIGHTH_2, _EIGHTH_3 = 0x45CAE0F1F545EB74, 0x4C1BF828C6DC54B8, 0x52FF6B54D8A89C76
_EIGHTH_4 = 0x5A827999FCEF3243
_EIGHTH_5, _EIGHTH_6, _EIGHTH_7 = 0x62B39508AA836D6F, 0x6BA27E656B4EB57B, 0x75606373EE921C98
"""Smallest integers that are not below 2 ** (62 + k / 8)."""


def bucket(value_ns: int, buckets: int) -> int:
    """streams.histogram_bucket in 64 bits."""
    if value_ns <= 0:
        return 0
    octave = 0
    while value_ns >> octave > 1:
        octave += 1
    top = value_ns << (_TOP - octave)
    at = 8 * octave
    at += 1 if top >= _EIGHTH_1 else 0
    at += 1 if top >= _EIGHTH_2 else 0
    at += 1 if top >= _EIGHTH_3 else 0
    at += 1 if top >= _EIGHTH_4 else 0
    at += 1 if top >= _EIGHTH_5 else 0
    at += 1 if top >= _EIGHTH_6 else 0
    at += 1 if top >= _EIGHTH_7 else 0
    return min(at, buckets - 1)


def pace(
    calls: Any, grid: Any, lateness: Any, work: Any, buckets: int, waited_ns: int
) -> int:  # fmt: skip
    """Account for the tick that ends, sleep to the next one that is still ahead. Returns when it
    woke (ns). A tick that was slept through is left out, never made up.

    lateness, work: histograms (uint32) of so many buckets; waited_ns: asleep for the bus so far,
    which is no work.
    """
    rate, phase = grid[RATE], grid[PHASE]
    at_ns = now(calls)
    if grid[WOKE] != 0:
        work[bucket(at_ns - grid[WOKE] - (waited_ns - grid[WAITED]), buckets)] += 1
    grid[WAITED] = waited_ns
    tick = expected = grid[TICK] + 1
    due_ns = tick_ns(phase, tick, rate)
    if at_ns >= due_ns:
        tick = tick_at_or_before(phase, at_ns, rate) + 1
        due_ns = tick_ns(phase, tick, rate)
    if due_ns - at_ns > grid[SPIN]:
        sleep_until(calls, due_ns - grid[SPIN])
    woke_ns = now(calls)
    while woke_ns < due_ns:
        woke_ns = now(calls)
    if woke_ns >= tick_ns(phase, tick + 1, rate):
        tick = tick_at_or_before(phase, woke_ns, rate)
        due_ns = tick_ns(phase, tick, rate)
    grid[SKIPPED] = tick - expected
    grid[OVERRUNS] += tick - expected
    grid[TICK] = tick
    grid[WOKE] = woke_ns
    lateness[bucket(woke_ns - due_ns, buckets)] += 1
    return woke_ns
