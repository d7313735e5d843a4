"""Has imported what workers import, and forks them: `python -m recd.daemon.forkserver FD`.

It has one thread and touches no device, no ring and no socket but its own, so a fork of it holds
nothing of anybody else; it is started before the supervisor imports anything itself, and lives as
long. A worker is its grandchild for a moment only and the supervisor's child from then on, which
reaps it and whose end it shares, as if it had been started by exec. Arm processes are: what they
touch in a tick is theirs alone from the first, not shared pages that are copied when written.
Without it (it died, or could not start) every worker is started by exec.
"""

import gc
import os
import signal
import socket
import sys

if __name__ == "__main__":  # before anything that imports structlog
    gc.disable()  # and no worker's collector looks at what is imported here
    from recd.daemon import lean  # noqa: F401

import importlib
from collections.abc import Sequence

import msgpack

from recd.daemon import realtime, worker
from recd.daemon.supervisor.forks import MOST_FDS, READY, REQUEST_BYTES, TITLE
from recd.daemon.worker import WorkerSpec

PRELOADED = ("recd.daemon.encode.worker", "recd.daemon.cameras.worker")
"""Those of which a daemon has several. The writer's and the simulator's own are for one process."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the process, and of every worker that it forks. Returns the exit code of either."""
    import setproctitle

    arguments = sys.argv[1:] if argv is None else argv
    realtime.die_with_parent()
    if not realtime.parent_lives():
        return 0
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    setproctitle.setproctitle(TITLE)
    for module in PRELOADED:
        importlib.import_module(module)
    if len(os.listdir("/proc/self/task")) > 1:
        return 1  # a library has threads: a fork would have half of it
    gc.freeze()
    with socket.socket(fileno=int(arguments[0])) as link:
        try:
            link.send(READY)
            spec = _serve(link)
        except ConnectionError:  # a supervisor that refused its configuration never listened
            return 0
    return 0 if spec is None else worker.live(spec)


def _serve(link: socket.socket) -> WorkerSpec | None:
    """Fork a worker for each request until the supervisor is gone, or told that the system refuses:
    None. In a worker: its own specification."""
    while True:
        data, fds, _, _ = socket.recv_fds(link, REQUEST_BYTES, MOST_FDS, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return None
        try:
            forked = _fork(link)
        except OSError as error:
            link.send(f"it cannot fork: {error.strerror}".encode())
            return None
        if forked:
            spec_fd, *others = fds
            numbers = msgpack.unpackb(data)
            return worker.read_spec(spec_fd).renumbered(dict(zip(numbers, others, strict=True)))
        for fd in fds:
            os.close(fd)


def _fork(link: socket.socket) -> bool:
    """True in the new worker, once the supervisor is its parent; False here, once it was told.

    By two forks: the kernel gives the child of one that ends to the supervisor, which has asked for
    that (PR_SET_CHILD_SUBREAPER). The worker waits until that has happened: to die with its parent
    must mean the right one.
    """
    told, tell = os.pipe()
    held, release = os.pipe()
    middle = os.fork()
    if middle == 0:
        if child := _fork_again():
            os.write(tell, child.to_bytes(4, "little"))
            os._exit(0)
        for fd in (told, tell, release):
            os.close(fd)
        link.close()
        return _released(held)
    os.close(tell)
    os.close(held)
    pid = int.from_bytes(os.read(told, 4), "little")
    _, status = os.waitpid(middle, 0)
    if refused := os.waitstatus_to_exitcode(status):
        raise OSError(refused, os.strerror(refused))
    pidfd = os.pidfd_open(pid)
    socket.send_fds(link, [msgpack.packb(pid)], [pidfd])
    os.write(release, b"\0")
    for fd in (told, release, pidfd):
        os.close(fd)
    return False


def _fork_again() -> int:
    """Fork in the child for a moment, whose exit code is the error when the system refuses."""
    try:
        return os.fork()
    except OSError as refused:
        os._exit(refused.errno or 1)


def _released(held: int) -> bool:
    """In a worker: wait until it is the supervisor's. It ends when the server died before."""
    word = os.read(held, 1)
    os.close(held)
    realtime.die_with_parent()
    if not word or not realtime.parent_lives():
        os._exit(0)
    os.setsid()  # a terminal's signals are for the supervisor alone
    return True


if __name__ == "__main__":
    sys.exit(main())
