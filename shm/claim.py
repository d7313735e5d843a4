"""Who writes what: a kernel lock per role of a segment, freed by the death of its holder.

Byte 0 is the writer, byte i + 1 is reader i. Limit: it keeps our own processes apart, it does not
protect against a program that writes without asking.
"""

import fcntl
import os
import struct
import weakref

from recd.config.errors import RecdError
from recd.shm.segment import Segment

WRITER = 0
_FLOCK = struct.Struct("hhqqi4x")


def reader_role(reader: int) -> int:
    """Role number of reader line `reader`."""
    return reader + 1


class Claim:
    """The lock of one role, held until `release`, garbage collection or death.

    Taken on an open file description of its own: locks of the common one would be shared by every
    process that inherited the segment's descriptor, and a stopped process must keep its role.
    """

    def __init__(self, segment: Segment, role: int, *, holder: str) -> None:
        """Raises RecdError, naming `holder`, when someone alive has the role."""
        fd = os.open(f"/proc/self/fd/{segment.fd}", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, role, 1, 0))
        except BlockingIOError as error:
            os.close(fd)
            raise RecdError(
                f"shared memory {segment.name}: its {holder} is still alive",
                mend="end that process (or close() that handle) before a new one takes over",
            ) from error
        self.release = weakref.finalize(self, os.close, fd)


def is_held(segment: Segment, role: int) -> bool:
    """True while a living process holds the role."""
    fd = os.open(f"/proc/self/fd/{segment.fd}", os.O_RDWR | os.O_CLOEXEC)
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, role, 1, 0)
        kind = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
        return bool(kind != fcntl.F_UNLCK)
    finally:
        os.close(fd)
