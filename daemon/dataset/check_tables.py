"""Checks everything of a dataset that is not video: info, tasks, episodes, rows, statistics.

Independent of recd's writer: reads the files as lerobot does and compares with the rules.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recd.daemon.dataset.layout import (
    DATA_TEMPLATE,
    INFO,
    STATS,
    TASKS,
    FileIndex,
    data_name,
    episodes_name,
)
from recd.daemon.dataset.parquet import arrow_type, read_table
from recd.daemon.dataset.rules import Findings
from recd.daemon.dataset.schema import BOOKKEEPING, PICTURES
from recd.daemon.dataset.stats import STAT_KEYS
from recd.daemon.dataset.videos import LEROBOT_CODECS

UNREADABLE = (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError)
CODEC_NAMES = LEROBOT_CODECS | {"libsvtav1", "libaom-av1", "auto"}
DEPTH_PIXELS = ("gray12le", "gray10le", "gray12", "gray10")
TIME_TOLERANCE_S = 1e-4
"""lerobot's default tolerance between a row's time and its picture's."""


@dataclass(slots=True)
class Dataset:
    """What is known of the dataset under check so far."""

    root: Path
    found: Findings
    info: dict[str, Any] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    episodes: list[dict[str, Any]] = field(default_factory=list)
    rows: int = 0

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        return dict(self.info.get("features", {}))

    @property
    def fps(self) -> float:
        return float(self.info["fps"])

    def of_kind(self, *dtypes: str) -> list[str]:
        """Feature names with one of these dtypes."""
        return [key for key, feature in self.features.items() if feature["dtype"] in dtypes]

    @property
    def numeric(self) -> list[str]:
        return [k for k, f in self.features.items() if f["dtype"] not in ("string", "language")]


