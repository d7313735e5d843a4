"""Faults of the disk, on a small file system of the storm's own (tmpfs; needs root to mount it).

The file system is filled from beside the dataset, as another program would fill it.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Final

from recd.perf.storm.faults import SECOND_MS, Fault, Made, Outcome
from recd.perf.storm.subject import StormSubject

SIZE_MB = 400
RESERVE_MB = 20
BALLAST = "ballast"

RESERVED: Final = f"dataset.reserve_mb={RESERVE_MB}"


def may_mount() -> str:
    """Why no file system can be mounted here, "" when one can."""
    return "" if os.geteuid() == 0 else "needs root: mounts a small file system"


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A tmpfs of `SIZE_MB` MB at `folder`. Raises CalledProcessError where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m,mode=0755", "recd-storm"]
    subprocess.run([*command, str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, *, leave_bytes: int) -> int:
    """Take all space but `leave_bytes`; bytes taken."""
    fd = os.open(folder / BALLAST, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        while True:
            facts = os.statvfs(folder)
            size = facts.f_bavail * facts.f_frsize - leave_bytes
            if size <= 0:
                return 0
            with suppress(OSError):  # the recorder was faster: what is left now?
                os.posix_fallocate(fd, 0, size)
                return size
    finally:
        os.close(fd)


def _disk_of(subject: StormSubject) -> Path:
    return subject.dataset.parent


def nearly_full(subject: StormSubject, _: Random) -> Made:
    """Less than the reserve is left: the episode has to end while it can still be saved."""
    left = RESERVE_MB * 1_000_000 * 4 // 5
    return {"left_bytes": left, "taken": fill(_disk_of(subject), leave_bytes=left)}


def full(subject: StormSubject, draw: Random) -> Made:
    """Nothing is left at once."""
    left = draw.choice((0, 4096, 200_000))
    return {"left_bytes": left, "taken": fill(_disk_of(subject), leave_bytes=left)}


def free_again(subject: StormSubject, _: Made) -> None:
    """Give the space back."""
    (_disk_of(subject) / BALLAST).unlink(missing_ok=True)


def remove_folder(subject: StormSubject, _: Random) -> Made:
    """The dataset folder is moved away under the running daemon."""
    away = subject.dataset.with_name("away")
    subject.dataset.rename(away)
    return {"away": str(away)}


def put_back(subject: StormSubject, made: Made) -> None:
    """Move the folder back, over whatever was made in its place."""
    away = Path(made["away"])
    if subject.dataset.exists():
        subject.dataset.rename(subject.dataset.with_name("made_meanwhile"))
    away.rename(subject.dataset)


DISK_FAULTS: Final[tuple[Fault, ...]] = (
    Fault("disk nearly full", 6, nearly_full, Outcome.ENDS, lasts_s=(2.5, 4.0), heal=free_again,
          reads=("disk",)),
    Fault("disk full", 6, full, Outcome.SAVED_LATER, SECOND_MS, lasts_s=(2.0, 4.0),
          heal=free_again, reads=("space", "disk")),
    Fault("dataset folder moved away and back", 6, remove_folder, Outcome.SAVED_LATER, SECOND_MS,
          lasts_s=(1.0, 3.0), heal=put_back, reads=("dataset", "No such file", "folder")),
)  # fmt: skip
