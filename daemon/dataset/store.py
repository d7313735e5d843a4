"""The dataset as the writer sees it: stage an episode, commit it, take it back, recover.

One store per folder and process; every method is durable when it returns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from recd.config.errors import RecdError
from recd.daemon.dataset.calibrations import (
    Used,
    differing,
    keep_calibrations,
    known_calibrations,
    refuse_unless_accepted,
)
from recd.daemon.dataset.commit import CommitResult, commit
from recd.daemon.dataset.damage import telling
from recd.daemon.dataset.draft import OWN_FOLDER, Facts, WrittenRows, write_rows
from recd.daemon.dataset.durable import make_folders, sync_all
from recd.daemon.dataset.edit import delete, relabel
from recd.daemon.dataset.handle import Handle, open_handle
from recd.daemon.dataset.ledger import BEGIN
from recd.daemon.dataset.manifest import note, read_manifest
from recd.daemon.dataset.pack import PackReport, pack
from recd.daemon.dataset.parquet import EpisodeRows, warm_up
from recd.daemon.dataset.recover import RecoveryReport, recover, salvage_episode
from recd.daemon.dataset.retention import Retention, outdated
from recd.daemon.dataset.schema import DatasetSchema
from recd.daemon.dataset.survey import EpisodeFacts, list_episodes
from recd.daemon.dataset.trash import TrashEntry, discard, list_trash, purge, undelete, undo_last
from recd.daemon.dataset.videos import CodecPins, VideoFile
from recd.shm.clock import clock_pair


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
        self._kept: Mapping[str, Used] = {}

    @classmethod
    def open_or_create(cls, root: Path, schema: DatasetSchema, *, repo_id: str) -> Self:
        """Open a dataset that fits `schema`, ours or lerobot's, or begin a new one.

        DatasetError, with nothing touched, for: a file or foreign folder, no permission, another
        robot, fps, features or codec, a newer format, a dataset in use or left broken.
        """
        handle = open_handle(root, schema, repo_id=repo_id)
        warm_up(handle.schema.features)
        return cls(handle)

    @classmethod
    def open(cls, root: Path, *, set_aside: bool = False) -> Self:
        """Open an existing dataset with the schema it tells of (for tools).

        set_aside: where a crash interrupted a commit and others have written since, put the
        unfinished episode back into staging instead of refusing.
        """
        return cls(open_handle(root, None, set_aside=set_aside))

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

    def discard(self, uid: str, *, rows: int = 0) -> TrashEntry:
        """Throw a staged take away: whole into the trash, nothing of it in the dataset."""
        return discard(self._handle, uid, rows=rows)

    def write_rows(self, uid: str, rows: EpisodeRows) -> WrittenRows:
        """Write the data file of a staged episode ahead of `commit`, which is given the same
        `rows` again. Nothing of it shows before that."""
        return write_rows(self._handle, uid, rows)

    def commit(
        self,
        uid: str,
        rows: EpisodeRows,
        videos: Mapping[str, VideoFile],
        *,
        manifest: Facts,
        sides: Sequence[Path] = (),
        written: WrittenRows | None = None,
        tell: Callable[[CommitResult], None] = lambda result: None,
    ) -> CommitResult:
        """Publish a staged episode; see `recd.daemon.dataset.commit.commit`."""
        return commit(
            self._handle, uid, rows=rows, videos=videos, facts=manifest, sides=sides,
            written=written, tell=tell,
        )  # fmt: skip

    def undo(self, uid: str) -> TrashEntry:
        """Take the last published episode out again; metadata as before it, byte for byte.

        DatasetError when it is not the last one, or others have written since.
        """
        return undo_last(self._handle, uid)

    def delete(self, uids: Sequence[str]) -> list[TrashEntry]:
        """Take any published episodes out, whole, into the trash; see `recd.daemon.dataset.edit`.
        No episode may be running."""
        with telling(self.root):
            return delete(self._handle, uids)

    def relabel(self, uid: str, task: str) -> int:
        """Give all rows of a published episode another task; returns its number."""
        with telling(self.root):
            return relabel(self._handle, uid, task)

    def undelete(self, uid: str) -> CommitResult:
        """Bring an undone or discarded episode back from the trash, durably.

        Exactly as it was when nothing was published meanwhile, else as the newest episode.
        DatasetError when it is not in the trash, or a discarded take has no usable rows.
        """
        result = undelete(self._handle, uid)
        if result is not None:
            return result
        try:
            salvage_episode(self._handle, uid)
        except RecdError:
            discard(self._handle, uid)
            raise
        entry, state = self._handle.ledger.published[uid], self._handle.state
        return CommitResult(
            uid=uid,
            episode_index=entry.episode_index,
            rows=entry.length,
            first_row=entry.first_row,
            episodes=state.episodes,
            total_rows=state.rows,
            duration_ns=0,
            steps_ns={},
        )

    def recover(self, *, min_rows: int = 1, spare: frozenset[str] = frozenset()) -> RecoveryReport:
        """Publish or put aside what a crash left in staging. Call before anything is staged.

        spare: uids that are still being recorded; they are left in staging.
        """
        with telling(self.root):
            return recover(self._handle, min_rows=min_rows, spare=spare)

    def pack(self) -> PackReport:
        """Join the per-episode files to LeRobot's sizes, atomically; no episode may be running."""
        with telling(self.root):
            return pack(self._handle)

    def trash(self) -> list[TrashEntry]:
        """What could be brought back, oldest first."""
        return list_trash(self._handle.layout)

    def purge(self, uid: str) -> int:
        """Remove an episode from the trash for good; returns the bytes freed."""
        return purge(self._handle.layout, uid)

    def empty_trash(self, retention: Retention) -> dict[str, int]:
        """Remove for good what `retention` gives up; uid -> bytes freed."""
        real_ns = clock_pair().real_ns
        gone = outdated(self.trash(), retention, real_ns=real_ns)
        return {entry.uid: self.purge(entry.uid) for entry in gone}

    def note(self, uid: str, facts: Mapping[str, Any]) -> None:
        """Add facts to a published episode's manifest: the result of a later check, say."""
        note(self._handle.layout.episode(uid), facts)

    @property
    def last_uid(self) -> str | None:
        """The episode `undo` would take back; None when the last one is not recd's."""
        ledger = self._handle.ledger
        entry = ledger.published.get(ledger.last_uid or "")
        last = self._handle.state.episodes - 1
        return entry.uid if entry and entry.episode_index == last else None

    def calibration_changes(
        self, present: Mapping[str, Used], *, accept: bool
    ) -> Mapping[str, list[str]]:
        """arm -> sha256 of earlier calibrations, for each arm that has another one now.

        Without `accept`, DatasetError for any. An arm (or a dataset) without earlier episodes of
        recd has nothing to differ from.
        """
        if not self._handle.ledger.published:
            return {}
        known = known_calibrations(self._handle.layout)
        refuse_unless_accepted(differing(known, present), accept=accept)
        return {
            arm: list(known[arm])
            for arm, used in present.items()
            if known.get(arm) and used.sha256 not in known[arm]
        }

    def known_calibrations(self) -> dict[str, list[str]]:
        """arm -> sha256 of every calibration that earlier episodes had; {} without any."""
        if not self._handle.ledger.published:
            return {}
        known = known_calibrations(self._handle.layout)
        return {arm: list(each) for arm, each in known.items()}

    def keep_calibrations(self, present: Mapping[str, Used]) -> None:
        """Count `present` among the dataset's calibrations, durably. Cheap when nothing is new."""
        layout, first = self._handle.layout, not self._handle.ledger.published
        if present != self._kept:
            keep_calibrations(layout, {} if first else known_calibrations(layout), present)
            self._kept = dict(present)

    def last_manifest(self) -> Mapping[str, Any]:
        """Story of the newest episode recd recorded here, {} for none: what to compare the present
        configuration with."""
        uid = self._handle.ledger.last_uid
        return read_manifest(self._handle.layout.episode(uid)) if uid else {}

    def episodes(self) -> list[EpisodeFacts]:
        """All episodes in order, with uid and manifest where they are recd's own."""
        return list_episodes(self._handle.layout, self._handle.ledger)
