"""One finished episode becomes part of the dataset: checked, written, synced, then renamed in.

At every kill point LeRobot loads N or N+1 whole episodes: every file is complete before the first
rename, and info.json, which counts the episodes, comes last.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from recd.config.errors import DatasetError
from recd.daemon.dataset.delay import set_delay
from recd.daemon.dataset.draft import (
    LOOKED_AT,
    OWN_FOLDER,
    Draft,
    Facts,
    WrittenRows,
    begin_draft,
    take_videos,
    write_draft,
    write_rows,
)
from recd.daemon.dataset.durable import (
    keep_copy,
    make_folders,
    remove_tree,
    sha256_of,
    sync_all,
    write_json,
)
from recd.daemon.dataset.handle import Handle, refresh
from recd.daemon.dataset.layout import (
    INFO,
    STATS,
    TASKS,
    Layout,
    data_name,
    episodes_name,
    video_name,
)
from recd.daemon.dataset.ledger import LedgerEntry, Move, Transaction
from recd.daemon.dataset.parquet import EpisodeRows
from recd.daemon.dataset.remux import MIN_FRAGMENTED, make_plain
from recd.daemon.dataset.schema import DatasetSchema
from recd.daemon.dataset.state import DatasetState, schema_of_episodes
from recd.daemon.dataset.transaction import FOLDER, digest_of, finish, run
from recd.daemon.dataset.videos import VideoFile, check_video
from recd.daemon.faultpoints import fault_point
from recd.shm import clock

UNDO_DEPTH = 32
"""So many of the last episodes keep the metadata from before them, to be taken back exactly."""

UNDO_RECORD = "commit.json"
"""The transaction of a commit, beside the kept metadata."""

FAULT_POINTS = (
    "commit.begin",
    "commit.data_written",
    "commit.checked",
    "commit.tasks_written",
    "commit.stats_written",
    "commit.info_written",
    "commit.manifest_written",
    "commit.episodes_written",
    "commit.verified",
    "commit.kept",
    "commit.synced",
    "commit.prepared",
    "commit.moved.own",
    "commit.moved.video",
    "commit.moved.data",
    "commit.moved.episodes",
    "commit.moved.tasks",
    "commit.moved.stats",
    "commit.moved.info",
    "commit.folders_synced",
    "commit.done",
    "commit.cleaned",
)
"""Every place where a test may kill a commit, in order."""


@dataclass(frozen=True, slots=True)
class CommitResult:
    """rows, first_row: of this episode; episodes, total_rows: of the dataset now; duration_ns: of
    the commit until then; steps_ns: of its parts; changed_outside: metadata others had changed."""

    uid: str
    episode_index: int
    rows: int
    first_row: int
    episodes: int
    total_rows: int
    duration_ns: int
    steps_ns: Mapping[str, int]
    changed_outside: tuple[str, ...] = ()


class _Stopwatch:
    """Names the time since the last mark."""

    def __init__(self) -> None:
        self.started = self.last = clock.now_ns()
        self.steps: dict[str, int] = {}

    def mark(self, step: str) -> None:
        now = clock.now_ns()
        self.steps[step] = now - self.last
        self.last = now


def commit(
    handle: Handle,
    uid: str,
    *,
    rows: EpisodeRows,
    videos: Mapping[str, VideoFile],
    facts: Facts,
    sides: Sequence[Path] = (),
    kind: str = "commit",
    written: WrittenRows | None = None,
    tell: Callable[[CommitResult], None] = lambda result: None,
) -> CommitResult:
    """Publish an episode whose mp4s lie in its staging folder; durable on return.

    facts: for the manifest. sides: further files to keep with the episode, moved there. written:
    its data file, where that was made ahead; made anew when the dataset has changed since. tell:
    called as soon as it is durable; what remains then is to clean up.
    DatasetError with the reason when the episode is not whole; nothing was published then, and
    staging is kept.
    """
    watch = _Stopwatch()
    fault_point("commit.begin")
    changed = refresh(handle)
    if uid in handle.ledger.published:
        raise DatasetError(f"episode {uid} is already in the dataset")
    _check_complete(handle.schema, rows, videos)
    if written is None or not written.fits(handle, uid, rows):
        written = write_rows(handle, uid, rows)
    draft = begin_draft(handle, written, videos)
    try:
        checked = {key: _checked(handle, key, video, len(rows)) for key, video in videos.items()}
        watch.mark("checked")
        fault_point("commit.checked")
        take_videos(draft, {key: each.video for key, each in checked.items()})
        kept = write_draft(
            handle, draft, facts, sides, meanwhile=partial(_keep_present, handle, draft)
        )
    finally:
        wait([draft.episodes])
    watch.mark("written")
    fault_point("commit.verified")
    transaction = _transaction(handle, draft, kind, kept)
    fault_point("commit.kept")
    watch.mark("planned")
    handle.stale = True
    _publish(handle, draft, transaction)
    _carry_on(handle, draft, {key: each.delay_frames for key, each in checked.items()})
    with contextlib.suppress(OSError):  # recovery removes what is left lying
        remove_tree(draft.folder)
    watch.mark("durable")
    result = CommitResult(
        uid=uid,
        episode_index=draft.numbers.episode_index,
        rows=len(rows),
        first_row=draft.numbers.first_row,
        episodes=handle.state.episodes,
        total_rows=handle.state.rows,
        duration_ns=watch.last - watch.started,
        steps_ns=watch.steps,
        changed_outside=tuple(changed),
    )
    tell(result)
    _clean(handle, draft)
    return result


def _publish(handle: Handle, draft: Draft, transaction: Transaction) -> None:
    """Run the transaction; what fails after PREPARE is tried to its end once, then told as it is.

    From PREPARE on the episode will be published, at the latest when the dataset is next opened:
    calling it lost would be wrong.
    """
    staged = _unsynced(handle.layout, draft)
    try:
        run(
            handle.root, transaction, journal=handle.journal, ledger=handle.ledger,
            staged=staged, syncs=draft.syncs,
        )  # fmt: skip
    except OSError as broken:
        if draft.uid in handle.ledger.published:
            return
        if handle.ledger.pending is None:
            raise
        try:
            finish(handle.root, transaction, journal=handle.journal, ledger=handle.ledger)
        except OSError:
            raise DatasetError(
                f"episode {draft.uid} is safe but not yet in the dataset: {broken}",
                mend="Mend the disk; opening the dataset finishes the save (`recctl recover`).",
            ) from broken


@dataclass(frozen=True, slots=True)
class CheckedVideo:
    """A video that may be published. delay_frames: pictures between decoding and showing."""

    video: VideoFile
    delay_frames: int


def _check_complete(
    schema: DatasetSchema, rows: EpisodeRows, videos: Mapping[str, VideoFile]
) -> None:
    """DatasetError unless there are rows, and of every camera what the dataset holds of it."""
    if not len(rows):
        raise DatasetError("an episode without rows cannot be saved", mend="Record it again.")
    if set(videos) != set(schema.video_keys):
        raise DatasetError(
            f"videos of {sorted(videos)}, the dataset expects {sorted(schema.video_keys)}"
        )
    if set(rows.images) != set(schema.image_keys):
        raise DatasetError(
            f"pictures of {sorted(rows.images)}, the dataset expects {sorted(schema.image_keys)}"
        )


def _checked(handle: Handle, key: str, video: VideoFile, rows: int) -> CheckedVideo:
    """A video with one picture a row at its exact time, encoded as the dataset's others.

    As published it has the dataset's decoding delay (see `delay`), and a very short one is made
    plain (`remux.MIN_FRAGMENTED`).
    """
    schema = handle.schema
    track = check_video(key, video, rows=rows, fps=schema.fps)
    pinned = schema.pins.get(key)
    if pinned and (wrong := video.pins.differs_from(pinned)):
        said = ", ".join(
            f"{n} {getattr(video.pins, n)} (dataset: {getattr(pinned, n)})" for n in wrong
        )
        raise DatasetError(
            f"{key}: {said}", mend="Encode with the dataset's settings, or use a new folder."
        )
    height, width = schema.features[key]["shape"][:2]
    if (video.pins.height, video.pins.width) != (height, width):
        raise DatasetError(
            f"{key}: picture {video.pins.width}x{video.pins.height}, expected {width}x{height}"
        )
    if track.fragmented and rows < MIN_FRAGMENTED:
        make_plain(video.path, fps=schema.fps, pictures=rows)
        video = replace(video, digest="")
        track = check_video(key, video, rows=rows, fps=schema.fps)
    made = track.delay * schema.fps // track.timescale
    wanted = handle.state.delay.get(key, made)
    if set_delay(video.path, track, frames=wanted, fps=schema.fps):
        return CheckedVideo(replace(video, digest=""), wanted)
    return CheckedVideo(video, made)


def _unsynced(layout: Layout, draft: Draft) -> list[Path]:
    """Everything that must be durable before the first rename; encoders sync their own again."""
    undo = layout.undo(draft.uid)
    return [
        draft.folder,
        *sorted(path for path in draft.folder.rglob("*") if path.suffix != LOOKED_AT),
        layout.own / "staging",
        undo / UNDO_RECORD,
        undo,
        undo.parent,
    ]


@dataclass(frozen=True, slots=True)
class _Present:
    """Content of a file that a commit replaces: its digest, and its copy relative to the root; both
    empty where there is no such file yet."""

    digest: str
    copy: str


def _keep_present(handle: Handle, draft: Draft) -> dict[str, _Present]:
    """Keep what the commit will replace, for undo: name in the dataset -> what is kept of it."""
    layout = handle.layout
    undo = layout.undo(draft.uid)
    remove_tree(undo)
    make_folders(undo)
    present = {}
    for file, name in _replacements(draft).items():
        target = layout.root / name
        digest, copy = digest_of(target), ""
        if digest:
            keep_copy(target, undo / file)
            copy = layout.relative(undo / file)
        present[name] = _Present(digest, copy)
    return present


def _replacements(draft: Draft) -> dict[str, str]:
    """New file in staging -> the name in the dataset over which it is renamed; data first, info
    last."""
    new_tasks = draft.new("tasks.parquet").exists()
    return {
        "data.parquet": data_name(draft.data_index),
        "episodes.parquet": episodes_name(draft.episodes_index),
        **({"tasks.parquet": TASKS} if new_tasks else {}),
        "stats.json": STATS,
        "info.json": INFO,
    }


def _transaction(
    handle: Handle, draft: Draft, kind: str, kept: Mapping[str, _Present]
) -> Transaction:
    """All renames in their order; the earlier metadata is kept for undo."""
    layout, uid = handle.layout, draft.uid
    own = layout.relative(draft.folder / OWN_FOLDER)
    moves = [Move(own, layout.relative(layout.episode(uid)), digest=FOLDER, label="own")]
    for key, video in draft.videos.items():
        name = video_name(key, draft.video_index[key])
        digest = draft.video_digest[key]
        moves.append(Move(layout.relative(video.path), name, digest=digest, label="video"))
    data, *metadata = (
        Move(
            layout.relative(draft.new(file)), name, digest=sha256_of(draft.new(file)),
            before=kept[name].digest, keep=kept[name].copy, label=draft.new(file).stem,
        )
        for file, name in _replacements(draft).items()
    )  # fmt: skip
    entry = LedgerEntry(
        uid=uid,
        episode_index=draft.numbers.episode_index,
        length=len(draft.rows),
        first_row=draft.numbers.first_row,
        rows_sha256=draft.rows_sha256,
        videos=draft.video_digest,
    )
    after = {move.dst: move.digest for move in metadata}
    if TASKS not in after:
        after[TASKS] = digest_of(layout.tasks)
    transaction = Transaction(kind, uid, (*moves, data, *metadata), after, asdict(entry))
    write_json(layout.undo(uid) / UNDO_RECORD, transaction.as_record(), indent=None)
    return transaction


def _carry_on(handle: Handle, draft: Draft, delay: dict[str, int]) -> None:
    """What the next save must know, without reading anything again."""
    state = handle.state
    per_chunk = state.files_per_chunk
    new = DatasetState(
        features=draft.info["features"],
        info=draft.info,
        tasks=draft.tasks,
        stats=draft.total_stats,
        episodes=state.episodes + 1,
        rows=state.rows + len(draft.rows),
        next_data=draft.data_index.next(per_chunk),
        next_video={key: index.next(per_chunk) for key, index in draft.video_index.items()},
        episodes_file=draft.episodes_index,
        tail=draft.tail,
        episodes_schema=schema_of_episodes(state),
        delay=delay,
    )
    new.remember(handle.root, [INFO, STATS, TASKS, episodes_name(draft.episodes_index)])
    handle.state = new
    pins = {**{key: video.pins for key, video in draft.videos.items()}, **handle.schema.pins}
    handle.schema = replace(handle.schema, features=new.features, pins=pins)
    handle.stale = False


def _clean(handle: Handle, draft: Draft) -> None:
    """What nobody has to wait for. The episode is saved whatever happens here."""
    handle.state.tail = draft.tail.combine_chunks()
    published = list(handle.ledger.published)
    with contextlib.suppress(OSError):
        sync_all(handle.layout.episode(draft.uid).glob(f"*{LOOKED_AT}"))
        for uid in published[-UNDO_DEPTH - 1 : -UNDO_DEPTH]:
            remove_tree(handle.layout.undo(uid))
    fault_point("commit.cleaned")
