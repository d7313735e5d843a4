"""Faults of wall clock, syncs and writes, by a library that is loaded into the daemon alone.

The computer's own clock and disk are never touched. Needs a C compiler.
"""

import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Final

from recd.daemon.sim.v4l2shim.build import build, compiler
from recd.perf.storm.fault import Fault, Made, Outcome
from recd.perf.storm.subject import StormSubject
from recd.shm.clock import NS_PER_MS, NS_PER_S

SOURCE: Final = Path(__file__).with_name("shim.c")
CONTROL: Final = "shim.control"
_ALL: Final = struct.Struct("=qqqqq")
HOUR_NS: Final = 3600 * NS_PER_S


def may_preload() -> str:
    """Why nothing can be preloaded here, "" when it can."""
    return "" if compiler() else "needs a C compiler"


def preloaded(folder: Path) -> Mapping[str, str]:
    """Variables under which a daemon can be given these faults; the control file is in `folder`."""
    _set(folder)
    library = build(folder, source=SOURCE, name="recd-storm-shim")
    return {"LD_PRELOAD": str(library), "RECD_STORM_SHIM": str(folder / CONTROL)}


def _set(
    folder: Path, *, wall_step_ns: int = 0, sync_delay_ns: int = 0, write_delay_ns: int = 0,
    device: int = 0,
    no_sync: bool = False,
) -> None:  # fmt: skip
    """In place: the daemon has the file mapped."""
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / CONTROL, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        os.pwrite(fd, _ALL.pack(wall_step_ns, sync_delay_ns, write_delay_ns, device, no_sync), 0)
    finally:
        os.close(fd)


def leave_out_syncs(folder: Path, *, out: bool) -> None:
    """Whether the daemon's syncs return at once, with nothing on the disk; for measurements."""
    _set(folder, no_sync=out)


def step_wall(step_ns: int) -> Callable[[StormSubject, Random], Made]:
    """The wall clock of all of the daemon's processes jumps."""

    def strike(subject: StormSubject, _: Random) -> Made:
        _set(subject.folder, wall_step_ns=step_ns)
        return {"wall_step_s": step_ns // NS_PER_S}

    return strike


def slow_syncs(subject: StormSubject, draw: Random) -> Made:
    """Every sync waits for seconds, as an SD card that tidies up."""
    delay_ms = draw.randint(1500, 3000)
    _set(subject.folder, sync_delay_ns=delay_ms * NS_PER_MS)
    return {"sync_ms": delay_ms}


def slow_writes(subject: StormSubject, draw: Random) -> Made:
    """Every write to the dataset's disk waits, as behind one whose cache is full."""
    delay_ms = draw.randint(300, 800)
    device = os.stat(subject.dataset).st_dev
    _set(subject.folder, write_delay_ns=delay_ms * NS_PER_MS, device=device)
    return {"write_ms": delay_ms}


def heal(subject: StormSubject, _: Made) -> None:
    """Clock and syncs as they are."""
    _set(subject.folder)


SHIM_FAULTS: Final[tuple[Fault, ...]] = (
    Fault("every sync takes seconds", 6, slow_syncs, Outcome.GOES_ON, lasts_s=(4.0, 7.0),
          heal=heal),
    Fault("every write waits, for less than the rings hold", 6, slow_writes, Outcome.GOES_ON,
          lasts_s=(0.5, 1.5), heal=heal),
    Fault("every write waits, for longer than that", 6, slow_writes, Outcome.GOES_ON, None,
          lasts_s=(4.0, 6.0), heal=heal),
    Fault("wall clock an hour ahead", 8, step_wall(HOUR_NS), Outcome.GOES_ON,
          lasts_s=(1.0, 2.0), heal=heal, until_end=True),
    Fault("wall clock an hour back", 8, step_wall(-HOUR_NS), Outcome.GOES_ON,
          lasts_s=(1.0, 2.0), heal=heal, until_end=True),
)  # fmt: skip
