"""What a recording is made of, and what is known of each take. Plain state."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from recd.config.errors import RecdError
from recd.config.models import RobotConfig
from recd.daemon.supervisor.steps import SOURCE_ENDED
from recd.shm.clock import NS_PER_S, tick_at_or_before

LONGEST_NS = 990 * NS_PER_S
"""Episodes are closed here: rows beyond 1000 s would no longer find their pictures, as LeRobot's
float32 seconds become coarser than its tolerance (docs/dataset.md)."""

LONGEST_WARN_NS = 60 * NS_PER_S
"""So long before that the operator is told."""

LIMIT_REASON = "longest episode"

ON_PURPOSE = frozenset({"", "stop", "plan", "shutdown", SOURCE_ENDED, LIMIT_REASON, "rollout",
                        "correction", "highlight"})  # fmt: skip
"""Reasons for the end of an episode that are no fault: somebody or the plan wanted it, or nothing
more could come."""

RESUMES = 3
"""A take that has cost more writers than this is not gone on with: recovery gets it."""


class Fate(StrEnum):
    """How far a take has come, as `recctl episodes` shows it."""

    RECORDING = "recording"
    CLOSING = "closing"
    COMMITTING = "committing"
    SAVED = "saved"
    DISCARDING = "discarding"
    DISCARDED = "discarded"
    UNDONE = "undone"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows per second as a fraction, and who makes the rows: `clock`, or the source's `step`."""

    num: int
    den: int = 1
    kind: str = "clock"

    @property
    def period_ns(self) -> int:
        """Time between two rows."""
        return NS_PER_S * self.den // self.num


_OF_OUTCOME = ("episode_index", "rows", "duration_ns", "summary", "verdict", "recovered", "reason",
               "kept_at")  # fmt: skip
_OF_SEAL = ("task", "operator", "marks", "end_reason")
"""What `describe` tells of them."""

KEPT_EPISODES = 1000
"""Takes of this session that `recctl episodes` still shows."""

SUMMARIES_KEPT = 20
"""The newest ones of them have their summaries."""


