"""Gives an mp4 the decoding delay that its dataset's other files have, in its index alone.

LeRobot joins files by copying packets and fails when one with a delay (x264's B-frames, its
default) follows one without. recd's encoders lay their files out like LeRobot's; where a dataset
was begun otherwise, new files follow it. Pictures and their times stay what they are.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from recd.daemon.dataset.boxes import CONTAINERS, VideoTrack, file_boxes
from recd.daemon.dataset.remux import Clip, join


@dataclass(slots=True)
class _Box:
    kind: bytes
    body: bytes
    children: "list[_Box] | None" = None

    def packed(self) -> bytes:
        body = self.body
        if self.children is not None:
            body = b"".join(child.packed() for child in self.children)
        return struct.pack(">I4s", 8 + len(body), self.kind) + body

    def child(self, *path: bytes) -> "_Box | None":
        found: _Box | None = self
        for kind in path:
            children = (found.children if found else None) or []
            found = next((box for box in children if box.kind == kind), None)
        return found


def _tree(data: bytes) -> Iterator[_Box]:
    start = 0
    while start + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, start)
        body = data[start + 8 : start + size]
        yield _Box(kind, body, list(_tree(body)) if kind in CONTAINERS else None)
        start += size


def _is_video(track: _Box) -> bool:
    handler = track.child(b"mdia", b"hdlr")
    return handler is not None and handler.body[8:12] == b"vide"


def _track_duration(track: _Box) -> int:
    """Duration of a track in the movie's time scale."""
    header = track.child(b"tkhd")
    if header is None:
        raise ValueError("no track header")
    wide = header.body[0] == 1
    return int(struct.unpack_from(">Q" if wide else ">I", header.body, 28 if wide else 20)[0])


def _delayed(movie: _Box, ticks: int, pictures: int) -> bytes:
    """The movie header with `ticks` between decoding and showing every picture."""
    track = next(box for box in movie.children or [] if box.kind == b"trak" and _is_video(box))
    table = track.child(b"mdia", b"minf", b"stbl")
    if table is None or table.children is None or track.children is None:
        raise ValueError("no sample table")
    edit = struct.pack(">IIIiI", 0, 1, _track_duration(track), ticks, 0x10000)
    edits = _Box(b"edts", b"", [_Box(b"elst", edit)])
    track.children = [box for box in track.children if box.kind != b"edts"]
    track.children.insert(1, edits)
    table.children = [box for box in table.children if box.kind != b"ctts"]
    if ticks:
        shift = _Box(b"ctts", struct.pack(">IIII", 0, 1, pictures, ticks))
        place = [box.kind for box in table.children].index(b"stts") + 1
        table.children.insert(place, shift)
    return movie.packed()


def set_delay(path: Path, track: VideoTrack, *, frames: int, fps: int) -> bool:
    """Make the delay of an mp4 `frames` pictures; True when it was changed.

    A file that really reorders keeps its own. The new index is appended and synced before the old
    one is switched off by four bytes, so a kill leaves a file that reads. A file without a whole
    index at its end is copied.
    """
    ticks = frames * track.timescale // fps
    if track.delay == ticks or (track.pts[1:] < track.pts[:-1]).any():
        return False
    with path.open("r+b") as file:
        if not track.fragmented and _append_index(file, ticks, len(track.pts)):
            return True
    temporary = path.with_name(path.name + ".delayed")
    more = frames - track.delay * fps // track.timescale
    join([Clip(path, len(track.pts))], temporary, fps=fps, delay_frames=more)
    temporary.replace(path)
    return True


def _append_index(file: BinaryIO, ticks: int, pictures: int) -> bool:
    length = os.fstat(file.fileno()).st_size
    boxes = list(file_boxes(file, length))
    kind, start, header, size = boxes[-1]
    if kind != b"moov" or header != 8 or start + size != length:
        return False
    file.seek(start + header)
    movie = _Box(b"moov", b"", list(_tree(file.read(size - header))))
    file.seek(length)
    file.write(_delayed(movie, ticks, pictures))
    file.flush()
    os.fsync(file.fileno())
    os.pwrite(file.fileno(), b"free", start + 4)
    return True
