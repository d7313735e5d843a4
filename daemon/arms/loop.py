"""The grid on which a bus is served: absolute deadlines, no bursts, lateness and work counted.

Tick k of rate r lies at k / r seconds of CLOCK_MONOTONIC plus a phase of the process's role, so
that all buses share one numbering and a follower reads its leader's sample while it is fresh.
"""

from ctypes import c_uint32
from typing import Any

from recd.config.streams import HISTOGRAM_BUCKETS
from recd.daemon.arms.pacing import (
    GRID_WORDS,
    OVERRUNS,
    PHASE,
    RATE,
    SKIPPED,
    SPIN,
    TICK,
    WOKE,
)
from recd.daemon.arms.passes import integers
from recd.daemon.arms.tickcode import Code
from recd.shm import libc
from recd.shm.clock import now_ns, tick_at_or_before

ROLE_PHASE: dict[str, float] = {"leader": 0.0, "follower": 0.4}
"""Share of a period by which a role's ticks are shifted. A leader's read takes about 0.3 of a
period at 250 Hz; a follower that came at the same time would use a sample one period old."""


_WAITED = 5
"""Place of what changes among the arguments of pacing.pace."""


class Pacer:
    """Wakes at each tick and never twice for one.

    tick: number of the present tick; skipped: ticks left out just before it; overruns: all of
    them.
    """

    def __init__(
        self, rate_hz: int, *, phase_ns: int, spin_ns: int, status: Any, code: Code
    ) -> None:
        """spin_ns: busy waiting before a deadline; status: STATUS_DTYPE record whose `lateness` and
        `work` histograms are filled; code: as Python or as machine code."""
        self.rate_hz = rate_hz
        self.phase_ns = phase_ns
        self.tick = self.skipped = self.overruns = 0
        self._grid = grid = integers([0] * GRID_WORDS)
        grid[RATE], grid[PHASE], grid[SPIN] = rate_hz, phase_ns, spin_ns
        kind = c_uint32 * HISTOGRAM_BUCKETS
        self._lateness = kind.from_buffer(status["lateness"].data)
        self._work = kind.from_buffer(status["work"].data)
        self._pace = code.prepare(
            "pace", libc.table(), grid, self._lateness, self._work, HISTOGRAM_BUCKETS, 0
        )
        self.restart()

    def restart(self) -> None:
        """Begin at the next tick from now, without counting what lies before."""
        self.tick = self._grid[TICK] = tick_at_or_before(self.phase_ns, now_ns(), self.rate_hz)
        self._grid[WOKE] = 0

    def wait(self, waited_ns: int = 0) -> int:
        """Sleep to the next tick that is still ahead; returns the time of waking (ns).

        waited_ns: asleep for the bus so far; what came to it in a tick is not its work.
        """
        grid = self._grid
        self._pace.args[_WAITED] = waited_ns
        woke_ns: int = self._pace.run()
        self.tick, self.skipped, self.overruns = grid[TICK], grid[SKIPPED], grid[OVERRUNS]
        return woke_ns
