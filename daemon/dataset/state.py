"""What a saver must know of a dataset, kept in memory: totals, tasks, statistics, last numbers.

Read once when the dataset is opened and carried along, so that saving costs the same for the
first and the thousandth episode. Somebody else's writing is noticed by the files' stamps.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recd.config.errors import DatasetError
from recd.daemon.dataset.boxes import BrokenVideoError, read_track
from recd.daemon.dataset.layout import (
    CODEBASE_VERSION,
    DATA_FILE_MB,
    DATA_TEMPLATE,
    FILES_PER_CHUNK,
    FIRST,
    INFO,
    STATS,
    TASKS,
    VIDEO_FILE_MB,
    VIDEO_TEMPLATE,
    FileIndex,
    Layout,
    data_name,
    episodes_name,
    index_of,
    video_name,
)
from recd.daemon.dataset.parquet import (
    ROWS_PER_EPISODES_FILE,
    episodes_schema,
    read_table,
    read_tasks,
)
from recd.daemon.dataset.schema import PICTURES, Features
from recd.daemon.dataset.stats import Stats, aggregate, stats_from_json
from recd.daemon.dataset.transaction import digest_of

Stamp = tuple[int, int, int]
"""Inode, size, modification time (ns) of a file; equal stamps: nobody has written."""

VERIFY_MEND = "Run `recctl verify` on it for details, then `recctl recover`."


@dataclass(slots=True)
class DatasetState:
    """info: of info.json, None before the first episode; tail: rows of the newest episodes file
    while recd may still add to it; delay: pictures between decoding and showing in the newest mp4
    of each camera; stamps: of every metadata file as last read or written."""

    features: Features
    info: dict[str, Any] | None = None
    tasks: list[str] = field(default_factory=list)
    stats: Stats | None = None
    episodes: int = 0
    rows: int = 0
    next_data: FileIndex = FIRST
    next_video: dict[str, FileIndex] = field(default_factory=dict)
    episodes_file: FileIndex | None = None
    tail: pa.Table | None = None
    delay: dict[str, int] = field(default_factory=dict)
    episodes_schema: pa.Schema | None = None
    stamps: dict[str, Stamp] = field(default_factory=dict)

    @property
    def files_per_chunk(self) -> int:
        return int(self.info["chunks_size"]) if self.info else FILES_PER_CHUNK

    def place_for_episode(self) -> tuple[FileIndex, pa.Table | None]:
        """Episodes file that takes the next row, with the rows it already holds."""
        if self.episodes_file is None:
            return FIRST, None
        if self.tail is not None and self.tail.num_rows < ROWS_PER_EPISODES_FILE:
            return self.episodes_file, self.tail
        return self.episodes_file.next(self.files_per_chunk), None

    def changed_outside(self, root: Path) -> list[str]:
        """Metadata files that are not as recd last saw them."""
        return [name for name, stamp in self.stamps.items() if stamp_of(root / name) != stamp]

    def remember(self, root: Path, names: list[str]) -> None:
        """Take the present stamps of metadata files as the known ones."""
        for name in names:
            self.stamps[name] = stamp_of(root / name)


def stamp_of(path: Path) -> Stamp:
    """Stamp of a file; zeros when it is not there."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return (0, 0, 0)
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def new_info(fps: int, robot_type: str, features: Features, *, use_videos: bool) -> dict[str, Any]:
    """info.json of a dataset without episodes: lerobot 0.6.1's keys in its order."""
    return {
        "codebase_version": CODEBASE_VERSION,
        "fps": fps,
        "features": features,
        "total_episodes": 0,
        "total_frames": 0,
        "total_tasks": 0,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": VIDEO_FILE_MB,
        "data_path": DATA_TEMPLATE,
        "video_path": VIDEO_TEMPLATE if use_videos else None,
        "robot_type": robot_type,
        "splits": {},
    }


