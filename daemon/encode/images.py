"""The sink without video: PNG bytes per row, appended to one file, for LeRobot's `image` features.

The writer moves them into the data parquet. A torn file loses only its last record: each carries
its length and CRC. PNG level 1: level 6 takes six times as long for 15 % less.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from struct import Struct
from typing import Any

import av

from recd.config.errors import RecdError
from recd.daemon.encode.colour import LIMITED
from recd.daemon.encode.sinks import FileSink, SinkError, SinkFacts
from recd.daemon.encode.stream_file import StreamFile

PICTURES_VERSION = 1

_HEAD = Struct("<8sII")  # magic, version, reserved
_RECORD = Struct("<qII")  # row, bytes, crc32 of the bytes
_MAGIC = b"RECDPICS"
_SAME = 0  # bytes == 0: the picture of the row before


class ImageSink(FileSink):
    """PictureSink that keeps every row as a PNG of its own."""

    suffix = ".pictures"

    def __init__(self, *, size: tuple[int, int], rate: Fraction, sync: bool = True) -> None:
        """size: (width, height)."""
        self._rows = 0
        self._last: Any = None
        self._file = StreamFile(sync=sync)
        self._file.write(_HEAD.pack(_MAGIC, PICTURES_VERSION, 0))
        self._png = av.CodecContext.create("png", "w")
        self._png.width, self._png.height = size
        self._png.pix_fmt = "rgb24"
        self._png.time_base = 1 / rate
        self._png.thread_count = 1
        self._png.options = {"compression_level": "1", "pred": "sub"}

    def encode(self, frame: Any, k: int) -> int:
        if k != self._rows:
            raise ValueError(f"row {self._rows} is next, got {k}")
        try:
            data = b"" if frame is self._last else self._compress(frame, k)
            self._file.write(_RECORD.pack(k, len(data), zlib.crc32(data)) + data)
        except (av.FFmpegError, OSError) as error:
            raise SinkError(f"picture of row {k}: {error}") from error
        self._last = frame
        self._rows += 1
        return len(data)

    def _compress(self, frame: Any, k: int) -> bytes:
        rgb = frame.reformat(format="rgb24")
        rgb.pts = k
        (packet,) = self._png.encode(rgb)
        return bytes(packet)

    def finish(self) -> None:
        """Nothing is held back."""
        self._file.complete()

    def settle(self) -> SinkFacts:
        path = self._file.path
        digest = self._file.settle(durable=False)
        return SinkFacts(path, self._rows, self._file.size, digest, {})


def read_pictures(path: Path) -> Iterator[bytes]:
    """PNG bytes of row 0, 1, 2 ... up to the first torn record. RecdError for another file."""
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or head[:8] != _MAGIC:
            raise RecdError(f"{path}: expected a picture file of recd", code="dataset")
        version = _HEAD.unpack(head)[1]
        if version > PICTURES_VERSION:
            raise RecdError(
                f"{path}: format {version}, this recd reads up to {PICTURES_VERSION}",
                mend="use the recd that wrote it, or a newer one",
                code="dataset",
            )
        last, row = b"", 0
        while len(record := file.read(_RECORD.size)) == _RECORD.size:
            k, nbytes, crc = _RECORD.unpack(record)
            data = file.read(nbytes)
            if k != row or len(data) != nbytes or zlib.crc32(data) != crc:
                return
            last = last if nbytes == _SAME else data
            yield last
            row += 1


def look_at_pictures(path: Path, look: Callable[[Any, int], None]) -> int:
    """Decode every row as a dataset picture (yuv420p, limited) for `look(picture, row)`; how many.

    Raises av.FFmpegError for a PNG that is damaged although its CRC holds.
    """
    decoder = av.CodecContext.create("png", "r")
    decoder.thread_count = 1
    rows, last, picture = 0, b"", None
    for data in read_pictures(path):
        if data is not last:
            (rgb,) = decoder.decode(av.Packet(data))
            picture = rgb.reformat(format="yuv420p", dst_color_range=LIMITED)
            last = data
        look(picture, rows)
        rows += 1
    return rows


def join_pictures(parts: Sequence[tuple[Path, int]], target: Path) -> str:
    """Copy the first so many rows of each part into a new, durable file; its digest.

    Raises SinkError when a part has fewer rows, OSError from the disk.
    """
    out = StreamFile(sync=False)
    out.bind(target)
    out.write(_HEAD.pack(_MAGIC, PICTURES_VERSION, 0))
    row = 0
    for path, wanted in parts:
        first = row
        for data in islice(read_pictures(path), wanted):
            out.write(_RECORD.pack(row, len(data), zlib.crc32(data)) + data)
            row += 1
        if row - first < wanted:
            out.remove()
            raise SinkError(f"{path}: {row - first} pictures, {wanted} wanted")
    return out.settle()
