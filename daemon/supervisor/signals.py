"""Signals as something to poll: SIGTERM, SIGINT and SIGHUP are counted, and wake the loop."""

import signal
import socket

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """Takes over the signals that ask a daemon to end. Main thread only."""

    def __init__(self) -> None:
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._count = 0
        self._before = {number: signal.getsignal(number) for number in ENDING}
        self._fd_before = signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        for number in ENDING:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        del number, frame
        self._count += 1

    @property
    def fd(self) -> int:
        """Readable when a signal came."""
        return self._wake.fileno()

    def taken(self) -> int:
        """How many came since the last call."""
        try:
            while self._wake.recv(64):
                pass
        except BlockingIOError:
            pass
        count, self._count = self._count, 0
        return count

    def close(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        self._wake.close()
        self._woken.close()
