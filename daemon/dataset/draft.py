"""The new files of one episode, written and read back in its staging folder.

Nothing here is visible to anybody: `commit` renames what this leaves in `new/` and `own/`.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from recd.config.errors import DatasetError
from recd.daemon.dataset.durable import (
    Syncs,
    begin_sync,
    beside,
    make_folders,
    remove_tree,
    sha256_all,
    write_json,
)
from recd.daemon.dataset.handle import Handle
from recd.daemon.dataset.layout import FIRST, FileIndex
from recd.daemon.dataset.manifest import MANIFEST, build_manifest, rows_sha256
from recd.daemon.dataset.parquet import (
    EpisodeRows,
    Numbering,
    data_schema,
    episode_row,
    row_columns,
    tasks_table,
    write_data,
    write_table,
)
from recd.daemon.dataset.schema import Features
from recd.daemon.dataset.state import DatasetState, new_info, schema_of_episodes
from recd.daemon.dataset.stats import Stats, aggregate, camera_stats, stats_to_json, vector_stats
from recd.daemon.dataset.videos import VideoFile, info_block
from recd.daemon.faultpoints import fault_point

T = TypeVar("T")

OWN_FOLDER = "own"
"""Folder in staging that becomes the episode's own folder: side files are written there."""


@dataclass(frozen=True, slots=True)
class WrittenRows:
    """The data file of an episode in its staging folder: what can be done before its videos are
    closed. state: of the dataset when it got its numbers; stats: of all that is no video."""

    uid: str
    rows: EpisodeRows
    state: DatasetState
    tasks: list[str]
    numbers: Numbering
    rows_sha256: str
    stats: Stats
    syncs: Syncs

    def fits(self, handle: Handle, uid: str, rows: EpisodeRows) -> bool:
        """Whether it is still what `write_rows` would write."""
        return self.uid == uid and self.rows is rows and self.state is handle.state


@dataclass(slots=True)
class Draft:
    """An episode on its way in: what was given, its numbers, and what has been written so far.

    syncs: files of it that nobody writes into any more; tail: all rows of its episodes file, its
    own last once written.
    """

    uid: str
    rows: EpisodeRows
    videos: Mapping[str, VideoFile]
    numbers: Numbering
    tasks: list[str]
    folder: Path
    data_index: FileIndex
    video_index: dict[str, FileIndex]
    episodes_index: FileIndex
    video_sha256: dict[str, str]
    rows_sha256: str
    syncs: Syncs
    tail: pa.Table | None
    stats: Stats = field(default_factory=dict)
    total_stats: Stats = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def new(self, name: str) -> Path:
        """A new file of the dataset, still in staging."""
        return self.folder / "new" / name


def write_rows(handle: Handle, uid: str, rows: EpisodeRows) -> WrittenRows:
    """Give an episode its numbers and write its data file; the disk is told of it at once."""
    state, schema, folder = handle.state, handle.schema, handle.layout.staging(uid)
    tasks = list(dict.fromkeys([*state.tasks, *rows.task]))
    numbers = Numbering(state.episodes, state.rows, {task: i for i, task in enumerate(tasks)})
    remove_tree(folder / "new")
    make_folders(folder / "new")
    columns = row_columns(rows, schema.features, schema.fps, numbers)
    path = folder / "new" / "data.parquet"
    write_data(path, columns, rows.images, data_schema(schema.features, uid[:16]))
    _verify_data(path, rows, schema.features)
    fault_point("commit.data_written")
    syncs: Syncs = {}
    begin_sync(syncs, [path])
    stats = _row_stats(rows, columns, schema.features)
    return WrittenRows(uid, rows, state, tasks, numbers, rows_sha256(rows), stats, syncs)


def begin_draft(handle: Handle, written: WrittenRows, videos: Mapping[str, VideoFile]) -> Draft:
    """Bring an episode's rows and videos together. Both are on their way to the disk from here."""
    state, folder = handle.state, handle.layout.staging(written.uid)
    episodes_index, tail = state.place_for_episode()
    closed = (folder / OWN_FOLDER).glob("*.arrows")
    begin_sync(written.syncs, [*(video.path for video in videos.values()), *closed])
    unknown = sha256_all({key: video.path for key, video in videos.items() if not video.sha256})
    return Draft(
        uid=written.uid,
        rows=written.rows,
        videos=videos,
        numbers=written.numbers,
        tasks=written.tasks,
        folder=folder,
        data_index=state.next_data,
        video_index={key: state.next_video.get(key, FIRST) for key in videos},
        episodes_index=episodes_index,
        video_sha256={key: video.sha256 or unknown[key] for key, video in videos.items()},
        rows_sha256=written.rows_sha256,
        syncs=written.syncs,
        tail=tail,
        stats=written.stats,
    )


def write_draft(
    handle: Handle,
    draft: Draft,
    facts: Mapping[str, Any],
    sides: Sequence[Path],
    *,
    meanwhile: Callable[[], T],
) -> T:
    """Write the other new files of the episode below its staging folder, and read back the one
    that is not ours alone to read.

    sides: further files to keep with it, moved into its own folder. meanwhile: done while the
    largest of the files is written; its result is returned.
    """
    state, schema = handle.state, handle.schema
    make_folders(draft.folder / OWN_FOLDER)
    draft.stats = {
        key: camera_stats(draft.videos[key].histogram) if key in draft.videos else draft.stats[key]
        for key, feature in schema.features.items()
        if feature["dtype"] != "string"
    }
    table = episode_row(_episode_facts(draft, schema.fps), schema_of_episodes(state))
    if draft.tail is not None:
        table = pa.concat_tables([draft.tail, table]).combine_chunks()
    draft.tail = table
    # Of 121 columns: 5 ms of CPU and one to read it back, most of them outside Python. All other
    # files take 5, in this thread.
    episodes = beside(partial(_write_episodes, draft, table))
    try:
        _write_small(handle, draft, facts, sides)
        done = meanwhile()
    finally:
        wait([episodes])
    episodes.result()
    fault_point("commit.episodes_written")
    begin_sync(draft.syncs, _files_of(draft))
    return done


