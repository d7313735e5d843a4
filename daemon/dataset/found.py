"""What a killed lerobot left of a dataset: rows with or without a footer, and the pictures of each
episode, as far as the files themselves prove them. Reads only.

An episode is proven when its rows are whole and the mp4s hold exactly the pictures of it and its
neighbours: lerobot fills them in order, an episode never lies in two.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recd.config.errors import DatasetError
from recd.daemon.dataset.boxes import BrokenVideoError, pictures_on_grid, read_track
from recd.daemon.dataset.footerless import has_footer, salvage_table, widths_of
from recd.daemon.dataset.layout import FileIndex, Layout
from recd.daemon.dataset.parquet import data_schema, read_table, read_tasks
from recd.daemon.dataset.state import files_of_kind

UNREADABLE = (pa.ArrowException, OSError, KeyError, ValueError, TypeError)


@dataclass(slots=True)
class FoundEpisode:
    """number, length: by its rows; file, table: where they are; row: of the episodes table where
    that is readable; places: camera -> (mp4, first picture) once they are proven."""

    number: int
    length: int
    file: FileIndex
    table: pa.Table
    row: dict[str, Any] | None = None
    places: dict[str, tuple[FileIndex, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Findings:
    """All that was found. torn: files without footer; lost: in words, what is not proven."""

    info: dict[str, Any]
    schema: pa.Schema
    tasks: list[str]
    episodes: list[FoundEpisode]
    torn: list[str]
    lost: list[str]
    episodes_schema: pa.Schema | None = None


def looks_broken(layout: Layout, info: Mapping[str, Any]) -> bool:
    """Whether data or metadata have no footer, or hold less than info.json announces."""
    rows = {"data": 0, "meta/episodes": 0}
    for kind in rows:
        for path in files_of_kind(layout.root, kind, ".parquet").values():
            if not has_footer(path):
                return True
            try:
                rows[kind] += pq.read_metadata(path).num_rows
            except UNREADABLE:
                return True
    wanted = (int(info.get("total_frames", 0)), int(info.get("total_episodes", 0)))
    return rows["data"] < wanted[0] or rows["meta/episodes"] < wanted[1]


def find(layout: Layout, info: dict[str, Any]) -> Findings:
    """Everything of a broken dataset that its files prove. DatasetError where its features are none
    that recd knows how to read without a footer."""
    schema = data_schema(info["features"])
    found = Findings(info, schema, [], [], [], [])
    _find_rows(layout, found)
    _find_metadata(layout, found)
    _find_tasks(layout, found)
    cameras = [key for key, ft in info["features"].items() if ft["dtype"] == "video"]
    for key in cameras:
        _find_pictures(layout, found, key)
    for episode in found.episodes:
        missing = [key for key in cameras if key not in episode.places]
        if missing:
            found.lost.append(
                f"episode {episode.number}: {episode.length} rows whose pictures of "
                f"{', '.join(missing)} are not proven"
            )
    found.episodes = [e for e in found.episodes if len(e.places) == len(cameras)]
    announced = int(info.get("total_episodes", 0))
    have = {episode.number for episode in found.episodes}
    named = "\n".join(found.lost)
    for number in range(announced):
        if number not in have and f"episode {number}:" not in named:
            found.lost.append(f"episode {number}: no rows")
    return found


def _find_rows(layout: Layout, found: Findings) -> None:
    for index, path in files_of_kind(layout.root, "data", ".parquet").items():
        name = layout.relative(path)
        try:
            table = read_table(path).select(found.schema.names).cast(found.schema)
        except UNREADABLE:
            found.torn.append(name)
            widths = widths_of(found.schema, found.info["features"])
            table = salvage_table(path, found.schema, widths)
            if not table.num_rows:
                found.lost.append(f"{name}: no whole group of rows in {path.stat().st_size} bytes")
        for part in _parts(table):
            number = part["episode_index"][0].as_py()
            if any(episode.number == number for episode in found.episodes):
                found.lost.append(f"{name}: rows of episode {number} once more")
                continue
            frames = part["frame_index"].to_numpy()
            if not np.array_equal(frames, np.arange(part.num_rows)):
                found.lost.append(f"episode {number}: its rows in {name} have gaps")
                continue
            found.episodes.append(FoundEpisode(number, part.num_rows, index, part))
    found.episodes.sort(key=lambda episode: episode.number)


def _parts(table: pa.Table) -> Iterator[pa.Table]:
    """The rows of each episode in a table."""
    numbers = table["episode_index"].to_numpy()
    borders = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    for first, end in pairwise(borders):
        if end > first:
            yield table.slice(first, end - first)


def _find_metadata(layout: Layout, found: Findings) -> None:
    by_number = {episode.number: episode for episode in found.episodes}
    for path in files_of_kind(layout.root, "meta/episodes", ".parquet").values():
        try:
            table = read_table(path)
            rows = table.to_pylist()
        except UNREADABLE:
            found.torn.append(layout.relative(path))
            continue
        found.episodes_schema = found.episodes_schema or table.schema.remove_metadata()
        for row in rows:
            episode = by_number.get(row.get("episode_index", -1))
            if episode is not None and row.get("length") == episode.length:
                episode.row = row


def _find_tasks(layout: Layout, found: Findings) -> None:
    numbers = [n for e in found.episodes for n in e.table["task_index"].to_pylist()]
    most = max(numbers, default=-1)
    try:
        found.tasks = read_tasks(layout.tasks)
    except (DatasetError, *UNREADABLE):
        found.tasks = []
    if most >= len(found.tasks):
        told = {
            e.table["task_index"][0].as_py(): e.row["tasks"][0]
            for e in found.episodes
            if e.row and len(e.row.get("tasks") or ()) == 1
        }
        for number in range(len(found.tasks), most + 1):
            if number not in told:
                found.lost.append(f"task {number}: its words")
            found.tasks.append(told.get(number, f"task {number} (its words are lost)"))


def _find_pictures(layout: Layout, found: Findings, key: str) -> None:
    """Give each episode its place in the mp4s of a camera, where that is proven."""
    fps = int(found.info["fps"])
    files: dict[FileIndex, int] = {}
    for index, path in files_of_kind(layout.root, f"videos/{key}", ".mp4").items():
        try:
            track = read_track(path)
        except (BrokenVideoError, OSError) as broken:
            found.lost.append(f"{layout.relative(path)}: {broken}")
            continue
        if not track.complete or pictures_on_grid(track, fps) is not None:
            found.lost.append(f"{layout.relative(path)}: cut off, or pictures not on their times")
            continue
        files[index] = len(track.pts)
    used: dict[FileIndex, int] = {}
    unknown: list[FoundEpisode] = []
    for episode in found.episodes:
        place = _told_place(episode, key, fps)
        if place is None:
            unknown.append(episode)
        elif place[1] + episode.length <= files.get(place[0], 0):
            episode.places[key] = place
            used[place[0]] = max(used.get(place[0], 0), place[1] + episode.length)
    free = {index: (used.get(index, 0), count) for index, count in files.items()}
    every = sum(files.values()) == int(found.info.get("total_frames", 0))
    for episode, place in assign(unknown, free, every=every):
        episode.places[key] = place


def _told_place(episode: FoundEpisode, key: str, fps: int) -> tuple[FileIndex, int] | None:
    row = episode.row
    if row is None or row.get(f"videos/{key}/chunk_index") is None:
        return None
    index = FileIndex(row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"])
    return index, round(row[f"videos/{key}/from_timestamp"] * fps)


def assign(
    unknown: Sequence[FoundEpisode],
    free: Mapping[FileIndex, tuple[int, int]],
    *,
    every: bool,
) -> list[tuple[FoundEpisode, tuple[FileIndex, int]]]:
    """Places of episodes whose places nobody noted, in order, as far as they are proven.

    free: mp4 -> (pictures that have an owner, pictures). A file is proven when whole episodes end
    exactly at its end; or, every: when the camera has as many pictures as the dataset had rows.
    """
    left = _without_gap(unknown)
    placed: list[tuple[FoundEpisode, tuple[FileIndex, int]]] = []
    for index in sorted(free):
        first, count = free[index]
        if first >= count or not left:
            continue
        ends = np.cumsum([episode.length for episode in left]) + first
        fits = np.flatnonzero(ends == count)
        if len(fits):
            taken = int(fits[0]) + 1
        elif every and ends[-1] < count:
            taken = len(left)
        else:
            break
        for episode, end in zip(left[:taken], ends, strict=False):
            placed.append((episode, (index, int(end) - episode.length)))
        left = left[taken:]
    return placed


def _without_gap(unknown: Sequence[FoundEpisode]) -> list[FoundEpisode]:
    """Up to the first number that is missing: what lay between is not known."""
    numbers = [episode.number for episode in unknown]
    for at, (one, other) in enumerate(pairwise(numbers)):
        if other != one + 1:
            return list(unknown[: at + 1])
    return list(unknown)