def read_info(path: Path) -> dict[str, Any]:
    """info.json, checked as far as recording into it needs. DatasetError with the mend."""
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as broken:
        raise DatasetError(f"{path}: not readable: {broken}", mend=VERIFY_MEND) from broken
    if not isinstance(info, dict) or not isinstance(info.get("features"), dict):
        raise DatasetError(f"{path}: not the info.json of a LeRobot dataset", mend=VERIFY_MEND)
    version = str(info.get("codebase_version", "")).removeprefix("v")
    major, _, minor = version.partition(".")
    if not (major.isdigit() and (minor or "0").isdigit()):
        raise DatasetError(f"{path}: codebase_version {version!r}, expected v3.0", mend=VERIFY_MEND)
    if int(major) < 3:
        raise DatasetError(
            f"{path}: LeRobot format v{version}, expected v3.0",
            mend="Convert it with lerobot's own v2.1-to-v3.0 conversion script first.",
        )
    if (int(major), int(minor or 0)) > (3, 0):
        raise DatasetError(
            f"{path}: LeRobot format v{version} is newer than v3.0; nothing was touched",
            mend="Update recd, or record into a new folder.",
        )
    for key, expected in (("data_path", DATA_TEMPLATE), ("video_path", VIDEO_TEMPLATE)):
        if info.get(key, expected) not in (expected, None):
            raise DatasetError(
                f"{path}: {key} is {info[key]!r}, expected {expected!r}",
                mend="Merge it with lerobot into a new dataset, which writes the usual paths.",
            )
    info.setdefault("chunks_size", FILES_PER_CHUNK)
    return info


def files_of_kind(root: Path, folder: str, suffix: str) -> dict[FileIndex, Path]:
    """Numbered files below `folder`, as lerobot globs them, in path order."""
    found = {}
    base = root / folder
    for chunk in _names(base):
        inside = base / chunk
        for name in _names(inside):
            if not name.endswith(suffix):
                continue
            path = inside / name
            index = index_of(f"{chunk}/{name}")
            if index is None:
                raise DatasetError(
                    f"{path}: LeRobot would read this file as part of the dataset",
                    mend="Move it out of the folder.",
                )
            found[index] = path
    return found


