"""A doorbell between processes: an eventfd that wakes one reader.

Rings add up until they are heard; a ring is never lost and never blocks. Limit: one listener.
"""

import os
import select

from recd.shm.clock import NS_PER_MS


class Doorbell:
    """One eventfd, non-blocking. Owns `fd`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    @classmethod
    def create(cls) -> "Doorbell":
        """New doorbell, close-on-exec; hand its fd over with pass_fds or SCM_RIGHTS."""
        return cls(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))

    @classmethod
    def from_fd(cls, fd: int) -> "Doorbell":
        """Take over an inherited descriptor."""
        return cls(fd)

    def ring(self) -> None:
        """Wake the listener. Never blocks: a counter that is full has woken it already."""
        try:
            os.eventfd_write(self.fd, 1)
        except BlockingIOError:
            return

    def wait(self, timeout_ns: int) -> bool:
        """Wait until rung (True, and drained) or for `timeout_ns`, rounded up to milliseconds."""
        if self._poll.poll(max(0, -(-timeout_ns // NS_PER_MS))):
            return self.drain()
        return False

    def drain(self) -> bool:
        """Forget all rings so far. True when there were any."""
        try:
            return os.eventfd_read(self.fd) > 0
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Close the descriptor. Harmless when repeated."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
