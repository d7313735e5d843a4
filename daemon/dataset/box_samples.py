"""The samples of one mp4 track: from the tables of a finished file, or the runs of its fragments.

Bytes in, arrays out; a damaged table is an error, never a crash or a huge allocation.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

TRUN_FIELDS = ((0x100, "duration"), (0x200, "size"), (0x400, "flags"), (0x800, "shift"))
NOT_A_KEYFRAME = 0x10000
MAX_PICTURES = 10_000_000
"""More (four days at 30 fps) is a damaged count, not a video: nothing is allocated for it."""


class BrokenVideoError(Exception):
    """The file is no readable mp4 with one video track; the text says what is wrong."""


@dataclass(slots=True)
class Samples:
    """Columns of samples in file order, piece by piece as they are found (ticks and bytes)."""

    duration: list[NDArray[np.int64]] = field(default_factory=list)
    dts: list[NDArray[np.int64]] = field(default_factory=list)
    shift: list[NDArray[np.int64]] = field(default_factory=list)
    size: list[NDArray[np.int64]] = field(default_factory=list)
    offset: list[NDArray[np.int64]] = field(default_factory=list)
    keyframe: list[NDArray[np.bool_]] = field(default_factory=list)


@dataclass(slots=True)
class TrackBoxes:
    """What the boxes of one trak say. tables: bodies of its sample tables by box type."""

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


def inner_boxes(data: bytes, start: int = 0) -> Iterator[tuple[bytes, bytes]]:
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


def _sample_offsets(track: TrackBoxes, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
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


def plain_samples(track: TrackBoxes, samples: Samples) -> None:
    """Add the samples that a track's own tables list."""
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
class FragmentDefaults:
    """Duration, size and flags of samples for which a fragment does not say its own."""

    duration: int = 0
    size: int = 0
    flags: int = 0


def track_defaults(body: bytes) -> tuple[int, FragmentDefaults]:
    """(track id, defaults) of a trex."""
    track_id, _, duration, size, flags = struct.unpack_from(">5I", body, 4)
    return track_id, FragmentDefaults(duration, size, flags)


def _fragment_header(
    body: bytes, base: FragmentDefaults
) -> tuple[int, int | None, FragmentDefaults]:
    """(track id, base data offset or None, defaults) of a tfhd."""
    flags = int.from_bytes(body[1:4], "big")
    track_id = struct.unpack_from(">I", body, 4)[0]
    position, offset = 8, None
    if flags & 0x1:
        offset = struct.unpack_from(">Q", body, position)[0]
        position += 8
    if flags & 0x2:
        position += 4
    values = FragmentDefaults(base.duration, base.size, base.flags)
    for bit, name in ((0x8, "duration"), (0x10, "size"), (0x20, "flags")):
        if flags & bit:
            setattr(values, name, struct.unpack_from(">I", body, position)[0])
            position += 4
    return track_id, offset, values


def _fragment_run(
    body: bytes, samples: Samples, defaults: FragmentDefaults, *, dts: int, base: int
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


def read_fragment(
    data: bytes,
    samples: Samples,
    track_id: int,
    *,
    moof_start: int,
    known: dict[int, FragmentDefaults],
) -> None:
    """Add the samples that one moof (its body in `data`) gives to a track."""
    for kind, body in inner_boxes(data):
        if kind != b"traf":
            continue
        parts = list(inner_boxes(body))
        header = next((part for name, part in parts if name == b"tfhd"), None)
        if header is None:
            continue
        found = struct.unpack_from(">I", header, 4)[0]
        if found != track_id:
            continue
        _, base, defaults = _fragment_header(header, known.get(found, FragmentDefaults()))
        start = moof_start if base is None else base
        dts = 0
        if samples.dts:
            dts = int(samples.dts[-1][-1] + samples.duration[-1][-1])
        for name, part in parts:
            if name == b"tfdt":
                dts = struct.unpack_from(">Q" if part[0] else ">I", part, 4)[0]
            elif name == b"trun":
                dts, start = _fragment_run(part, samples, defaults, dts=dts, base=start)