def check_info(ds: Dataset) -> bool:
    """Fill `ds.info`; False when nothing further can be checked."""
    found = ds.found
    try:
        info = json.loads((ds.root / INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError) as broken:
        found.add("info.readable", INFO, str(broken))
        return False
    missing = [key for key in ("codebase_version", "fps", "features") if key not in info]
    if missing or not isinstance(info["features"], dict):
        found.add("info.readable", INFO, f"{', '.join(missing) or 'features'} missing")
        return False
    ds.info = info
    _check_version(ds, str(info["codebase_version"]))
    for key in ("fps", "chunks_size", "data_files_size_in_mb", "video_files_size_in_mb"):
        value = info.get(key, 1)
        if not isinstance(value, int | float) or value <= 0:
            found.add("info.numbers", key, f"expected a positive number, found {value!r}")
    for name, feature in info["features"].items():
        _check_feature(ds, name, feature)
    for name in BOOKKEEPING:
        if name not in info["features"]:
            found.add("info.bookkeeping", name, "not declared")
    if info.get("data_path", DATA_TEMPLATE) != DATA_TEMPLATE:
        found.add("info.data_path", INFO, f"data_path {info['data_path']!r}")
    fatal = ("info.numbers", "info.features", "info.bookkeeping", "info.version")
    if found.broken(fatal):
        return False
    if ds.of_kind("video") and not info.get("video_path", True):
        found.add("info.video_path", INFO, "video_path is null")
        return False
    return True


def _check_version(ds: Dataset, version: str) -> None:
    parts = version.removeprefix("v").split(".")
    if not all(part.isdigit() for part in parts) or int(parts[0]) < 3:
        ds.found.add("info.version", INFO, f"expected v3.0, found {version!r}")
    elif [int(part) for part in parts] > [3, 0]:
        ds.found.add("info.newer", INFO, f"found {version}")


def _check_feature(ds: Dataset, name: str, feature: Any) -> None:
    found = ds.found
    shape = feature.get("shape") if isinstance(feature, dict) else None
    if not isinstance(shape, list) or not shape or "dtype" not in feature:
        found.add("info.features", name, f"found {feature!r}")
        return
    if not all(isinstance(side, int) and side > 0 for side in shape) or len(shape) > 5:
        found.add("info.features", name, f"shape {shape}")
        return
    if "/" in name:
        found.add("info.names", name, "'/' in the name")
    if feature["dtype"] in PICTURES:
        names = feature.get("names")
        if len(shape) != 3 or not names or len(names) != 3 or shape[2] not in (1, 3):
            found.add("info.camera", name, f"shape {shape}, names {names}")
    elif "image" in name:
        found.add("info.names", name, "'image' in the name of a feature that is no camera")
    elif feature["dtype"] not in ("string", "language"):
        try:
            arrow_type(feature["dtype"])
        except (TypeError, pa.ArrowNotImplementedError):
            found.add("info.features", name, f"dtype {feature['dtype']!r}")
    if feature["dtype"] == "video":
        _check_codec(ds, name, feature.get("info") or {})


def _check_codec(ds: Dataset, name: str, info: dict[str, Any]) -> None:
    codec = info.get("video.codec")
    depth = bool(info.get("is_depth_map") or info.get("video.is_depth_map"))
    if depth:
        pixels = info.get("video.pix_fmt", DEPTH_PIXELS[0])
        if codec not in (None, "hevc") or pixels not in DEPTH_PIXELS:
            ds.found.add("info.depth", name, f"codec {codec}, pixel format {pixels}")
    elif codec is not None and codec not in CODEC_NAMES:
        ds.found.add("info.codec", name, f"found {codec!r}, expected {', '.join(LEROBOT_CODECS)}")


def check_tasks(ds: Dataset) -> None:
    """Fill `ds.tasks`."""
    found = ds.found
    try:
        table = read_table(ds.root / TASKS)
    except UNREADABLE as broken:
        found.add("tasks.present", TASKS, str(broken))
        return
    pandas = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}"))
    text = "task" if "task" in table.column_names else "__index_level_0__"
    if "task_index" not in table.column_names or text not in table.column_names:
        found.add("tasks.present", TASKS, f"columns {table.column_names}")
        return
    ds.tasks = [str(task) for task in table[text].to_pylist()]
    if pandas.get("index_columns") != [text]:
        found.add("tasks.index", TASKS, f"index columns {pandas.get('index_columns')}")
    numbers = table["task_index"].to_pylist()
    if numbers != list(range(len(numbers))):
        found.add("tasks.order", TASKS, f"numbers {numbers[:8]}")
    total = ds.info.get("total_tasks", 0)
    if total != len(numbers):
        found.add("tasks.count", INFO, f"total_tasks {total}, the table holds {len(numbers)}")


REQUIRED_COLUMNS = (
    "episode_index",
    "tasks",
    "length",
    "data/chunk_index",
    "data/file_index",
    "dataset_from_index",
    "dataset_to_index",
    "meta/episodes/chunk_index",
    "meta/episodes/file_index",
)
PLACES = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")


def check_episodes(ds: Dataset) -> bool:
    """Fill `ds.episodes`; False when the rows cannot be told apart."""
    found, root = ds.found, ds.root
    paths = sorted((root / "meta/episodes").glob("*/*.parquet"))
    if not paths:
        found.add("episodes.present", "meta/episodes", "no file")
        return False
    tables: list[pa.Table] = []
    for path in paths:
        name = path.relative_to(root).as_posix()
        try:
            table = read_table(path)
        except UNREADABLE as broken:
            found.add("episodes.present", name, str(broken))
            continue
        if tables and (new := set(table.column_names) - set(tables[0].column_names)):
            found.add("episodes.schema", name, f"columns the first file lacks: {sorted(new)[:3]}")
        tables.append(table)
    if found.broken(("episodes.present", "episodes.schema")):
        return False
    _check_episode_columns(ds, tables[0])
    if found.broken(("episodes.columns", "episodes.video_columns")):
        return False
    for table in tables:
        kept = [c for c in table.column_names if not c.startswith("stats/")]
        ds.episodes += table.select(kept).to_pylist()
        _check_episode_stats(ds, table)
    _check_episode_numbers(ds)
    return not found.broken(("episodes.order", "episodes.count"))


