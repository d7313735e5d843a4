"""Faults of memory: a control group (v1) whose limit is lowered, for the daemon's processes alone.

Needs root and a memory controller of cgroup v1. What was allocated before stays charged elsewhere.
"""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final

from recd.perf.storm.fault import Fault, Made, Outcome
from recd.perf.storm.subject import StormSubject, await_true

CONTROLLER: Final = Path("/sys/fs/cgroup/memory")
NO_LIMIT: Final = "-1"
PRESSURE_MB: Final = 96
"""Room for what the daemon allocates meanwhile, page cache of its episode included."""

STARVED_KB: Final = 256

_HOG = "held = []\nwhile True: held.append(bytearray(1 << 20))"


def may_limit() -> str:
    """Why no memory can be limited here, "" when it can."""
    if os.geteuid() != 0:
        return "needs root: makes a control group"
    if not (CONTROLLER / "memory.limit_in_bytes").exists():
        return "needs the memory controller of cgroup v1"
    return ""


def _group(subject: StormSubject, limit_bytes: int, pids: list[int]) -> Path:
    group = CONTROLLER / subject.instance
    group.mkdir(exist_ok=True)
    (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
    for pid in pids:
        with suppress(ProcessLookupError):
            (group / "cgroup.procs").write_text(str(pid))
    return group


def out_of_memory(subject: StormSubject, _: Random) -> Made:
    """The kernel kills an encoder that asks for memory where none is left."""
    pid = subject.worker("encoder:front")
    _group(subject, STARVED_KB * 1024, [pid])
    await_true(lambda: subject.worker_or_none("encoder:front") != pid, "the OOM killer", 60)
    return {"killed": "encoder:front", "pid": pid}


def memory_pressure(subject: StormSubject, draw: Random) -> Made:
    """Another program in the same group takes all memory, again and again, and is killed for it."""
    group = _group(subject, PRESSURE_MB << 20, [process.pid for process in subject.tree()])
    hogs = draw.randint(2, 4)
    for _ in range(hogs):
        hog = subprocess.Popen(
            [sys.executable, "-c", _HOG], preexec_fn=lambda: _join_as_first_victim(group)
        )
        hog.wait(60)
    return {"hogs": hogs, "limit_mb": PRESSURE_MB}


def _join_as_first_victim(group: Path) -> None:
    Path("/proc/self/oom_score_adj").write_text("1000")
    (group / "cgroup.procs").write_text(str(os.getpid()))


def let_go(subject: StormSubject, _: Made) -> None:
    """No limit any more, and everybody back in the group of the storm."""
    group = CONTROLLER / subject.instance
    (group / "memory.limit_in_bytes").write_text(NO_LIMIT)
    own = _own_group()
    for pid in (group / "cgroup.procs").read_text().split():
        with suppress(ProcessLookupError):
            (own / "cgroup.procs").write_text(pid)
    with suppress(OSError):  # somebody ends just now: it goes with the next one
        group.rmdir()


def _own_group() -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return Path(f"{CONTROLLER}{path}")
    return CONTROLLER


MEMORY_FAULTS: Final[tuple[Fault, ...]] = (
    Fault("encoder killed for want of memory", 6, out_of_memory, Outcome.GOES_ON, heal=let_go,
          reads=("encoder:front",)),
    Fault("memory pressure", 6, memory_pressure, Outcome.GOES_ON, heal=let_go),
)  # fmt: skip
