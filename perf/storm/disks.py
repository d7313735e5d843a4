"""Faults of the disk, on a small file system of the storm's own; needs root to mount it.

An ext4 image where mkfs.ext4 is there, else a tmpfs. It is filled from beside the dataset, as
another program would fill it, and turns read-only under open files as a real one does: by an error
that is put into it.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Final

from recd.config.errors import RecdError
from recd.perf.storm.fault import SECOND_MS, Fault, Made, Outcome
from recd.perf.storm.settings import RESERVE_MB
from recd.perf.storm.subject import StormSubject, await_true

SIZE_MB = 600
BALLAST = "ballast"
DURABLE_MS: Final = 1500.0
"""What came after the last durable second: a second, what the encoders hold, and the sync that was
under way. No unsynced byte outlives this fault, as in a power cut."""

EXT4_ERRORS: Final = Path("/sys/fs/ext4")


def may_mount() -> str:
    """Why no file system can be mounted here, "" when one can."""
    return "" if os.geteuid() == 0 else "needs root: mounts a small file system"


def may_break() -> str:
    """Why no file system can be made to fail here, "" when one can."""
    if may_mount() or shutil.which("mkfs.ext4") is None or not EXT4_ERRORS.is_dir():
        return "needs root, mkfs.ext4 and ext4 in the kernel"
    return ""


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of `SIZE_MB` MB at `folder`. CalledProcessError where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    if may_break():
        options = f"size={SIZE_MB}m,mode=0755"
        _do("mount", "-t", "tmpfs", "-o", options, "recd-storm", str(folder))
    else:
        image = _image_of(folder)
        with image.open("wb") as file:
            file.truncate(SIZE_MB << 20)
        _do("mkfs.ext4", "-q", "-m", "0", str(image))
        _mount(folder)
    try:
        yield folder
    finally:
        _do("umount", "-l", str(folder))
        _image_of(folder).unlink(missing_ok=True)


def _image_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.img")


def _mount(folder: Path) -> None:
    _do("mount", "-o", "loop,errors=remount-ro", str(_image_of(folder)), str(folder))


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


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


def read_only(subject: StormSubject, _: Random) -> Made:
    """The file system meets an error of its own and turns read-only, with files open."""
    device = os.stat(_disk_of(subject)).st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    (EXT4_ERRORS / name / "trigger_fs_error").write_text("the storm")
    return {"device": name}


def check_and_mount_again(subject: StormSubject, _: Made) -> None:
    """What a person does: end the daemon, check the file system, mount it again."""
    disk = _disk_of(subject)
    if not subject.dead:
        subject.end()

    def unmounted() -> bool:
        return subprocess.run(["umount", str(disk)], capture_output=True).returncode == 0

    await_true(unmounted, "the file system to be free", 30)
    done = subprocess.run(["e2fsck", "-fy", str(_image_of(disk))], capture_output=True, text=True)
    if done.returncode > 1:  # 1: errors were corrected
        raise RecdError(f"e2fsck: {done.returncode}: {done.stdout[-300:]}")
    _mount(disk)


DISK_FAULTS: Final[tuple[Fault, ...]] = (
    Fault("disk nearly full", 6, nearly_full, Outcome.ENDS, lasts_s=(2.5, 4.0), heal=free_again,
          reads=("disk",)),
    Fault("disk full", 6, full, Outcome.SAVED_LATER, SECOND_MS, lasts_s=(2.0, 4.0),
          heal=free_again, reads=("space", "disk")),
    Fault("dataset folder moved away and back", 6, remove_folder, Outcome.SAVED_LATER, SECOND_MS,
          lasts_s=(1.0, 3.0), heal=put_back, reads=("dataset", "No such file", "folder")),
)  # fmt: skip
BREAK_FAULTS: Final[tuple[Fault, ...]] = (
    Fault("file system turns read-only", 6, read_only, Outcome.SAVED_LATER, DURABLE_MS,
          lasts_s=(2.0, 4.0), heal=check_and_mount_again, until_end=True,
          reads=("ead-only", "EROFS", "disk")),
)  # fmt: skip