def _check_episode_columns(ds: Dataset, first: pa.Table) -> None:
    names = set(first.column_names)
    for column in REQUIRED_COLUMNS:
        if column not in names:
            ds.found.add("episodes.columns", "meta/episodes", f"{column} missing")
    for key in ds.of_kind("video"):
        for place in PLACES:
            if f"videos/{key}/{place}" not in names:
                ds.found.add("episodes.video_columns", key, f"{place} missing")


def _check_episode_stats(ds: Dataset, table: pa.Table) -> None:
    for key in ds.numeric:
        lacking = [s for s in STAT_KEYS if f"stats/{key}/{s}" not in table.column_names]
        if lacking:
            ds.found.add("episodes.stats", key, f"{', '.join(lacking[:3])} missing")
            continue
        if any(table[f"stats/{key}/{stat}"].null_count for stat in STAT_KEYS):
            ds.found.add("episodes.stats", key, "null for some episodes")


def _check_episode_numbers(ds: Dataset) -> None:
    found, total = ds.found, ds.info.get("total_episodes", 0)
    numbers = [row["episode_index"] for row in ds.episodes]
    if numbers != list(range(len(numbers))):
        found.add("episodes.order", "meta/episodes", f"numbers {numbers[:8]} in path order")
    if total > len(numbers) or not total:
        found.add("episodes.count", INFO, f"total_episodes {total}, found {len(numbers)}")
    elif total < len(numbers):
        found.add("episodes.hidden", INFO, f"total_episodes {total}, found {len(numbers)}")
    start = 0
    for row in ds.episodes:
        where = f"episode {row['episode_index']}"
        first, end, length = (row[c] for c in ("dataset_from_index", "dataset_to_index", "length"))
        if first != start or end - first != length or length <= 0:
            found.add("episodes.ranges", where, f"{first}..{end}, length {length}, after {start}")
        start = end
        place = FileIndex(row["meta/episodes/chunk_index"], row["meta/episodes/file_index"])
        if not (ds.root / episodes_name(place)).exists():
            found.add("episodes.own_file", where, f"{episodes_name(place)} is not there")
    if start != ds.info.get("total_frames"):
        found.add("data.rows", INFO, f"total_frames {ds.info.get('total_frames')}, lengths {start}")


def check_statistics(ds: Dataset) -> None:
    """Shapes and presence that resuming, merging and training need."""
    found = ds.found
    try:
        stats = json.loads((ds.root / STATS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as broken:
        found.add("stats.present", STATS, str(broken))
        return
    for key in ds.numeric:
        if key not in stats:
            found.add("stats.present", key, "missing")
            continue
        shape = ds.features[key]["shape"]
        picture = ds.features[key]["dtype"] in PICTURES
        want = (shape[2], 1, 1) if picture else (shape[-1],)
        for name in STAT_KEYS:
            expected = (1,) if name == "count" else want
            value = np.atleast_1d(np.asarray(stats[key].get(name, [[]]), dtype=object))
            if value.shape != expected:
                found.add("stats.shape", key, f"{name}: {value.shape}, expected {expected}")
            elif not np.isfinite(value.astype(np.float64)).all():
                found.add("stats.finite", key, f"{name} is not finite")


def files_with_rows(ds: Dataset) -> list[Path]:
    """Data files as lerobot globs them, in path order."""
    return sorted((ds.root / "data").glob("*/*.parquet"))


def named_data_file(row: dict[str, Any]) -> str:
    """Path of the data file an episode's row names."""
    return data_name(FileIndex(row["data/chunk_index"], row["data/file_index"]))
