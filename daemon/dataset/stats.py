"""Statistics as LeRobot keeps them: exact for vectors, from 256-bin histograms for pictures.

Aggregation is lerobot 0.6.1's: weighted by count, quantiles too. Shapes: vectors (D,), scalars
(1,), pictures (C,1,1), count (1,). Strings have none; booleans count as 0 and 1.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES: Mapping[str, float] = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
STAT_KEYS = ("min", "max", "mean", "std", "count", *QUANTILES)
FeatureStats = dict[str, NDArray[Any]]
Stats = dict[str, FeatureStats]
SAMPLED_SIDE = 150
SAMPLE_ABOVE = 300
"""LeRobot strides pictures of 300 pixels and more so that the long side keeps about 150."""


def vector_stats(values: NDArray[Any]) -> FeatureStats:
    """Statistics over rows of [R] or [R, ..., D] numbers; result shapes (1,) or (D,)."""
    flat = np.asarray(values, dtype=np.float64)
    rows = flat.shape[0]
    flat = flat.reshape(rows, 1) if flat.ndim == 1 else flat.reshape(-1, flat.shape[-1])
    quantiles = np.quantile(flat, list(QUANTILES.values()), axis=0)
    return {
        "min": flat.min(axis=0),
        "max": flat.max(axis=0),
        "mean": flat.mean(axis=0),
        "std": flat.std(axis=0),
        "count": np.array([rows], dtype=np.int64),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


@dataclass(frozen=True, slots=True)
class CameraHistogram:
    """Values of sampled pixels per channel. count: pictures sampled; hist: uint64 [C, 256]."""

    count: int
    hist: NDArray[np.uint64]


def picture_stride(height: int, width: int) -> int:
    """Step on both axes with which LeRobot samples a picture for statistics."""
    if max(height, width) < SAMPLE_ABOVE:
        return 1
    return int((width if width > height else height) / SAMPLED_SIDE)


def camera_stats(source: "CameraHistogram | FeatureStats") -> FeatureStats:
    """Statistics of a camera in 0..1, shapes (C,1,1), from its histogram; ready ones pass through.

    ValueError when the histogram is empty: an episode without a sampled picture has none.
    """
    if isinstance(source, dict):
        return source
    hist = np.asarray(source.hist, dtype=np.float64)
    totals = hist.sum(axis=1, keepdims=True)
    if hist.ndim != 2 or hist.shape[1] != 256 or not (totals > 0).all():
        raise ValueError(f"picture histogram of shape {hist.shape} holds no sample")
    levels = np.arange(256, dtype=np.float64) / 255.0
    mean = (hist * levels).sum(axis=1, keepdims=True) / totals
    variance = (hist * (levels - mean) ** 2).sum(axis=1, keepdims=True) / totals
    seen = hist > 0
    cumulated = hist.cumsum(axis=1)
    stats: FeatureStats = {
        "min": levels[seen.argmax(axis=1)],
        "max": levels[255 - seen[:, ::-1].argmax(axis=1)],
        "mean": mean[:, 0],
        "std": np.sqrt(variance[:, 0]),
    }
    for key, quantile in QUANTILES.items():
        stats[key] = levels[(cumulated >= quantile * totals).argmax(axis=1)]
    shaped: FeatureStats = {key: value.reshape(-1, 1, 1) for key, value in stats.items()}
    shaped["count"] = np.array([source.count], dtype=np.int64)
    return {key: shaped[key] for key in STAT_KEYS}


def aggregate_feature(parts: Sequence[FeatureStats]) -> FeatureStats:
    """One feature's statistics over several disjoint parts, weighted by their counts."""
    counts = np.stack([part["count"] for part in parts]).astype(np.float64)
    total = np.sum([part["count"] for part in parts], axis=0)
    means = np.stack([part["mean"] for part in parts])
    weights = counts.reshape(counts.shape + (1,) * (means.ndim - counts.ndim))
    summed = weights.sum(axis=0)
    mean = (means * weights).sum(axis=0) / summed
    spread = np.stack([part["std"] ** 2 for part in parts]) + (means - mean) ** 2
    result: FeatureStats = {
        "min": np.min(np.stack([part["min"] for part in parts]), axis=0),
        "max": np.max(np.stack([part["max"] for part in parts]), axis=0),
        "mean": mean,
        "std": np.sqrt((spread * weights).sum(axis=0) / summed),
        "count": total,
    }
    for key in parts[0]:
        if key[0] == "q" and key[1:].isdigit() and all(key in part for part in parts):
            result[key] = (np.stack([part[key] for part in parts]) * weights).sum(axis=0) / summed
    return result


def aggregate(parts: Iterable[Stats]) -> Stats:
    """Statistics over several disjoint parts; a feature counts where it is present."""
    listed = list(parts)
    keys = list(dict.fromkeys(key for part in listed for key in part))
    return {key: aggregate_feature([part[key] for part in listed if key in part]) for key in keys}


def stats_to_json(stats: Stats) -> dict[str, dict[str, Any]]:
    """As stats.json holds them: nested lists."""
    return {
        key: {name: np.asarray(value).tolist() for name, value in feature.items()}
        for key, feature in stats.items()
    }


def stats_from_json(raw: Mapping[str, Mapping[str, Any]]) -> Stats:
    """From stats.json; bare numbers become arrays of one."""
    return {
        key: {name: np.atleast_1d(np.asarray(value)) for name, value in feature.items()}
        for key, feature in raw.items()
    }
