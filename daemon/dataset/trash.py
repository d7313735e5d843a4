"""Taking episodes back, and bringing them back. Nothing is destroyed here.

An undone episode lies whole below `.recd/trash/<uid>`, invisible to LeRobot; the dataset's metadata
is then byte for byte what it was before it. Only the last episode can be undone; `edit` deletes
others.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recd.config.errors import DatasetError
from recd.daemon.dataset.commit import UNDO_RECORD, CommitResult, commit
from recd.daemon.dataset.draft import OWN_FOLDER
from recd.daemon.dataset.durable import keep_copy, make_folders, remove_tree, sync_all, write_json
from recd.daemon.dataset.handle import Handle, refresh
from recd.daemon.dataset.layout import TASKS, Layout
from recd.daemon.dataset.ledger import BEGIN, DISCARD, LedgerEntry, Move, Transaction
from recd.daemon.dataset.manifest import MANIFEST, read_manifest
from recd.daemon.dataset.parquet import EpisodeRows, Pictures, read_table
from recd.daemon.dataset.schema import ACTION, BOOKKEEPING, STATE
from recd.daemon.dataset.stats import FeatureStats
from recd.daemon.dataset.transaction import FOLDER, digest_of, run
from recd.daemon.dataset.videos import VideoFile, pins_of_feature
from recd.daemon.faultpoints import fault_point
from recd.shm import clock

METADATA = ("info", "stats", "tasks", "episodes")
"""Labels of a commit's metadata moves, in the order in which undo puts them back."""

TRASH_NOTE = "trash.json"
FAULT_POINTS = (
    "undo.begin",
    "undo.written",
    "undo.synced",
    "undo.prepared",
    "undo.moved.info",
    "undo.moved.stats",
    "undo.moved.tasks",
    "undo.moved.episodes",
    "undo.moved.data",
    "undo.moved.video",
    "undo.moved.own",
    "undo.moved.undo",
    "undo.folders_synced",
    "undo.done",
)
"""Every place where a test may kill an undo, in order."""


@dataclass(frozen=True, slots=True)
class TrashEntry:
    """One episode in the trash. kind: undone, deleted or discarded; at: wall time (ISO),
    also as real_ns (Unix time); nbytes: on disk."""

    uid: str
    kind: str
    at: str
    nbytes: int
    rows: int
    real_ns: int = 0


def undo_last(handle: Handle, uid: str) -> TrashEntry:
    """Take the last published episode out of the dataset, durable on return.

    DatasetError, nothing touched, when `uid` is not the last one or others have written since.
    """
    fault_point("undo.begin")
    refresh(handle)
    record = _undo_record(handle, uid)
    layout = handle.layout
    trash = layout.trash(uid)
    remove_tree(trash)
    make_folders(trash / "after")
    make_folders(trash / "restore")
    moves = {move.label: move for move in record.moves}
    back: list[Move] = [_put_back(layout, moves[m], trash) for m in METADATA if m in moves]
    for label in ("data", "video", "own"):
        for move in record.moves:
            if move.label == label:
                target = layout.relative(trash / ("own" if label == "own" else f"files/{move.dst}"))
                back.append(Move(move.dst, target, digest=move.digest, label=label))
    kept = layout.undo(uid)
    back.append(
        Move(layout.relative(kept), layout.relative(trash / "undo"), digest=FOLDER, label="undo")
    )
    note = note_of(uid, kind="undone", rows=int(record.entry["length"]))
    write_json(trash / TRASH_NOTE, note)
    fault_point("undo.written")
    after = {name: digest for name, digest in handle.ledger.after.items() if name == TASKS}
    after |= {moves[m].dst: moves[m].before for m in METADATA if m in moves and moves[m].before}
    transaction = Transaction("undo", uid, tuple(back), after, record.entry)
    handle.stale = True
    staged = [*trash.rglob("*"), trash, trash.parent, layout.own]
    run(layout.root, transaction, journal=handle.journal, ledger=handle.ledger, staged=staged)
    refresh(handle)
    return entry_of(layout, uid)