def _names(folder: Path) -> list[str]:
    """Names in a folder, in order; none where there is no folder. pathlib takes 20 times as long,
    seconds for ten thousand episodes."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_episodes(root: Path, columns: list[str] | None = None) -> pa.Table | None:
    """All episode rows in path order, only `columns` when given; None without any file."""
    parts = []
    for path in files_of_kind(root, "meta/episodes", ".parquet").values():
        try:
            parts.append(read_table(path, columns))
        except (pa.ArrowInvalid, OSError) as broken:
            raise DatasetError(f"{path}: not readable: {broken}", mend=VERIFY_MEND) from broken
    return pa.concat_tables(parts, promote_options="permissive") if parts else None


def files_in_use(layout: Layout) -> set[str]:
    """Data files and mp4s that the episodes counted by info.json name."""
    if not layout.info.exists():
        return set()
    info = read_info(layout.info)
    table = read_episodes(layout.root)
    used: set[str] = set()
    for row in table.to_pylist()[: int(info["total_episodes"])] if table is not None else ():
        used.add(data_name(FileIndex(row["data/chunk_index"], row["data/file_index"])))
        for key, feature in info["features"].items():
            if feature["dtype"] == "video":
                place = FileIndex(row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"])
                used.add(video_name(key, place))
    return used


def load_state(layout: Layout, features: Features, after: Mapping[str, str]) -> DatasetState:
    """Read a dataset's state from its files.

    features: used while there is no info.json. after: sha256 of the metadata files as recd left
    them; the newest episodes file is continued only when it is still that one.
    """
    state = DatasetState(features)
    if not layout.info.exists():
        if files_of_kind(layout.root, "data", ".parquet"):
            raise DatasetError(f"{layout.root}: data but no {INFO}", mend=VERIFY_MEND)
        return state
    state.info = read_info(layout.info)
    state.features = state.info["features"]
    state.episodes = int(state.info.get("total_episodes", 0))
    state.rows = int(state.info.get("total_frames", 0))
    state.stats = _read_stats(layout, state)
    if layout.tasks.exists():
        state.tasks = read_tasks(layout.tasks)
    names = [INFO, STATS, TASKS]
    if state.episodes:
        names.append(_load_episodes(layout, state, after))
    state.remember(layout.root, names)
    return state


def _read_stats(layout: Layout, state: DatasetState) -> Stats | None:
    """stats.json, or the same from the episodes' own where it is missing; None without any.

    DatasetError for shapes that aggregating would spread silently.
    """
    if not layout.stats.exists():
        return stats_of_episodes(layout) if state.episodes else None
    try:
        stats = stats_from_json(json.loads(layout.stats.read_text(encoding="utf-8")))
    except (ValueError, AttributeError) as broken:
        raise DatasetError(f"{layout.stats}: not readable: {broken}", mend=VERIFY_MEND) from broken
    for key, feature in state.features.items():
        channels = (feature["shape"][-1], 1, 1) if feature["dtype"] in PICTURES else None
        for name, value in stats.get(key, {}).items():
            if channels and name != "count" and value.shape != channels:
                raise DatasetError(
                    f"{layout.stats}: {name} of {key} has shape {value.shape}, expected {channels}",
                    mend="Recompute the statistics with lerobot (recompute_stats), then try again.",
                )
    return stats


def stats_of_episodes(layout: Layout) -> Stats | None:
    """The whole dataset's statistics from its episodes' own; None where one has none."""
    table = read_episodes(layout.root)
    parts: list[Stats] = []
    for row in table.to_pylist() if table is not None else ():
        part: dict[str, dict[str, Any]] = {}
        for name, value in row.items():
            if name.startswith("stats/") and value is not None:
                key, _, stat = name.removeprefix("stats/").rpartition("/")
                part.setdefault(key, {})[stat] = value
        parts.append(stats_from_json(part))
    return aggregate(parts) if parts and all(parts) else None


def _load_episodes(layout: Layout, state: DatasetState, after: Mapping[str, str]) -> str:
    files = files_of_kind(layout.root, "meta/episodes", ".parquet")
    if not files:
        raise DatasetError(
            f"{layout.root}: {INFO} says {state.episodes} episodes, but meta/episodes is empty",
            mend=VERIFY_MEND,
        )
    newest = max(files)
    state.episodes_file = newest
    state.episodes_schema = pq.read_schema(files[min(files)]).remove_metadata()
    _check_numbers(layout, state)
    name = episodes_name(newest)
    if after.get(name) and after[name] == digest_of(layout.root / name):
        state.tail = read_table(files[newest]).cast(state.episodes_schema)
    return name


def _check_numbers(layout: Layout, state: DatasetState) -> None:
    videos = [key for key, ft in state.features.items() if ft["dtype"] == "video"]
    columns = ["episode_index", "dataset_to_index", "data/chunk_index", "data/file_index"]
    for key in videos:
        columns += [f"videos/{key}/chunk_index", f"videos/{key}/file_index"]
    table = read_episodes(layout.root, columns)
    assert table is not None
    numbers = table["episode_index"].to_pylist()
    ends = table["dataset_to_index"].to_pylist()
    if numbers != list(range(state.episodes)) or ends[-1] != state.rows:
        raise DatasetError(
            f"{layout.root}: {INFO} says {state.episodes} episodes and {state.rows} rows, "
            f"meta/episodes holds {len(numbers)} and {ends[-1]}",
            mend=VERIFY_MEND,
        )
    for key in videos:
        state.delay[key] = _newest_delay(layout, state, key, table)
    state.next_data = _next_index(layout, state, table, kind="data", name=data_name)
    for key in videos:
        state.next_video[key] = _next_index(
            layout,
            state,
            table,
            kind=f"videos/{key}",
            name=lambda index, key=key: video_name(key, index),
        )


def _newest_delay(layout: Layout, state: DatasetState, key: str, table: pa.Table) -> int:
    """Delay in pictures of the mp4 that holds the last episode; 0 when it is not readable."""
    place = FileIndex(
        table[f"videos/{key}/chunk_index"][-1].as_py(),
        table[f"videos/{key}/file_index"][-1].as_py(),
    )
    try:
        track = read_track(layout.root / video_name(key, place))
    except (BrokenVideoError, OSError):
        return 0
    return round(track.delay * int(state.info["fps"] if state.info else 1) / track.timescale)


def _next_index(
    layout: Layout, state: DatasetState, table: pa.Table, *, kind: str, name: Any
) -> FileIndex:
    """Number after the highest one used or lying there; missing or stray data files are errors."""
    used = {
        FileIndex(chunk, file)
        for chunk, file in zip(
            table[f"{kind}/chunk_index"].to_pylist(),
            table[f"{kind}/file_index"].to_pylist(),
            strict=True,
        )
    }
    suffix = ".parquet" if kind == "data" else ".mp4"
    present = set(files_of_kind(layout.root, kind, suffix))
    if missing := sorted(used - present):
        raise DatasetError(f"{layout.root}: {name(missing[0])} is missing", mend=VERIFY_MEND)
    if kind == "data" and (stray := sorted(present - used)):
        raise DatasetError(
            f"{layout.root}: {data_name(stray[0])} belongs to no episode; its rows would be read",
            mend=VERIFY_MEND,
        )
    return max(present).next(state.files_per_chunk)


def schema_of_episodes(state: DatasetState) -> pa.Schema:
    """Schema for new episode rows: the first file's where there is one, else lerobot's."""
    return state.episodes_schema or episodes_schema(state.features)
