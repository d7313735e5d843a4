"""The published episodes of a dataset at one moment, read without its lock while others record.

Every episode is named by its uid and its fingerprint, so that whoever copies it later can prove
that it still is what was meant. Reads only.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from recd.config.errors import DatasetError
from recd.daemon.dataset.handle import read_identity
from recd.daemon.dataset.journal import read_journal
from recd.daemon.dataset.layout import INFO, STATS, TASKS, FileIndex, Layout
from recd.daemon.dataset.ledger import Ledger, LedgerEntry, replay
from recd.daemon.dataset.manifest import read_manifest
from recd.daemon.dataset.pack import episode_tables
from recd.daemon.dataset.parquet import data_schema, read_tasks
from recd.daemon.dataset.schema import DatasetSchema
from recd.daemon.dataset.state import VERIFY_MEND, files_of_kind, read_episodes, read_info, stamp_of
from recd.daemon.dataset.verify import fingerprints
from recd.daemon.dataset.videos import pins_of_feature

TRIES = 20
"""A save changes all metadata within milliseconds; more looks in vain than this are no save."""

MARKS = ("success", "fail")
UNREADABLE = (KeyError, TypeError, ValueError, IndexError, AttributeError, pa.ArrowException)
"""What reading a damaged table or JSON file raises."""


@dataclass(frozen=True, slots=True)
class Original:
    """One episode of a source. row: of the episodes table, with statistics; digest: its
    fingerprint; entry: recd's own note of it, None where lerobot recorded it."""

    root: Path
    row: dict[str, Any]
    digest: str
    uid: str
    entry: LedgerEntry | None
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def number(self) -> int:
        return int(self.row["episode_index"])

    @property
    def length(self) -> int:
        return int(self.row["length"])

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.row["tasks"] or ())


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A dataset as it was. schema: that a copy of it needs; originals: in order of number."""

    root: Path
    info: dict[str, Any]
    schema: DatasetSchema
    repo_id: str
    tasks: list[str]
    originals: list[Original]

    def tables(self) -> Iterator[tuple[int, pa.Table]]:
        """(episode number, its rows) of the files of its episodes, in order, one read at a time.

        Files of episodes that were saved since are left out: who takes those back removes them.
        """
        own = {
            FileIndex(o.row["data/chunk_index"], o.row["data/file_index"]) for o in self.originals
        }
        files = files_of_kind(self.root, "data", ".parquet")
        paths = [path for index, path in files.items() if index in own]
        for table in episode_tables(paths, data_schema(self.schema.features)):
            yield table["episode_index"][0].as_py(), table


@dataclass(frozen=True, slots=True)
class Selection:
    """Which episodes are meant. since: uid (or its first digits) after which they begin;
    only_success: marked so last; exclude_verdicts: levels that are left out."""

    since: str = ""
    only_success: bool = False
    exclude_verdicts: tuple[str, ...] = ()

    def of(self, snapshot: Snapshot) -> list[Original]:
        """The episodes meant. DatasetError when `since` is not one episode of the dataset."""
        found = snapshot.originals
        if self.since:
            begins = [k for k, o in enumerate(found) if o.uid.startswith(self.since.lower())]
            if len(begins) != 1:
                raise DatasetError(
                    f"{snapshot.root}: {len(begins)} episodes begin with {self.since!r}, "
                    "expected one",
                    mend="recctl dataset info lists them.",
                )
            found = found[begins[0] + 1 :]
        return [original for original in found if self._takes(original)]

    def _takes(self, original: Original) -> bool:
        told = original.manifest
        if (told.get("verdict") or {}).get("level") in self.exclude_verdicts:
            return False
        labels = [m.get("label") for m in told.get("marks") or () if m.get("label") in MARKS]
        return not self.only_success or labels[-1:] == ["success"]


def look(root: Path) -> Snapshot:
    """What the dataset at `root` holds now. DatasetError when there is none, or it is damaged."""
    layout = Layout(root.absolute())
    if not layout.root.is_dir() or not layout.info.exists():
        raise DatasetError(f"{root}: no dataset with episodes here", mend="Check the path.")
    error: Exception | None = None
    for _ in range(TRIES):
        before = _stamps(layout)
        try:
            found = _read(layout)
        except (DatasetError, OSError, *UNREADABLE) as broken:
            error = broken
        else:
            if _stamps(layout) == before:
                return found
            continue
        if _stamps(layout) == before:
            break
    if isinstance(error, DatasetError):
        raise error
    raise DatasetError(f"{root}: not readable: {error or 'it changes all the time'}",
                       mend=VERIFY_MEND)  # fmt: skip


def _stamps(layout: Layout) -> list[Any]:
    files = sorted((layout.root / "meta/episodes").glob("*/*.parquet"))
    named = [layout.root / name for name in (INFO, STATS, TASKS)]
    return [(str(path), stamp_of(path)) for path in (*named, *files, layout.journal)]


def _read(layout: Layout) -> Snapshot:
    info, identity = read_info(layout.info), read_identity(layout)
    ledger = Ledger()
    if layout.journal.exists():
        ledger = replay(read_journal(layout.journal).records)
    table = read_episodes(layout.root)
    total = int(info.get("total_episodes", 0))
    if table is None or table.num_rows < total or not total:
        held = 0 if table is None else table.num_rows
        raise DatasetError(
            f"{layout.root}: {INFO} says {total} episodes, meta/episodes holds {held}",
            mend=VERIFY_MEND,
        )
    rows = table.to_pylist()[:total]
    prints = fingerprints(layout.root)
    numbers = [row["episode_index"] for row in rows]
    if numbers != list(range(total)) or len(prints) < total:
        raise DatasetError(
            f"{layout.root}: {len(prints)} episodes in data/, {total} announced", mend=VERIFY_MEND
        )
    features = info["features"]
    pins = {
        key: found
        for key, feature in features.items()
        if feature["dtype"] == "video" and (found := pins_of_feature(feature))
    }
    own = any(name.startswith("recd.") for name in features)
    schema = DatasetSchema(
        fps=int(info["fps"]),
        robot_type=info.get("robot_type"),  # type: ignore[arg-type]  # null stays null in a copy
        features=features,
        columns="full" if own else "plain",
        pins=pins,
    )
    return Snapshot(
        root=layout.root,
        info=info,
        schema=schema,
        repo_id=str((identity or {}).get("repo_id") or "local/recd"),
        tasks=read_tasks(layout.tasks),
        originals=_originals(layout, ledger, rows, prints),
    )


def _originals(
    layout: Layout, ledger: Ledger, rows: Sequence[dict[str, Any]], prints: Sequence[str]
) -> list[Original]:
    """Every row with recd's entry of the same fingerprint: at its number, else anywhere."""
    free = dict(ledger.published)
    placed = {e.episode_index: e for e in free.values()}
    found: list[Original] = []
    seen: dict[str, int] = {}
    for row, digest in zip(rows, prints, strict=False):
        here = placed.get(row["episode_index"])
        entry = here if here and here.rows_sha256 == digest and here.uid in free else None
        if entry is None:
            entry = next((e for e in free.values() if e.rows_sha256 == digest), None)
        if entry is None:
            seen[digest] = seen.get(digest, 0) + 1
            named = f"not recorded by recd {digest} {seen[digest]}"
            uid = hashlib.sha256(named.encode()).hexdigest()[:32]
            found.append(Original(layout.root, row, digest, uid, None))
            continue
        del free[entry.uid]
        manifest = read_manifest(layout.episode(entry.uid))
        found.append(Original(layout.root, row, digest, entry.uid, entry, manifest))
    return found


def calibrations_of(roots: Sequence[Path]) -> dict[str, Any]:
    """The calibrations of several datasets together, oldest first; {} without any."""
    arms: dict[str, dict[str, Any]] = {}
    version = 1
    for root in roots:
        path = Layout(root.absolute()).calibrations
        if path.exists():
            told = json.loads(path.read_text(encoding="utf-8"))
            version = max(version, int(told["format"]))
            for arm, each in told["arms"].items():
                arms[arm] = {**each, **arms.get(arm, {})}
    return {"format": version, "arms": arms} if arms else {}
