"""A real systemd as process 1 of its own namespaces, on an overlay of this computer's files.

Nothing of it touches the computer: accounts, units and datasets made there are gone with it.
Needs root, systemd, overlayfs and cgroup2; `missing()` says what is not there.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from recd.daemon.realtime import die_with_parent
from tests.rig import until

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
SYSTEMD = "/lib/systemd/systemd"


def missing() -> str:
    """Why no systemd can be booted here; "" when it can."""
    if os.geteuid() != 0:
        return "booting a systemd needs root"
    needed = ("unshare", "nsenter", "useradd", "runuser", "systemctl", "systemd-sysusers")
    if absent := [name for name in needed if shutil.which(name) is None]:
        return f"not installed: {', '.join(absent)}"
    if not Path(SYSTEMD).exists():
        return f"no {SYSTEMD}"
    if Path(__file__).is_relative_to("/tmp"):
        return "the booted system has a /tmp of its own, and this checkout lies below /tmp"
    known = Path("/proc/filesystems").read_text()
    return "" if "overlay" in known and "cgroup2" in known else "no overlayfs or no cgroup2"


class Machine:
    """The booted system. `run` runs a command in it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def run(self, *argv: str, code: int | None = 0, text: str = "") -> str:
        """Standard output of `argv`, run as root inside. code: the exit code it must end with."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.pid), "--all", "--root", "--wd", "env", "-i",
             f"PATH={BIN}:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root", *argv],
            input=text, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        if code is not None:
            assert done.returncode == code, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + (done.stderr if code != 0 else "")

    def run_as(self, user: str, *argv: str, code: int | None = 0) -> str:
        return self.run("runuser", "-u", user, "--", *argv, code=code)

    def show(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", unit, "--property", name, "--value").strip()

    def journal(self, unit: str, *options: str) -> str:
        self.run("journalctl", "--sync")
        return self.run("journalctl", "-u", unit, "--no-pager", "-o", "cat", *options)

    def may_raise_limits(self) -> bool:
        """Whether units can get more memory to lock than this process was started with."""
        raised = self.run("prlimit", "--memlock=unlimited:unlimited", "echo", "raised", code=None)
        return "raised\n" in raised and "not permitted" not in raised

    def write(self, path: str, content: str) -> None:
        self.run("sh", "-c", f"mkdir -p $(dirname {path}); cat > {path}", text=content)


def _process_one(unshare: subprocess.Popen[bytes]) -> int | None:
    assert unshare.poll() is None, f"unshare ended with {unshare.returncode}"
    for child in psutil.Process(unshare.pid).children():
        if child.cmdline()[:1] == [SYSTEMD]:
            return child.pid
    return None


@contextmanager
def booted() -> Iterator[Machine]:
    """Boot, wait until the system is up, and end it again."""
    folder = tempfile.mkdtemp(prefix="recd-booted-")
    unshare = subprocess.Popen(
        ["unshare", "--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup", "--fork",
         "--kill-child", "sh", str(HERE / "boot.sh"), folder],
        stdin=subprocess.DEVNULL,
        preexec_fn=die_with_parent,  # a test run that is killed leaves no machine behind
    )  # fmt: skip
    try:
        machine = Machine(until(lambda: _process_one(unshare), "systemd as process 1"))
        until(
            lambda: machine.run("systemctl", "is-system-running", code=None).strip() == "running",
            "the system to be up",
        )
        _open_the_way(machine)
        yield machine
    finally:
        unshare.send_signal(signal.SIGKILL)  # --kill-child: process 1 and all below go with it
        unshare.wait()
        os.rmdir(folder)


def _open_the_way(machine: Machine) -> None:
    """A checkout in somebody's home: inside, everybody may run its Python."""
    real = Path(sys.executable).resolve()
    folders = {*real.parents, *BIN.parents, *HERE.parents} - {Path("/")}
    machine.run("chmod", "o+x", *map(str, sorted(folders)))
