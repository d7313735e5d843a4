"""Which mp4s of a camera become one, and where each episode then begins. Planning only.

Files are joined in episode order as long as LeRobot's size, the safe length and the codec allow;
what cannot share a track begins a new file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recd.config.errors import DatasetError
from recd.daemon.dataset.boxes import BrokenVideoError, VideoTrack, pictures_on_grid, read_track
from recd.daemon.dataset.check_videos import FLOAT32_SAFE_S
from recd.daemon.dataset.layout import FileIndex, video_name

MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """One mp4 as it is now. episodes: numbers and lengths of those in it, in order."""

    name: str
    nbytes: int
    track: VideoTrack
    episodes: tuple[tuple[int, int], ...]

    @property
    def pictures(self) -> int:
        return sum(length for _, length in self.episodes)


@dataclass(slots=True)
class Target:
    """One mp4 as it will be."""

    sources: list[Source] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return sum(source.nbytes for source in self.sources)

    @property
    def pictures(self) -> int:
        return sum(source.pictures for source in self.sources)

    def starts(self) -> Iterable[tuple[int, int, int]]:
        """(episode, first picture, length) of every episode in it."""
        first = 0
        for source in self.sources:
            for episode, length in source.episodes:
                yield episode, first, length
                first += length

    def takes(self, source: Source, *, fps: int, limit_mb: int) -> bool:
        """Whether `source` may be joined to what is already in this file."""
        if not self.sources:
            return True
        last = self.sources[-1].track
        new = source.track
        if self.nbytes + source.nbytes >= limit_mb * MB:
            return False
        if (self.pictures + source.pictures) / fps >= FLOAT32_SAFE_S:
            return False
        if (last.setup, last.timescale, last.codec) != (new.setup, new.timescale, new.codec):
            return False
        return new.delay - last.delay < new.timescale // fps


def sources_of(root: Path, key: str, rows: Sequence[dict[str, Any]], *, fps: int) -> list[Source]:
    """The mp4s of a camera in episode order. DatasetError where they are not as they should be."""
    named: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        place = FileIndex(row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"])
        held = named.setdefault(video_name(key, place), [])
        start = round(row[f"videos/{key}/from_timestamp"] * fps)
        if start != sum(length for _, length in held):
            raise _unfit(key, f"episode {row['episode_index']} does not follow the one before it")
        held.append((row["episode_index"], row["length"]))
    sources = []
    for name, episodes in named.items():
        try:
            track = read_track(root / name)
        except (BrokenVideoError, OSError) as broken:
            raise _unfit(key, f"{name}: {broken}") from broken
        source = Source(name, (root / name).stat().st_size, track, tuple(episodes))
        if not track.complete or pictures_on_grid(track, fps) is not None:
            raise _unfit(key, f"{name}: pictures missing or not on their times")
        spare = len(track.pts) - source.pictures
        if spare < 0 or (spare and track.delay):
            raise _unfit(key, f"{name}: {len(track.pts)} pictures for {source.pictures} rows")
        sources.append(source)
    return sources


def _unfit(key: str, text: str) -> DatasetError:
    return DatasetError(f"{key}: {text}; nothing was changed", mend="Run `recctl verify` on it.")


def plan_targets(sources: Sequence[Source], *, fps: int, limit_mb: int) -> list[Target]:
    """Sources in order, joined as far as they may be."""
    targets = [Target()]
    for source in sources:
        if not targets[-1].takes(source, fps=fps, limit_mb=limit_mb):
            targets.append(Target())
        targets[-1].sources.append(source)
    return targets
