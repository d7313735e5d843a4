"""Is the dataset whole? The rules of the format, then recd's own records against the files.

Reads only. The format part needs nothing of recd and gives lerobot's own verdict on any LeRobot
v3.0 dataset (`tests/interop` compares the two).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recd.config.errors import DatasetError
from recd.daemon.dataset.check_rows import check_rows
from recd.daemon.dataset.check_tables import (
    Dataset,
    check_episodes,
    check_info,
    check_statistics,
    check_tasks,
)
from recd.daemon.dataset.check_videos import check_videos
from recd.daemon.dataset.damage import DAMAGE
from recd.daemon.dataset.journal import read_journal
from recd.daemon.dataset.layout import Layout
from recd.daemon.dataset.ledger import Ledger, LedgerEntry, replay
from recd.daemon.dataset.manifest import read_manifest, rows_sha256
from recd.daemon.dataset.parquet import EpisodeRows, read_table
from recd.daemon.dataset.rules import Finding, Findings
from recd.daemon.dataset.schema import ACTION, STATE
from recd.daemon.dataset.transaction import digest_of


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """counts: findings per rule, also those not listed; attached: uid -> present episode number;
    decoded: pictures decoded, 0 when decoding was not asked for."""

    findings: tuple[Finding, ...]
    counts: Mapping[str, int]
    episodes: int
    rows: int
    cameras: int
    decoded: int
    attached: Mapping[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return not any(finding.bad for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0: good, 1: something is broken."""
        return 0 if self.good else 1


def check_format(root: Path, *, decode: bool = False) -> VerifyReport:
    """The rules of LeRobot v3.0 alone. Never raises for what is wrong with a dataset."""
    ds = Dataset(root, Findings())
    decoded = 0
    if _stage(ds, "info.readable", lambda: check_info(ds)):
        _stage(ds, "tasks.present", lambda: check_tasks(ds))
        _stage(ds, "stats.present", lambda: check_statistics(ds))
        if _stage(ds, "episodes.present", lambda: check_episodes(ds)):
            decoded = _stage(ds, "data.readable", lambda: check_rows(ds, decode=decode)) or 0
            decoded += _stage(ds, "video.readable", lambda: check_videos(ds, decode=decode)) or 0
    return VerifyReport(
        findings=tuple(ds.found.listed),
        counts=dict(ds.found.counts),
        episodes=len(ds.episodes),
        rows=ds.rows,
        cameras=0 if ds.found.broken(("info.readable", "info.features")) else _cameras(ds),
        decoded=decoded,
    )


def _cameras(ds: Dataset) -> int:
    return len(ds.of_kind("video", "image"))


def _stage(ds: Dataset, rule: str, check: Callable[[], Any]) -> Any:
    """One part of the check; values of kinds that nobody expects break `rule`."""
    try:
        return check()
    except (OSError, *DAMAGE) as broken:
        text = f"{type(broken).__name__}: {str(broken)[:200]}"
        ds.found.add(rule, rule.partition(".")[0], text)
        return None


