"""The only clock. Every stamp in recd is int64 nanoseconds of CLOCK_MONOTONIC.

Wall time exists only as bracketed (mono, real) pairs for people and manifests; no interval is
ever measured with it. Every other use of a clock is banned by lint (TID251).
"""

import ctypes
import errno
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000

NEVER_NS = 2**63 - 1
"""A time that does not come: no deadline."""

now_ns = time.monotonic_ns
"""Now, int64 nanoseconds of CLOCK_MONOTONIC. About 50 ns a call."""

_TIMER_ABSTIME = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


_libc = ctypes.CDLL(None)  # find_library would run programs at every start
_clock_nanosleep = _libc.clock_nanosleep  # returns its error, errno stays as it is
_clock_nanosleep.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_clock_nanosleep.restype = ctypes.c_int

_REQUEST = _Timespec()
_REQUEST_POINTER = ctypes.c_void_p(ctypes.addressof(_REQUEST))


def sleep_until_ns(deadline_ns: int) -> None:
    """Sleep until `deadline_ns` (CLOCK_MONOTONIC), absolute: oversleep never accumulates.

    Returns at once when the deadline has passed. Signals with a Python handler are served by the
    interpreter after the call; the remaining time is then slept. Not for more than one thread per
    process: the request structure is shared, so that a control tick allocates nothing.
    """
    _REQUEST.tv_sec, _REQUEST.tv_nsec = divmod(deadline_ns, NS_PER_S)
    while True:
        code = _clock_nanosleep(time.CLOCK_MONOTONIC, _TIMER_ABSTIME, _REQUEST_POINTER, None)
        if code != errno.EINTR:
            break
    if code:
        raise OSError(code, os.strerror(code))


@dataclass(frozen=True, slots=True)
class ClockPair:
    """One bracketed reading of both clocks.

    mono_ns: CLOCK_MONOTONIC; real_ns: CLOCK_REALTIME at that moment; uncertainty_ns: half the
    width of the bracket.
    """

    mono_ns: int
    real_ns: int
    uncertainty_ns: int

    def real_of(self, mono_ns: int) -> int:
        """Wall time (CLOCK_REALTIME ns) of a monotonic stamp, by this pair."""
        return self.real_ns + (mono_ns - self.mono_ns)


def clock_pair(tries: int = 5) -> ClockPair:
    """Read both clocks, best (narrowest) of `tries` bracketed readings."""
    best: ClockPair | None = None
    for _ in range(tries):
        before = time.monotonic_ns()
        real = time.time_ns()
        after = time.monotonic_ns()
        pair = ClockPair((before + after) // 2, real, (after - before + 1) // 2)
        if best is None or pair.uncertainty_ns < best.uncertainty_ns:
            best = pair
    assert best is not None
    return best


def wall_iso(real_ns: int) -> str:
    """CLOCK_REALTIME nanoseconds as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(real_ns / NS_PER_S, tz=UTC).isoformat(timespec="milliseconds")


def tick_ns(t0_ns: int, k: int, rate_num: int, rate_den: int = 1) -> int:
    """Time of grid tick k: `t0 + k * 1e9 * den // num`, no product of which leaves int64.

    Computed from k and never added up: 33 333 333 ns steps drift 36 us an hour at 30 Hz.
    """
    unit_ns = NS_PER_S * rate_den
    return t0_ns + k // rate_num * unit_ns + k % rate_num * unit_ns // rate_num


def tick_at_or_before(t0_ns: int, at_ns: int, rate_num: int, rate_den: int = 1) -> int:
    """Largest k with `tick_ns(t0, k) <= at`; -1 or less when `at` lies before t0."""
    since_ns, unit_ns = at_ns - t0_ns, NS_PER_S * rate_den
    k = since_ns // unit_ns * rate_num + since_ns % unit_ns * rate_num // unit_ns
    while tick_ns(t0_ns, k + 1, rate_num, rate_den) <= at_ns:
        k += 1
    while tick_ns(t0_ns, k, rate_num, rate_den) > at_ns:
        k -= 1
    return k
