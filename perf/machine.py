"""What this machine is: the fingerprint that a figure is worth nothing without."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import recd
from recd.daemon import processor
from recd.daemon.doctor.disk import filesystem_of
from recd.shm.clock import clock_pair, wall_iso

LIBRARIES = ("numpy", "av", "pyarrow", "numba", "llvmlite", "pyzmq", "msgpack", "psutil")
"""Packages whose version changes figures."""

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_RT_RUNTIME = Path("/proc/sys/kernel/sched_rt_runtime_us")


def fingerprint(directory: Path) -> dict[str, Any]:
    """Processor, memory, kernel, governor, versions, and the file system below `directory`."""
    return {
        "cpu": processor.model(),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in processor.facts().get("flags", "").split(),
        "arch": platform.machine(),
        "memory_mb": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20,
        "kernel": platform.release(),
        "governor": _text(_GOVERNOR) or "not told",
        "rt_runtime_us": _text(_RT_RUNTIME) or "not told",
        "filesystem": filesystem_of(directory),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def origin() -> dict[str, Any]:
    """Version, commit (with `+` when files differ from it; "" outside a checkout), wall time."""
    return {
        "recd": recd.__version__,
        "commit": _commit(),
        "made_at": wall_iso(clock_pair().real_ns),
    }


def _commit() -> str:
    here = Path(__file__).resolve().parent
    head = _git(here, "rev-parse", "--short=12", "HEAD")
    if not head:
        return ""
    return head + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")


def _git(here: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None
