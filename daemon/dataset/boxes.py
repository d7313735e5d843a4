"""Timing and extent of an mp4 read from its boxes: which pictures, when, and whether whole.

Nothing is decoded and nothing but the box headers is read, so a minute of video costs about a
millisecond. Limit: one video track; edit lists as FFmpeg writes them (one shift).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

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

TRUN_FIELDS = ((0x100, "duration"), (0x200, "size"), (0x400, "flags"), (0x800, "shift"))
NOT_A_KEYFRAME = 0x10000
MAX_PICTURES = 10_000_000
"""More (four days at 30 fps) is a damaged count, not a video: nothing is allocated for it."""


class BrokenVideoError(Exception):
    """The file is no readable mp4 with one video track; the text says what is wrong."""


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


@dataclass(slots=True)
class _Samples:
    duration: list[NDArray[np.int64]] = field(default_factory=list)
    dts: list[NDArray[np.int64]] = field(default_factory=list)
    shift: list[NDArray[np.int64]] = field(default_factory=list)
    size: list[NDArray[np.int64]] = field(default_factory=list)
    offset: list[NDArray[np.int64]] = field(default_factory=list)
    keyframe: list[NDArray[np.bool_]] = field(default_factory=list)


@dataclass(slots=True)
class _Track:
    id: int = 0
    handler: bytes = b""
    codec: str = ""
    setup: bytes = b""
    width: int = 0
    height: int = 0
    timescale: int = 0
    media_shift: int = 0
    start_shift: float = 0.0
    tables: dict[bytes, bytes] = field(default_factory=dict)


def _boxes(data: bytes, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """(type, body) of the boxes in `data`; a body that is cut off ends the walk."""
    while start + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, start)
        header = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            header = 16
        if size < header or start + size > len(data):
            return
        yield kind, data[start + header : start + size]
        start += size


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


def _read_header(track: _Track, kind: bytes, body: bytes, movie_timescale: int) -> None:
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
        for name, part in _boxes(body, ENTRY_HEADER):
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


def _walk_track(track: _Track, data: bytes, movie_timescale: int) -> None:
    for kind, body in _boxes(data):
        if kind in CONTAINERS:
            _walk_track(track, body, movie_timescale)
        else:
            _read_header(track, kind, body, movie_timescale)


def _sane(count: int) -> int:
    if count > MAX_PICTURES:
        raise BrokenVideoError(f"its index is damaged: {count} pictures")
    return count


def _runs(body: bytes, value: str = ">i4") -> NDArray[np.int64]:
    """A run-length table (count, value) written out, as stts and ctts hold it."""
    count = struct.unpack_from(">I", body, 4)[0]
    table = np.frombuffer(body, np.dtype([("n", ">u4"), ("v", value)]), count, 8)
    _sane(int(table["n"].sum(dtype=np.int64)))
    return np.repeat(table["v"].astype(np.int64), table["n"].astype(np.int64))


def _sample_sizes(body: bytes) -> NDArray[np.int64]:
    fixed, count = struct.unpack_from(">II", body, 4)
    if fixed:
        return np.full(_sane(count), fixed, np.int64)
    return np.frombuffer(body, ">u4", count, 12).astype(np.int64)


def _sample_offsets(track: _Track, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    wide = b"co64" in track.tables
    table = track.tables[b"co64" if wide else b"stco"]
    count = struct.unpack_from(">I", table, 4)[0]
    chunks = np.frombuffer(table, ">u8" if wide else ">u4", count, 8).astype(np.int64)
    rule_bytes = track.tables[b"stsc"]
    rule_count = struct.unpack_from(">I", rule_bytes, 4)[0]
    rules = np.frombuffer(rule_bytes, ">u4", rule_count * 3, 8).reshape(-1, 3).astype(np.int64)
    ends = np.append(rules[1:, 0], count + 1)
    per_chunk = np.repeat(rules[:, 1], ends - rules[:, 0])
    _sane(int(per_chunk.sum()))
    chunk_of = np.repeat(np.arange(len(per_chunk)), per_chunk)[: len(sizes)]
    before = np.cumsum(sizes) - sizes
    first = np.cumsum(per_chunk) - per_chunk
    first_before = before[np.minimum(first, max(len(sizes) - 1, 0))]
    return chunks[chunk_of] + before - first_before[chunk_of]


def _plain_samples(track: _Track, samples: _Samples) -> None:
    sizes = _sample_sizes(track.tables[b"stsz"]) if b"stsz" in track.tables else np.zeros(0, "i8")
    if not len(sizes):
        return
    durations = _runs(track.tables[b"stts"])
    if len(durations) != len(sizes):
        raise BrokenVideoError(f"{len(sizes)} sample sizes but {len(durations)} durations")
    keyframe = np.ones(len(sizes), np.bool_)
    if (sync := track.tables.get(b"stss")) is not None:
        keyframe[:] = False
        count = struct.unpack_from(">I", sync, 4)[0]
        keyframe[np.frombuffer(sync, ">u4", count, 8).astype(np.int64) - 1] = True
    samples.dts.append(np.cumsum(durations) - durations)
    samples.duration.append(durations)
    shift = track.tables.get(b"ctts")
    samples.shift.append(_runs(shift) if shift else np.zeros(len(sizes), np.int64))
    samples.size.append(sizes)
    samples.offset.append(_sample_offsets(track, sizes))
    samples.keyframe.append(keyframe)


@dataclass(slots=True)
class _Defaults:
    duration: int = 0
    size: int = 0
    flags: int = 0


def _track_defaults(body: bytes) -> tuple[int, _Defaults]:
    track_id, _, duration, size, flags = struct.unpack_from(">5I", body, 4)
    return track_id, _Defaults(duration, size, flags)


def _fragment_header(body: bytes, base: _Defaults) -> tuple[int, int | None, _Defaults]:
    """(track id, base data offset or None, defaults) of a tfhd."""
    flags = int.from_bytes(body[1:4], "big")
    track_id = struct.unpack_from(">I", body, 4)[0]
    position, offset = 8, None
    if flags & 0x1:
        offset = struct.unpack_from(">Q", body, position)[0]
        position += 8
    if flags & 0x2:
        position += 4
    values = _Defaults(base.duration, base.size, base.flags)
    for bit, name in ((0x8, "duration"), (0x10, "size"), (0x20, "flags")):
        if flags & bit:
            setattr(values, name, struct.unpack_from(">I", body, position)[0])
            position += 4
    return track_id, offset, values


def _fragment_run(
    body: bytes, samples: _Samples, defaults: _Defaults, *, dts: int, base: int
) -> tuple[int, int]:
    """Add the samples of one trun; returns (next dts, next byte) after it."""
    flags = int.from_bytes(body[1:4], "big")
    count = _sane(struct.unpack_from(">I", body, 4)[0])
    position, first_flags = 8, None
    if flags & 0x1:
        base += struct.unpack_from(">i", body, position)[0]
        position += 4
    if flags & 0x4:
        first_flags = struct.unpack_from(">I", body, position)[0]
        position += 4
    present = [name for bit, name in TRUN_FIELDS if flags & bit]
    layout = np.dtype([(name, ">i4" if name == "shift" else ">u4") for name in present])
    rows = np.frombuffer(body, layout, count, position) if present else None

    def column(name: str, default: int) -> NDArray[np.int64]:
        if rows is not None and name in present:
            return rows[name].astype(np.int64)
        return np.full(count, default, np.int64)

    durations = column("duration", defaults.duration)
    sizes = column("size", defaults.size)
    marks = column("flags", defaults.flags)
    if first_flags is not None and count:
        marks[0] = first_flags
    samples.duration.append(durations)
    samples.dts.append(dts + np.cumsum(durations) - durations)
    samples.shift.append(column("shift", 0))
    samples.size.append(sizes)
    samples.offset.append(base + np.cumsum(sizes) - sizes)
    samples.keyframe.append((marks & NOT_A_KEYFRAME) == 0)
    return dts + int(durations.sum()), base + int(sizes.sum())


def _fragment(
    data: bytes, samples: _Samples, track_id: int, *, moof_start: int, known: dict[int, _Defaults]
) -> None:
    for kind, body in _boxes(data):
        if kind != b"traf":
            continue
        parts = list(_boxes(body))
        header = next((part for name, part in parts if name == b"tfhd"), None)
        if header is None:
            continue
        found = struct.unpack_from(">I", header, 4)[0]
        if found != track_id:
            continue
        _, base, defaults = _fragment_header(header, known.get(found, _Defaults()))
        start = moof_start if base is None else base
        dts = 0
        if samples.dts:
            dts = int(samples.dts[-1][-1] + samples.duration[-1][-1])
        for name, part in parts:
            if name == b"tfdt":
                dts = struct.unpack_from(">Q" if part[0] else ">I", part, 4)[0]
            elif name == b"trun":
                dts, start = _fragment_run(part, samples, defaults, dts=dts, base=start)


def _movie(data: bytes) -> tuple[list[_Track], dict[int, _Defaults]]:
    movie_timescale = 1000
    tracks: list[_Track] = []
    defaults: dict[int, _Defaults] = {}
    for kind, body in _boxes(data):
        if kind == b"mvhd":
            movie_timescale = struct.unpack_from(">I", body, 20 if body[0] else 12)[0]
        elif kind == b"trak":
            track = _Track()
            _walk_track(track, body, movie_timescale)
            tracks.append(track)
        elif kind == b"mvex":
            defaults |= dict(
                _track_defaults(part) for name, part in _boxes(body) if name == b"trex"
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
    samples = _Samples()
    tracks: list[_Track] = []
    defaults: dict[int, _Defaults] = {}
    complete, fragmented, end = True, False, 0
    video: _Track | None = None
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
                _plain_samples(video, samples)
            elif video is not None:
                fragmented = True
                _fragment(data, samples, video.id, moof_start=start, known=defaults)
    complete = complete and end == length
    if video is None:
        raise BrokenVideoError("no movie header (moov): the file was never finished or is no mp4")
    return _as_track(video, samples, tracks, length, complete=complete, fragmented=fragmented)


def _as_track(
    video: _Track,
    samples: _Samples,
    tracks: list[_Track],
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
