"""The rules of a LeRobot v3.0 dataset as a table, each with what lerobot 0.6.1 does when broken.

Findings name a rule; the functions in `check_tables` and `check_videos` walk the files.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Effect(StrEnum):
    """What a broken rule does to a user of lerobot."""

    LOAD = "lerobot cannot load the dataset"
    READ = "some rows cannot be read"
    EDIT = "it cannot be resumed, merged, trained on or edited"
    SILENT = "lerobot reads something wrong without a word"
    OWN = "recd's own records and the dataset differ"
    NOTE = "harmless"


@dataclass(frozen=True, slots=True)
class Rule:
    """name: for scripts; effect: of breaking it; promise: what a good dataset keeps."""

    name: str
    effect: Effect
    promise: str


_TABLE: dict[str, tuple[Effect, str]] = {
    "info.readable": (Effect.LOAD, "meta/info.json is JSON with version, fps and features"),
    "info.version": (Effect.LOAD, "codebase_version is v3.x"),
    "info.newer": (Effect.NOTE, "codebase_version is v3.0"),
    "info.numbers": (Effect.LOAD, "fps and file sizes are positive numbers"),
    "info.features": (Effect.LOAD, "every feature has a dtype and a shape that can be stored"),
    "info.bookkeeping": (Effect.READ, "the five bookkeeping features are declared"),
    "info.names": (Effect.EDIT, "feature names hold no '/'; 'image' only names cameras"),
    "info.camera": (Effect.EDIT, "cameras have shape and names height, width, channels"),
    "info.codec": (Effect.EDIT, "the codec of a video feature is one that lerobot can write"),
    "info.depth": (Effect.LOAD, "depth video is hevc in a grey pixel format"),
    "info.video_path": (Effect.LOAD, "video_path is set when there are video features"),
    "info.data_path": (Effect.EDIT, "data_path is the default: lerobot's tools use that"),
    "tasks.present": (Effect.LOAD, "meta/tasks.parquet is there and readable"),
    "tasks.index": (Effect.READ, "its texts are the pandas index"),
    "tasks.order": (Effect.SILENT, "task number and position agree: lookup is by position"),
    "tasks.count": (Effect.READ, "total_tasks is the number of tasks"),
    "episodes.present": (Effect.LOAD, "meta/episodes holds readable files"),
    "episodes.schema": (Effect.LOAD, "the first file has every column of the later ones"),
    "episodes.columns": (Effect.EDIT, "every column of lerobot's is there"),
    "episodes.video_columns": (Effect.READ, "every video feature has its place columns"),
    "episodes.count": (Effect.LOAD, "total_episodes is not more than there are"),
    "episodes.hidden": (Effect.SILENT, "total_episodes is not less than there are"),
    "episodes.order": (Effect.SILENT, "rows are numbered 0..N-1 in path order"),
    "episodes.ranges": (Effect.SILENT, "ranges follow each other and match the lengths"),
    "episodes.data_file": (Effect.EDIT, "each episode names the data file that holds it"),
    "episodes.own_file": (Effect.EDIT, "each row names an episodes file that exists"),
    "episodes.tasks": (Effect.SILENT, "the tasks of an episode are those of its rows"),
    "episodes.stats": (Effect.EDIT, "each episode has statistics of every numeric feature"),
    "data.present": (Effect.LOAD, "every episode's rows are in data/"),
    "data.readable": (Effect.LOAD, "every parquet file below data/ is readable"),
    "data.declared": (Effect.LOAD, "data files hold only declared columns"),
    "data.missing": (Effect.READ, "every declared column is in the data files, without nulls"),
    "data.types": (Effect.LOAD, "columns can be cast to their declared type and length"),
    "data.rows": (Effect.SILENT, "total_frames, lengths and rows agree; no row is read twice"),
    "data.index": (Effect.SILENT, "index is 0..N-1 in path order"),
    "data.numbers": (Effect.SILENT, "episode_index and frame_index match the episodes table"),
    "data.timestamp": (Effect.SILENT, "timestamp is frame_index / fps"),
    "data.tasks": (Effect.READ, "task_index is a task's number"),
    "data.finite": (Effect.SILENT, "no NaN or infinity in numeric features"),
    "data.image": (Effect.READ, "pictures decode and have the declared size"),
    "stats.present": (Effect.EDIT, "meta/stats.json holds every numeric feature"),
    "stats.shape": (Effect.EDIT, "statistics have lerobot's shapes, with quantiles"),
    "stats.finite": (Effect.SILENT, "statistics are finite"),
    "video.present": (Effect.LOAD, "every episode's mp4 is there"),
    "video.readable": (Effect.READ, "every mp4 is whole"),
    "video.pictures": (Effect.READ, "each row finds a picture at its time, with both decoders"),
    "video.precision": (Effect.READ, "no picture lies where float32 seconds are too coarse"),
    "video.span": (Effect.EDIT, "from and to timestamps span the episode's length"),
    "video.order": (Effect.SILENT, "episodes follow each other in the mp4 without gap or overlap"),
    "video.extra": (Effect.NOTE, "no picture lies behind the last episode"),
    "video.size": (Effect.READ, "pictures have the declared size"),
    "video.join": (Effect.EDIT, "the mp4s of a camera can be joined: codec, timescale, B-frames"),
    "video.decode": (Effect.READ, "every picture decodes"),
    "video.stray": (Effect.NOTE, "no mp4 lies unused"),
    "own.journal": (Effect.OWN, "the journal is whole and nothing is pending"),
    "own.episode": (Effect.OWN, "every episode recd published is still as it was"),
    "own.elsewhere": (Effect.NOTE, "the dataset was only edited by recd"),
    "own.sides": (Effect.OWN, "every episode's own folder holds its manifest"),
    "own.staging": (Effect.NOTE, "no unfinished episode waits in staging"),
}

RULES: dict[str, Rule] = {name: Rule(name, *entry) for name, entry in _TABLE.items()}
"""Every rule by name."""

MANY = 5
"""So many findings of one rule are listed; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule. where: file, feature or episode; text: expected and found."""

    rule: Rule
    where: str
    text: str

    @property
    def bad(self) -> bool:
        return self.rule.effect is not Effect.NOTE

    def __str__(self) -> str:
        return f"{self.rule.name}: {self.where}: {self.text} ({self.rule.effect})"


@dataclass(slots=True)
class Findings:
    """Collects findings, at most `MANY` of each rule and place kind, and counts the rest."""

    listed: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, rule: str, where: str, text: str) -> None:
        """Note that `rule` is broken at `where`."""
        self.counts[rule] = self.counts.get(rule, 0) + 1
        if self.counts[rule] <= MANY:
            self.listed.append(Finding(RULES[rule], where, text))

    def broken(self, rules: Iterable[str]) -> bool:
        """Whether any of `rules` was found broken."""
        return any(rule in self.counts for rule in rules)

    @property
    def bad(self) -> bool:
        return any(finding.bad for finding in self.listed)
