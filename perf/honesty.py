"""Do rows keep real time? The figures of a long run that say so, from stamps and servo poses.

Measured by the spine (spine.py); this only picks and prints: rows against rate x time, picture
against its tick, skew as it is and as the row claims it, over camera phases.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from recd.perf.figures import at_path
from recd.perf.report import table


@dataclass(frozen=True, slots=True)
class Line:
    """One camera of one run. Times in ms: p50, p99."""

    run: int
    camera: str
    phase: float | None
    picture_from_tick: tuple[float | None, float | None]
    true_skew: tuple[float | None, float | None]
    skew_off: tuple[float | None, float | None]


def lines(result: Mapping[str, Any]) -> Iterator[Line]:
    """Every camera of every run."""
    for number, run in enumerate(result["runs"], 1):
        for name, camera in run["cameras"].items():
            yield Line(
                number, name, at_path(camera, "times.phase"), _pair(camera, "times.from_row_ms"),
                _pair(camera, "skew.true_ms"), _pair(camera, "skew.error_ms"),
            )  # fmt: skip


def _pair(camera: Mapping[str, Any], path: str) -> tuple[float | None, float | None]:
    return at_path(camera, f"{path}.p50"), at_path(camera, f"{path}.p99")


def rows(result: Mapping[str, Any]) -> list[tuple[int, int]]:
    """(stored, expected) of every run."""
    return [(run["rows"]["stored"], run["rows"]["expected"]) for run in result["runs"]]


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print them."""
    for note in result["notes"]:
        console.print(f"[bold red]! {note}[/]")
    for number, (stored, expected) in enumerate(rows(result), 1):
        console.print(f"run {number}: {stored} rows of {expected}")
    made = table(
        "ms: p50 / p99", "run, camera", "phase", "picture from its tick", "skew to joints",
        "row's claim of the skew off by",
    )  # fmt: skip
    for line in lines(result):
        phase = "-" if line.phase is None else f"{line.phase:.2f}"
        made.add_row(
            f"{line.run} {line.camera}", phase, _told(line.picture_from_tick),
            _told(line.true_skew), _told(line.skew_off),
        )  # fmt: skip
    console.print(made)


def _told(pair: tuple[float | None, float | None]) -> str:
    return " / ".join("-" if value is None else f"{value:.2f}" for value in pair)
