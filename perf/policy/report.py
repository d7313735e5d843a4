"""A result of kind `policy` as tables for a terminal; every figure is the median over the runs."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from recd.perf.report import budget_table, computer_line, figure, table

_MB = 2.0**20


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print everything worth reading of one result."""
    console.print(_heading(result))
    for note in result["notes"]:
        console.print(f"[bold red]! {note}[/]")
    for made in (_observe(result), _reactions(result), _tracking(result), _lateness(result),
                 _costs(result), budget_table(result)):  # fmt: skip
        console.print(made)
    console.print(_words(result), soft_wrap=True)


def _heading(result: Mapping[str, Any]) -> str:
    scenario = result["scenario"]
    return computer_line(result) + (
        f"policies: {scenario['cameras']}x{scenario['width']}x{scenario['height']}"
        f"@{scenario['camera_fps']:g} JPEG, control {scenario['rate_hz']} Hz, chunks of "
        f"{scenario['horizon']} rows, {scenario['runs']} runs, {scenario['seconds']:g} s a stretch"
    )


def _medians(result: Mapping[str, Any], path: str, *names: str) -> str:
    """Medians of several quantiles of a figure."""
    found = (result["summary"].get(f"{path}.{name}") for name in names)
    return " / ".join("-" if one is None else f"{one['median']:.2f}" for one in found)


def _observe(result: Mapping[str, Any]) -> Table:
    made = table(
        "observation: request to complete reply, ms: p50 / p90 / p99", "transport", "recd",
        "plain zmq, same bytes", "ratio p50", "ratio p99", "kB", "oldest picture p50",
    )  # fmt: skip
    quantiles = ("p50", "p90", "p99")
    for name in result["runs"][0]["observe"]:
        path = f"observe.{name}"
        made.add_row(
            name, _medians(result, f"{path}.ms", *quantiles),
            _medians(result, f"{path}.floor_ms", *quantiles),
            figure(result, f"{path}.ratio_p50", digits=2),
            figure(result, f"{path}.ratio_p99", digits=2),
            figure(result, f"{path}.bytes", scale=1000.0),
            figure(result, f"{path}.picture_age_ms.p50"),
        )  # fmt: skip
    return made


REACTIONS = (
    ("chunk received to its first goal on the wire, ms: p50", "first_goal.ms.p50"),
    ("  p99", "first_goal.ms.p99"),
    ("  p99, control periods", "first_goal.periods.p99"),
    ("interrupted by a person to the policy's last goal, ms: worst",
     "interrupted.last_goal_ms.max"),
    ("  to the first tick that obeys, ms: worst", "interrupted.heard_ms.max"),
    ("last sign of life to the policy's last goal, ms: p50", "frozen.last_goal_ms.p50"),
    ("  worst", "frozen.last_goal_ms.max"),
    ("  beyond the heartbeat's limit, control periods: worst", "frozen.late_periods.max"),
    ("  to goals that stand still, ms: worst", "frozen.still_ms.max"),
)  # fmt: skip
"""The second table: label, figure of the summary."""


def _reactions(result: Mapping[str, Any]) -> Table:
    made = table("reactions", "", "median (least..most) of the runs")
    for label, path in REACTIONS:
        made.add_row(label, figure(result, path, digits=2))
    return made


def _tracking(result: Mapping[str, Any]) -> Table:
    made = table(
        "against the reference, degrees: root of mean square / largest", "inference", "goals",
        "arm", "played from arrival*", "queue empty", "held, %", "plan left, ms", "chunk after, ms",
    )  # fmt: skip
    for name in result["runs"][0]["tracking"]:
        path = f"tracking.{name}"
        held = figure(result, f"{path}.held_share", scale=0.01)
        made.add_row(
            f"{name} ms", _medians(result, f"{path}.commanded_deg", "rms", "max"),
            _medians(result, f"{path}.reached_deg", "rms", "max"),
            figure(result, f"{path}.arrival_deg.rms"),
            figure(result, f"{path}.queue_empty", digits=0), held,
            figure(result, f"{path}.margin_ms.p50", digits=0),
            figure(result, f"{path}.latency_ms.p50", digits=0),
        )  # fmt: skip
    return made


def _lateness(result: Mapping[str, Any]) -> Table:
    made = table(
        "control loops with and without a policy (A B A B), lateness in us: p50 / p99 / p99.9",
        "loop", "with", "without", "ratio", "p99, run by run", "without: most / least p99",
    )  # fmt: skip
    told = result["lateness"]
    for name, loop in told["processes"].items():
        ratios = " / ".join(_number(loop[f"ratio_{key}"]) for key in ("p50", "p99", "p99_9"))
        made.add_row(
            name, _loop(loop["with_lateness_us"]), _loop(loop["without_lateness_us"]), ratios,
            figure(result, f"lateness.{name}.ratio_p99", digits=2),
            _number(told["noise_p99"].get(name)),
        )  # fmt: skip
    return made


def _loop(figures: Mapping[str, Any]) -> str:
    return " / ".join(_number(figures[key], digits=0) for key in ("p50", "p99", "p99_9"))


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _costs(result: Mapping[str, Any]) -> Table:
    made = table("cores while recording", "process", "with a policy", "without", "PSS, MB")
    memory = result["runs"][0]["memory"]["pss_bytes"]
    for name in result["runs"][0]["cpu"]["cores"]:
        size = f"{memory[name] / _MB:.0f}" if name in memory else "-"
        made.add_row(name, figure(result, f"cpu.cores.{name}", digits=3),
                     figure(result, f"cpu.absent_cores.{name}", digits=3), size)  # fmt: skip
    if result["adapter"] is not None:
        for name, cores in result["adapter"]["unserved_cores"].items():
            driving = sorted(result["adapter"]["driving_cores"][name])
            made.add_row(
                f"{name}, {result['adapter']['type']} server",
                f"{driving[len(driving) // 2]:.3f}", f"{cores:.3f} (no server)", "-",
            )  # fmt: skip
    return made


def _words(result: Mapping[str, Any]) -> str:
    speed = result["runs"][0]["reference"]["fastest_deg_s"]
    return (
        f"The reference's fastest joint moves {speed:.0f} degrees a second. "
        "* the error had row k of the same chunks been played k steps after its arrival, as "
        "executors without target times do. Lateness is known to half an octave."
    )
