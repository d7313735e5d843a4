"""The dataset as the writer sees it: stage an episode, commit it, take it back.

One store per folder and process; every method is durable when it returns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from recd.daemon.dataset.commit import CommitResult, commit
from recd.daemon.dataset.draft import OWN_FOLDER
from recd.daemon.dataset.durable import make_folders, sync_all
from recd.daemon.dataset.handle import Handle, open_handle
from recd.daemon.dataset.ledger import BEGIN
from recd.daemon.dataset.parquet import EpisodeRows
from recd.daemon.dataset.schema import DatasetSchema
from recd.daemon.dataset.videos import CodecPins, VideoFile


@dataclass(frozen=True, slots=True)
class Totals:
    """episodes, rows: published; tasks: distinct task texts."""

    episodes: int
    rows: int
    tasks: int


class DatasetStore:
    """A LeRobot v3.0 dataset folder opened for recording; holds its lock until `close`."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    @classmethod
    def open_or_create(cls, root: Path, schema: DatasetSchema, *, repo_id: str) -> Self:
        """Open a dataset that fits `schema`, ours or lerobot's, or begin a new one.

        DatasetError, with nothing touched, for: a file or foreign folder, no permission, another
        robot, fps, features or codec, a newer format, a dataset in use or left broken.
        """
        return cls(open_handle(root, schema, repo_id=repo_id))

    @classmethod
    def open(cls, root: Path) -> Self:
        """Open an existing dataset with the schema it tells of (for tools)."""
        return cls(open_handle(root, None))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the dataset."""
        self._handle.close()

    @property
    def root(self) -> Path:
        return self._handle.root

    @property
    def schema(self) -> DatasetSchema:
        """The schema in force: of the existing dataset where there is one."""
        return self._handle.schema

    @property
    def pins(self) -> Mapping[str, CodecPins]:
        """Codec facts per video key that the dataset fixes; empty before its first episode."""
        return self._handle.schema.pins

    @property
    def totals(self) -> Totals:
        state = self._handle.state
        return Totals(state.episodes, state.rows, len(state.tasks))

    def stage(self, uid: str, facts: Mapping[str, Any] | None = None) -> Path:
        """Begin an episode: journal it and return its folder for mp4s, side files below `own/`.

        facts: what recovery needs if this process dies (start time, rate, task, cameras).
        """
        layout = self._handle.layout
        folder = layout.staging(uid)
        changed = make_folders(folder / OWN_FOLDER)
        sync_all([*changed, layout.own / "staging"])
        record = {"ty": BEGIN, "uid": uid, "facts": dict(facts or {})}
        self._handle.journal.append(record)
        self._handle.ledger.apply(record)
        return folder

    def commit(
        self,
        uid: str,
        rows: EpisodeRows,
        videos: Mapping[str, VideoFile],
        *,
        manifest: Mapping[str, Any],
        sides: Sequence[Path] = (),
    ) -> CommitResult:
        """Publish a staged episode; see `recd.daemon.dataset.commit.commit`."""
        return commit(self._handle, uid, rows=rows, videos=videos, facts=manifest, sides=sides)
