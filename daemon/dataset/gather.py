"""Episodes of one dataset, or of several, become a dataset of their own: `copy` and `merge`.

The new one grows, a whole episode at a time, in a hidden folder beside its place, and comes there
by one rename after it was verified. Killed anywhere and run again, it goes on. Sources are only
read, while others record into them.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from recd.config.errors import DatasetError
from recd.daemon.dataset.copy_episode import ChangedError, copy_episode
from recd.daemon.dataset.damage import telling
from recd.daemon.dataset.durable import (
    free_bytes,
    make_folders,
    remove_tree,
    replace_json,
    sync_all,
)
from recd.daemon.dataset.edit import delete
from recd.daemon.dataset.handle import Handle, differences, open_handle
from recd.daemon.dataset.layout import Layout
from recd.daemon.dataset.pack import pack
from recd.daemon.dataset.snapshot import (
    UNREADABLE,
    Original,
    Selection,
    Snapshot,
    calibrations_of,
    look,
)
from recd.daemon.dataset.survey import list_episodes
from recd.daemon.dataset.trash import list_trash, purge
from recd.daemon.dataset.verify import verify_dataset
from recd.daemon.faultpoints import fault_point

ORIGIN = "origin.json"
ORIGIN_VERSION = 1
FAULT_POINTS = (
    "copy.begin",
    "copy.opened",
    "copy.staged",
    "copy.copied",
    "copy.episode",
    "copy.gathered",
    "copy.packed",
    "copy.verified",
    "copy.renamed",
)
"""Every place of its own where a test may kill a copy, in order; each episode is a commit too."""


@dataclass(frozen=True, slots=True)
class GatherReport:
    """episodes, rows: of the new dataset; copied: episodes of this run, the others were there
    from earlier ones; twice: uids that several sources hold, taken once; nbytes: on disk."""

    root: str
    episodes: int
    rows: int
    copied: int
    nbytes: int
    twice: tuple[str, ...] = ()
    packed: bool = False


@dataclass(slots=True)
class _Job:
    """sources, selection, packed: what was asked; work: where the new dataset grows."""

    sources: tuple[Path, ...]
    dest: Path
    selection: Selection
    packed: bool
    copied: int = 0
    twice: dict[str, None] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        return self.dest.with_name(f".{self.dest.name}.copying")

    def origin(self) -> dict[str, Any]:
        asked = {**asdict(self.selection), "packed": self.packed}
        asked["exclude_verdicts"] = list(self.selection.exclude_verdicts)
        return {"format": ORIGIN_VERSION, "sources": [str(p) for p in self.sources], **asked}


def gather(
    sources: Sequence[Path],
    dest: Path,
    *,
    selection: Selection | None = None,
    packed: bool = False,
) -> GatherReport:
    """Copy the selected episodes of `sources`, in this order, into the new dataset `dest`.

    uids, side files and manifests stay; numbers are dense. DatasetError with the mend: another
    set-up, an occupied `dest`, an unfinished copy of something else, a damaged episode, no space.
    """
    fault_point("copy.begin")
    roots = tuple(source.absolute() for source in sources)
    job = _Job(roots, dest.absolute(), selection or Selection(), packed)
    with telling(roots[-1]):
        return _gather(job)


def _gather(job: _Job) -> GatherReport:
    roots, packed = job.sources, job.packed
    _check_places(job)
    snapshots = [look(root) for root in roots]
    _check_set_ups(snapshots)
    if job.dest.exists() and any(job.dest.iterdir()):
        return _already_there(job, snapshots)
    if not _chosen(job, snapshots):
        raise DatasetError(
            f"{', '.join(map(str, roots))}: no episode is selected; nothing was written",
            mend="recctl dataset info shows marks and verdicts of every episode.",
        )
    handle = _fill(job, snapshots)
    try:
        fault_point("copy.gathered")
        if packed:
            pack(handle)
        fault_point("copy.packed")
        return _publish(job, handle)
    finally:
        handle.close()


def _check_places(job: _Job) -> None:
    """Refuse places that would make a mess, before anything is read."""
    dest = job.dest
    for source in job.sources:
        if dest == source or dest.is_relative_to(source) or source.is_relative_to(dest):
            raise DatasetError(
                f"{dest}: lies in (or is) the source {source}", mend="Choose another folder."
            )
    if len(set(job.sources)) != len(job.sources):
        raise DatasetError("the same dataset is named twice", mend="Name each source once.")
    if dest.exists() and not dest.is_dir():
        raise DatasetError(f"{dest}: is a file, expected a new folder", mend="Choose another one.")
    existing = dest.parent
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK | os.X_OK):
        raise DatasetError(
            f"{existing}: not writable for user {os.getuid()}", mend="Choose another folder."
        )


def _check_set_ups(snapshots: Sequence[Snapshot]) -> None:
    first = snapshots[0]
    for other in snapshots[1:]:
        problems = differences(first.schema, other.info)
        if first.schema.columns != other.schema.columns:
            found = other.schema.columns
            problems.append(f"columns: expected {first.schema.columns}, the dataset has {found}")
        if problems:
            problems = [text.replace("the configuration", str(first.root)) for text in problems]
            raise DatasetError(
                f"{other.root} was recorded for another set-up than {first.root}:\n    "
                + "\n    ".join(problems),
                mend="Merge only datasets of the same robot, rate, cameras and codec.",
                code="dataset_mismatch",
            )


def _chosen(job: _Job, snapshots: Sequence[Snapshot]) -> dict[str, Original]:
    """uid -> episode, in the new order. DatasetError for one uid with two contents."""
    chosen: dict[str, Original] = {}
    for snapshot in snapshots:
        for original in job.selection.of(snapshot):
            known = chosen.setdefault(original.uid, original)
            if known.digest != original.digest:
                raise DatasetError(
                    f"episode {original.uid} has other rows in {original.root} than in "
                    f"{known.root}",
                    mend="Delete the one that is wrong (`recctl dataset delete`), then merge.",
                )
            if known is not original:
                job.twice[original.uid] = None
    return chosen


def _already_there(job: _Job, snapshots: Sequence[Snapshot]) -> GatherReport:
    """A finished copy is found where it was to be made: told, not made again."""
    layout = Layout(job.dest)
    told = _read_origin(layout)
    if told != job.origin():
        raise DatasetError(
            f"{job.dest}: not empty, expected a new folder", mend="Choose another folder."
        )
    there = look(job.dest)
    missing = set(_chosen(job, snapshots)) - {original.uid for original in there.originals}
    if missing:
        newest = there.originals[-1].uid
        raise DatasetError(
            f"{job.dest}: finished earlier with {len(there.originals)} episodes; "
            f"{len(missing)} have come since",
            mend=f"Copy those into a folder of their own: --since {newest[:12]}",
        )
    return _report(job, job.dest)


def _read_origin(layout: Layout) -> dict[str, Any] | None:
    path = layout.own / ORIGIN
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _open(job: _Job, first: Snapshot) -> Handle:
    """The hidden dataset: a new one, or what an earlier run left."""
    layout = Layout(job.work)
    told = _read_origin(layout)
    if told is not None and told != job.origin():
        raise DatasetError(
            f"{job.work}: an unfinished copy of {', '.join(told.get('sources', ['?']))} with "
            "other options lies there",
            mend="Run that one again to its end, or remove the folder.",
        )
    if told is None and layout.info.exists():
        raise DatasetError(f"{job.work}: is no unfinished copy", mend="Move the folder away.")
    if told is None:
        sync_all(make_folders(layout.own))
        replace_json(layout.own / ORIGIN, job.origin())
    handle = open_handle(job.work, first.schema, repo_id=first.repo_id)
    _drop_torn(layout)
    fault_point("copy.opened")
    return handle


def _drop_torn(layout: Layout) -> None:
    """Remove copies that were not finished; the source has them whole, or took them back."""
    for folder in (layout.own / "staging").iterdir():
        remove_tree(folder)


def _fill(job: _Job, snapshots: Sequence[Snapshot]) -> Handle:
    """Bring the hidden dataset to what the sources held when this run began, less what they have
    given up meanwhile."""
    limit = set(_chosen(job, snapshots))
    handle = _open(job, snapshots[0])
    try:
        while True:
            chosen = {u: o for u, o in _chosen(job, snapshots).items() if u in limit}
            published = handle.ledger.published
            texts = {e.uid: e.tasks for e in list_episodes(handle.layout, handle.ledger)}
            stale = [
                uid
                for uid in published
                if uid not in chosen or set(texts.get(uid, ())) != set(chosen[uid].tasks)
            ]
            missing = {uid: o for uid, o in chosen.items() if uid not in published}
            if stale and len(stale) == len(published):
                handle.close()
                remove_tree(job.work)
                handle = _open(job, snapshots[0])
                continue
            if stale:
                delete(handle, stale)
                for entry in list_trash(handle.layout):
                    purge(handle.layout, entry.uid)
                continue
            if not missing:
                return handle
            _check_space(job, snapshots, len(missing))
            try:
                for snapshot in snapshots:
                    _take_in(job, handle, snapshot, missing)
            except ChangedError:
                _drop_torn(handle.layout)
            snapshots = [look(root) for root in job.sources]
    except BaseException:
        handle.close()
        raise


def _check_space(job: _Job, snapshots: Sequence[Snapshot], missing: int) -> None:
    files = [
        path
        for snapshot in snapshots
        for folder in ("data", "videos")
        for path in (snapshot.root / folder).rglob("*.*")
    ]
    nbytes = sum(path.stat().st_size for path in files if path.is_file())
    total = sum(len(snapshot.originals) for snapshot in snapshots)
    wanted = nbytes * missing // max(total, 1) * (2 if job.packed else 1)
    free = free_bytes(job.work)
    if free < wanted:
        raise DatasetError(
            f"{job.dest}: the copy needs about {wanted >> 20} MB, {free >> 20} MB are free",
            mend="Free some space or choose another disk; what is copied stays for the next run.",
        )


def _take_in(
    job: _Job, handle: Handle, snapshot: Snapshot, missing: Mapping[str, Original]
) -> None:
    """Commit the missing episodes of one source, in its order."""
    mine = {o.number: o for o in missing.values() if o.root == snapshot.root}
    if not mine:
        return
    try:
        for number, table in snapshot.tables():
            original = mine.get(number)
            if original is None or original.uid in handle.ledger.published:
                continue
            try:
                copy_episode(handle, snapshot, original, table)
            except (FileNotFoundError, *UNREADABLE) as broken:
                raise _unfit(snapshot, original, broken) from broken
            job.copied += 1
            fault_point("copy.episode")
    except (pa.ArrowException, FileNotFoundError, KeyError) as broken:
        _look_or_refuse(snapshot, broken)


def _look_or_refuse(snapshot: Snapshot, broken: Exception) -> None:
    """Whoever edits a source replaces files under the reader; without an edit it is damaged."""
    if look(snapshot.root) == snapshot:
        raise DatasetError(
            f"{snapshot.root}: data/ is not readable: {broken}", mend="Run `recctl verify` on it."
        ) from broken
    raise ChangedError from broken


def _unfit(snapshot: Snapshot, original: Original, broken: Exception) -> Exception:
    if look(snapshot.root) != snapshot:
        return ChangedError()
    return DatasetError(
        f"{snapshot.root}: episode {original.number} cannot be copied: {broken}",
        mend="Run `recctl verify` on it; what is copied stays for the next run.",
    )


def _publish(job: _Job, handle: Handle) -> GatherReport:
    """Verified, then in its place by one rename; durable on return."""
    calibrations = calibrations_of(job.sources)
    if calibrations:
        replace_json(handle.layout.calibrations, calibrations)
    report = verify_dataset(job.work, decode=False)
    if not report.good:
        bad = next(finding for finding in report.findings if finding.bad)
        raise DatasetError(f"{job.work}: the copy is not whole: {bad}", mend="Please report it.")
    fault_point("copy.verified")
    sync_all(make_folders(job.dest.parent))
    os.rename(job.work, job.dest)
    sync_all([job.dest.parent])
    fault_point("copy.renamed")
    return _report(job, job.dest)


def _report(job: _Job, root: Path) -> GatherReport:
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    held = look(root)
    return GatherReport(
        root=str(root),
        episodes=len(held.originals),
        rows=sum(original.length for original in held.originals),
        copied=job.copied,
        nbytes=sum(path.stat().st_size for path in files),
        twice=tuple(job.twice),
        packed=job.packed,
    )
