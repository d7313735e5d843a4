"""Take any episodes out of a dataset, or give one another task. Nothing is destroyed here.

All new files are written beside the old ones; then `data` and `meta` change places with the new
ones in one instant. Killed anywhere, a loader sees the old dataset or the new one, whole.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from recd.config.errors import DatasetError
from recd.daemon.dataset.check_rows import check_rows
from recd.daemon.dataset.check_tables import (
    Dataset,
    check_episodes,
    check_info,
    check_statistics,
    check_tasks,
)
from recd.daemon.dataset.commit import UNDO_RECORD
from recd.daemon.dataset.durable import (
    free_bytes,
    keep_copy,
    make_folders,
    remove_tree,
    sha256_of,
    write_json,
)
from recd.daemon.dataset.edit_rows import Change, Row, new_numbers, write_episodes, write_rows
from recd.daemon.dataset.edit_videos import VideoEdit, edit_videos
from recd.daemon.dataset.exchange import keep_other_meta, swaps
from recd.daemon.dataset.handle import Handle, refresh
from recd.daemon.dataset.layout import INFO, OWN, STATS, TASKS, Layout, episodes_name
from recd.daemon.dataset.ledger import LedgerEntry, Move, Transaction
from recd.daemon.dataset.manifest import MANIFEST, read_manifest
from recd.daemon.dataset.parquet import tasks_table, write_table
from recd.daemon.dataset.rules import Finding, Findings
from recd.daemon.dataset.state import files_of_kind, read_episodes, stats_of_episodes
from recd.daemon.dataset.stats import stats_to_json
from recd.daemon.dataset.transaction import FOLDER, digest_of, run
from recd.daemon.dataset.trash import TRASH_NOTE, TrashEntry, entry_of, note_of
from recd.daemon.dataset.verify import fingerprints
from recd.daemon.faultpoints import fault_point
from recd.shm import clock

EDITING = "editing"
STEPS = (
    "begin",
    "videos_written",
    "rows_written",
    "meta_written",
    "verified",
    "synced",
    "prepared",
    "moved.video",
    "linked.data",
    "linked.meta",
    "exchanged",
    "settled.data",
    "settled.meta",
    "moved.dataset",
    "moved.own",
    "moved.old",
    "moved.trash",
    "folders_synced",
    "done",
    "cleaned",
)
DELETE_POINTS = tuple(f"delete.{step}" for step in STEPS)
RELABEL_POINTS = tuple(
    f"relabel.{step}"
    for step in STEPS
    if step not in ("videos_written", "moved.video", "moved.trash", "moved.old")
)
"""Every place where a test may kill an edit, in order."""


@dataclass(slots=True)
class _Edit:
    """An edit under way. rows: of the episodes table now; work: folder of all its files."""

    kind: str
    rows: list[Row]
    change: Change
    work: Path
    videos: VideoEdit

    @property
    def new(self) -> Path:
        """Holds `data` and `meta` as they will be."""
        return self.work / "new"


def delete(handle: Handle, uids: Sequence[str]) -> list[TrashEntry]:
    """Take published episodes out, whole, into the trash; the others are numbered anew.

    Durable on return. DatasetError, nothing touched, for an episode that is not recd's (any more),
    and when none would be left.
    """
    fault_point("delete.begin")
    refresh(handle)
    entries = [_entry(handle, uid) for uid in dict.fromkeys(uids)]
    if not entries:
        return []
    if len(entries) == handle.state.episodes:
        raise DatasetError(
            f"{handle.root}: no episode would be left, and lerobot knows no empty dataset",
            mend="Keep one, or remove the folder.",
        )
    rows, work = _begin(handle)
    kept = {entry.episode_index: handle.layout.trash(entry.uid) / "files" for entry in entries}
    for entry in entries:
        remove_tree(handle.layout.trash(entry.uid))
    videos = edit_videos(handle, rows, kept, work)
    fault_point("delete.videos_written")
    change = Change(frozenset(kept), texts=handle.state.tasks, places=videos.places)
    edit = _Edit("delete", rows, change, work, videos)
    _write(handle, edit, aside=lambda number: kept[number] / "data.parquet")
    for entry in entries:
        _keep(handle, edit, entry)
    _verify(handle, edit, entries)
    moves = [*_exchanges(handle, edit), *_departures(handle, edit, entries)]
    left = new_numbers(rows, change.gone)
    published = [
        asdict(
            replace(e, episode_index=left[e.episode_index][0], first_row=left[e.episode_index][1])
        )
        for e in handle.ledger.published.values()
        if e.episode_index in left
    ]
    facts = {"published": published, "trashed": [asdict(entry) for entry in entries]}
    _publish(handle, edit, moves, facts, uid=entries[0].uid)
    return [entry_of(handle.layout, entry.uid) for entry in entries]


def relabel(handle: Handle, uid: str, task: str) -> int:
    """Give all rows of a published episode the task `task`; durable on return.

    Returns the episode's number. The earlier tasks stay in its manifest; DatasetError as `delete`.
    """
    fault_point("relabel.begin")
    refresh(handle)
    entry = _entry(handle, uid)
    if not task.strip():
        raise DatasetError("the task is empty", mend="Give the task in words.")
    texts = list(dict.fromkeys([*handle.state.tasks, task]))
    rows, work = _begin(handle)
    change = Change(task={entry.episode_index: texts.index(task)}, texts=texts)
    edit = _Edit("relabel", rows, change, work, VideoEdit())
    _write(handle, edit, aside=lambda _: work / "never")
    _verify(handle, edit, [])
    manifest = handle.layout.episode(uid) / MANIFEST
    told = read_manifest(manifest.parent)
    at = clock.wall_iso(clock.clock_pair().real_ns)
    earlier = {"from": told.get("tasks", []), "to": [task], "at": at}
    new = {**told, "tasks": [task], "relabelled": [*told.get("relabelled", []), earlier]}
    write_json(work / MANIFEST, new)
    keep_copy(manifest, work / "old.json")
    moves = _exchanges(handle, edit)
    moves.append(
        Move(
            handle.layout.relative(work / MANIFEST),
            handle.layout.relative(manifest),
            digest=sha256_of(work / MANIFEST),
            before=sha256_of(manifest),
            keep=handle.layout.relative(work / "old.json"),
            label="own",
        )
    )
    _publish(handle, edit, moves, {}, uid=uid)
    return entry.episode_index


def clean(handle: Handle) -> None:
    """Remove what an edit replaced, or what one that was killed early had written."""
    remove_tree(handle.layout.own / EDITING)


def _entry(handle: Handle, uid: str) -> LedgerEntry:
    entry = handle.ledger.published.get(uid)
    if entry is None:
        raise DatasetError(
            f"episode {uid} is not in this dataset", mend="See `recctl dataset info`."
        )
    return entry


def _begin(handle: Handle) -> tuple[list[Row], Path]:
    """The episodes as they are, and an empty work folder on a disk with room for all rows."""
    work = handle.layout.own / EDITING
    remove_tree(work)
    make_folders(work)
    files = [p for name in ("data", "meta") for p in (handle.root / name).rglob("*")]
    wanted = sum(path.stat().st_size for path in files if path.is_file())
    free = free_bytes(handle.root)
    if free < wanted:
        raise DatasetError(
            f"{handle.root}: the edit needs {wanted >> 20} MB free, there are {free >> 20} MB",
            mend="Free some space; `recctl dataset purge` empties the trash.",
        )
    table = read_episodes(handle.root)
    assert table is not None, "a dataset with published episodes has episodes files"
    kept = [name for name in table.column_names if not name.startswith("stats/")]
    return table.select(kept).to_pylist(), work


def _write(handle: Handle, edit: _Edit, *, aside: Any) -> None:
    """The new `data` and `meta` folders, whole, in the work folder."""
    root, work, change = handle.root, edit.new, edit.change
    write_rows(root, work, edit.rows, change, aside=aside)
    fault_point(f"{edit.kind}.rows_written")
    keep_other_meta(root, edit.new)
    write_episodes(root, work, edit.rows, change)
    if change.texts != handle.state.tasks:
        remove_tree(work / TASKS)
        write_table(work / TASKS, tasks_table(change.texts))
    if (stats := stats_of_episodes(Layout(work))) is not None:
        remove_tree(work / STATS)
        write_json(work / STATS, stats_to_json(stats))
    staying = [row for row in edit.rows if row["episode_index"] not in change.gone]
    assert handle.state.info is not None, "a dataset with episodes has an info.json"
    info = deepcopy(handle.state.info)
    info["total_episodes"] = len(staying)
    info["total_frames"] = sum(row["length"] for row in staying)
    info["total_tasks"] = len(change.texts)
    info["splits"] = {"train": f"0:{len(staying)}"}
    remove_tree(work / INFO)
    write_json(work / INFO, info)
    fault_point(f"{edit.kind}.meta_written")


def _keep(handle: Handle, edit: _Edit, entry: LedgerEntry) -> None:
    """What `undelete` needs of an episode beside its files: its row, the tasks, its places."""
    trash, number = handle.layout.trash(entry.uid), entry.episode_index
    make_folders(trash / "after")
    make_folders(trash / "undo")
    table = read_episodes(handle.root)
    assert table is not None, "read before"
    write_table(trash / "after/episodes.parquet", table.slice(number, 1).combine_chunks())
    keep_copy(handle.layout.tasks, trash / "after/tasks.parquet")
    moves = [Move("", "data.parquet", sha256_of(trash / "files/data.parquet"), label="data")]
    for key in handle.schema.video_keys:
        name = edit.videos.aside[number, key]
        moved = name in edit.videos.moved
        path = handle.root / name if moved else trash / "files" / name
        moves.append(Move("", name, digest=sha256_of(path), label="video"))
    record = Transaction("commit", entry.uid, tuple(moves), {}, asdict(entry))
    write_json(trash / "undo" / UNDO_RECORD, record.as_record())
    make_folders(edit.work / "notes")
    write_json(
        edit.work / "notes" / entry.uid, note_of(entry.uid, kind="deleted", rows=entry.length)
    )


def _verify(handle: Handle, edit: _Edit, entries: Sequence[LedgerEntry]) -> None:
    """The rows that stay are the same rows, those set aside are the episodes meant, and nothing is
    worse than before."""
    before, gone = fingerprints(handle.root), edit.change.gone
    for entry in entries:
        aside = handle.layout.trash(entry.uid) / "files/data.parquet"
        if pq.read_metadata(aside).num_rows != entry.length or (
            before[entry.episode_index] != entry.rows_sha256
        ):
            raise DatasetError(
                f"episode {entry.episode_index} ({entry.uid}) was changed or moved elsewhere; "
                "nothing was touched",
                mend="Run `recctl verify`; lerobot's delete_episodes can still take it out.",
            )
    staying = [digest for number, digest in enumerate(before) if number not in gone]
    known = {finding.rule.name for finding in _findings(handle.root)}
    worse = [str(found) for found in _findings(edit.new) if found.rule.name not in known]
    if fingerprints(edit.new) != staying or worse:
        found = worse[0] if worse else "its rows would differ"
        raise DatasetError(
            f"{handle.root}: {found}; nothing was touched", mend="Run `recctl verify` on it."
        )
    fault_point(f"{edit.kind}.verified")


def _findings(root: Path) -> list[Finding]:
    """What is wrong with `data` and `meta` below `root`; videos are looked at elsewhere."""
    ds = Dataset(root, Findings())
    if check_info(ds):
        check_tasks(ds)
        check_statistics(ds)
        if check_episodes(ds):
            check_rows(ds)
    return ds.found.listed


def _exchanges(handle: Handle, edit: _Edit) -> list[Move]:
    """New mp4s come in, then `data` and `meta` change places with the new ones, together."""
    layout, moves = handle.layout, []
    for name in edit.videos.new:
        digest = sha256_of(edit.work / name)
        moves.append(Move(layout.relative(edit.work / name), name, digest=digest, label="video"))
    return [*moves, *swaps(layout, edit.new)]


def _departures(handle: Handle, edit: _Edit, entries: Sequence[LedgerEntry]) -> list[Move]:
    """What leaves: own folders and mp4s into the trash, whose notes come last."""
    layout, moves = handle.layout, []
    by_number = {entry.episode_index: entry for entry in entries}
    for entry in entries:
        trash = layout.relative(layout.trash(entry.uid))
        own = layout.relative(layout.episode(entry.uid))
        moves.append(Move(own, f"{trash}/own", digest=FOLDER, label="own"))
    for name, number in edit.videos.moved.items():
        target = layout.trash(by_number[number].uid) / "files" / name
        digest = sha256_of(handle.root / name)
        moves.append(Move(name, layout.relative(target), digest=digest, label="old"))
    for name in edit.videos.cut:
        away = layout.relative(edit.work / "old" / name)
        moves.append(Move(name, away, digest=sha256_of(handle.root / name), label="old"))
    if (layout.own / "undo").exists():  # those copies fit the old files only
        away = layout.relative(edit.work / "undo")
        moves.append(Move(f"{OWN}/undo", away, digest=FOLDER, label="old"))
    for entry in entries:
        note = edit.work / "notes" / entry.uid
        target = layout.trash(entry.uid) / TRASH_NOTE
        moves.append(
            Move(layout.relative(note), layout.relative(target), sha256_of(note), label="trash")
        )
    return moves


def _publish(
    handle: Handle, edit: _Edit, moves: list[Move], facts: Mapping[str, Any], *, uid: str
) -> None:
    newest = max(files_of_kind(edit.new, "meta/episodes", ".parquet"))
    names = (INFO, STATS, TASKS, episodes_name(newest))
    after = {name: digest_of(edit.new / name) for name in names}
    transaction = Transaction(edit.kind, uid, tuple(moves), after, facts)
    handle.stale = True
    own = handle.layout.own
    written = [path for path in sorted(edit.work.rglob("*")) if not path.is_symlink()]
    staged = [*written, edit.work, own]
    for entry in facts.get("trashed", ()):
        trash = handle.layout.trash(entry["uid"])
        staged += [*sorted(trash.rglob("*")), trash, trash.parent]
    run(handle.root, transaction, journal=handle.journal, ledger=handle.ledger, staged=staged)
    clean(handle)
    fault_point(f"{edit.kind}.cleaned")
    refresh(handle)
