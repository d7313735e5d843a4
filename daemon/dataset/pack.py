"""Many small files become few, as LeRobot would have written them, without decoding.

Atomic: new mp4s come in beside the old ones, then `data` and `meta` change places with the new ones
in one instant; at every kill point LeRobot loads the same episodes. Needs as much free space as the
dataset takes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recd.config.errors import DatasetError
from recd.daemon.dataset.durable import (
    free_bytes,
    make_folders,
    remove_tree,
    sha256_of,
)
from recd.daemon.dataset.exchange import keep_other_meta, swaps
from recd.daemon.dataset.handle import Handle, refresh
from recd.daemon.dataset.layout import (
    FIRST,
    INFO,
    OWN,
    STATS,
    TASKS,
    FileIndex,
    data_name,
    episodes_name,
    video_name,
)
from recd.daemon.dataset.ledger import Move, Transaction
from recd.daemon.dataset.pack_videos import MB, Target, plan_targets, sources_of
from recd.daemon.dataset.parquet import data_schema, write_table
from recd.daemon.dataset.remux import Clip, join
from recd.daemon.dataset.state import files_of_kind, read_episodes
from recd.daemon.dataset.transaction import FOLDER, digest_of, run
from recd.daemon.dataset.verify import fingerprints
from recd.daemon.faultpoints import fault_point

PACKING = "packing"
NEW = "new"
"""Folder inside that holds `data` and `meta` as they will be."""

FAULT_POINTS = (
    "pack.begin",
    "pack.videos_written",
    "pack.data_written",
    "pack.episodes_written",
    "pack.verified",
    "pack.synced",
    "pack.prepared",
    "pack.moved.video",
    "pack.linked.data",
    "pack.linked.meta",
    "pack.exchanged",
    "pack.settled.data",
    "pack.settled.meta",
    "pack.moved.dataset",
    "pack.moved.old",
    "pack.folders_synced",
    "pack.done",
    "pack.cleaned",
)
"""Every place where a test may kill a pack, in order."""


@dataclass(frozen=True, slots=True)
class PackReport:
    """Numbers of files before and after; changed: False when nothing was to be done."""

    changed: bool
    data_before: int
    data_after: int
    videos_before: int
    videos_after: int
    episodes_files_before: int


@dataclass(slots=True)
class _Plan:
    rows: list[dict[str, Any]]
    table: pa.Table
    targets: dict[str, list[Target]]
    index: dict[str, list[FileIndex]]
    data_before: int
    episodes_before: int

    @property
    def videos_before(self) -> int:
        return sum(len(target.sources) for targets in self.targets.values() for target in targets)

    @property
    def videos_after(self) -> int:
        return sum(len(targets) for targets in self.targets.values())


def pack(handle: Handle) -> PackReport:
    """Join the files of a dataset; durable on return. No episode may be running.

    DatasetError, nothing touched, when something is not as it should be or the disk is too full.
    """
    fault_point("pack.begin")
    refresh(handle)
    plan = _plan(handle)
    root, own = handle.root, handle.layout.own / PACKING
    remove_tree(own)
    if plan is None:
        return PackReport(False, 0, 0, 0, 0, 0)
    need_space(handle)
    new = own / NEW
    make_folders(new)
    _write_videos(handle, plan, own)
    fault_point("pack.videos_written")
    data_places = _write_data(handle, new)
    fault_point("pack.data_written")
    data_after = len(set(data_places))
    if (plan.data_before, plan.videos_before, plan.episodes_before) == (
        data_after,
        plan.videos_after,
        1,
    ):
        remove_tree(own)
        return _report(plan, data_after, changed=False)
    _write_meta(handle, plan, new, data_places)
    fault_point("pack.episodes_written")
    _verify(handle, new)
    fault_point("pack.verified")
    transaction = _transaction(handle, plan, own)
    handle.stale = True
    written = [path for path in sorted(own.rglob("*")) if not path.is_symlink()]
    staged = [*written, own, handle.layout.own]
    run(root, transaction, journal=handle.journal, ledger=handle.ledger, staged=staged)
    clean(handle)
    refresh(handle)
    return _report(plan, data_after, changed=True)


def _report(plan: _Plan, data_after: int, *, changed: bool) -> PackReport:
    return PackReport(
        changed=changed,
        data_before=plan.data_before,
        data_after=data_after,
        videos_before=plan.videos_before,
        videos_after=plan.videos_after,
        episodes_files_before=plan.episodes_before,
    )


def clean(handle: Handle) -> None:
    """Remove what packing replaced, or what a pack that was killed early had written."""
    remove_tree(handle.layout.own / PACKING)
    fault_point("pack.cleaned")


def _plan(handle: Handle) -> _Plan | None:
    table = read_episodes(handle.root)
    if table is None or not handle.state.episodes or handle.state.info is None:
        return None
    kept = [name for name in table.column_names if not name.startswith("stats/")]
    rows = table.select(kept).to_pylist()
    fps, limit = handle.schema.fps, int(handle.state.info["video_files_size_in_mb"])
    targets, index = {}, {}
    for key in handle.schema.video_keys:
        sources = sources_of(handle.root, key, rows, fps=fps)
        targets[key] = plan_targets(sources, fps=fps, limit_mb=limit)
        newest = max(files_of_kind(handle.root, f"videos/{key}", ".mp4"))
        place = FileIndex(newest.chunk + 1, 0)
        index[key] = [place]
        for _ in targets[key][1:]:
            place = place.next(handle.state.files_per_chunk)
            index[key].append(place)
    data = len(files_of_kind(handle.root, "data", ".parquet"))
    episodes = len(files_of_kind(handle.root, "meta/episodes", ".parquet"))
    return _Plan(rows, table, targets, index, data, episodes)


def need_space(handle: Handle) -> None:
    """DatasetError with the figures when the disk cannot hold the dataset twice."""
    folders = (handle.root / name for name in ("data", "videos", "meta"))
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    wanted = sum(path.stat().st_size for path in files)
    free = free_bytes(handle.root)
    if free < wanted:
        raise DatasetError(
            f"{handle.root}: packing needs {wanted // MB} MB free, there are {free // MB} MB",
            mend="Free some space, or copy the dataset to a larger disk and pack it there.",
        )


def _write_videos(handle: Handle, plan: _Plan, own: Path) -> None:
    for key, targets in plan.targets.items():
        for target, index in zip(targets, plan.index[key], strict=True):
            path = own / video_name(key, index)
            make_folders(path.parent)
            clips = [Clip(handle.root / s.name, s.pictures) for s in target.sources]
            try:
                join(clips, path, fps=handle.schema.fps)
            except ValueError as broken:
                raise DatasetError(f"{key}: {broken}", mend="Run `recctl verify` on it.") from None


def episode_tables(paths: Sequence[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of each episode in order, one table an episode."""
    held: list[pa.Table] = []
    number: int | None = None
    for path in paths:
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group).select(schema.names).cast(schema)
            episodes = table["episode_index"].to_numpy()
            first = 0
            while first < len(episodes):
                same = int((episodes[first:] == episodes[first]).argmin()) or len(episodes) - first
                if number is not None and episodes[first] != number:
                    yield pa.concat_tables(held)
                    held = []
                number = int(episodes[first])
                held.append(table.slice(first, same))
                first += same
    if held:
        yield pa.concat_tables(held)


