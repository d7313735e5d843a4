"""What is in a dataset, for people: its episodes, and which of them recd recorded.

Reads only, and needs no lock: meant for tools that look while a recording goes on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recd.config.errors import DatasetError
from recd.daemon.dataset.journal import read_journal
from recd.daemon.dataset.layout import Layout
from recd.daemon.dataset.ledger import Ledger, replay
from recd.daemon.dataset.manifest import read_manifest
from recd.daemon.dataset.state import read_episodes, read_info


@dataclass(frozen=True, slots=True)
class EpisodeFacts:
    """One episode. uid: "" where recd did not record it; manifest: its story, {} where unknown."""

    episode_index: int
    length: int
    tasks: tuple[str, ...]
    first_row: int
    uid: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict)


def list_episodes(layout: Layout, ledger: Ledger) -> list[EpisodeFacts]:
    """All episodes of info.json, in order."""
    if not layout.info.exists():
        return []
    total = int(read_info(layout.info).get("total_episodes", 0))
    if not total:
        return []
    table = read_episodes(layout.root, ["episode_index", "length", "tasks", "dataset_from_index"])
    if table is None:
        return []
    ours = {entry.episode_index: entry for entry in ledger.published.values()}
    listed = []
    for row in table.to_pylist()[:total]:
        entry = ours.get(row["episode_index"])
        if entry is not None and entry.length != row["length"]:
            entry = None
        listed.append(
            EpisodeFacts(
                episode_index=row["episode_index"],
                length=row["length"],
                tasks=tuple(row["tasks"] or ()),
                first_row=row["dataset_from_index"],
                uid=entry.uid if entry else "",
                manifest=_manifest(layout, entry.uid) if entry else {},
            )
        )
    return listed


def _manifest(layout: Layout, uid: str) -> Mapping[str, Any]:
    try:
        return read_manifest(layout.episode(uid))
    except DatasetError as broken:
        return {"unreadable": broken.message}


def survey(root: Path) -> list[EpisodeFacts]:
    """Episodes of the dataset at `root`, without opening it. DatasetError when there is none."""
    layout = Layout(root.absolute())
    if not layout.info.exists() and not layout.own.is_dir():
        raise DatasetError(f"{root}: no dataset here", mend="Check the path.")
    ledger = Ledger()
    if layout.journal.exists():
        ledger = replay(read_journal(layout.journal).records)
    return list_episodes(layout, ledger)
