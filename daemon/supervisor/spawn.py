"""Start one worker: its specification, its descriptors, its end of the link.

By the fork server (forks.py), arm processes and all others without one by exec; never a fork of
this interpreter. Workers die with this process: the kernel is asked to
(PDEATHSIG, set by the worker's first lines) and their link closes. Call from the main thread only:
the kernel ties PDEATHSIG to the thread that started the child.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from recd.daemon.supervisor.forks import Forks, worker_environment
from recd.daemon.supervisor.processes import Process
from recd.daemon.supervisor.resources import Resources
from recd.daemon.worker import Link, WorkerSpec


@dataclass(slots=True)
class Child:
    """A running worker. pidfd: readable once it has ended; popen: of one started by exec."""

    pid: int
    link: Link
    pidfd: int
    popen: subprocess.Popen[bytes] | None = None

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens when it has ended already."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return

    def reap(self) -> int | None:
        """Exit code (negative: signal) once it has ended, else None."""
        if self.popen is not None:
            return self.popen.poll()
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def close(self) -> None:
        """Let go of link and pidfd, after `reap` gave a code."""
        self.link.close()
        os.close(self.pidfd)


BY_EXEC = frozenset({"arm"})
"""Kinds that are never forked: a page that a fork shares is copied when a tick writes to it."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all workers of a daemon have in common. robot: the resolved configuration."""

    instance: str
    runtime_dir: str
    robot: Mapping[str, Any]


def worker_spec(
    row: Process, around: Surroundings, resources: Resources, *, awaits_go: bool = False
) -> WorkerSpec:
    """The specification of `row`, its link not yet known."""
    return WorkerSpec(
        name=row.name,
        kind=row.kind,
        instance=around.instance,
        runtime_dir=around.runtime_dir,
        link_fd=-1,
        config=dict(row.config),
        robot=dict(around.robot),
        rings=resources.ring_grants(row),
        cells=resources.cell_grants(row),
        realtime=dict(row.realtime),
        module=row.module,
        awaits_go=awaits_go,
    )


def spawn(spec: WorkerSpec, forks: Forks | None = None) -> Child:
    """Start the worker of `spec`, by `forks` if it may. Raises OSError when the system refuses a
    process."""
    link, theirs = Link.pair()
    with theirs:
        told = replace(spec, link_fd=theirs.fileno())
        spec_fd = _as_memfd(told)
        try:
            fds = (spec_fd, *told.passed_fds())
            forked = None if forks is None or spec.kind in BY_EXEC else forks.fork(fds)
            if forked is not None:
                return Child(forked[0], link, forked[1])
            popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "recd.daemon.worker", str(spec_fd)],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                env=worker_environment(),
                start_new_session=True,  # a terminal's signals are for the supervisor alone
            )
        except BaseException:
            link.close()
            raise
        finally:
            os.close(spec_fd)
    return Child(popen.pid, link, os.pidfd_open(popen.pid), popen)


def _as_memfd(spec: WorkerSpec) -> int:
    fd = os.memfd_create(f"recd-spec-{spec.name}", os.MFD_CLOEXEC)
    data = spec.pack()
    while data:
        data = data[os.write(fd, data) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
