"""What is in a dataset, for people: its episodes, and which of them recd recorded.

Reads only, and needs no lock: meant for tools that look while a recording goes on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recd.config.errors import DatasetError
from recd.daemon.dataset.damage import telling
from recd.daemon.dataset.journal import read_journal
from recd.daemon.dataset.layout import Layout
from recd.daemon.dataset.ledger import Ledger, replay
from recd.daemon.dataset.manifest import read_manifest
from recd.daemon.dataset.parquet import read_tasks
from recd.daemon.dataset.schema import PICTURES
from recd.daemon.dataset.state import read_episodes, read_info
from recd.daemon.dataset.trash import TRASH_NOTE, TrashEntry, list_trash


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
    layout = _layout(root)
    ledger = Ledger()
    with telling(root):
        if layout.journal.exists():
            ledger = replay(read_journal(layout.journal).records)
        return list_episodes(layout, ledger)


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """A dataset as a whole. cameras: name -> size and codec; nbytes: on disk, trash and all;
    staged, trashed, quarantined: numbers of episodes outside the dataset."""

    root: str
    robot_type: str
    fps: int
    columns: str
    episodes: int
    rows: int
    tasks: tuple[str, ...]
    cameras: Mapping[str, str]
    nbytes: int
    staged: int
    trashed: int
    quarantined: int


def survey_dataset(root: Path) -> DatasetFacts:
    """What the dataset at `root` is, without opening it. DatasetError when there is none."""
    with telling(root):
        return _facts(root, _layout(root))


def _facts(root: Path, layout: Layout) -> DatasetFacts:
    info = read_info(layout.info) if layout.info.exists() else {"features": {}}
    features = info["features"]
    files = [path for path in layout.root.rglob("*") if path.is_file()]
    return DatasetFacts(
        root=str(root),
        robot_type=str(info.get("robot_type") or ""),
        fps=int(info.get("fps", 0)),
        columns="full" if any(name.startswith("recd.") for name in features) else "plain",
        episodes=int(info.get("total_episodes", 0)),
        rows=int(info.get("total_frames", 0)),
        tasks=tuple(read_tasks(layout.tasks)) if layout.tasks.exists() else (),
        cameras={
            key.rpartition(".")[2]: _picture_words(feature)
            for key, feature in features.items()
            if feature["dtype"] in PICTURES
        },
        nbytes=sum(path.stat().st_size for path in files),
        staged=_count(layout.own / "staging", "*"),
        trashed=_count(layout.own / "trash", f"*/{TRASH_NOTE}"),
        quarantined=_count(layout.own / "quarantine", "*"),
    )


def _layout(root: Path) -> Layout:
    layout = Layout(root.absolute())
    if not layout.info.exists() and not layout.own.is_dir():
        raise DatasetError(f"{root}: no dataset here", mend="Check the path.")
    return layout


def _picture_words(feature: Mapping[str, Any]) -> str:
    height, width = feature["shape"][:2]
    codec = (feature.get("info") or {}).get("video.codec", feature["dtype"])
    return f"{width}x{height} {codec}"


def _count(folder: Path, pattern: str) -> int:
    return len(list(folder.glob(pattern))) if folder.is_dir() else 0


def survey_trash(root: Path) -> list[TrashEntry]:
    """What could be brought back, without opening the dataset."""
    with telling(root):
        return list_trash(_layout(root))


def files_of_episode(root: Path, uid: str) -> list[dict[str, Any]]:
    """Files of recd's own folder of an episode: [{name, nbytes}] relative to the dataset."""
    layout = Layout(root.absolute())
    paths = sorted(path for path in layout.episode(uid).rglob("*") if path.is_file())
    return [{"name": layout.relative(path), "nbytes": path.stat().st_size} for path in paths]