def _write_data(handle: Handle, new: Path) -> list[FileIndex]:
    """Write packed data files; returns the file of each episode."""
    paths = list(files_of_kind(handle.root, "data", ".parquet").values())
    assert handle.state.info is not None
    limit = int(handle.state.info["data_files_size_in_mb"]) * MB
    try:
        schema = data_schema(handle.schema.features)
    except DatasetError:  # features that recd does not record itself keep their own types
        schema = pq.read_schema(paths[0])
    places: list[FileIndex] = []
    index, writer = FIRST, None
    for table in episode_tables(paths, schema):
        path = new / data_name(index)
        if writer is not None and path.stat().st_size + table.nbytes >= limit:
            writer.close()
            index, writer = index.next(handle.state.files_per_chunk), None
            path = new / data_name(index)
        if writer is None:
            make_folders(path.parent)
            writer = pq.ParquetWriter(path, schema, compression="snappy", use_dictionary=True)
        writer.write_table(table)
        places.append(index)
    if writer is not None:
        writer.close()
    return places


def _write_meta(handle: Handle, plan: _Plan, new: Path, places: Sequence[FileIndex]) -> None:
    """One table of the episodes; whatever else lies in `meta` goes along."""
    keep_other_meta(handle.root, new)
    count = plan.table.num_rows
    columns: dict[str, list[Any]] = {
        "data/chunk_index": [place.chunk for place in places],
        "data/file_index": [place.file for place in places],
        "meta/episodes/chunk_index": [0] * count,
        "meta/episodes/file_index": [0] * count,
    }
    for key, targets in plan.targets.items():
        names = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        places_of: dict[str, list[Any]] = {f"videos/{key}/{name}": [None] * count for name in names}
        for target, index in zip(targets, plan.index[key], strict=True):
            for episode, first, length in target.starts():
                start, end = first / handle.schema.fps, (first + length) / handle.schema.fps
                for name, value in zip(names, (*_pair(index), start, end), strict=True):
                    places_of[f"videos/{key}/{name}"][episode] = value
        columns |= places_of
    table = plan.table
    for name, values in columns.items():
        place = table.column_names.index(name)
        column = pa.array(values, table.schema.field(name).type)
        table = table.set_column(place, table.schema.field(name), column)
    path = new / episodes_name(FIRST)
    make_folders(path.parent)
    write_table(path, table.combine_chunks())


def _pair(index: FileIndex) -> tuple[int, int]:
    return index.chunk, index.file


def _verify(handle: Handle, new: Path) -> None:
    """The packed rows are the same rows in the same order."""
    if fingerprints(new) != fingerprints(handle.root):
        raise DatasetError(
            f"{handle.root}: the packed rows differ from the present ones; nothing was changed",
            mend="Run `recctl verify` on it.",
        )


def _transaction(handle: Handle, plan: _Plan, own: Path) -> Transaction:
    layout, root = handle.layout, handle.root
    moves = []
    for key, places in plan.index.items():
        for place in places:
            name = video_name(key, place)
            digest = sha256_of(own / name)
            moves.append(Move(layout.relative(own / name), name, digest=digest, label="video"))
    moves += swaps(layout, own / NEW)
    for targets in plan.targets.values():
        for target in targets:
            for old in target.sources:
                away = f"{OWN}/{PACKING}/old/{old.name}"
                digest = sha256_of(root / old.name)
                moves.append(Move(old.name, away, digest=digest, label="old"))
    if (layout.own / "undo").exists():  # those copies fit the old files only
        away = f"{OWN}/{PACKING}/undo"
        moves.append(Move(f"{OWN}/undo", away, digest=FOLDER, label="old"))
    episodes = episodes_name(FIRST)
    after = {name: digest_of(root / name) for name in (INFO, STATS, TASKS)}
    after[episodes] = digest_of(own / NEW / episodes)
    return Transaction("pack", "", tuple(moves), after, {})
