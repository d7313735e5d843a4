"""The supervisor's side of the fork server: started first of all, asked for each worker.

It makes starts and restarts quick and saves memory (docs/decisions/0006); nothing depends on it.
Once it does not answer, workers are started by exec for the rest of this daemon's life. Imports
little, for it stands before all that the supervisor imports.
"""

import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence

import msgpack

from recd.daemon import log, realtime

NAME = "forkserver"
TITLE = f"recd:{NAME}"

READY = b"ready"
"""What the server says once it has imported all it wants to."""

MOST_FDS = 253
"""The kernel hands over no more descriptors in one message (SCM_MAX_FD)."""

REQUEST_BYTES = 16 * 1024
READY_S = 10.0
"""Patience for its imports, on a slow computer that reads from a card; by exec after that."""

ANSWER_S = 2.0
END_S = 2.0
_ANSWER_BYTES = 64

ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}
"""Libraries start no threads of their own beside a real-time loop, and share one heap."""


def worker_environment() -> dict[str, str]:
    """Environment of everything that this process starts to work for it."""
    return {**os.environ, **ONE_THREAD, realtime.PARENT_KEY: str(os.getpid())}


def start_forks() -> "Forks | None":
    """The fork server, or None with a line in the log when the system refuses it a process."""
    try:
        return Forks()
    except OSError as error:
        log.get_logger().warning("no fork server, workers are started by exec", reason=str(error))
        return None


class Forks:
    """One fork server. To be made in the main thread: the server dies with the thread that did."""

    def __init__(self) -> None:
        """Raises OSError when the system refuses a process."""
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ready = False
        command = [sys.executable, "-P", "-m", "recd.daemon.forkserver", str(theirs.fileno())]
        try:
            self._server = subprocess.Popen(
                command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL,
                env=worker_environment(), start_new_session=True,
            )  # fmt: skip
        except OSError:
            self._link.close()
            raise
        finally:
            theirs.close()

    def fork(self, fds: Sequence[int]) -> tuple[int, int] | None:
        """Fork a worker that gets `fds`, its specification's first. (its pid, its pidfd), both the
        caller's to reap and to close; None when that has to be done by exec."""
        if self._link.fileno() < 0 or len(fds) > MOST_FDS:
            return None
        try:
            if not self._ready:
                self._ready = self._receive(READY_S)[0] == READY
            with realtime.adopting():
                socket.send_fds(self._link, [msgpack.packb(list(fds[1:]))], list(fds))
                return self._forked(ANSWER_S)
        except OSError as error:
            log.get_logger().warning(
                "fork server is gone, workers are started by exec", reason=str(error)
            )
            return self._last_word()

    def _forked(self, seconds: float) -> tuple[int, int]:
        while True:  # a late READY may stand before the answer
            data, pidfds = self._receive(seconds)
            if pidfds:
                return int(msgpack.unpackb(data)), pidfds[0]
            if data != READY:
                raise OSError(data.decode())

    def _last_word(self) -> tuple[int, int] | None:
        """End the server, and hear whether it forked a worker all the same: without a word of it
        there is none, for a worker begins after its pid was sent. Two would write one ring."""
        self._server.kill()
        self._server.wait()
        try:
            return self._forked(0.0)
        except OSError:
            return None
        finally:
            self._link.close()

    def _receive(self, seconds: float) -> tuple[bytes, list[int]]:
        """One message. OSError: the server ended, or said nothing for so long."""
        poller = select.poll()
        poller.register(self._link, select.POLLIN)
        if not poller.poll(seconds * 1000):
            raise TimeoutError(f"it said nothing for {seconds:g} s")
        data, fds, _, _ = socket.recv_fds(self._link, _ANSWER_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        if not data:
            raise ConnectionResetError("it ended")
        return data, fds

    def close(self) -> None:
        """Let the server end. May be called again."""
        self._link.close()
        try:
            self._server.wait(END_S)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
