"""A kernel made of Python functions, for machine code that calls C functions by their addresses."""

import ctypes
import errno
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_int, c_int64, c_long, c_void_p

from recd.shm import libc

_S = 1_000_000_000


class VirtualKernel:
    """table: what machine code is handed in the place of `libc.table()`; signals: so many reads and
    writes to come are interrupted by one."""

    def __init__(
        self, *, clock: Callable[[], int], sleep_until: Callable[[int], None],
        wait_input: Callable[[int, int], bool], read: Callable[[int, int], bytes],
        write: Callable[[int, bytes], int],
    ) -> None:  # fmt: skip
        """clock, sleep_until: ns; wait_input: (fd, for ns); read raises BlockingIOError."""
        self._errno = c_int()
        self.signals = 0

        def interrupted() -> bool:
            self._errno.value = errno.EINTR
            self.signals, before = max(0, self.signals - 1), self.signals
            return before > 0

        def gettime(_clock, at):
            words = (c_int64 * 2).from_address(at)
            words[0], words[1] = divmod(clock(), _S)
            return 0

        def nanosleep(_clock, _flags, at, _left):
            words = (c_int64 * 2).from_address(at)
            sleep_until(words[0] * _S + words[1])
            return 0

        def ppoll(polled, _count, at, _mask):
            words = (c_int64 * 2).from_address(at)
            fd = c_int.from_address(polled).value
            return int(wait_input(fd, words[0] * _S + words[1]))

        def read_into(fd, target, most):
            if interrupted():
                return -1
            try:
                data = read(fd, most)
            except BlockingIOError:
                self._errno.value = errno.EAGAIN
                return -1
            ctypes.memmove(target, data, len(data))
            return len(data)

        def write_from(fd, source, size):
            if interrupted():
                return -1
            return write(fd, ctypes.string_at(source, size))

        self._functions = {
            libc.CLOCK_GETTIME: CFUNCTYPE(c_int, c_int, c_void_p)(gettime),
            libc.CLOCK_NANOSLEEP: CFUNCTYPE(c_int, c_int, c_int, c_void_p, c_void_p)(nanosleep),
            libc.PPOLL: CFUNCTYPE(c_int, c_void_p, c_long, c_void_p, c_void_p)(ppoll),
            libc.READ: CFUNCTYPE(c_long, c_int, c_void_p, c_long)(read_into),
            libc.WRITE: CFUNCTYPE(c_long, c_int, c_void_p, c_long)(write_from),
            libc.ERRNO: CFUNCTYPE(c_void_p)(lambda: ctypes.addressof(self._errno)),
        }
        self.table = libc.table()
        for place, function in self._functions.items():
            self.table[place] = ctypes.cast(function, c_void_p).value