def _write_episodes(draft: Draft, table: pa.Table) -> None:
    """Write the episodes file, tell the disk of it, and read it back."""
    path = draft.new("episodes.parquet")
    write_table(path, table)
    begin_sync(draft.syncs, [path])
    meta = pq.read_metadata(path)
    if meta.num_rows != table.num_rows:
        raise DatasetError(f"{path}: {meta.num_rows} rows, not as written")


def _write_small(
    handle: Handle, draft: Draft, facts: Mapping[str, Any], sides: Sequence[Path]
) -> None:
    """Write tasks, statistics, info and what is the episode's own."""
    state = handle.state
    if draft.tasks != state.tasks:
        write_table(draft.new("tasks.parquet"), tasks_table(draft.tasks))
    fault_point("commit.tasks_written")
    parts = [draft.stats] if state.stats is None else [state.stats, draft.stats]
    draft.total_stats = aggregate(parts)
    write_json(draft.new("stats.json"), stats_to_json(draft.total_stats))
    fault_point("commit.stats_written")
    draft.info = _next_info(handle, draft)
    write_json(draft.new("info.json"), draft.info)
    fault_point("commit.info_written")
    _write_own(handle, draft, facts, sides)
    fault_point("commit.manifest_written")


def _files_of(draft: Draft) -> list[Path]:
    """All files of an episode that go into the dataset."""
    folders = (draft.folder / "new", draft.folder / OWN_FOLDER)
    return [path for folder in folders for path in sorted(folder.iterdir())]


def _write_own(
    handle: Handle, draft: Draft, facts: Mapping[str, Any], sides: Sequence[Path]
) -> None:
    own = draft.folder / OWN_FOLDER
    for side in sides:
        # An earlier attempt that was killed may have moved it.
        if side.parent != own and side.exists():
            side.replace(own / side.name)
    described = {
        key: {
            "sha256": draft.video_sha256[key],
            "bytes": video.path.stat().st_size,
            **asdict(video.pins),
        }
        for key, video in draft.videos.items()
    }
    manifest = build_manifest(
        facts,
        uid=draft.uid,
        rows=draft.rows,
        digest=draft.rows_sha256,
        videos=described,
        columns=handle.schema.columns,
    )
    write_json(own / MANIFEST, manifest)


def _row_stats(rows: EpisodeRows, columns: Mapping[str, Any], features: Mapping[str, Any]) -> Stats:
    """Statistics of all that a data file holds."""
    stats: Stats = {}
    for key, feature in features.items():
        if feature["dtype"] == "image":
            stats[key] = camera_stats(rows.images[key].histogram)
        elif feature["dtype"] not in ("string", "video"):
            stats[key] = vector_stats(columns[key])
    return stats


def _episode_facts(draft: Draft, fps: int) -> dict[str, Any]:
    rows, numbers = len(draft.rows), draft.numbers
    facts: dict[str, Any] = {
        "episode_index": numbers.episode_index,
        "tasks": list(dict.fromkeys(draft.rows.task)),
        "length": rows,
        "data/chunk_index": draft.data_index.chunk,
        "data/file_index": draft.data_index.file,
        "dataset_from_index": numbers.first_row,
        "dataset_to_index": numbers.first_row + rows,
        "meta/episodes/chunk_index": draft.episodes_index.chunk,
        "meta/episodes/file_index": draft.episodes_index.file,
    }
    for key, index in draft.video_index.items():
        facts[f"videos/{key}/chunk_index"] = index.chunk
        facts[f"videos/{key}/file_index"] = index.file
        facts[f"videos/{key}/from_timestamp"] = 0.0
        facts[f"videos/{key}/to_timestamp"] = rows / fps
    for key, stats in (draft.stats).items():
        for name, value in stats.items():
            facts[f"stats/{key}/{name}"] = value
    return facts


def _next_info(handle: Handle, draft: Draft) -> dict[str, Any]:
    schema, state = handle.schema, handle.state
    if state.info is None:
        features = deepcopy(schema.features)
        use_videos = bool(schema.video_keys) or not schema.image_keys
        info = new_info(schema.fps, schema.robot_type, features, use_videos=use_videos)
    else:
        info = deepcopy(state.info)
    for key, video in draft.videos.items():
        feature = info["features"][key]
        known = feature.get("info") or {}
        if "video.codec" not in known:
            feature["info"] = {**known, **info_block(video.pins, schema.fps)}
    info["total_episodes"] = state.episodes + 1
    info["total_frames"] = state.rows + len(draft.rows)
    info["total_tasks"] = len(draft.tasks)
    info["splits"] = {"train": f"0:{state.episodes + 1}"}
    return info


def _verify_data(path: Path, rows: EpisodeRows, features: Features) -> None:
    """Read back a data file: row count, schema, no column lost."""
    with pq.ParquetFile(path) as written:
        found, count = written.schema_arrow.remove_metadata(), written.metadata.num_rows
    if count != len(rows) or not found.equals(data_schema(features).remove_metadata()):
        raise DatasetError(f"{path}: {count} rows of {found.names}, expected {len(rows)}")