@dataclass(slots=True)
class Take:
    """One episode as the supervisor drives it.

    closed: camera -> its `closed` message; failed: camera -> why it has none; ticks: number of
    rows, None while it runs. stop_ns: when its end was asked for (CLOCK_MONOTONIC). decided: rows
    that all encoders together had decided when it closed, decided_ns: when that last changed.
    decode: what the decoding after its save found, empty before; warned: its end at the limit was
    announced; lost: what the writer said when it gave the take up while it was still running.
    commanded: what callers with a key commanded while it ran {cmd, name, role, key, at_s}; notes:
    for the manifest (rollout, policies, timing).
    """

    uid: str
    staging: Path
    t0_ns: int
    begin: Mapping[str, Any]
    cameras: tuple[str, ...]
    fate: Fate = Fate.RECORDING
    ticks: int | None = None
    stop_ns: int = 0
    decided: int = 0
    decided_ns: int = 0
    rows: int = 0
    closed: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    commanded: list[dict[str, Any]] = field(default_factory=list)
    seal: Mapping[str, Any] | None = None
    outcome: Mapping[str, Any] = field(default_factory=dict)
    ended_ns: int = 0
    decode: Mapping[str, Any] = field(default_factory=dict)
    warned: bool = False
    lost: Mapping[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """True until it is known what became of it."""
        return self.fate in (Fate.RECORDING, Fate.CLOSING, Fate.COMMITTING, Fate.DISCARDING)

    @property
    def being_written(self) -> bool:
        """True while encoders may still write its files."""
        return self.open and self.seal is None

    def resumable(self, writer: str) -> bool:
        """Whether the next writer goes on with it."""
        return self.restarts.get(writer, 0) <= RESUMES

    @property
    def all_closed(self) -> bool:
        """True once every camera has closed its file or failed to."""
        return all(camera in self.closed or camera in self.failed for camera in self.cameras)

    def describe(self) -> dict[str, Any]:
        """One entry of `episodes` and of the topic `episode`."""
        keep = {key: self.outcome[key] for key in _OF_OUTCOME if key in self.outcome}
        duration_ns = keep.pop("duration_ns", None)
        seal = self.seal or {}
        return {
            "uid": self.uid,
            "state": self.fate.value,
            "task": seal.get("task", self.begin.get("task", "")),
            "operator": seal.get("operator", self.begin.get("operator", "")),
            "marks": seal.get("marks", []),
            "end_reason": seal.get("end_reason", ""),
            "rows": self.rows,
            "duration_s": None if duration_ns is None else duration_ns / NS_PER_S,
            "durable_s": (self.ended_ns - self.stop_ns) / NS_PER_S if self.ended_ns else None,
            "restarts": dict(self.restarts),
            "decode": dict(self.decode) or None,
            "commanded": list(self.commanded),
            **keep,
        }

    def shed(self, *, summary: bool) -> None:
        """Keep what `describe` tells and a new begin with the same words needs. summary: that
        too."""
        if self.closed:
            seal = self.seal or {}
            self.seal = {key: seal[key] for key in _OF_SEAL if key in seal}
            self.begin = {key: self.begin.get(key, "") for key in ("task", "operator")}
            self.outcome = {key: self.outcome[key] for key in _OF_OUTCOME if key in self.outcome}
            self.closed = {}
        if not summary and "summary" in self.outcome:
            self.outcome = {k: v for k, v in self.outcome.items() if k != "summary"}


def forget(takes: dict[str, Take]) -> None:
    """Let go of what nobody asks for any more: of an ended take all but what `describe` tells, of
    an older one its summary too, and the oldest ones [a take that ended holds 110 KB before]."""
    newest_first = list(reversed(takes.values()))
    for back, take in enumerate(newest_first):
        if take.ended_ns:
            take.shed(summary=back < SUMMARIES_KEPT)
    for take in newest_first[KEPT_EPISODES:]:
        if take.ended_ns:
            del takes[take.uid]


class Post(Protocol):
    """Delivers messages to workers."""

    def send(self, process: str, ty: str, **fields: Any) -> bool:
        """False when the worker is not there."""

    def of_kind(self, *kinds: str) -> list[str]:
        """Names of the processes of these kinds."""


class Listener(Protocol):
    """Is told what becomes of takes and commands."""

    def announce(self, topic: str, event: str, **fields: Any) -> None:
        """Something an operator may want to know."""

    def resolve(self, key: str, outcome: Mapping[str, Any] | RecdError) -> None:
        """The outcome that deferred replies under `key` wait for."""


@dataclass(frozen=True, slots=True)
class RecordingSpec:
    """What a recording is made of. encoders: camera -> process name; codec: the encoder section.

    decided: uid of a take -> rows of it that each camera's encoder has decided.
    """

    name: str
    root: Path
    grid: Grid
    encoders: Mapping[str, str]
    writers: Sequence[str]
    codec: Mapping[str, Any]
    task: str
    operator: str
    decided: Callable[[str], Mapping[str, int]] = lambda uid: {}


def recording_spec(
    robot: RobotConfig, post: Post, *, decided: Callable[[str], Mapping[str, int]]
) -> RecordingSpec:
    """The recording `main` of a robot, made of the processes that `post` knows."""
    encoders = set(post.of_kind("encoder"))
    step = any(camera.step for camera in robot.cameras.values())
    return RecordingSpec(
        name="main",
        root=robot.dataset_root,
        grid=Grid(robot.dataset.fps, 1, "step" if step else "clock"),
        encoders={
            name: f"encoder:{name}" for name in robot.cameras if f"encoder:{name}" in encoders
        },
        writers=post.of_kind("writer"),
        codec=robot.dataset.encoder.model_dump(mode="json"),
        task=robot.dataset.task,
        operator=robot.operator,
        decided=decided,
    )


def check_calibrations(
    arms: Mapping[str, Mapping[str, Any]], known: Mapping[str, Sequence[str]]
) -> None:
    """Refuse to record with an arm that came back with a calibration no earlier episode had.

    arms: bus -> its newest `attached` message; known: bus -> sha256 of what may be used, no entry:
    anything.
    """
    for bus, facts in arms.items():
        if facts.get("calibration_sha256") not in known.get(bus, [facts.get("calibration_sha256")]):
            raise RecdError(
                f"arms.{bus}: {facts.get('calibration')} is another calibration than that of the "
                "dataset's episodes",
                mend="Give the earlier file back and plug the arm in again, or start recd with "
                "--set dataset.accept_calibration=true",
                code="calibration_changed",
            )


def first_tick_ns(now_ns: int, grid: Grid) -> int:
    """t0 of an episode asked for at `now_ns`: one period later, so that every encoder has its
    `begin` before the first frame that counts; never more than two periods later."""
    return now_ns + grid.period_ns


def rows_at_stop(t0_ns: int, now_ns: int, grid: Grid) -> int:
    """Number of rows of an episode that is asked to end at `now_ns`; at least 1.

    Up to and including the last tick before now, or the next one if it comes within a quarter of a
    period: an encoder decides a tick only when it has seen a frame captured after it, so none has
    gone further when the message reaches it, unless it takes longer than that quarter. Who has gone
    further cuts its file. Up to the first tick after now, no cut would ever be needed, at the price
    of a period of waiting in every stop (measured: 40 to 56 ms to the last row, of 140 in all).
    """
    reached_ns = now_ns + grid.period_ns // 4
    return max(0, tick_at_or_before(t0_ns, reached_ns, grid.num, grid.den)) + 1


def make_staging(staging: Path) -> None:
    """Create the folder of a take. RecdError with the mend."""
    try:
        staging.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecdError(
            f"cannot create {staging}: {error.strerror}",
            mend="check the permissions and the free space of the dataset folder",
            code="dataset",
        ) from error


def fault_of(end_reason: str) -> str:
    """Why a fault ended the episode, "" when none did."""
    return "" if end_reason in ON_PURPOSE else end_reason
