"""Timing and extent of an mp4 read from its boxes: which pictures, when, and whether whole.

Nothing is decoded and nothing but the box headers is read, so a minute of video costs about a
millisecond. Limit: one video track; edit lists as FFmpeg writes them (one shift).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from recd.daemon.dataset.box_samples import (
    BrokenVideoError,
    FragmentDefaults,
    Samples,
    TrackBoxes,
    inner_boxes,
    plain_samples,
    read_fragment,
    track_defaults,
)

__all__ = [
    "CONTAINERS",
    "BrokenVideoError",
    "VideoTrack",
    "file_boxes",
    "pictures_on_grid",
    "read_track",
]

CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"mvex", b"traf"})
CODEC_OF_ENTRY = {
    b"avc1": "h264",
    b"avc3": "h264",
    b"hev1": "hevc",
    b"hvc1": "hevc",
    b"av01": "av1",
    b"vp09": "vp9",
    b"mp4v": "mpeg4",
    b"mjpg": "mjpeg",
}
SETUP_BOXES = (b"avcC", b"av1C", b"hvcC", b"vpcC")
ENTRY_HEADER = 8 + 8 + 78
"""Bytes of stsd before the boxes inside its first (visual) sample entry."""


@dataclass(frozen=True, slots=True)
class VideoTrack:
    """One video track, samples in file order.

    timescale: ticks per second; dts, pts, duration: int64 [N] ticks, pts after the edit list;
    offset, size: int64 [N] bytes; keyframe: bool [N]; whole: leading samples whose bytes are all in
    the file; complete: nothing is cut off at the end; delay: ticks by which the first dts lies
    before the first picture (decoders that reorder need it); setup: the decoder configuration
    (avcC, av1C, hvcC), equal in files that can share one track.
    """

    codec: str
    width: int
    height: int
    timescale: int
    dts: NDArray[np.int64]
    pts: NDArray[np.int64]
    duration: NDArray[np.int64]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    keyframe: NDArray[np.bool_]
    whole: int
    complete: bool
    fragmented: bool
    has_audio: bool
    delay: int
    setup: bytes

    @property
    def average_rate(self) -> float:
        """Pictures per second over the whole track, as decoders state it."""
        ticks = int(self.duration.sum())
        return len(self.duration) * self.timescale / ticks if ticks else 0.0


def file_boxes(file: BinaryIO, length: int) -> Iterator[tuple[bytes, int, int, int]]:
    """(type, start, header, size) of the top-level boxes; size 0 stands for "to the end"."""
    position = 0
    while position + 8 <= length:
        file.seek(position)
        head = file.read(16)
        size, kind = struct.unpack_from(">I4s", head)
        header = 8
        if size == 1 and len(head) == 16:
            (size,) = struct.unpack_from(">Q", head, 8)
            header = 16
        size = size or length - position
        if size < header:
            return
        yield kind, position, header, size
        position += size


def _read_header(track: TrackBoxes, kind: bytes, body: bytes, movie_timescale: int) -> None:
    if kind == b"tkhd":
        track.id = struct.unpack_from(">I", body, 20 if body[0] else 12)[0]
    elif kind == b"mdhd":
        track.timescale = struct.unpack_from(">I", body, 20 if body[0] else 12)[0]
    elif kind == b"hdlr":
        track.handler = body[8:12]
    elif kind == b"stsd" and len(body) >= 8 + 8 + 28:
        entry = body[12:16]
        track.codec = CODEC_OF_ENTRY.get(entry, entry.decode("latin-1"))
        track.width, track.height = struct.unpack_from(">HH", body, 8 + 8 + 24)
        for name, part in inner_boxes(body, ENTRY_HEADER):
            if name in SETUP_BOXES:
                track.setup = part
    elif kind == b"elst":
        count = struct.unpack_from(">I", body, 4)[0]
        wide = body[0] == 1
        step, layout = (20, ">Qq") if wide else (12, ">Ii")
        for entry_number in range(count):
            duration, media = struct.unpack_from(layout, body, 8 + step * entry_number)
            if media < 0:
                track.start_shift += duration / max(movie_timescale, 1)
            else:
                track.media_shift = media
                break
    elif kind in (b"stts", b"ctts", b"stsz", b"stsc", b"stco", b"co64", b"stss"):
        track.tables[kind] = body


def _walk_track(track: TrackBoxes, data: bytes, movie_timescale: int) -> None:
    for kind, body in inner_boxes(data):
        if kind in CONTAINERS:
            _walk_track(track, body, movie_timescale)
        else:
            _read_header(track, kind, body, movie_timescale)


def _movie(data: bytes) -> tuple[list[TrackBoxes], dict[int, FragmentDefaults]]:
    movie_timescale = 1000
    tracks: list[TrackBoxes] = []
    defaults: dict[int, FragmentDefaults] = {}
    for kind, body in inner_boxes(data):
        if kind == b"mvhd":
            movie_timescale = struct.unpack_from(">I", body, 20 if body[0] else 12)[0]
        elif kind == b"trak":
            track = TrackBoxes()
            _walk_track(track, body, movie_timescale)
            tracks.append(track)
        elif kind == b"mvex":
            defaults |= dict(
                track_defaults(part) for name, part in inner_boxes(body) if name == b"trex"
            )
    return tracks, defaults


def _joined(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def read_track(path: Path) -> VideoTrack:
    """Read the video track of an mp4, fragmented or not, also when its end is cut off.

    BrokenVideoError when there is no movie header or not exactly one video track.
    """
    try:
        return _read(path)
    except (struct.error, KeyError, IndexError, ValueError, OverflowError) as broken:
        raise BrokenVideoError(f"its index is damaged: {broken}") from broken


def _read(path: Path) -> VideoTrack:
    length = path.stat().st_size
    samples = Samples()
    tracks: list[TrackBoxes] = []
    defaults: dict[int, FragmentDefaults] = {}
    complete, fragmented, end = True, False, 0
    video: TrackBoxes | None = None
    with path.open("rb") as file:
        for kind, start, header, size in file_boxes(file, length):
            end = start + size
            if end > length:
                complete = False
                if kind != b"mdat":
                    break
            if kind not in (b"moov", b"moof"):
                continue
            file.seek(start + header)
            data = file.read(size - header)
            if kind == b"moov":
                tracks, defaults = _movie(data)
                videos = [track for track in tracks if track.handler == b"vide"]
                if len(videos) != 1:
                    raise BrokenVideoError(f"{len(videos)} video tracks, expected one")
                video = videos[0]
                plain_samples(video, samples)
            elif video is not None:
                fragmented = True
                read_fragment(data, samples, video.id, moof_start=start, known=defaults)
    complete = complete and end == length
    if video is None:
        raise BrokenVideoError("no movie header (moov): the file was never finished or is no mp4")
    return _as_track(video, samples, tracks, length, complete=complete, fragmented=fragmented)


def _as_track(
    video: TrackBoxes,
    samples: Samples,
    tracks: list[TrackBoxes],
    length: int,
    *,
    complete: bool,
    fragmented: bool,
) -> VideoTrack:
    dts = _joined(samples.dts)
    offset, size = _joined(samples.offset), _joined(samples.size)
    inside = offset + size <= length
    whole = len(dts) if inside.all() else int(inside.argmin())
    start = round(video.start_shift * video.timescale)
    return VideoTrack(
        codec=video.codec,
        width=video.width,
        height=video.height,
        timescale=video.timescale,
        dts=dts,
        pts=dts + _joined(samples.shift) - video.media_shift + start,
        duration=_joined(samples.duration),
        offset=offset,
        size=size,
        keyframe=np.concatenate(samples.keyframe) if samples.keyframe else np.zeros(0, np.bool_),
        whole=whole,
        complete=complete and whole == len(dts),
        fragmented=fragmented,
        has_audio=any(track.handler == b"soun" for track in tracks),
        delay=video.media_shift - start,
        setup=video.setup,
    )


def pictures_on_grid(track: VideoTrack, fps: int) -> int | None:
    """Number of the first picture that is not exactly at k / fps seconds; None when all are."""
    shown = np.sort(track.pts) * fps
    wrong = shown != np.arange(len(shown), dtype=np.int64) * track.timescale
    return int(wrong.argmax()) if wrong.any() else None
