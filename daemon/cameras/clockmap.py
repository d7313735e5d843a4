"""A sender's clock seen through a network: maps its stamps to CLOCK_MONOTONIC of this computer.

Takes the line under all (stamp, arrival - stamp) points of a sliding window that lies closest to
them: the fastest deliveries define the clock, delays only ever add. What it cannot know is the
constant part of the fastest way; that stays in the mapped time (see latency_ms).
"""

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

NS_PER_S = 1_000_000_000
PPB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ClockMapSettings:
    """When to learn, trust and forget.

    window_ns: how far back deliveries count. bucket_ns: of each such span only the fastest
    delivery is kept. slope_needs_ns: drift is told apart from jitter over this span.
    converge_ns, converge_samples: trusted after both; after calm_converge_ns already when no
    delivery so far took calm_ns longer than the fastest. max_drift_ppb: no quartz is worse.
    relearn_ns, relearn_buckets: a delay that stays this much above the line for so many buckets in
    a row, and within as much of itself, means that the line is of the past (clock stepped, route
    changed); one that wanders is an overloaded computer's, and the line is right. behind_ns: a
    delivery this much under the line cannot be, so the sender's clock was set.
    """

    window_ns: int = 30 * NS_PER_S
    bucket_ns: int = NS_PER_S // 2
    slope_needs_ns: int = 8 * NS_PER_S
    converge_ns: int = NS_PER_S
    calm_converge_ns: int = 450_000_000
    calm_ns: int = 5_000_000
    converge_samples: int = 12
    max_drift_ppb: int = 500_000
    relearn_ns: int = 10_000_000
    relearn_buckets: int = 10
    behind_ns: int = 100_000_000


@dataclass(frozen=True, slots=True)
class MappedStamp:
    """local_ns: the stamp in CLOCK_MONOTONIC, never later than the arrival; residual_ns: how much
    later than by its fastest way the frame arrived (0 while learning); trusted: False while the
    map is learning, local_ns is then the arrival itself."""

    local_ns: int
    residual_ns: int
    trusted: bool


class ClockMap:
    """One foreign clock. `map` takes each delivery in order and returns its local time.

    Integers throughout: stamps may have any epoch and 64 bits. About 1 us a call, and a rebuild
    over at most window/bucket points once per bucket.
    """

    def __init__(self, settings: ClockMapSettings | None = None) -> None:
        self._settings = settings or ClockMapSettings()
        self.resets = -1
        self._restart()

    def _restart(self) -> None:
        self.resets += 1
        self._fastest: deque[tuple[int, int]] = deque()  # (stamp, arrival - stamp) per bucket
        self._bucket_start = 0
        self._first_stamp = 0
        self._last_stamp: int | None = None
        self._samples = 0
        self._high_buckets = 0
        self._high_ns = 0
        self._delays = (0, 0)  # shortest and longest while learning
        self._converged = False
        self._anchor = (0, 0)
        self._drift_ppb = 0

    @property
    def drift_ppb(self) -> int:
        """Rate of this computer's clock against the sender's minus one, in 1e-9."""
        return self._drift_ppb

    def offset_ns(self, stamp_ns: int) -> int:
        """Local time minus sender's time at `stamp_ns`, by the present line."""
        stamp, offset = self._anchor
        return offset + (stamp_ns - stamp) * self._drift_ppb // PPB

    def map(self, stamp_ns: int, arrival_ns: int) -> MappedStamp:
        """Take one delivery (sender's stamp, local arrival) and return its local time."""
        if self._last_stamp is not None and self._clock_was_set(stamp_ns, arrival_ns):
            self._restart()
        self._learn(stamp_ns, arrival_ns - stamp_ns)
        if not self._converged and not self._converge(stamp_ns, arrival_ns - stamp_ns):
            return MappedStamp(arrival_ns, 0, trusted=False)
        local = min(stamp_ns + self.offset_ns(stamp_ns), arrival_ns)
        return MappedStamp(local, arrival_ns - local, trusted=True)

    def _converge(self, stamp: int, delay: int) -> bool:
        shortest, longest = self._delays if self._samples > 1 else (delay, delay)
        self._delays = min(shortest, delay), max(longest, delay)
        calm = self._delays[1] - self._delays[0] <= self._settings.calm_ns
        needed = self._settings.calm_converge_ns if calm else self._settings.converge_ns
        enough = self._samples >= self._settings.converge_samples
        self._converged = enough and stamp - self._first_stamp >= needed
        return self._converged

    def _clock_was_set(self, stamp_ns: int, arrival_ns: int) -> bool:
        assert self._last_stamp is not None
        if stamp_ns < self._last_stamp:
            return True
        under = self.offset_ns(stamp_ns) - (arrival_ns - stamp_ns)
        return under > self._settings.behind_ns

    def _learn(self, stamp: int, delay: int) -> None:
        self._samples += 1
        if self._last_stamp is None:
            self._first_stamp = self._bucket_start = stamp
            self._fastest.append((stamp, delay))
            self._anchor = (stamp, delay)
        elif stamp - self._bucket_start >= self._settings.bucket_ns:
            self._close_bucket()
            self._bucket_start = stamp
            self._fastest.append((stamp, delay))
        elif delay < self._expected_from_newest(stamp):
            self._fastest[-1] = (stamp, delay)
        self._last_stamp = stamp
        if delay < self.offset_ns(stamp):  # a faster way than ever: the line gives way at once
            self._anchor = (stamp, delay)

    def _expected_from_newest(self, stamp: int) -> int:
        newest, delay = self._fastest[-1]
        return delay + (stamp - newest) * self._drift_ppb // PPB

    def _close_bucket(self) -> None:
        stamp, delay = self._fastest[-1]
        above = delay - self.offset_ns(stamp)
        high = above > self._settings.relearn_ns
        same = abs(above - self._high_ns) <= self._settings.relearn_ns
        self._high_buckets = (self._high_buckets if same else 0) + 1 if high else 0
        if self._high_buckets == 1:
            self._high_ns = above
        if self._high_buckets >= self._settings.relearn_buckets:
            while len(self._fastest) > self._high_buckets:
                self._fastest.popleft()
            self._high_buckets = 0
            self._drift_ppb = 0
        while stamp - self._fastest[0][0] > self._settings.window_ns:
            self._fastest.popleft()
        self._fit()

    def _fit(self) -> None:
        points = list(self._fastest)
        # Too short a span cannot tell drift from jitter: the slope known so far is kept.
        if points[-1][0] - points[0][0] >= self._settings.slope_needs_ns:
            left, right = _supporting_edge(points)
            slope = (right[1] - left[1]) * PPB // (right[0] - left[0])
            limit = self._settings.max_drift_ppb
            self._drift_ppb = max(-limit, min(limit, slope))
        self._anchor = min(points, key=self._without_drift)

    def _without_drift(self, point: tuple[int, int]) -> int:
        stamp, delay = point
        return delay - (stamp - self._first_stamp) * self._drift_ppb // PPB


def _supporting_edge(
    points: list[tuple[int, int]],
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Edge of the lower convex hull of `points` (sorted by x) that spans their mean x.

    Of all lines under the points this edge's has the least summed distance to them.
    """
    hull: list[tuple[int, int]] = []
    for point in points:
        while len(hull) >= 2 and not _turns_up(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    middle = sum(x for x, _ in points) // len(points)
    for left, right in pairwise(hull):
        if right[0] >= middle:
            return left, right
    return hull[0], hull[-1]


def _turns_up(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) > (b[1] - a[1]) * (c[0] - a[0])
