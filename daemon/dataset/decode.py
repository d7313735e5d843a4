"""Every picture of one published episode, decoded: what a save, which reads boxes, leaves open.

Reads only; the result is for the manifest. The writer has it done in the background.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from recd.config.errors import DatasetError
from recd.daemon.dataset.check_rows import decode_images
from recd.daemon.dataset.check_tables import Dataset, check_info, named_data_file
from recd.daemon.dataset.check_videos import check_one_episode
from recd.daemon.dataset.journal import read_journal
from recd.daemon.dataset.layout import Layout
from recd.daemon.dataset.ledger import Ledger, LedgerEntry, replay
from recd.daemon.dataset.manifest import read_manifest
from recd.daemon.dataset.rules import Findings
from recd.daemon.dataset.state import read_episodes


def decode_facts(good: bool | None, *, pictures: int = 0, findings: Sequence[str] = ()) -> Any:
    """What the manifest says under `decode`. good: None while (or because) it was not decoded."""
    return {"decode": {"good": good, "pictures": pictures, "findings": list(findings)}}


def decode_episode(root: Path, uid: str) -> dict[str, Any]:
    """Decode every picture of one published episode: facts for `DatasetStore.note`.

    DatasetError when the episode is not recd's, or the dataset is not readable.
    """
    layout = Layout(root.absolute())
    entry = _ledger(layout).published.get(uid)
    row = _row(layout, entry) if entry else None
    if row is None:
        raise DatasetError(f"episode {uid} is not in this dataset", mend="See `recctl episodes`.")
    ds = Dataset(layout.root, Findings())
    if not check_info(ds):
        raise DatasetError(f"{root}: no readable dataset", mend="Run `recctl verify` on it.")
    pictures = check_one_episode(ds, row) + _decode_cells(ds, row)
    findings = [str(finding) for finding in ds.found.listed]
    facts: dict[str, Any] = decode_facts(not ds.found.bad, pictures=pictures, findings=findings)
    return facts


def _ledger(layout: Layout) -> Ledger:
    if not layout.journal.exists():
        return Ledger()
    return replay(read_journal(layout.journal).records)


def _row(layout: Layout, entry: LedgerEntry) -> dict[str, Any] | None:
    """The episode's row, None when another episode has its number now."""
    table = read_episodes(layout.root)
    if table is None or entry.episode_index >= table.num_rows:
        return None
    row: dict[str, Any] = table.slice(entry.episode_index, 1).to_pylist()[0]
    return row if row["length"] == entry.length else None


def _decode_cells(ds: Dataset, row: dict[str, Any]) -> int:
    keys = ds.of_kind("image")
    if not keys:
        return 0
    name = named_data_file(row)
    only = [("episode_index", "=", row["episode_index"])]
    try:
        table = pq.read_table(ds.root / name, columns=keys, filters=only)
    except (OSError, ValueError) as broken:
        ds.found.add("data.readable", name, str(broken))
        return 0
    return sum(decode_images(ds, name, key, table[key]) for key in keys)


def waiting(root: Path) -> list[str]:
    """uids of published episodes that were not decoded yet, newest first."""
    layout = Layout(root.absolute())
    return [uid for uid in reversed(_ledger(layout).published) if not _decoded(layout, uid)]


def _decoded(layout: Layout, uid: str) -> bool:
    try:
        told = read_manifest(layout.episode(uid)).get("decode")
    except DatasetError:
        return True  # nowhere to keep a result; `recctl verify` tells of such a manifest
    return isinstance(told, dict) and told.get("good") is not None
