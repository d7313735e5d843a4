"""What one tick of each control loop asks of interpreter and kernel while a daemon records.

Blocks and collections by a signal to the real processes (probe/), page faults from /proc, system
calls by name from the kernel's tracepoints through `perf` (as root). Limit: blocks are those of
Python's allocator, up to 512 bytes; larger ones show only as page faults.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from recd.config.errors import RecdError
from recd.perf.figures import spread
from recd.perf.probe.sitecustomize import FOLDER
from recd.perf.report import table
from recd.perf.scenario import Scenario
from recd.perf.subject import running
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

PROBE = Path(__file__).with_name("probe")

SETTLE_S = 15.0
"""After `start`: every path has been gone once, most combinations of flags have been seen."""

LOOKS = 8
LOOK_TIMEOUT_S = 5.0
WINDOW_S = 1.0
"""System calls are counted in windows of this length, so that it shows whether they are fixed."""

ALLOWED_BLOCKS = 16
"""What may be in the hand at one look and not at another: a message or a packet in the making."""

_MINOR, _MAJOR = 7, 9  # fields of /proc/PID/stat behind the name
_SCALE_EVENT = "syscalls:sys_enter_"


@dataclass(frozen=True, slots=True)
class Look:
    """One process at one time. blocks: of Python's allocator in use; collections: so far;
    collecting: whether collection is on; minor, major: page faults so far."""

    at_ns: int
    blocks: int
    collections: int
    collecting: bool
    minor: int
    major: int


@dataclass(frozen=True, slots=True)
class LoopTicks:
    """Steady state of one loop. blocks: at each look; net_blocks: median of the later looks less
    that of the earlier; others: events between the first look and the last; calls: name -> spread
    a tick."""

    ticks: int
    blocks: tuple[int, ...]
    net_blocks: float
    collections: int
    collecting: bool
    minor_faults: int
    major_faults: int
    calls: Mapping[str, Mapping[str, float]]

    @property
    def steady(self) -> bool:
        """No net allocation, no collection, no page fault."""
        return (
            self.net_blocks <= ALLOWED_BLOCKS
            and not (self.collections or self.collecting)
            and not (self.minor_faults or self.major_faults)
        )

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "steady": self.steady}


def measure(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """Record `scenario.seconds` once and look at every control loop meanwhile.

    RecdError when the daemon fails or a loop does not answer looks.
    """
    looks_folder = folder / "looks"
    looks_folder.mkdir(parents=True)
    path = os.pathsep.join(filter(None, (str(PROBE), os.environ.get("PYTHONPATH"))))
    variables = {FOLDER: str(looks_folder), "PYTHONPATH": path}
    with running(scenario, folder, variables=variables) as subject:
        subject.arm()
        names = subject.names()
        pids = {name: pid for name, pid in names.items() if name.startswith("arm:")}
        subject.client.start()
        sleep_until_ns(now_ns() + round(SETTLE_S * NS_PER_S))
        looks = _looks(pids, looks_folder, seconds=scenario.seconds)
        calls, why = _calls(pids, seconds=scenario.seconds)
        subject.client.discard()
        realtime = subject.realtime()
    told = {
        name: steady_state(looks[name], rate_hz=scenario.rate_hz, calls=calls.get(name, {}))
        for name in pids
    }
    return {"loops": {name: one.plain() for name, one in told.items()},
            "calls_not_counted": why, "realtime": realtime}  # fmt: skip


def steady_state(
    looks: Sequence[Look], *, rate_hz: int, calls: Mapping[str, Sequence[float]]
) -> LoopTicks:
    """What the looks at one loop say. calls: name -> calls a second, per window. Pure."""
    first, last, half = looks[0], looks[-1], len(looks) // 2
    blocks = [look.blocks for look in looks]
    spreads = {name: spread(count / rate_hz for count in counts) for name, counts in calls.items()}
    return LoopTicks(
        ticks=round((last.at_ns - first.at_ns) * rate_hz / NS_PER_S),
        blocks=tuple(blocks),
        net_blocks=float(np.median(blocks[half:]) - np.median(blocks[:half])),
        collections=last.collections - first.collections,
        collecting=last.collecting,
        minor_faults=last.minor - first.minor,
        major_faults=last.major - first.major,
        calls={name: found.plain() for name, found in sorted(spreads.items()) if found},
    )


def _looks(pids: Mapping[str, int], folder: Path, *, seconds: float) -> dict[str, list[Look]]:
    """Looks at all loops over `seconds`; the first two only warm up what looking itself needs."""
    found: dict[str, list[Look]] = {name: [] for name in pids}
    began = now_ns()
    for number in range(LOOKS + 2):
        if number > 2:
            share = (number - 2) / (LOOKS - 1)
            sleep_until_ns(began + round(share * seconds * NS_PER_S))
        for name, pid in pids.items():
            look = _look(name, pid, folder / str(pid), number)
            if number >= 2:
                found[name].append(look)
    return found


def _look(name: str, pid: int, file: Path, number: int) -> Look:
    """The answer to the look of this number, and the page faults from before it."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    at_ns = now_ns()
    os.kill(pid, signal.SIGUSR2)
    while True:
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        if len(lines) > number and lines[number].endswith("\n"):
            blocks, collections, collecting = (int(word) for word in lines[number].split())
            return Look(at_ns, blocks, collections, bool(collecting), int(stat[_MINOR]),
                        int(stat[_MAJOR]))  # fmt: skip
        if now_ns() - at_ns > LOOK_TIMEOUT_S * NS_PER_S:
            raise RecdError(f"{name} (process {pid}): expected an answer to SIGUSR2, found none")
        sleep_until_ns(now_ns() + 5 * NS_PER_MS)


