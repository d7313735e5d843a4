"""What a killed encoder left behind: how many pictures are good, and a whole file of them.

Nothing is trusted before it was decoded: the last packets of a torn file may look whole to a
demuxer. The source is never changed; the result is an ordinary mp4 on the same exact grid.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av

from recd.daemon.encode.stream_file import StreamFile

_FINAL = {"ftyp", "free", "mdat", "moov"}
"""Boxes at the top of a finished file; a live one has fragments (moof) there."""

_BOXES = _FINAL | {"moof", "mfra", "styp", "sidx", "skip", "wide", "uuid"}


class SalvageError(Exception):
    """A file from which the wanted pictures cannot be had; the text says why."""


@dataclass(frozen=True, slots=True)
class Salvage:
    """frames: decodable pictures with pts 0..frames-1 exactly. whole: a finished file with exactly
    these, to be used as it is. reason: why it ends where it ends, empty if whole.
    """

    path: Path
    frames: int
    whole: bool
    rate: Fraction
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Top-level boxes. end: bytes that a demuxer can walk; finished: closed by its writer."""

    end: int
    finished: bool


def salvage(path: Path) -> Salvage:
    """Decode `path` from its start and count the good pictures. A torn file raises nothing."""
    frames, rate, reason = 0, Fraction(0), ""
    with path.open("rb") as file:
        layout = _layout(file)
        try:
            with av.open(_Prefix(file, layout.end)) as container:
                stream = container.streams.video[0]
                rate = Fraction(stream.average_rate or 0)
                step = _ticks_per_row(stream)
                for pts in _good_pictures(container, stream):
                    if pts != frames * step:
                        reason = f"picture {frames}: pts {pts}, expected {frames * step}"
                        break
                    frames += 1
                finished = layout.finished and frames == stream.frames > 0
        except (av.FFmpegError, OSError, IndexError) as error:
            reason = f"after {frames} pictures: {error}"
            finished = False
    if not finished and not reason:
        reason = f"cut off after {frames} pictures" if frames else "holds no picture"
    return Salvage(path, frames, finished and not reason, rate, reason)


def remux_prefix(source: Path, target: Path, *, frames: int) -> str:
    """Copy the first `frames` packets to a new, durable mp4 without coding again; its sha256.

    Stamps become k / rate exactly. Raises SalvageError when the source has fewer packets; `target`
    must not exist and is removed on failure. OSError as from any write.
    """
    out = StreamFile(sync=False)
    out.bind(target)
    try:
        with source.open("rb") as file:
            _copy_packets(_Prefix(file, _layout(file).end), out, frames)
    except (av.FFmpegError, OSError, IndexError, SalvageError) as error:
        out.remove()
        if isinstance(error, OSError) and not isinstance(error, av.FFmpegError):
            raise
        raise SalvageError(f"{source}: {error}") from error
    return out.settle()


def _copy_packets(source: "_Prefix", target: StreamFile, frames: int) -> None:
    with av.open(source) as container, av.open(target, "w", format="mp4") as out:
        stream = container.streams.video[0]
        copy: Any = out.add_stream_from_template(stream, opaque=True)
        copy.time_base = stream.time_base
        step = _ticks_per_row(stream)
        copied = 0
        for packet in container.demux(stream):
            if copied == frames or packet.size == 0:
                break
            packet.stream = copy
            packet.pts = packet.dts = copied * step
            packet.duration = step
            out.mux(packet)
            copied += 1
        if copied < frames:
            raise SalvageError(f"{copied} packets, {frames} wanted")


def _ticks_per_row(stream: Any) -> int:
    return int(1 / (stream.time_base * Fraction(stream.average_rate or 1)))


def _good_pictures(container: Any, stream: Any) -> Iterator[int]:
    """pts of each picture up to the first that is not beyond doubt."""
    stream.codec_context.thread_count = 1  # so that an error belongs to its own picture
    stream.codec_context.options = {"err_detect": "explode"}
    for packet in container.demux(stream):
        if packet.is_corrupt:  # shorter than its index says: concealment would hide it
            return
        for picture in packet.decode():
            if picture.is_corrupt:
                return
            yield picture.pts


class _Prefix:
    """Read-only view of the first `end` bytes of a file: a half-written fragment head beyond it
    would make the demuxer refuse everything before.
    """

    def __init__(self, file: IO[bytes], end: int) -> None:
        self._file = file
        self._end = end
        file.seek(0)

    def read(self, nbytes: int) -> bytes:
        return self._file.read(min(nbytes, max(0, self._end - self._file.tell())))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            return self._file.seek(self._end + offset)
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _layout(file: IO[bytes]) -> _Layout:
    size = os.fstat(file.fileno()).st_size
    at, seen = 0, []
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        nbytes, kind = int.from_bytes(head[:4]), head[4:8].decode("latin-1")
        if nbytes == 1:
            nbytes = int.from_bytes(head[8:16])
        if kind not in _BOXES or nbytes < 8:
            break  # zeros where the disk never got the data
        if at + nbytes > size and kind != "mdat":
            break
        seen.append(kind)
        at = min(at + nbytes, size)
    finished = at == size and set(seen) <= _FINAL and seen[-1:] == ["moov"]
    return _Layout(at, finished)