def _undo_record(handle: Handle, uid: str) -> Transaction:
    ledger, layout = handle.ledger, handle.layout
    entry = ledger.published.get(uid)
    if entry is None:
        raise DatasetError(f"episode {uid} is not in this dataset", mend="See `recctl episodes`.")
    if uid != ledger.last_uid or entry.episode_index != handle.state.episodes - 1:
        raise DatasetError(
            f"episode {entry.episode_index} ({uid}) is no longer the last one",
            mend="Only the last episode can be undone; `recctl dataset delete` takes out others.",
        )
    changed = [n for n, digest in ledger.after.items() if digest_of(layout.root / n) != digest]
    path = layout.undo(uid) / UNDO_RECORD
    if changed or not path.exists():
        what = f"{', '.join(changed)} changed since" if changed else "its earlier metadata is gone"
        raise DatasetError(
            f"episode {entry.episode_index} ({uid}) cannot be taken back: {what}",
            mend="`recctl dataset delete` takes it out without them.",
        )
    return Transaction.from_record(json.loads(path.read_text(encoding="utf-8")))


def _put_back(layout: Layout, done: Move, trash: Path) -> Move:
    """The rename that gives a metadata file its earlier content; the present one is kept."""
    present = layout.root / done.dst
    kept = trash / "after" / Path(done.src).name
    if not done.before:
        return Move(done.dst, layout.relative(kept), digest=done.digest, label=done.label)
    keep_copy(present, kept)
    source = trash / "restore" / kept.name
    source.write_bytes((layout.root / done.keep).read_bytes())
    return Move(
        layout.relative(source),
        done.dst,
        digest=done.before,
        before=done.digest,
        keep=layout.relative(kept),
        label=done.label,
    )


