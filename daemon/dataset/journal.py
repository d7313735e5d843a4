"""What happened to a dataset, in order: append-only, each record framed by length and CRC.

A record is there whole or not at all: reading stops at the first frame that does not check, and
opening cuts there. Limit: one process at a time (the dataset's lock).
"""

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from recd.config.errors import DatasetError
from recd.daemon.dataset.durable import sync_path

MAGIC = b"RECDJRNL"
VERSION = 1
_HEADER = struct.Struct("<8sI")
_FRAME = struct.Struct("<II")
MAX_RECORD_BYTES = 64 << 20

Record = dict[str, Any]
"""One journal entry: `ty` names it (see `recd.daemon.dataset.ledger`), the rest is its content."""


def encode_frame(record: Record) -> bytes:
    """Length, CRC-32 of the body, body (msgpack)."""
    body = msgpack.packb(record, use_bin_type=True)
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


@dataclass(frozen=True, slots=True)
class JournalContent:
    """records: all whole ones in order; good_bytes: where the first bad frame begins; total_bytes:
    length of the file."""

    records: list[Record]
    good_bytes: int
    total_bytes: int


def read_journal(path: Path) -> JournalContent:
    """All whole records. DatasetError for another file or a newer version; nothing is changed."""
    data = path.read_bytes()
    if len(data) < _HEADER.size:
        if not MAGIC.startswith(data[: len(MAGIC)]):
            raise _not_a_journal(path)
        return JournalContent([], 0, len(data))
    magic, version = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise _not_a_journal(path)
    if version > VERSION:
        raise DatasetError(
            f"{path}: journal version {version}, this recd knows up to {VERSION}",
            mend="Use the newer recd that wrote it; nothing was touched.",
        )
    records: list[Record] = []
    position = _HEADER.size
    while position + _FRAME.size <= len(data):
        length, check = _FRAME.unpack_from(data, position)
        body = data[position + _FRAME.size : position + _FRAME.size + length]
        if length > MAX_RECORD_BYTES or len(body) < length or zlib.crc32(body) != check:
            break
        try:
            record = msgpack.unpackb(body, raw=False, strict_map_key=False)
        except ValueError:
            break
        if not isinstance(record, dict):
            break
        records.append(record)
        position += _FRAME.size + length
    return JournalContent(records, position, len(data))


def _not_a_journal(path: Path) -> DatasetError:
    return DatasetError(
        f"{path}: not a recd journal",
        mend="Move the file away if it is foreign; `recctl verify` then rebuilds what it can.",
    )


class Journal:
    """The open journal of a dataset. `append` returns once the record is durable."""

    def __init__(self, path: Path) -> None:
        """Open for appending, creating it; a torn end is cut off. Read records first."""
        self.path = path
        fresh = not path.exists()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
        good = 0 if fresh else read_journal(path).good_bytes
        if good < _HEADER.size:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, _HEADER.pack(MAGIC, VERSION), 0)
            good = _HEADER.size
        elif os.fstat(self._fd).st_size != good:
            os.ftruncate(self._fd, good)
        os.lseek(self._fd, good, os.SEEK_SET)
        os.fsync(self._fd)
        if fresh:
            sync_path(path.parent)

    def append(self, record: Record, *, sync: bool = True) -> None:
        """Add a record; with `sync` it is durable on return.

        A failed write is cut off again, so that later records stay readable.
        """
        start = os.lseek(self._fd, 0, os.SEEK_CUR)
        frame = memoryview(encode_frame(record))
        try:
            while frame:
                frame = frame[os.write(self._fd, frame) :]
            if sync:
                os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, start)
            os.lseek(self._fd, start, os.SEEK_SET)
            raise

    def rewrite(self, records: list[Record]) -> None:
        """Replace the whole journal by `records`, atomically."""
        temporary = self.path.with_name(self.path.name + ".tmp")
        with temporary.open("wb") as file:
            file.write(_HEADER.pack(MAGIC, VERSION))
            file.writelines(encode_frame(record) for record in records)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
        sync_path(self.path.parent)
        os.close(self._fd)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        os.lseek(self._fd, 0, os.SEEK_END)

    def close(self) -> None:
        """Close the file; appending afterwards is an error."""
        os.close(self._fd)