def _calls(
    pids: Mapping[str, int], *, seconds: float
) -> tuple[dict[str, dict[str, list[float]]], str]:
    """(loop -> system call -> calls a second in each window, why they could not be counted)."""
    tool = shutil.which("perf")
    if tool is None:
        return {}, "expected perf (package linux-perf or linux-tools), found none"
    if os.geteuid() != 0:
        return {}, "expected root: the kernel shows its tracepoints to nobody else"
    counting = {
        name: subprocess.Popen(
            [tool, "stat", "-x,", "-I", str(round(WINDOW_S * 1000)), "-e", f"{_SCALE_EVENT}*",
             "-p", str(pid), "--", "sleep", f"{seconds:g}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for name, pid in pids.items()
    }  # fmt: skip
    told, why = {}, ""
    for name, process in counting.items():
        said = process.communicate()[1]
        told[name] = counted(said.splitlines())
        if process.returncode != 0 or not told[name]:
            why = f"perf stat: {said.strip().splitlines()[-1:] or ['no counts']}"
    return told, why


def counted(lines: Iterable[str]) -> dict[str, list[float]]:
    """`perf stat -x, -I` as calls a second per window, of whole windows, by name. Pure."""
    windows: dict[str, dict[str, float]] = {}
    for line in lines:
        words = line.split(",")
        if len(words) > 3 and words[3].startswith(_SCALE_EVENT) and words[1].isdigit():
            windows.setdefault(words[0].strip(), {})[words[3].removeprefix(_SCALE_EVENT)] = (
                float(words[1]) / WINDOW_S
            )
    whole = list(windows.values())[1:-1]  # the first one holds attaching, the last is short
    names = sorted({name for window in whole for name, count in window.items() if count})
    return {name: [window.get(name, 0.0) for window in whole] for name in names}


def show(told: Mapping[str, Any], screen: Console) -> None:
    """Print what `measure` found."""
    made = table("steady state of each control loop", "loop", "ticks", "net blocks", "collections",
                 "page faults", "")  # fmt: skip
    for name, loop in told["loops"].items():
        made.add_row(
            name, str(loop["ticks"]), f"{loop['net_blocks']:+.0f}",
            f"{loop['collections']}{' (on)' if loop['collecting'] else ''}",
            f"{loop['minor_faults']} + {loop['major_faults']}",
            "[green]steady[/]" if loop["steady"] else "[red]NOT steady[/]",
        )  # fmt: skip
    screen.print(made)
    calls = table("system calls a tick: median (least..most over seconds)", "call", *told["loops"])
    for call in sorted({call for loop in told["loops"].values() for call in loop["calls"]}):
        calls.add_row(call, *(_spread(loop["calls"].get(call)) for loop in told["loops"].values()))
    sums = (sum(c["median"] for c in loop["calls"].values()) for loop in told["loops"].values())
    calls.add_row("[bold]all[/]", *(f"{found:.2f}" for found in sums))
    screen.print(calls)
    if told["calls_not_counted"]:
        screen.print(f"[bold red]! system calls: {told['calls_not_counted']}[/]")
    for name, settings in told["realtime"].items():
        asked = ", ".join(f"{setting}: {word}" for setting, word in settings.items())
        screen.print(f"real time, {name}: {asked or 'nothing asked for'}", soft_wrap=True)


def _spread(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    return f"{found['median']:.2f} ({found['least']:.2f}..{found['most']:.2f})"