def verify_dataset(root: Path, *, decode: bool = True) -> VerifyReport:
    """Format, every picture decoded, and recd's journal, manifests and fingerprints.

    DatasetError when there is no folder to look at.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder", mend="Check the path.")
    layout = Layout(root.absolute())
    if not layout.info.exists() and layout.own.is_dir() and not (root / "data").exists():
        return _with_own(_empty(), layout)
    return _with_own(check_format(layout.root, decode=decode), layout)


def _empty() -> VerifyReport:
    return VerifyReport((), {}, 0, 0, 0, 0)


def _with_own(report: VerifyReport, layout: Layout) -> VerifyReport:
    found = Findings(list(report.findings), dict(report.counts))
    attached: dict[str, int] = {}
    if layout.journal.exists():
        ledger = _journal(layout, found)
        if ledger is not None:
            attached = _attach(layout, ledger, found)
        staging = layout.own / "staging"
        for folder in sorted(staging.iterdir()) if staging.is_dir() else ():
            found.add("own.staging", folder.name, "not yet published or recovered")
    return VerifyReport(
        findings=tuple(found.listed),
        counts=found.counts,
        episodes=report.episodes,
        rows=report.rows,
        cameras=report.cameras,
        decoded=report.decoded,
        attached=attached,
    )


def _journal(layout: Layout, found: Findings) -> Ledger | None:
    try:
        content = read_journal(layout.journal)
    except DatasetError as broken:
        found.add("own.journal", "journal", broken.message)
        return None
    if content.good_bytes < content.total_bytes:
        torn = content.total_bytes - content.good_bytes
        found.add("own.journal", "journal", f"{torn} bytes at its end are no whole record")
    try:
        ledger = replay(content.records)
    except DAMAGE as broken:
        found.add("own.journal", "journal", f"a record is not as expected: {broken}")
        return None
    if ledger.pending:
        text = f"the {ledger.pending.kind} of {ledger.pending.uid} was interrupted"
        found.add("own.journal", "journal", text)
    return ledger


def _attach(layout: Layout, ledger: Ledger, found: Findings) -> dict[str, int]:
    """Find every published episode again: at its number, else anywhere by its fingerprint."""
    entries = ledger.published.values()
    if not entries or not layout.info.exists():
        for entry in entries:
            found.add("own.episode", entry.uid, "published, but the dataset is empty")
        return {}
    try:
        present = fingerprints(layout.root)
    except (OSError, *DAMAGE) as broken:
        found.add("own.episode", "data", f"rows are not readable: {broken}")
        return {}
    touched = any(digest_of(layout.root / n) != digest for n, digest in ledger.after.items())
    by_print: dict[str, list[int]] = {}
    for number, digest in enumerate(present):
        by_print.setdefault(digest, []).append(number)
    attached = {}
    for entry in entries:
        place = _place(entry, by_print)
        if place is None:
            where = f"episode {entry.episode_index} ({entry.uid})"
            if touched:
                found.add("own.elsewhere", where, "its rows were changed or removed elsewhere")
            else:
                found.add("own.episode", where, "published, but its rows are not in the dataset")
            continue
        attached[entry.uid] = place
        if place != entry.episode_index:
            found.add("own.elsewhere", entry.uid, f"was {entry.episode_index}, is now {place}")
        _check_own_folder(layout, entry, found)
    return attached


def _place(entry: LedgerEntry, by_print: Mapping[str, list[int]]) -> int | None:
    numbers = by_print.get(entry.rows_sha256, [])
    return entry.episode_index if entry.episode_index in numbers else next(iter(numbers), None)


def _check_own_folder(layout: Layout, entry: LedgerEntry, found: Findings) -> None:
    try:
        manifest = read_manifest(layout.episode(entry.uid))
    except DatasetError as broken:
        found.add("own.sides", entry.uid, broken.message)
        return
    if manifest.get("rows_sha256") != entry.rows_sha256:
        found.add("own.sides", entry.uid, "its manifest is of another episode")


def fingerprints(root: Path) -> list[str]:
    """Digest of state and action of every episode, in order of the data files."""
    digests = []
    for path in sorted((root / "data").glob("*/*.parquet")):
        table = read_table(path, columns=[STATE, ACTION, "episode_index"])
        episode = table["episode_index"].to_numpy()
        state, action = (_matrix(table[name]) for name in (STATE, ACTION))
        borders = np.flatnonzero(np.diff(episode)) + 1
        for rows in np.split(np.arange(len(episode)), borders):
            part = EpisodeRows(state[rows], action[rows], [""] * len(rows))
            digests.append(rows_sha256(part))
    return digests


def _matrix(column: Any) -> np.ndarray[Any, Any]:
    whole = column.combine_chunks()
    values = np.asarray(whole.flatten().to_numpy(zero_copy_only=False), np.float32)
    return values.reshape(len(whole), -1)
