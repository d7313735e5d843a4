"""What a sink of pictures promises, whatever it writes: one entry per row, in row order."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from recd.daemon.encode.stream_file import StreamFile


class SinkError(Exception):
    """The sink cannot take more pictures (encoder failed, disk full). What it has is kept."""


@dataclass(frozen=True, slots=True)
class SinkFacts:
    """A finished file. packets: entries = rows; nbytes, digest (`recd.daemon.digest`): of the whole
    file."""

    path: Path
    packets: int
    nbytes: int
    digest: str
    info: Mapping[str, Any]


class PictureSink(Protocol):
    """Opened ahead of its episode, bound to a file when it begins."""

    suffix: str

    @property
    def nbytes(self) -> int:
        """Bytes so far, held back ones included."""
        ...

    def bind(self, path: Path) -> None:
        """Start writing to `path`, which must not exist. Raises OSError."""
        ...

    def encode(self, frame: Any, k: int) -> int:
        """Write picture k (0, 1, 2 ...); bytes of its entry. Raises SinkError.

        frame: yuv420p VideoFrame of the dataset's size; it may be passed again for a repeat.
        """
        ...

    def finish(self) -> None:
        """No more pictures; the disk is asked for all of them. Quick: nothing is held back in an
        encoder, and nothing waited for. Raises SinkError."""
        ...

    def settle(self) -> SinkFacts:
        """End the file, every picture of it durable; for a thread that may wait for the disk.

        The last patch of its head is durable with the episode's commit. Raises OSError."""
        ...

    def discard(self) -> None:
        """Delete what was written; legal at any time before `settle`."""
        ...

    def abandon(self) -> None:
        """Let go of the file and leave what it holds for recovery. Raises nothing."""
        ...


class FileSink:
    """What every sink does with the one file behind it."""

    _file: StreamFile

    @property
    def nbytes(self) -> int:
        return self._file.size

    def bind(self, path: Path) -> None:
        self._file.bind(path)

    def discard(self) -> None:
        self._shut()
        self._file.remove()

    def abandon(self) -> None:
        self._shut()
        self._file.release()

    def _shut(self) -> None:
        """Let go of whatever writes into the file. Raises nothing."""
