"""Facts of the computer itself: cores, clocks, limits, memory, machine code. Changes nothing.

`sys` and `proc` are parameters for tests and containers.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys as python
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from recd.config.checks import available_memory_bytes, frame_ring_bytes
from recd.config.errors import RecdError
from recd.config.models import RealtimeConfig, RobotConfig
from recd.daemon import realtime
from recd.daemon.align.cameras import KERNELS as ALIGN_KERNELS
from recd.daemon.arms.tickcode import KERNELS as ARM_KERNELS
from recd.daemon.doctor.facts import Clock, Kernels, Memory
from recd.daemon.pixels.passes import KERNELS as PIXEL_KERNELS
from recd.daemon.supervisor.processes import process_table
from recd.daemon.supervisor.resources import ring_table
from recd.shm import aot
from recd.shm.clock import now_ns
from recd.shm.handle import KERNELS as SHM_KERNELS

SYS, PROC = Path("/sys"), Path("/proc")

_STA_UNSYNC = 0x40
_READINGS = 20_000
_FILES_A_PROCESS, _FILES_BESIDES = 8, 64


def governors(sys: Path = SYS) -> dict[str, int]:
    """Frequency governor -> number of cores that have it; {} where there is none to choose."""
    files = sorted((sys / "devices" / "system" / "cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"))
    return dict(Counter(_text(file) for file in files))


# --- clock -------------------------------------------------------------------------------------


class _Timex(ctypes.Structure):
    """Head of the kernel's struct timex, and room for its rest."""

    _fields_ = (("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long),
                ("maxerror", ctypes.c_long), ("esterror", ctypes.c_long), ("status", ctypes.c_int),
                ("rest", ctypes.c_byte * 256))  # fmt: skip


def clock(sys: Path = SYS) -> Clock:
    """The wall clock's source as the kernel knows it, and some thousand readings of ours."""
    asked = _Timex()  # modes 0: only asks
    known = ctypes.CDLL(None).adjtimex(ctypes.byref(asked)) >= 0
    before, backwards, began_ns = 0, 0, now_ns()
    for _ in range(_READINGS):
        at_ns = now_ns()
        backwards += at_ns < before
        before = at_ns
    return Clock(
        synchronised=not asked.status & _STA_UNSYNC if known else None,
        source=_text(sys / "devices/system/clocksource/clocksource0/current_clocksource"),
        call_ns=(now_ns() - began_ns) / _READINGS,
        backwards=backwards,
    )


# --- limits ------------------------------------------------------------------------------------


def granted(wanted: RealtimeConfig) -> dict[str, str]:
    """Real-time setting -> `granted` or why not: asked for by a process of its own, as an arm does.

    {} when the configuration wants none.
    """
    if not wanted.enabled:
        return {}
    asked = realtime.RealtimeRequest(
        priority=max(wanted.arm_priority, wanted.camera_priority), lock_memory=wanted.lock_memory
    )
    done = subprocess.run(
        [python.executable, "-m", "recd.daemon.doctor.machine"], input=json.dumps(asdict(asked)),
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    told: dict[str, str] = json.loads(done.stdout)
    return told


def memory(robot: RobotConfig | None, *, sys: Path = SYS, proc: Path = PROC) -> Memory:
    """Memory and limits against what `robot` needs."""
    cameras = (
        []
        if robot is None
        else [frame_ring_bytes(c, robot.highlight_s) for c in robot.cameras.values()]
    )
    files, file_bytes = (
        None if limit == resource.RLIM_INFINITY else limit
        for limit, _ in map(resource.getrlimit, (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE))
    )
    return Memory(
        available_bytes=available_memory_bytes(),
        ring_bytes=sum(cameras),
        largest_ring_bytes=max(cameras, default=0),
        limit_bytes=left_in_group(sys=sys, proc=proc),
        files=files,
        files_needed=_files_needed(robot),
        file_bytes=file_bytes,
    )


def _files_needed(robot: RobotConfig | None) -> int:
    """Descriptors of the supervisor: every ring, cell and bell, and some for each process."""
    if robot is None:
        return _FILES_BESIDES
    rows = process_table(robot)
    bells = sum(len(row.wants.rings_read) for row in rows if row.wants.woken)
    cells = len(rows) + len(robot.arms)
    return len(ring_table(robot)) + cells + bells + _FILES_A_PROCESS * len(rows) + _FILES_BESIDES


def left_in_group(*, sys: Path = SYS, proc: Path = PROC) -> int | None:
    """Memory that the control groups of this process still allow; None without a limit."""
    lines = [line.partition("::")[2] for line in _text(proc / "self" / "cgroup").splitlines()
             if line.startswith("0::")]  # fmt: skip
    root = sys / "fs" / "cgroup"
    folder = root / (lines[0].lstrip("/") if lines else "")
    left = []
    while folder != root.parent:
        most, used = _text(folder / "memory.max"), _text(folder / "memory.current")
        if most.isdigit() and used.isdigit():
            left.append(max(0, int(most) - int(used)))
        folder = folder.parent
    return min(left, default=None)


# --- machine code --------------------------------------------------------------------------------


def kernels() -> Kernels:
    """Whether the machine code of every kernel is in the cache, as this version wants it."""
    folder = aot.cache_dir()
    absent = []
    try:
        for module in (SHM_KERNELS, ARM_KERNELS, ALIGN_KERNELS, PIXEL_KERNELS):
            if aot.read_cache(folder / f"{module}-{aot.source_key(module)}.kernels") is None:
                absent.append(module)
    except RecdError as error:
        return Kernels(str(folder), error.message)
    if absent and folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
        return Kernels(str(folder), "this user may not write there", tuple(absent))
    return Kernels(str(folder), "", tuple(absent))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def main() -> int:
    """Child process: a RealtimeRequest as JSON on stdin, what was granted on stdout."""
    told = realtime.apply(realtime.RealtimeRequest(**json.load(python.stdin)))
    print(json.dumps(told.settings))
    return 0


if __name__ == "__main__":
    python.exit(main())
