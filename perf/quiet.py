"""Is anybody else using this machine? Asked before a run, and told of the time of each run."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns

QUIET_CORES = 0.1
"""A machine that uses less than this (cores) counts as quiet."""

_WINDOW_NS = NS_PER_S
_WINDOWS_IN_A_ROW = 2
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_STAT = Path("/proc/stat")


@dataclass(frozen=True, slots=True)
class CpuClock:
    """CPU seconds that the whole machine has used, from any moment on, and lost to its host, until
    `at_ns`. Only differences mean anything."""

    at_ns: int
    busy_s: float
    stolen_s: float

    @classmethod
    def read(cls) -> "CpuClock":
        """Now, from the kernel's counters (10 ms resolution).

        Busy is what is neither idle nor stolen. The kernel's own busy times are samples at its
        tick: of control loops that wake at the rate of the tick they tell 0.2 cores too much.
        """
        lines = _STAT.read_text().splitlines()
        at_ns = now_ns()
        fields = [int(word) for word in lines[0].split()[1:]]
        idle, wait = fields[3:5]
        stolen = fields[7] if len(fields) > 7 else 0
        cores = sum(1 for line in lines[1:] if line.startswith("cpu"))
        spent_s = cores * at_ns / NS_PER_S - (idle + wait + stolen) / _CLOCK_TICKS
        return cls(at_ns, spent_s, stolen / _CLOCK_TICKS)

    def since(self, before: "CpuClock") -> "Load":
        """Mean load between both readings."""
        span_s = max(1e-9, (self.at_ns - before.at_ns) / NS_PER_S)
        return Load(
            busy_cores=(self.busy_s - before.busy_s) / span_s,
            stolen_cores=(self.stolen_s - before.stolen_s) / span_s,
        )


@dataclass(frozen=True, slots=True)
class Load:
    """Cores in use by anybody, and cores that the host of a virtual machine took away."""

    busy_cores: float
    stolen_cores: float

    @property
    def quiet(self) -> bool:
        return self.busy_cores + self.stolen_cores < QUIET_CORES


@dataclass(frozen=True, slots=True)
class Silence:
    """How the wait for a quiet machine ended. load: of its last second."""

    quiet: bool
    waited_s: float
    load: Load
    load_average: tuple[float, float, float]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "load_average": list(self.load_average)}

    def sentence(self) -> str:
        """For people."""
        used = f"{self.load.busy_cores:.2f} cores in use, {self.load.stolen_cores:.2f} stolen"
        if self.quiet:
            return f"machine quiet ({used})"
        return (
            f"THE MACHINE IS NOT QUIET ({used} after {self.waited_s:.0f} s of waiting): "
            "do not quote these figures"
        )


def wait_for_quiet(patience_s: float) -> Silence:
    """Wait until two seconds in a row are quiet, at most `patience_s`; never refuses."""
    began = now_ns()
    in_a_row = 0
    while True:
        before = CpuClock.read()
        sleep_until_ns(now_ns() + _WINDOW_NS)
        load = CpuClock.read().since(before)
        in_a_row = in_a_row + 1 if load.quiet else 0
        waited_s = (now_ns() - began) / NS_PER_S
        if in_a_row == _WINDOWS_IN_A_ROW or waited_s >= patience_s:
            quiet = in_a_row == _WINDOWS_IN_A_ROW
            return Silence(quiet, waited_s, load, os.getloadavg())
