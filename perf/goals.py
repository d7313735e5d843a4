"""What a control loop shall keep, and what it kept: goals as rows, by medians over the runs. Pure.

Limit: ratios to the bare loop need legs (`--floor-pairs`); a goal without a figure is told as such.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from recd.perf.figures import at_path

Result = Mapping[str, Any]

WORK_P99_US = 300.0
CYCLE_TO_WIRE = 1.2
LATENESS_P99, LATENESS_P99_9 = 1.5, 2.0


@dataclass(frozen=True, slots=True)
class Goal:
    """One row. found, limit: (result, loop) -> value, None when not measured or not meant."""

    label: str
    unit: str
    found: Callable[[Result, str], float | None]
    limit: Callable[[Result, str], float | None]


def _median(path: str) -> Callable[[Result, str], float | None]:
    def of(result: Result, loop: str) -> float | None:
        told = result["summary"].get(f"control.{loop}.{path}")
        return None if told is None else float(told["median"])

    return of


def _most(path: str) -> Callable[[Result, str], float | None]:
    def of(result: Result, loop: str) -> float | None:
        told = result["summary"].get(f"control.{loop}.{path}")
        return None if told is None else float(told["most"])

    return of


def _constant(value: float) -> Callable[[Result, str], float | None]:
    return lambda result, loop: value


def _to_bare(quantile: str) -> Callable[[Result, str], float | None]:
    def of(result: Result, loop: str) -> float | None:
        floor = at_path(result, "floor.processes") or {}
        value = floor.get(loop, {}).get(f"ratio_{quantile}")
        return None if value is None else float(value)

    return of


def _period_and_bus(result: Result, loop: str) -> float | None:
    wire = _median("wire_us")(result, loop)
    return None if wire is None else 1e6 / result["scenario"]["rate_hz"] + wire


def _cycle_limit(result: Result, loop: str) -> float | None:
    wire = _median("wire_us")(result, loop)
    return None if wire is None else CYCLE_TO_WIRE * wire


GOALS: tuple[Goal, ...] = (
    Goal("lateness p99 / bare loop's", "", _to_bare("p99"), _constant(LATENESS_P99)),
    Goal("lateness p99.9 / bare loop's", "", _to_bare("p99_9"), _constant(LATENESS_P99_9)),
    Goal("work p99, without wire time", "us", _median("work_us.p99"), _constant(WORK_P99_US)),
    Goal("leader to goal p99, a period + the bus", "us", _median("leader_to_goal_us.p99"),
         _period_and_bus),
    Goal("cycle p50, 1.2 x frames and adapter", "us", _median("cycle_us.p50"), _cycle_limit),
    Goal("ticks skipped, worst run", "", _most("skipped"), _constant(0)),
)  # fmt: skip
"""Work is known to half an octave, like lateness."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A goal of a run as a whole. path: of its figure in the run; most: as much is kept."""

    label: str
    path: str
    unit: str
    most: float

    def found(self, run: Mapping[str, Any]) -> float | None:
        """The figure; None when it was not measured."""
        value = at_path(run, self.path)
        return None if value is None else float(value)

    def missed(self, run: Mapping[str, Any]) -> bool:
        """True when it was measured and is too much."""
        found = self.found(run)
        return found is not None and found > self.most


def loops_of(result: Result) -> list[str]:
    """Names of the control loops of a result."""
    return list(dict.fromkeys(name for run in result["runs"] for name in run["control"]))


def judged(result: Result) -> list[tuple[str, Goal, float | None, float | None]]:
    """(loop, goal, found, limit) of every loop and goal that is meant for it."""
    rows = []
    for loop in loops_of(result):
        for goal in GOALS:
            found, limit = goal.found(result, loop), goal.limit(result, loop)
            if found is not None or not goal.label.startswith("leader"):
                rows.append((loop, goal, found, limit))
    return rows


def number(value: float | None, unit: str) -> str:
    """For people: whole in a unit, two digits for a ratio, `-` for nothing."""
    if value is None:
        return "-"
    return f"{value:.0f} {unit}" if unit else f"{value:.2f}".removesuffix(".00")
