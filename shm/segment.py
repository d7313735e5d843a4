"""Nameless shared memory: a sealed memfd, handed over by file descriptor, gone with its last user.

Its size is fixed and its pages exist before anyone maps it: no SIGBUS, no name in /dev/shm, no
resource tracker. Limit: whoever holds the descriptor may read, and unless it is careful, write.
"""

import errno
import fcntl
import mmap
import os

import numpy as np
import numpy.typing as npt

from recd.config.errors import RecdError

Bytes = npt.NDArray[np.uint8]

_MFD_NOEXEC_SEAL = 0x8  # not in Python's os; kernels before 6.3 answer EINVAL
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Segment:
    """One memfd, mapped. Each object owns its descriptor and closes only that one.

    `close()` gives up the descriptor; the memory stays mapped (with the mapping's own duplicate of
    the descriptor) until the last view of it is gone, so that a stale view reads old bytes instead
    of ending the process.
    """

    def __init__(self, fd: int, *, readonly: bool = False, populate: bool = False) -> None:
        """Map all of `fd` and own it. Use `create` or `attach`."""
        self.fd = fd
        self.readonly = readonly
        self.nbytes = os.fstat(fd).st_size
        protection = mmap.PROT_READ if readonly else mmap.PROT_READ | mmap.PROT_WRITE
        flags = mmap.MAP_SHARED | (mmap.MAP_POPULATE if populate else 0)
        mapping = mmap.mmap(fd, self.nbytes, flags=flags, prot=protection)
        self._bytes: Bytes | None = np.frombuffer(mapping, np.uint8)

    @classmethod
    def create(cls, name: str, nbytes: int) -> "Segment":
        """New zeroed segment of `nbytes` (rounded up to whole pages). Raises RecdError (memory)."""
        size = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        if size > (available := _available_bytes()):
            # asked before: a memfd has no limit of its own, posix_fallocate would take everything
            # the machine has and the kernel would kill somebody
            raise _no_memory(name, size, f"{available / 2**20:.0f} MiB available")
        fd = _memfd(name)
        try:
            # not ftruncate: a page that cannot be had must fail here, not as SIGBUS at a write
            os.posix_fallocate(fd, 0, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            return cls(fd)
        except OSError as error:
            os.close(fd)
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
            raise _no_memory(name, size, os.strerror(error.errno)) from error

    @classmethod
    def attach(cls, fd: int, *, readonly: bool = False, populate: bool = False) -> "Segment":
        """Map an existing segment through a duplicate of `fd`; the caller keeps `fd`.

        populate: map all pages now, for a control loop that must not meet a page fault later.
        Raises RecdError for a descriptor that is not a sealed segment.
        """
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError as error:
            raise RecdError(f"descriptor {fd} is no shared memory: {error.strerror}") from error
        if seals & _SEALS != _SEALS:
            raise RecdError(f"descriptor {fd}: memory that could still shrink (seals {seals:#x})")
        own = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        try:
            return cls(own, readonly=readonly, populate=populate)
        except BaseException:
            os.close(own)
            raise

    @property
    def name(self) -> str:
        """Name given at creation, as the kernel shows it in /proc/PID/maps; for people only."""
        target = os.readlink(f"/proc/self/fd/{self.fd}")
        return target.removeprefix("/memfd:").removesuffix(" (deleted)")

    @property
    def bytes(self) -> Bytes:
        """uint8[nbytes] view. ValueError after close()."""
        if self._bytes is None:
            raise ValueError("segment is closed")
        return self._bytes

    @property
    def address(self) -> int:
        """Address of byte 0 in this process, valid while a view of `bytes` is held."""
        return int(self.bytes.ctypes.data)

    @property
    def closed(self) -> bool:
        return self._bytes is None

    def close(self) -> None:
        """Close the descriptor and forget the view. Harmless when repeated."""
        if self._bytes is not None:
            self._bytes = None
            os.close(self.fd)

    def __enter__(self) -> "Segment":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _memfd(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create(name, flags)


def _available_bytes() -> int:
    """What the kernel thinks can be had without swapping (MemAvailable)."""
    with open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    raise RecdError("/proc/meminfo has no MemAvailable", mend="a kernel of 3.14 or newer is needed")


def _no_memory(name: str, size: int, reason: str) -> RecdError:
    return RecdError(
        f"shared memory {name}: {size / 2**20:.1f} MiB asked, {reason}",
        mend="lower the slots of this ring, or free memory",
    )
