"""Statistics as LeRobot keeps them: exact for vectors, from 256-bin histograms for pictures.

Aggregation is lerobot 0.6.1's: weighted by count, quantiles too. Shapes: vectors (D,), scalars
(1,), pictures (C,1,1), count (1,). Strings have none; booleans count as 0 and 1.
"""

import math
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


def stats_of_rows(columns: Mapping[str, NDArray[Any]]) -> Stats:
    """vector_stats of columns [R] or [R, D] of the same rows.

    All at once: numpy's calls cost more than the numbers [seven columns: 1.0 ms of CPU, now 0.5].
    """
    if not columns:
        return {}
    flat = [np.asarray(each, np.float64).reshape(len(each), -1) for each in columns.values()]
    joined = vector_stats(np.concatenate(flat, axis=1))
    shapes = [(each.shape[1],) for each in flat]
    joined["count"] = np.repeat(joined["count"], len(joined["mean"]))
    return _parted(joined, columns, shapes)


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


def _aggregated(parts: Sequence[FeatureStats]) -> FeatureStats:
    """Statistics of the same numbers over several disjoint parts, weighted by the counts that each
    number has: all arrays of one length. Quantiles that all parts have."""
    weights = np.stack([part["count"] for part in parts]).astype(np.float64)
    summed = weights.sum(axis=0)
    means = np.stack([part["mean"] for part in parts])
    mean = (means * weights).sum(axis=0) / summed
    spread = np.stack([part["std"] ** 2 for part in parts]) + (means - mean) ** 2
    result: FeatureStats = {
        "min": np.min(np.stack([part["min"] for part in parts]), axis=0),
        "max": np.max(np.stack([part["max"] for part in parts]), axis=0),
        "mean": mean,
        "std": np.sqrt((spread * weights).sum(axis=0) / summed),
        "count": np.sum([part["count"] for part in parts], axis=0),
    }
    for name in parts[0]:
        if _is_quantile(name):
            result[name] = (np.stack([part[name] for part in parts]) * weights).sum(axis=0) / summed
    return result


def aggregate(parts: Iterable[Stats]) -> Stats:
    """Statistics over several disjoint parts; a feature counts where it is present.

    Features that the same parts have are worked out as one long one: numpy's calls cost more than
    the numbers [ten features: 0.9 ms of CPU, now 0.5].
    """
    listed = list(parts)
    wanted = dict.fromkeys(key for part in listed for key in part)
    alike: dict[tuple[tuple[int, ...], tuple[str, ...]], list[str]] = {}
    for key in wanted:
        having = tuple(at for at, part in enumerate(listed) if key in part)
        names = tuple(
            name for name in listed[having[0]][key]
            if _is_quantile(name) and all(name in listed[at][key] for at in having)
        )  # fmt: skip
        alike.setdefault((having, names), []).append(key)
    stats: Stats = {}
    for (having, names), keys in alike.items():
        joined = _aggregated([_joined(listed[at], keys, names) for at in having])
        shapes = [listed[having[0]][key]["mean"].shape for key in keys]
        stats |= _parted(joined, keys, shapes)
    return {key: stats[key] for key in wanted}


def _is_quantile(name: str) -> bool:
    return name[0] == "q" and name[1:].isdigit()


def _joined(stats: Stats, keys: Sequence[str], quantiles: Sequence[str]) -> FeatureStats:
    """The numbers of several features behind one another, each with its feature's count."""
    joined = {
        name: np.concatenate([np.ravel(stats[key][name]) for key in keys]).astype(np.float64)
        for name in ("min", "max", "mean", "std", *quantiles)
    }
    sizes = [stats[key]["mean"].size for key in keys]
    joined["count"] = np.repeat([int(stats[key]["count"][0]) for key in keys], sizes)
    return joined


def _parted(joined: FeatureStats, keys: Iterable[str], shapes: Sequence[tuple[int, ...]]) -> Stats:
    """What `_joined` put together, apart again, each feature in its shape."""
    stats: Stats = {}
    begin = 0
    for key, shape in zip(keys, shapes, strict=True):
        end = begin + math.prod(shape)
        stats[key] = {
            name: joined[name][begin : begin + 1] if name == "count"
            else joined[name][begin:end].reshape(shape)
            for name in joined
        }  # fmt: skip
        begin = end
    return stats


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
