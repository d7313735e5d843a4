"""The disk under a folder: its file system, and how fast it writes and syncs. Measured, a second.

Writes into a nameless file there: nothing is left, whatever happens.
"""

import os
import tempfile
from pathlib import Path

from recd.daemon.doctor.facts import Disk
from recd.daemon.supervisor.disk import Disk as Space
from recd.daemon.supervisor.disk import look
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

_STRETCH_BYTES = 64 * 2**20
_STRETCH_NS = 2 * NS_PER_S
_BLOCK_BYTES = 2**20
_SYNCS, _SYNC_BYTES = 12, 64 * 1024


def measure_disk(root: Path, reserve_bytes: int) -> Disk:
    """Facts of the file system that holds `root` or its nearest parent that exists."""
    space = look(root, Space(reserve_bytes=reserve_bytes))
    folder = existing(root)
    speed, sync_ms, error = 0.0, [], space.error
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            stretch = min(_STRETCH_BYTES, max(_BLOCK_BYTES, space.free_bytes // 10))
            speed = _stretch(file.fileno(), stretch)
            sync_ms = [_sync_ms(file.fileno()) for _ in range(_SYNCS)]
    except OSError as failed:
        error = error or f"{folder}: {failed.strerror}"
    return Disk(
        folder=str(root), filesystem=filesystem_of(folder), free_bytes=space.free_bytes,
        reserve_bytes=reserve_bytes, write_bytes_per_s=speed, sync_ms=tuple(sync_ms), error=error,
    )  # fmt: skip


def existing(root: Path) -> Path:
    """`root`, or the nearest folder above it that exists."""
    while not root.is_dir() and root != root.parent:
        root = root.parent
    return root


def _stretch(fd: int, nbytes: int) -> float:
    """Bytes per second of writing up to `nbytes` and making them durable."""
    block = os.urandom(_BLOCK_BYTES)
    began_ns, written = now_ns(), 0
    while written < nbytes and now_ns() - began_ns < _STRETCH_NS:
        written += os.write(fd, block)
    os.fdatasync(fd)
    return written * NS_PER_S / max(1, now_ns() - began_ns)


def _sync_ms(fd: int) -> float:
    os.write(fd, os.urandom(_SYNC_BYTES))
    began_ns = now_ns()
    os.fdatasync(fd)
    return (now_ns() - began_ns) / NS_PER_MS


def filesystem_of(path: Path) -> str:
    """Type of the file system that `path` is on, by the longest mount point above it."""
    wanted = os.path.realpath(path)
    best, found = "", "unknown"
    try:
        lines = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        inside = wanted == point or wanted.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, found = point, fields[2]
    return found
