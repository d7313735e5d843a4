"""What each process of a daemon imports until it has saved an episode, and how long that takes.

The interpreter's own account (`-X importtime`) of the real processes, lazy imports included. Limit:
accounting makes each import slower, by a fifth or so; what a module's import loads is its own.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from recd.perf.probe_imports.sitecustomize import FOLDER
from recd.perf.report import table
from recd.perf.scenario import Scenario
from recd.perf.subject import running
from recd.perf.waits import episode
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns

PROBE = Path(__file__).with_name("probe_imports")

COMPILER = ("numba", "llvmlite")
"""Needed where kernels are compiled, once for each version; at run time by nobody: 60 MB and 0.4 s
a process."""

HEAVIEST = 4
SETTLE_S = 2.0

_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")


@dataclass(frozen=True, slots=True)
class Imports:
    """Of one process. modules: how many; ms: all of them; packages: first name -> ms, the longest
    first."""

    modules: int
    ms: float
    packages: Mapping[str, float]

    @property
    def compiler(self) -> list[str]:
        """Packages of the compiler that were imported."""
        return [name for name in COMPILER if name in self.packages]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def counted(lines: Iterable[str]) -> Imports:
    """What the interpreter told of a process's imports. Pure."""
    packages: dict[str, float] = {}
    modules = 0
    for line in lines:
        if found := _LINE.match(line):
            modules += 1
            package = found[2].partition(".")[0]
            packages[package] = packages.get(package, 0.0) + int(found[1]) / 1000.0
    ordered = dict(sorted(packages.items(), key=lambda one: -one[1]))
    return Imports(modules, sum(packages.values()), ordered)


def measure(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """Start a daemon, record one episode of `scenario.seconds`, read every process's imports."""
    told = folder / "imports"
    told.mkdir(parents=True)
    path = os.pathsep.join(filter(None, (str(PROBE), os.environ.get("PYTHONPATH"))))
    variables = {FOLDER: str(told), "PYTHONPATH": path, "PYTHONPROFILEIMPORTTIME": "1"}
    with running(scenario, folder, variables=variables) as subject:
        subject.arm()
        sleep_until_ns(now_ns() + round(SETTLE_S * NS_PER_S))
        episode(subject.client, scenario)
        found = {
            process.name: counted((told / str(process.pid)).read_text().splitlines())
            for process in subject.tree()
            if not process.simulated and (told / str(process.pid)).exists()
        }
    return {
        "start_up_s": subject.start_s,
        "processes": {name: one.plain() for name, one in sorted(found.items())},
        "compiler": sorted(name for name, one in found.items() if one.compiler),
    }


def show(told: Mapping[str, Any], console: Console) -> None:
    """Print what `measure` found."""
    made = table("imports of each process, one episode included", "process", "modules", "ms",
                 "most of it, ms")  # fmt: skip
    for name, one in told["processes"].items():
        most = list(one["packages"].items())[:HEAVIEST]
        made.add_row(name, str(one["modules"]), f"{one['ms']:.0f}",
                     ", ".join(f"{package} {ms:.0f}" for package, ms in most))  # fmt: skip
    console.print(made)
    for name in told["compiler"]:
        console.print(f"[bold red]! {name} imports the compiler ({', '.join(COMPILER)})[/]")
    console.print(f"start-up to READY with this accounting: {told['start_up_s']:.2f} s")
