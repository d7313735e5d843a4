"""Workers that are forked by a server: they are the supervisor's own, and nothing depends on it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from recd.daemon.supervisor import forks

from .conftest import Daemon, until

Start = Callable[..., Daemon]

FORKED = {"recd:cam:front", "recd:enc:front", "recd:writer"}


def _descriptors(pid: int) -> set[str]:
    return {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}


def test_forked_workers_are_the_supervisors_children_and_the_server_keeps_nothing_of_them(
    daemon: Daemon,
) -> None:
    assert set(daemon.titled()) >= FORKED
    assert all(os.getsid(worker.pid) == worker.pid for worker in daemon.workers())
    server = daemon.fork_server()
    assert server.children() == []
    assert not {link for link in _descriptors(server.pid) if link.startswith("/memfd:")}
    assert server.num_threads() == 1


def test_a_forked_worker_has_the_memory_of_the_server_and_an_arm_has_its_own(
    daemon: Daemon,
) -> None:
    maps = Path(f"/proc/{daemon.pid_of('arm:main.follower')}/maps").read_text()
    assert "libav" not in maps
    assert "libav" in Path(f"/proc/{daemon.pid_of('encoder:front')}/maps").read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_without_its_server_a_worker_is_started_by_exec_and_only_once(
    daemon: Daemon, number: signal.Signals
) -> None:
    server, old = daemon.fork_server(), daemon.pid_of("encoder:front")
    server.send_signal(number)
    os.kill(old, signal.SIGKILL)

    until(lambda: daemon.pid_of("encoder:front") not in (None, old), "another encoder")
    daemon.wait_state("READY")

    assert "fork server is gone, workers are started by exec" in daemon.said
    encoders = [one for one in daemon.everything() if "recd:enc:front" in " ".join(one.cmdline())]
    assert len(encoders) == 1
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


def test_a_daemon_without_a_fork_server_works(start_daemon: Start) -> None:
    daemon = start_daemon(forks=False)
    daemon.wait_state("READY")
    assert len(daemon.everything()) == 4
    uid = daemon.ok("start")["uid"]
    assert daemon.end() == 0
    assert f"saved {uid}" in daemon.committed


def test_a_system_that_refuses_the_server_a_process_does_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forks.sys, "executable", "/nowhere/python")
    assert forks.start_forks() is None


REFUSES = """
import os, runpy, sys
left, fork = int(sys.argv.pop(1)), os.fork
def refuse():
    global left
    if left == 0:
        raise OSError(11, "Resource temporarily unavailable")
    left -= 1
    return fork()
os.fork = refuse
runpy.run_module("recd.daemon.forkserver", run_name="__main__")
"""


@pytest.mark.parametrize("forks_granted", [0, 1])
def test_a_server_that_may_not_fork_says_so_and_ends_without_a_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    forks_granted: int,
) -> None:  # fmt: skip
    python = tmp_path / "python"
    (tmp_path / "refuses.py").write_text(REFUSES)
    python.write_text(
        f"#!/bin/sh\nfor fd; do :; done\n"
        f'exec {sys.executable} -P {tmp_path}/refuses.py {forks_granted} "$fd"\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr(forks.sys, "executable", str(python))
    server = forks.Forks()
    try:
        with (tmp_path / "spec").open("w+b") as spec:
            assert server.fork([spec.fileno()]) is None
        said = capfd.readouterr()
        assert "cannot fork: Resource temporarily unavailable" in said.out + said.err
        assert "Traceback" not in said.out + said.err
    finally:
        server.close()


def test_the_end_of_a_forked_worker_is_told_with_its_signal(daemon: Daemon) -> None:
    os.kill(daemon.pid_of("camera:front"), signal.SIGSEGV)
    until(lambda: "SIGSEGV" in daemon.said, "the signal in the log")


NICE = """
import ctypes, os
from recd.daemon import realtime
import recd.shm.clock
if os.getuid() == 0:
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: its /proc is its own again
print(realtime.set_nice(7), open("/proc/self/autogroup").read().split()[-1])
"""


def test_niceness_reaches_the_sessions_that_the_kernel_groups_by_of_many_at_once() -> None:
    if not Path("/proc/self/autogroup").exists():
        pytest.skip("this kernel does not group by session")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", NICE], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        for _ in range(6)
    ]
    assert [one.communicate(timeout=60)[0].split() for one in started] == [["None", "7"]] * 6
