"""The file behind a sink: appended while recording, patched at the end.

Bytes reach the kernel with each write, so a killed process loses none of them; a thread asks the
disk to follow once a second, never the encoding thread. Writes into earlier bytes are held back
until everything after them is on disk: no moment exists at which the file cannot be salvaged.
"""

import os
import threading
from pathlib import Path

from recd.daemon.digest import HEAD_BYTES, HeadLastDigest, head_last_of

SYNC_EVERY_S = 1.0


class StreamFile:
    """Seekable write-only file object (the part of the protocol that PyAV's muxers use).

    Before `bind` it collects in memory, so that an encoder can be opened ahead of its episode.
    It has no `close`: `settle` or `remove` end it.
    """

    def __init__(self, *, sync: bool = True) -> None:
        """sync: fdatasync every second while recording; else only at the end."""
        self._pending = bytearray()
        self._patches: list[tuple[int, bytes]] = []
        self._digest = HeadLastDigest()
        self._size = 0
        self._at = 0
        self._fd = -1
        self._path: Path | None = None
        self._stop = threading.Event()
        self._sync = threading.Thread(target=self._sync_loop, daemon=True) if sync else None
        self._sync_error: OSError | None = None
        self._complete = self._all_synced = False

    @property
    def path(self) -> Path:
        """Where it is bound to."""
        assert self._path is not None
        return self._path

    @property
    def size(self) -> int:
        """Bytes appended so far."""
        return self._size

    def bind(self, path: Path) -> None:
        """Create `path` (it must not exist) and write what was collected. Raises OSError."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._path = path
        self._append(bytes(self._pending))
        self._pending.clear()
        if self._sync is not None:
            self._sync.start()

    def write(self, data: bytes) -> int:
        """Append, or keep a patch of earlier bytes for `settle`. Raises OSError."""
        if self._sync_error is not None:
            raise self._sync_error
        data = bytes(data)
        if self._at < self._size:
            self._patches.append((self._at, data))
        else:
            if self._fd == -1:
                self._pending += data
            else:
                self._append(data)
            self._digest.append(data)
            self._size += len(data)
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = (0, self._at, self._size)[whence]
        self._at = origin + offset
        if not 0 <= self._at <= self._size:
            raise OSError(f"seek to {self._at} in a stream of {self._size} bytes")
        return self._at

    def tell(self) -> int:
        return self._at

    def complete(self) -> None:
        """Nothing more will be appended: the disk is asked for it at once, `settle` waits for it.

        Whatever else a take's end takes is done meanwhile. Optional; returns at once.
        """
        self._complete = True
        self._stop.set()

    def settle(self, *, durable: bool = True) -> str:
        """Make the file final and durable; its digest (`recd.daemon.digest`). May take as long as
        the disk; any thread.

        Order: appended bytes on disk, then patches, then those on disk, then the folder entry.
        durable: False where a commit syncs the whole folder anyway, which saves two waits for the
        disk; until then a power cut leaves the file unpatched or patched, salvageable both ways.
        """
        self.complete()
        self._end_sync()
        if self._sync_error is not None:  # another sync could call good what the first one lost
            raise self._sync_error
        if not self._all_synced:
            os.fdatasync(self._fd)
        for offset, data in self._patches:
            os.pwrite(self._fd, data, offset)
        digest = self._final_digest()
        if durable:
            os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1
        if durable and self._path is not None:
            fsync_folder(self._path.parent)
        return digest

    def _final_digest(self) -> str:
        if any(offset + len(data) > HEAD_BYTES for offset, data in self._patches):
            return head_last_of(self.path)  # not as our muxers do it: from the file itself
        return self._digest.of(os.pread(self._fd, HEAD_BYTES, 0))

    def release(self) -> None:
        """Close the file as it is; patches are dropped, so that it stays what it was."""
        self._end_sync()
        if self._fd != -1:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        """Close and delete what was written; nothing of it is wanted."""
        self.release()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def _end_sync(self) -> None:
        self._stop.set()
        if self._sync is not None and self._sync.is_alive():
            self._sync.join()

    def _sync_loop(self) -> None:
        assert self._path is not None
        try:
            fsync_folder(self._path.parent)
            while not self._stop.wait(SYNC_EVERY_S):
                os.fdatasync(self._fd)
            if self._complete:
                os.fdatasync(self._fd)
                self._all_synced = True
        except OSError as error:  # told by the next write, in the encoding thread
            self._sync_error = error


def fsync_folder(folder: Path) -> None:
    """Make the entries of `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
