"""CSV files that grow row by row, whole rows only; bounded, and unmoved by a full disk.

What cannot be written is lost and counted, is told once, and nothing else stops for it.
"""

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recd.config.errors import RecdError
from recd.shm.clock import NS_PER_S

FLUSH_BYTES = 64 * 1024
FLUSH_NS = NS_PER_S
AGAIN_NS = 5 * NS_PER_S
"""So long after a failed write the next one is tried."""


class _Table:
    """One file. rows: whole ones in it; lost: those that are in none."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.rows = self.lost = 0
        self.nbytes = 0
        self._waiting: list[bytes] = []
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._put(_line(columns))

    def add(self, row: Sequence[Any]) -> int:
        """Bytes that the row will have."""
        line = _line(row)
        self._waiting.append(line)
        return len(line)

    def flush(self) -> None:
        """Write what waits. OSError: none of it is in the file."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            self._put(b"".join(waiting))
        except OSError:
            self.lost += len(waiting)
            raise
        self.rows += len(waiting)

    def drop(self) -> None:
        """What waits is lost."""
        self.lost += len(self._waiting)
        self._waiting = []

    def _put(self, data: bytes) -> None:
        """All of it or, with OSError, nothing: no half row stays behind a full disk."""
        begun, left = self.nbytes, memoryview(data)
        try:
            while left:
                written = os.write(self._file, left)
                left = left[written:]
        except OSError:
            os.ftruncate(self._file, begun)
            os.lseek(self._file, begun, os.SEEK_SET)
            raise
        self.nbytes += len(data)

    def close(self) -> None:
        """Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class LogFiles:
    """All tables of a log in one folder that must not exist. say: hears the one message about a
    disk that takes no more. RecdError when the folder cannot be made.
    """

    def __init__(
        self, folder: Path, prefix: str, tables: Mapping[str, Sequence[str]], *, most_bytes: int,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.folder, self._say, self._most_bytes = folder, say, most_bytes
        self._tables: dict[str, _Table] = {}
        self._unwritten = self._flushed_ns = self._again_ns = 0
        self._told = self._full = False
        try:
            folder.mkdir(parents=True)
            for name, columns in tables.items():
                self._tables[name] = _Table(folder / f"{prefix}_{name}.csv", columns)
        except OSError as error:
            self.close()
            raise RecdError(
                f"inference log: expected to write {folder}, found: {error.strerror}",
                mend="Choose another place: --log-dir DIR", code="os",
            ) from error  # fmt: skip

    @property
    def rows(self) -> dict[str, int]:
        """Table -> rows in its file."""
        return {name: table.rows for name, table in self._tables.items()}

    @property
    def lost(self) -> int:
        """Rows that could not be written, of all tables."""
        return sum(table.lost for table in self._tables.values())

    def add(self, name: str, row: Sequence[Any]) -> None:
        """One row. It is on its way to the file with the next `flush`."""
        self._unwritten += self._tables[name].add(row)

    def flush(self, now: int, *, last: bool = False) -> None:
        """Write what waits, about once a second. `now`: any clock that goes on."""
        due = last or self._unwritten >= FLUSH_BYTES or now - self._flushed_ns >= FLUSH_NS
        if not due:
            return
        self._flushed_ns = now
        written = sum(table.nbytes for table in self._tables.values())
        if written + self._unwritten > self._most_bytes and not self._full:
            self._full = True
            self._say(f"inference log: {self.folder} has reached {self._most_bytes // 10**6} MB "
                      "(--log-most): nothing more is written. The policy goes on.")  # fmt: skip
        self._unwritten = 0
        for table in self._tables.values():
            if self._full or (now < self._again_ns and not last):
                table.drop()
                continue
            try:
                table.flush()
            except OSError as error:
                self._again_ns = now + AGAIN_NS
                self._tell(error)

    def _tell(self, error: OSError) -> None:
        if self._told:
            return
        self._told = True
        self._say(f"inference log: {self.folder}: {error.strerror}: rows are lost until there is "
                  "room again. The policy goes on.")  # fmt: skip

    def close(self) -> None:
        """Idempotent. `flush(last=True)` before it writes what waits."""
        for table in self._tables.values():
            table.close()

    def remove(self) -> None:
        """Away with it: nothing was logged."""
        self.close()
        for table in self._tables.values():
            table.path.unlink(missing_ok=True)
        self.folder.rmdir()


def _line(row: Sequence[Any]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(row)
    return out.getvalue().encode()
