"""Percentiles and spreads: how a list of measurements becomes the few figures that are told. Pure.

Percentiles are measured values, never interpolated ones; spreads are median, least and most.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.streams import HISTOGRAM_BUCKETS, HISTOGRAM_OCTAVES

Floats = npt.NDArray[np.float64]

QUANTILES: Mapping[str, float] = {"p50": 0.5, "p99": 0.99, "p99_9": 0.999}
"""Name of a figure -> share of the values that are not above it."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The same figure over several runs. n: number of runs that have it."""

    median: float
    least: float
    most: float
    n: int

    def plain(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def spread(values: Iterable[float | None]) -> Spread | None:
    """Median, least and most of the values that are there; None when there is none."""
    known = np.array([value for value in values if value is not None], np.float64)
    if not len(known):
        return None
    return Spread(float(np.median(known)), float(known.min()), float(known.max()), len(known))


def percentile(values: npt.ArrayLike, share: float) -> float | None:
    """The smallest of `values` that at least `share` of them do not pass; None of nothing."""
    ordered = np.sort(np.asarray(values, np.float64))
    if not len(ordered):
        return None
    rank = int(np.ceil(share * len(ordered) - 1e-9))
    return float(ordered[max(0, rank - 1)])


def quantiles(values: npt.ArrayLike, *, scale: float = 1.0) -> dict[str, float | None]:
    """p50, p99, p99.9 and max of `values` divided by `scale` (1e6: ns to ms), and their number."""
    array = np.asarray(values, np.float64) / scale
    told: dict[str, float | None] = {
        name: percentile(array, share) for name, share in QUANTILES.items()
    }
    return {**told, "max": float(array.max()) if len(array) else None, "n": len(array)}


def bucket_edges(buckets: int = HISTOGRAM_BUCKETS) -> Floats:
    """Lower edges (ns) of the buckets of streams.STATUS_DTYPE and the last upper one.

    Bucket 0 begins at 0: it also holds what was not late at all. buckets: other than today's in
    results of earlier versions (64, half octaves).
    """
    edges = 2.0 ** (np.arange(buckets + 1) * HISTOGRAM_OCTAVES / buckets)
    edges[0] = 0.0
    return edges


def buckets_of(values_ns: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Counts of `values_ns` in the buckets of streams.STATUS_DTYPE, int64 [HISTOGRAM_BUCKETS]."""
    at = np.searchsorted(bucket_edges(), np.asarray(values_ns, np.float64), side="right") - 1
    return np.bincount(at.clip(0, HISTOGRAM_BUCKETS - 1), minlength=HISTOGRAM_BUCKETS)


def histogram_percentile(counts: Sequence[int] | npt.NDArray[Any], share: float) -> float | None:
    """Percentile (ns) of a histogram of log2 buckets, by equal ratios inside one; None if empty.

    True to the width of a bucket, a factor of 1.09 (1.41 in results of earlier versions).
    """
    numbers = np.asarray(counts, np.int64)
    total = int(numbers.sum())
    if total == 0:
        return None
    rank = share * total
    below = np.cumsum(numbers)
    bucket = int(np.searchsorted(below, rank - 1e-9))
    before = int(below[bucket] - numbers[bucket])
    inside = (rank - before) / int(numbers[bucket])
    edges = bucket_edges(len(numbers))
    low, high = max(edges[bucket], 1.0), edges[bucket + 1]
    return float(low * (high / low) ** inside)


def histogram_quantiles(
    counts: Sequence[int] | npt.NDArray[Any], *, scale: float = 1.0
) -> dict[str, float | None]:
    """p50, p99 and p99.9 of such a histogram divided by `scale`; n: how many values."""
    told: dict[str, float | None] = {}
    for name, share in QUANTILES.items():
        value = histogram_percentile(counts, share)
        told[name] = None if value is None else value / scale
    return {**told, "n": int(np.asarray(counts).sum())}


def ratio(ours: float | None, floor: float | None, *, least: float = 0.0) -> float | None:
    """How many times the floor; None where one of both was not measured.

    least: what the clock can tell apart; anything below counts as that much, on both sides.
    """
    if ours is None or floor is None or max(floor, least) <= 0.0:
        return None
    return max(ours, least) / max(floor, least)


def at_path(data: Any, path: str) -> Any:
    """`data["a"]["b"]` for "a.b"; None where something on the way is missing."""
    for key in path.split("."):
        if not isinstance(data, Mapping) or key not in data:
            return None
        data = data[key]
    return data
