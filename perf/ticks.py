"""What one tick of each control loop asks of interpreter and kernel while a daemon records.

Blocks and collections by a signal to the real processes (probe/), page faults from /proc, system
calls one by one from the kernel's tracepoints through `perf` (as root), against tick_calls.py.
Limit: blocks are those of Python's allocator, to 512 bytes; larger ones show only as page faults.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from recd.config.errors import RecdError
from recd.perf import goals, tick_calls
from recd.perf.probe.sitecustomize import FOLDER
from recd.perf.report import kept_word, table
from recd.perf.scenario import Scenario
from recd.perf.subject import running
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

PROBE = Path(__file__).with_name("probe")

SETTLE_S = 15.0
"""After `start`: every path has been gone once, most combinations of flags have been seen."""

LOOKS = 8
LOOK_TIMEOUT_S = 5.0
DISCARD_TIMEOUT_S = 60.0
CUT_S = 0.2
"""Of the recorded calls, at both ends: tracepoints are switched on and off one after another."""

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
    that of the earlier; others: events between the first look and the last; calls: what
    `tick_calls.judge` says of them, None when they could not be counted."""

    ticks: int
    blocks: tuple[int, ...]
    net_blocks: float
    collections: int
    collecting: bool
    minor_faults: int
    major_faults: int
    calls: Mapping[str, Any] | None = None

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
        names, robot = subject.names(), subject.robot
        pids = {name: pid for name, pid in names.items() if name.startswith("arm:")}
        subject.client.start()
        sleep_until_ns(now_ns() + round(SETTLE_S * NS_PER_S))
        looks = _looks(pids, looks_folder, seconds=scenario.seconds)
        made, why = _calls(pids, folder, seconds=scenario.seconds)
        subject.client.call("discard", timeout_s=DISCARD_TIMEOUT_S)
        realtime = subject.realtime()
    told = {}
    for name in pids:
        bus = name.partition(":")[2]
        calls = None if name not in made else tick_calls.judge(
            tick_calls.split(made[name]), bus.partition(".")[2], tick_calls.doorbells(robot, bus),
            servos=len(robot.joints(bus.partition(".")[0])),
        )  # fmt: skip
        told[name] = steady_state(looks[name], rate_hz=scenario.rate_hz, calls=calls)
    return {"loops": {name: one.plain() for name, one in told.items()},
            "calls_not_counted": why, "realtime": realtime}  # fmt: skip


