"""The mp4s of episodes that leave a dataset: taken along whole, or cut out by copying packets.

No picture is decoded or encoded again. Limit: a cut needs episodes that begin with a key frame,
as every recording of recd and lerobot does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recd.config.errors import DatasetError
from recd.daemon.dataset.durable import make_folders
from recd.daemon.dataset.handle import Handle
from recd.daemon.dataset.layout import FileIndex, video_name
from recd.daemon.dataset.pack_videos import Source, sources_of
from recd.daemon.dataset.remux import Clip, join


@dataclass(slots=True)
class VideoEdit:
    """aside: (episode, camera) -> name of the mp4 it keeps; moved: mp4s that are one gone episode
    and go as they are; cut: mp4s that are replaced; new: mp4s that come in, below the work folder;
    places: new `videos/...` columns by episode."""

    aside: dict[tuple[int, str], str] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)
    cut: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    places: dict[int, dict[str, Any]] = field(default_factory=dict)


def edit_videos(
    handle: Handle, rows: Sequence[dict[str, Any]], gone: dict[int, Path], work: Path
) -> VideoEdit:
    """Write the mp4s that change. gone: episode -> folder that keeps its files; work: for new ones.

    DatasetError, nothing changed, where an mp4 cannot be cut.
    """
    edit, fps = VideoEdit(), handle.schema.fps
    for key in handle.schema.video_keys:
        free = handle.state.next_video[key]
        for source in _touched(handle, key, rows, gone):
            numbers = [number for number, _ in source.episodes]
            if len(numbers) == 1:
                edit.moved[source.name] = numbers[0]
                edit.aside[numbers[0], key] = source.name
                continue
            edit.cut.append(source.name)
            staying: list[Clip] = []
            places: list[tuple[int, int, int]] = []
            first = written = 0
            for number, length in source.episodes:
                clip = Clip(handle.root / source.name, length, first)
                first += length
                if number in gone:
                    name = f"videos/{key}/{number}.mp4"
                    _cut([clip], gone[number] / name, fps=fps)
                    edit.aside[number, key] = name
                else:
                    staying.append(clip)
                    places.append((number, written, length))
                    written += length
            if staying:
                name = video_name(key, free)
                _cut(staying, work / name, fps=fps)
                edit.new.append(name)
                _note_places(edit, key, free, places, fps)
                free = free.next(handle.state.files_per_chunk)
    return edit


def _touched(
    handle: Handle, key: str, rows: Sequence[dict[str, Any]], gone: dict[int, Path]
) -> list[Source]:
    """The mp4s of a camera that hold a gone episode."""

    def name(row: dict[str, Any]) -> str:
        place = FileIndex(row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"])
        return video_name(key, place)

    names = {name(row) for row in rows if row["episode_index"] in gone}
    held = [row for row in rows if name(row) in names]
    return sources_of(handle.root, key, held, fps=handle.schema.fps)


def _note_places(
    edit: VideoEdit, key: str, place: FileIndex, held: list[tuple[int, int, int]], fps: int
) -> None:
    for number, first, length in held:
        edit.places.setdefault(number, {}).update(
            {
                f"videos/{key}/chunk_index": place.chunk,
                f"videos/{key}/file_index": place.file,
                f"videos/{key}/from_timestamp": first / fps,
                f"videos/{key}/to_timestamp": (first + length) / fps,
            }
        )


def _cut(clips: Sequence[Clip], target: Path, *, fps: int) -> None:
    make_folders(target.parent)
    try:
        join(clips, target, fps=fps)
    except ValueError as broken:
        raise DatasetError(
            f"{clips[0].path}: {broken}",
            mend="Delete it with lerobot's delete_episodes, which decodes and encodes again.",
        ) from None
