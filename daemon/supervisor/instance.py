"""One daemon per instance: a lock in the runtime folder that names its holder.

The lock is the kernel's (flock): it is gone with its process, however that ended.
"""

import fcntl
import os
import shutil
from pathlib import Path

from recd.config.errors import RecdError
from recd.config.paths import make_private

FILES = ("ctl.sock", "evt.sock", "recd.lock")
FOLDERS = ("snapshots", "sim")
"""What a daemon puts into its runtime folder; nothing else there is ever removed."""


class InstanceTakenError(RecdError):
    """Another daemon holds this instance."""

    code = "instance"


class InstanceLock:
    """Holds `<runtime>/recd.lock` until `release`. Raises InstanceTakenError, naming the pid.

    gid: group that may look into the folder, None for nobody.
    """

    def __init__(self, directory: Path, instance: str, *, gid: int | None = None) -> None:
        self.directory = make_private(directory, gid=gid)
        self._path = directory / "recd.lock"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise InstanceTakenError(
                f"instance {instance!r} is already running as process {pid} ({directory})",
                mend=f"stop it with: recctl --instance {instance} shutdown; or give this robot "
                "another 'instance' name",
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Remove the runtime folder's files that are ours and let go of the lock. Idempotent."""
        if self._fd == -1:
            return
        for name in FOLDERS:
            shutil.rmtree(self.directory / name, ignore_errors=True)
        for name in FILES:
            path = self.directory / name
            if not path.is_dir():  # somebody else's, for which the daemon did not start
                path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1
        _remove_empty(self.directory)


def _remove_empty(directory: Path) -> None:
    """Remove `directory` unless somebody keeps something in it."""
    try:
        directory.rmdir()
    except OSError:
        return
