"""The grid on which a bus is served: absolute deadlines, no bursts, lateness and work counted.

Tick k of rate r lies at k / r seconds of CLOCK_MONOTONIC plus a phase of the process's role, so
that all buses share one numbering and a follower reads its leader's sample while it is fresh.
"""

from typing import Any

from recd.config.streams import histogram_bucket
from recd.shm.clock import now_ns, sleep_until_spinning_ns, tick_at_or_before, tick_ns

ROLE_PHASE: dict[str, float] = {"leader": 0.0, "follower": 0.4}
"""Share of a period by which a role's ticks are shifted. A leader's read takes about 0.3 of a
period at 250 Hz; a follower that came at the same time would use a sample one period old."""


class Pacer:
    """Wakes at each tick and never twice for one.

    tick: number of the present tick; skipped: ticks left out just before it; overruns: all of
    them; spin_ns: busy waiting before a deadline.
    """

    def __init__(self, rate_hz: int, *, phase_ns: int, spin_ns: int, status: Any) -> None:
        """status: STATUS_DTYPE record whose `lateness` and `work` histograms are filled."""
        self.rate_hz = rate_hz
        self.phase_ns = phase_ns
        self.spin_ns = spin_ns
        self.skipped = 0
        self.overruns = 0
        self._lateness: memoryview = status["lateness"].data
        self._work: memoryview = status["work"].data
        self.restart()

    def restart(self) -> None:
        """Begin at the next tick from now, without counting what lies before."""
        self.tick = self._tick_before(now_ns())
        self._woke_ns = 0

    def _tick_before(self, at_ns: int) -> int:
        return tick_at_or_before(self.phase_ns, at_ns, self.rate_hz)

    def wait(self, waited_ns: int = 0) -> int:
        """Sleep to the next tick that is still ahead; returns the time of waking (ns).

        waited_ns: asleep for the bus in the tick that ends now, which is not its work.
        """
        now = now_ns()
        if self._woke_ns:
            self._work[histogram_bucket(now - self._woke_ns - waited_ns)] += 1
        tick = expected = self.tick + 1
        due = tick_ns(self.phase_ns, tick, self.rate_hz)
        if now >= due:
            tick = self._tick_before(now) + 1
            due = tick_ns(self.phase_ns, tick, self.rate_hz)
        woke = sleep_until_spinning_ns(due, self.spin_ns)
        if woke >= tick_ns(self.phase_ns, tick + 1, self.rate_hz):
            tick = self._tick_before(woke)
            due = tick_ns(self.phase_ns, tick, self.rate_hz)
        self.skipped = tick - expected
        self.overruns += self.skipped
        self.tick = tick
        self._woke_ns = woke
        self._lateness[histogram_bucket(woke - due)] += 1
        return woke
