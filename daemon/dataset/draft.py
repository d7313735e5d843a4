"""The new files of one episode, written and read back in its staging folder.

Nothing here is visible to anybody: `commit` renames what this leaves in `new/` and `own/`. What
takes longest, the episodes file of a hundred columns, is begun first and written by another thread:
about as long as all the rest together.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
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
    digest_all,
    make_folders,
    remove_tree,
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
from recd.daemon.dataset.schema import PICTURES, Features
from recd.daemon.dataset.state import DatasetState, new_info, schema_of_episodes
from recd.daemon.dataset.stats import Stats, aggregate, camera_stats, stats_of_rows, stats_to_json
from recd.daemon.dataset.videos import VideoFile, info_block
from recd.daemon.faultpoints import fault_point

LOOKED_AT = ".jpg"
"""Side files that nobody waits for until they are durable: nine for three cameras, and what a power
cut leaves of them is of no consequence."""

T = TypeVar("T")

Facts = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
"""What a manifest tells of an episode, or what works that out, and ends the episode's side files,
while the episodes file is being written."""

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

    videos, video_digest: set by `take_videos`; syncs: files of it that nobody writes into any more;
    tail: all rows of its episodes file, its own last; episodes: done once that file is written and
    read back.
    """

    uid: str
    rows: EpisodeRows
    numbers: Numbering
    tasks: list[str]
    folder: Path
    data_index: FileIndex
    video_index: dict[str, FileIndex]
    episodes_index: FileIndex
    rows_sha256: str
    syncs: Syncs
    stats: Stats
    tail: pa.Table
    episodes: Future[None]
    videos: Mapping[str, VideoFile] = field(default_factory=dict)
    video_digest: dict[str, str] = field(default_factory=dict)
    total_stats: Stats = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def new(self, name: str) -> Path:
        """A new file of the dataset, still in staging."""
        return new_file(self.folder, name)


def new_file(folder: Path, name: str) -> Path:
    """A new file of the dataset in the staging folder of its episode."""
    return folder / "new" / name


def write_rows(handle: Handle, uid: str, rows: EpisodeRows) -> WrittenRows:
    """Give an episode its numbers and write its data file; the disk is told of it at once."""
    state, schema, folder = handle.state, handle.schema, handle.layout.staging(uid)
    tasks = list(dict.fromkeys([*state.tasks, *rows.task]))
    numbers = Numbering(state.episodes, state.rows, {task: i for i, task in enumerate(tasks)})
    remove_tree(folder / "new")
    make_folders(folder / "new")
    columns = row_columns(rows, schema.features, schema.fps, numbers)
    path = new_file(folder, "data.parquet")
    write_data(path, columns, rows.images, data_schema(schema.features, uid[:16]))
    _verify_data(path, rows, schema.features)
    fault_point("commit.data_written")
    syncs: Syncs = {}
    begin_sync(syncs, [path])
    stats = _row_stats(rows, columns, schema.features)
    return WrittenRows(uid, rows, state, tasks, numbers, rows_sha256(rows), stats, syncs)


def begin_draft(handle: Handle, written: WrittenRows, videos: Mapping[str, VideoFile]) -> Draft:
    """Bring an episode's rows and videos together: its row of the episodes file is known, and that
    file is being written from here on. Whoever calls waits for `episodes`, whatever happens."""
    state, schema, folder = handle.state, handle.schema, handle.layout.staging(written.uid)
    episodes_index, tail = state.place_for_episode()
    stats = {
        key: camera_stats(videos[key].histogram) if key in videos else written.stats[key]
        for key, feature in schema.features.items()
        if feature["dtype"] != "string"
    }
    video_index = {key: state.next_video.get(key, FIRST) for key in videos}
    facts = _episode_facts(written, stats, state.next_data, video_index, episodes_index, schema.fps)
    table = episode_row(facts, schema_of_episodes(state))
    if tail is not None:
        table = pa.concat_tables([tail, table])
    syncs = dict(written.syncs)  # of this attempt: another one writes all but the data file anew
    return Draft(
        uid=written.uid,
        rows=written.rows,
        numbers=written.numbers,
        tasks=written.tasks,
        folder=folder,
        data_index=state.next_data,
        video_index=video_index,
        episodes_index=episodes_index,
        rows_sha256=written.rows_sha256,
        syncs=syncs,
        stats=stats,
        tail=table,
        episodes=beside(partial(_write_episodes, folder, table, syncs)),
    )


def take_videos(draft: Draft, videos: Mapping[str, VideoFile]) -> None:
    """The videos as they will be published; the disk is told of them."""
    draft.videos = videos
    begin_sync(draft.syncs, [video.path for video in videos.values()])
    unknown = digest_all({key: video.path for key, video in videos.items() if not video.digest})
    draft.video_digest = {key: video.digest or unknown[key] for key, video in videos.items()}


def write_draft(
    handle: Handle,
    draft: Draft,
    facts: Facts,
    sides: Sequence[Path],
    *,
    meanwhile: Callable[[], T],
) -> T:
    """Write the other new files of the episode below its staging folder.

    sides: further files to keep with it, moved into its own folder. meanwhile: done before the
    episodes file is waited for; its result is returned.
    """
    own = draft.folder / OWN_FOLDER
    make_folders(own)
    told = facts() if callable(facts) else facts
    begin_sync(draft.syncs, own.glob("*.arrows"))
    _write_small(handle, draft, told, sides)
    done = meanwhile()
    draft.episodes.result()
    fault_point("commit.episodes_written")
    begin_sync(draft.syncs, _files_of(draft))
    return done


def _write_episodes(folder: Path, table: pa.Table, syncs: Syncs) -> None:
    """Write the episodes file, tell the disk of it, and read it back."""
    path = new_file(folder, "episodes.parquet")
    write_table(path, table)
    begin_sync(syncs, [path])
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
    """All files of an episode that go into the dataset, but pictures to look at."""
    folders = (draft.folder / "new", draft.folder / OWN_FOLDER)
    files = [path for folder in folders for path in sorted(folder.iterdir())]
    return [path for path in files if path.suffix != LOOKED_AT]


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
            "digest": draft.video_digest[key],
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
    kinds = {key: feature["dtype"] for key, feature in features.items()}
    numbers = {key: columns[key] for key in kinds if kinds[key] not in (*PICTURES, "string")}
    pictures = {
        key: camera_stats(rows.images[key].histogram) for key in kinds if kinds[key] == "image"
    }
    return stats_of_rows(numbers) | pictures


def _episode_facts(
    written: WrittenRows,
    stats: Stats,
    data: FileIndex,
    videos: Mapping[str, FileIndex],
    episodes: FileIndex,
    fps: int,
) -> dict[str, Any]:
    """Its row of the episodes file, by column."""
    rows, numbers = len(written.rows), written.numbers
    facts: dict[str, Any] = {
        "episode_index": numbers.episode_index,
        "tasks": list(dict.fromkeys(written.rows.task)),
        "length": rows,
        "data/chunk_index": data.chunk,
        "data/file_index": data.file,
        "dataset_from_index": numbers.first_row,
        "dataset_to_index": numbers.first_row + rows,
        "meta/episodes/chunk_index": episodes.chunk,
        "meta/episodes/file_index": episodes.file,
    }
    for key, index in videos.items():
        facts[f"videos/{key}/chunk_index"] = index.chunk
        facts[f"videos/{key}/file_index"] = index.file
        facts[f"videos/{key}/from_timestamp"] = 0.0
        facts[f"videos/{key}/to_timestamp"] = rows / fps
    for key, each in stats.items():
        for name, value in each.items():
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