def steady_state(
    looks: Sequence[Look], *, rate_hz: int, calls: Mapping[str, Any] | None = None
) -> LoopTicks:
    """What the looks at one loop say, beside what was found of its calls. Pure."""
    first, last, half = looks[0], looks[-1], len(looks) // 2
    blocks = [look.blocks for look in looks]
    return LoopTicks(
        ticks=round((last.at_ns - first.at_ns) * rate_hz / NS_PER_S),
        blocks=tuple(blocks),
        net_blocks=float(np.median(blocks[half:]) - np.median(blocks[:half])),
        collections=last.collections - first.collections,
        collecting=last.collecting,
        minor_faults=last.minor - first.minor,
        major_faults=last.major - first.major,
        calls=calls,
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
    pids: Mapping[str, int], folder: Path, *, seconds: float
) -> tuple[dict[str, list[str]], str]:
    """(loop -> its system calls in their order, why they could not be recorded)."""
    tool = shutil.which("perf")
    if tool is None:
        return {}, "expected perf (package linux-perf or linux-tools), found none"
    if os.geteuid() != 0:
        return {}, "expected root: the kernel shows its tracepoints to nobody else"
    files = {name: folder / f"calls-{pid}.data" for name, pid in pids.items()}
    recording = {
        name: subprocess.Popen(
            [tool, "record", "-q", "-o", str(files[name]), "-e", f"{_SCALE_EVENT}*",
             "-p", str(pid), "--", "sleep", f"{seconds:g}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for name, pid in pids.items()
    }  # fmt: skip
    told, why = {}, ""
    for name, process in recording.items():
        said = process.communicate()[1]
        script = [tool, "script", "-i", str(files[name]), "-F", "time,event"]
        printed = subprocess.run(script, capture_output=True, text=True, check=False)
        told[name] = recorded(printed.stdout.splitlines())
        if process.returncode != 0 or not told[name]:
            del told[name]
            why = f"perf record: {(said or printed.stderr).strip().splitlines()[-1:] or 'no calls'}"
    return told, why


def recorded(lines: Iterable[str]) -> list[str]:
    """`perf script -F time,event` as names of calls in their order, without both ends. Pure."""
    calls = []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[1].startswith(_SCALE_EVENT):
            name = words[1].removeprefix(_SCALE_EVENT).rstrip(":")
            calls.append((float(words[0].rstrip(":")), name))
    if not calls:
        return []
    first, last = calls[0][0] + CUT_S, calls[-1][0] - CUT_S
    return [name for at_s, name in calls if first <= at_s <= last]


@dataclass(frozen=True, slots=True)
class Goal:
    """One row. found: of a loop's plain figures, None when not measured; most: as much is kept."""

    label: str
    unit: str
    found: Callable[[Mapping[str, Any]], float | None]
    most: float


def _of_calls(value: Callable[[Mapping[str, Any]], float]) -> Callable[..., float | None]:
    return lambda loop: None if loop["calls"] is None else value(loop["calls"])


GOALS: tuple[Goal, ...] = (
    Goal("net allocation, blocks", "", lambda loop: loop["net_blocks"], ALLOWED_BLOCKS),
    Goal("collections", "", lambda loop: loop["collections"] + loop["collecting"], 0),
    Goal("page faults", "", lambda loop: loop["minor_faults"] + loop["major_faults"], 0),
    Goal("system calls without a row in the list", "",
         _of_calls(lambda calls: sum(calls["unlisted"].values())), 0),
    Goal("ticks with other than the listed calls", "%",
         _of_calls(lambda calls: 100.0 - calls["listed_percent"]),
         tick_calls.MOST_OTHER_PERCENT),
)  # fmt: skip
"""Of each loop, in steady state."""


def judged(told: Mapping[str, Any]) -> list[tuple[str, Goal, float | None]]:
    """(loop, goal, found) of what `measure` tells."""
    return [(name, goal, goal.found(loop)) for name, loop in told["loops"].items()
            for goal in GOALS]  # fmt: skip


def kept(told: Mapping[str, Any]) -> bool:
    """True when no goal that was measured is missed."""
    return all(found is None or found <= goal.most for _, goal, found in judged(told))


def show(told: Mapping[str, Any], screen: Console) -> None:
    """Print what `measure` found."""
    made = table("steady state of each control loop", "loop", "goal", "found", "at most", "")
    for name, goal, found in judged(told):
        made.add_row(name, goal.label, goals.number(found, goal.unit),
                     goals.number(goal.most, goal.unit), kept_word(found, goal.most))  # fmt: skip
    screen.print(made)
    for name, loop in told["loops"].items():
        if loop["calls"] is not None:
            _show_calls(name, loop["calls"], screen)
    if told["calls_not_counted"]:
        screen.print(f"[bold red]! system calls: {told['calls_not_counted']}[/]")
    for name, settings in told["realtime"].items():
        asked = ", ".join(f"{setting}: {word}" for setting, word in settings.items())
        screen.print(f"real time, {name}: {asked or 'nothing asked for'}", soft_wrap=True)


def _show_calls(name: str, calls: Mapping[str, Any], screen: Console) -> None:
    """The list of a loop's calls, and what its ticks made beside it."""
    made = table(f"system calls of a tick of {name}, as listed", "call", "times", "why")
    for row in calls["list"]:
        made.add_row(row["name"], row["times"], row["why"])
    screen.print(made)
    pieces = ", ".join(f"{count} in {ticks}" for count, ticks in calls["pieces"].items())
    screen.print(
        f"{name}: {calls['listed_percent']:.2f} % of {calls['ticks']} ticks made exactly these; "
        f"pieces of replies in so many ticks: {pieces}",
        soft_wrap=True,
    )
    for difference, ticks in calls["others"].items():
        screen.print(f"  [yellow]{ticks} ticks: {difference}[/]")
    for call, count in calls["unlisted"].items():
        screen.print(f"  [bold red]! {call}: {count} times, and has no row in the list[/]")
