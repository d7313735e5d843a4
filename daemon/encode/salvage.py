"""What a killed encoder left behind: how many pictures are good, and a whole file of them.

Nothing is trusted before it was decoded: the last packets of a torn file may look whole to a
demuxer. The source is never changed; the result is an ordinary mp4 on the same exact grid.
"""

import os
from collections.abc import Callable, Iterator, Sequence
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


def salvage(
    path: Path,
    *,
    rate: Fraction | None = None,
    look: Callable[[Any, int], None] | None = None,
) -> Salvage:
    """Decode `path` from its start and count the good pictures. A torn file raises nothing.

    rate: rows per second where known, else read from the file (FFmpeg may guess wrongly from a
    live file of one or two pictures). look: called with every good picture and its row.
    """
    frames, seen_rate, reason, finished = 0, rate or Fraction(0), "", False
    with path.open("rb") as file:
        layout = _layout(file)
        try:
            with av.open(_Prefix(file, layout.end)) as container:
                stream = container.streams.video[0]
                for picture, step in _good_pictures(container, stream, rate):
                    seen_rate = 1 / (stream.time_base * step)
                    if picture.pts != frames * step:
                        reason = f"picture {frames}: pts {picture.pts}, expected {frames * step}"
                        break
                    if look is not None:
                        look(picture, frames)
                    frames += 1
                finished = layout.finished and frames == stream.frames > 0
        except (av.FFmpegError, OSError, IndexError) as error:
            reason, finished = f"after {frames} pictures: {error}", False
    if not finished and not reason:
        reason = f"cut off after {frames} pictures" if frames else "holds no picture"
    return Salvage(path, frames, finished and not reason, seen_rate, reason)


def whole_packets(path: Path) -> int:
    """Packets of a torn or finished file that are there to their last byte. Decodes nothing."""
    count = 0
    with path.open("rb") as file:
        try:
            with av.open(_Prefix(file, _layout(file).end)) as container:
                for packet in container.demux(container.streams.video[0]):
                    if packet.is_corrupt:
                        break
                    count += packet.size > 0
        except (av.FFmpegError, IndexError):
            return count
    return count


def join(parts: Sequence[tuple[Path, int]], target: Path, *, rate: Fraction | None = None) -> str:
    """Copy packets, without coding again, into a new, durable mp4; its digest.

    parts: (file, its first so many packets) in order; same codec and size. Stamps become k / rate
    exactly (rate: as in `salvage`), decode stamps keep their lead. Raises SalvageError when a part
    has fewer packets; `target` must not exist and is removed on failure. OSError from any write.
    """
    out = StreamFile(sync=False)
    out.bind(target)
    try:
        _join_into(out, [(path, frames) for path, frames in parts if frames], rate)
    except (av.FFmpegError, OSError, IndexError, SalvageError) as error:
        out.remove()
        if isinstance(error, OSError) and not isinstance(error, av.FFmpegError):
            raise
        raise SalvageError(str(error)) from error
    return out.settle()


def remux_prefix(source: Path, target: Path, *, frames: int, rate: Fraction | None = None) -> str:
    """`join` of one file: its first `frames` packets."""
    return join([(source, frames)], target, rate=rate)


def _join_into(
    target: StreamFile, parts: Sequence[tuple[Path, int]], rate: Fraction | None
) -> None:
    copied, copy = 0, None
    with av.open(target, "w", format="mp4") as out:
        for path, frames in parts:
            with path.open("rb") as file, av.open(_Prefix(file, _layout(file).end)) as source:
                stream = source.streams.video[0]
                if copy is None:
                    copy = out.add_stream_from_template(stream, opaque=True)
                    copy.time_base = stream.time_base
                first, step, lead = copied, 0, 0
                for packet in source.demux(stream):
                    if copied - first == frames or packet.size == 0:
                        break
                    if not step:
                        step = _row_ticks(stream, packet, rate)
                        lead = packet.pts - packet.dts
                    packet.stream = copy
                    packet.pts = copied * step
                    packet.dts = packet.pts - lead
                    packet.duration = step
                    out.mux(packet)
                    copied += 1
                if copied - first < frames:
                    raise SalvageError(f"{path}: {copied - first} packets, {frames} wanted")


def _row_ticks(stream: Any, packet: Any, rate: Fraction | None) -> int:
    """Length of a row in the stream's time base, from the best source there is."""
    if rate is not None:
        return int(1 / (stream.time_base * rate))
    # FFmpeg 7.1 reads no durations from AV1 fragments; then its guess is all there is.
    return packet.duration or int(1 / (stream.time_base * (stream.average_rate or 1)))


def _good_pictures(container: Any, stream: Any, rate: Fraction | None) -> Iterator[tuple[Any, int]]:
    """(picture, ticks of its time base per row), up to the first that is not beyond doubt."""
    stream.codec_context.thread_count = 1  # so that an error belongs to its own picture
    stream.codec_context.options = {"err_detect": "explode"}
    step = 0
    for packet in container.demux(stream):
        if packet.is_corrupt:  # shorter than its index says: concealment would hide it
            return
        step = step or _row_ticks(stream, packet, rate)
        for picture in packet.decode():
            if picture.is_corrupt:
                return
            yield picture, step


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