def note_of(
    uid: str, *, kind: str, rows: int, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Content of the note that makes a folder in the trash an entry of it."""
    at = clock.clock_pair().real_ns
    note = {"uid": uid, "kind": kind, "at": clock.wall_iso(at), "real_ns": at, "rows": rows}
    return {**note, "facts": dict(facts or {})}


def discard(handle: Handle, uid: str, *, rows: int = 0) -> TrashEntry:
    """Put a staged, never published take into the trash, whole. Its files must be closed."""
    layout = handle.layout
    staging = layout.staging(uid)
    if not staging.is_dir():
        raise DatasetError(f"no running episode {uid}")
    facts = handle.ledger.begun.get(uid)
    write_json(staging / TRASH_NOTE, note_of(uid, kind="discarded", rows=rows, facts=facts))
    record = {"ty": DISCARD, "uid": uid}
    handle.journal.append(record)
    handle.ledger.apply(record)
    fault_point("discard.journaled")
    finish_discard(layout, uid)
    return entry_of(layout, uid)


def finish_discard(layout: Layout, uid: str) -> None:
    """Move a discarded take's folder to the trash; idempotent."""
    changed = make_folders(layout.trash(uid).parent)
    staging, trash = layout.staging(uid), layout.trash(uid)
    if staging.exists():
        remove_tree(trash)
        staging.replace(trash)
    sync_all([*changed, staging.parent, trash.parent])


def undelete(handle: Handle, uid: str) -> CommitResult | None:
    """Bring an undone episode back; durable on return.

    As it was, byte for byte, when nothing else was published meanwhile; else as the new last
    episode. None for a take that was discarded before it was ever published: it lies in staging
    again, and recovery publishes it. DatasetError when it is not in the trash.
    """
    refresh(handle)
    layout = handle.layout
    trash = layout.trash(uid)
    if not (trash / TRASH_NOTE).exists():
        raise DatasetError(f"episode {uid} is not in the trash", mend="See `recctl episodes`.")
    note = json.loads((trash / TRASH_NOTE).read_text(encoding="utf-8"))
    if not (trash / "undo").is_dir():
        _back_to_staging(handle, uid)
        return None
    record_path = trash / "undo" / UNDO_RECORD
    record = Transaction.from_record(json.loads(record_path.read_text(encoding="utf-8")))
    metadata = [move for move in record.moves if move.label in METADATA]
    unchanged = all(digest_of(layout.root / move.dst) == move.before for move in metadata)
    if unchanged and note["kind"] == "undone":
        return _undelete_exactly(handle, uid, record)
    return _undelete_anew(handle, uid, record)


def _back_to_staging(handle: Handle, uid: str) -> None:
    """A discarded take becomes a begun one. Until the journal says so, recovery undoes this."""
    layout = handle.layout
    note = json.loads((layout.trash(uid) / TRASH_NOTE).read_text(encoding="utf-8"))
    layout.trash(uid).replace(layout.staging(uid))
    sync_all([layout.own / "trash", layout.own / "staging"])
    record = {"ty": BEGIN, "uid": uid, "facts": note.get("facts", {})}
    handle.journal.append(record)
    handle.ledger.apply(record)
    (layout.staging(uid) / TRASH_NOTE).unlink()


def _undelete_exactly(handle: Handle, uid: str, record: Transaction) -> CommitResult:
    started = clock.now_ns()
    layout, trash = handle.layout, handle.layout.trash(uid)
    undo_folder = layout.undo(uid)
    moves = [
        Move(
            layout.relative(trash / "undo"),
            layout.relative(undo_folder),
            digest=FOLDER,
            label="undo",
        ),
        Move(
            layout.relative(trash / "own"),
            layout.relative(layout.episode(uid)),
            digest=FOLDER,
            label="own",
        ),
    ]
    for move in record.moves:
        if move.label in ("video", "data"):
            source = layout.relative(trash / "files" / move.dst)
            moves.append(Move(source, move.dst, digest=move.digest, label=move.label))
    for label in reversed(METADATA):
        for move in record.moves:
            if move.label == label:
                moves.append(_again(layout, move, trash=trash, undo=undo_folder))
    transaction = Transaction("undelete", uid, tuple(moves), record.after, record.entry)
    handle.stale = True
    staged = [trash / "again", trash]
    run(layout.root, transaction, journal=handle.journal, ledger=handle.ledger, staged=staged)
    remove_tree(trash)
    refresh(handle)
    entry = LedgerEntry(**record.entry)
    return CommitResult(
        uid=uid,
        episode_index=entry.episode_index,
        rows=entry.length,
        first_row=entry.first_row,
        episodes=handle.state.episodes,
        total_rows=handle.state.rows,
        duration_ns=clock.now_ns() - started,
        steps_ns={},
    )


def _again(layout: Layout, done: Move, *, trash: Path, undo: Path) -> Move:
    """A commit's metadata rename once more, from the content kept in the trash."""
    again = trash / "again" / Path(done.src).name
    make_folders(again.parent)
    remove_tree(again)
    again.write_bytes((trash / "after" / again.name).read_bytes())
    sync_all([again])
    keep = layout.relative(undo / again.name) if done.before else ""
    return Move(
        layout.relative(again),
        done.dst,
        digest=done.digest,
        before=done.before,
        keep=keep,
        label=done.label,
    )


def _undelete_anew(handle: Handle, uid: str, record: Transaction) -> CommitResult:
    """Publish a trashed episode once more, numbered after everything that came meanwhile."""
    layout, trash = handle.layout, handle.layout.trash(uid)
    staging = layout.staging(uid)
    remove_tree(staging)
    make_folders(staging / OWN_FOLDER)
    for path in (trash / "own").iterdir():
        keep_copy(path, staging / OWN_FOLDER / path.name)
    facts = _recorded_facts(trash / "own")
    (staging / OWN_FOLDER / MANIFEST).unlink()
    stats = _kept_stats(trash, int(record.entry["episode_index"]), handle.schema.camera_keys)
    videos = {}
    kept_videos = [move for move in record.moves if move.label == "video"]
    for key, move in zip(handle.schema.video_keys, kept_videos, strict=True):
        pins = pins_of_feature(handle.schema.features[key])
        if pins is None:
            raise DatasetError(f"{key}: the dataset no longer says how it is encoded")
        path = staging / f"{key}.mp4"
        keep_copy(trash / "files" / move.dst, path)
        length = int(record.entry["length"])
        videos[key] = VideoFile(path, length, pins, stats[key], digest=move.digest)
    data = next(move for move in record.moves if move.label == "data")
    rows = _trashed_rows(handle, trash / "files" / data.dst, trash, stats)
    result = commit(handle, uid, rows=rows, videos=videos, facts=facts, kind="undelete")
    remove_tree(trash)
    return result


def _recorded_facts(own: Path) -> dict[str, Any]:
    """The recording's own facts of a manifest, without what is worked out at each commit."""
    derived = ("format", "recd", "uid", "columns", "length", "rows_sha256", "tasks", "videos")
    return {key: value for key, value in read_manifest(own).items() if key not in derived}


def _kept_stats(trash: Path, episode: int, keys: tuple[str, ...]) -> Mapping[str, FeatureStats]:
    table = read_table(trash / "after" / "episodes.parquet")
    row = table.filter(np.asarray(table["episode_index"]) == episode).to_pylist()[0]
    found: dict[str, FeatureStats] = {}
    for key in keys:
        prefix = f"stats/{key}/"
        found[key] = {
            name.removeprefix(prefix): np.asarray(value)
            for name, value in row.items()
            if name.startswith(prefix) and value is not None
        }
    return found


def _trashed_rows(
    handle: Handle, path: Path, trash: Path, stats: Mapping[str, FeatureStats]
) -> EpisodeRows:
    table = read_table(path)
    texts = read_table(_tasks_then(handle, trash))["task"].to_pylist()
    own = [key for key in handle.schema.extra_keys if key in table.column_names]
    images = {}
    for key in handle.schema.image_keys:
        cells = table[key]
        images[key] = Pictures((cell["bytes"].as_py() for cell in cells), stats[key])
    return EpisodeRows(
        state=np.array(table[STATE].to_pylist(), np.float32),
        action=np.array(table[ACTION].to_pylist(), np.float32),
        task=[texts[number] for number in table["task_index"].to_pylist()],
        extra={key: table[key].to_pylist() for key in own if key not in BOOKKEEPING},
        images=images,
    )


def _tasks_then(handle: Handle, trash: Path) -> Path:
    kept = trash / "after" / "tasks.parquet"
    return kept if kept.exists() else handle.layout.tasks


def entry_of(layout: Layout, uid: str) -> TrashEntry:
    """What lies in the trash under `uid`."""
    folder = layout.trash(uid)
    note = json.loads((folder / TRASH_NOTE).read_text(encoding="utf-8"))
    nbytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return TrashEntry(
        uid, note["kind"], note["at"], nbytes, int(note["rows"]), int(note["real_ns"])
    )


def list_trash(layout: Layout) -> list[TrashEntry]:
    """Everything in the trash, oldest first."""
    folder = layout.own / "trash"
    if not folder.is_dir():
        return []
    entries = [entry_of(layout, path.parent.name) for path in folder.glob(f"*/{TRASH_NOTE}")]
    return sorted(entries, key=lambda entry: entry.at)


PURGING = "purging"
"""What leaves the trash for good lies here while it is removed: it is not half an entry."""


def purge(layout: Layout, uid: str) -> int:
    """Remove an episode from the trash for good; returns the bytes freed."""
    if not (layout.trash(uid) / TRASH_NOTE).exists():
        raise DatasetError(f"episode {uid} is not in the trash")
    freed = entry_of(layout, uid).nbytes
    away = layout.own / PURGING / uid
    make_folders(away.parent)
    remove_tree(away)
    layout.trash(uid).replace(away)
    sync_all([layout.own / "trash", away.parent])
    fault_point("purge.away")
    remove_tree(layout.own / PURGING)
    return freed
