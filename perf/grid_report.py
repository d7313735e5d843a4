"""A bench's folder as one table: a line per cell, percent kept first."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from recd.perf.figures import at_path
from recd.perf.report import figure, sum_of, table, worst

Result = Mapping[str, Any]


def _ratio(result: Result, quantile: str) -> str:
    """Worst control loop against the bare loop."""
    processes = (result["floor"] or {}).get("processes", {}).values()
    known = [facts[f"ratio_{quantile}"] for facts in processes]
    known = [value for value in known if value is not None]
    return f"{max(known):.2f}" if known else "-"


def _work(result: Result) -> str:
    keys = [key for key in result["summary"] if key.endswith("work_us.p99")]
    return f"{max(result['summary'][key]['median'] for key in keys):.0f}" if keys else "-"


COLUMNS: tuple[tuple[str, Callable[[Result], str]], ...] = (
    ("kept, %", lambda r: figure(r, "rows.percent_kept", digits=2)),
    ("beyond\ndrift", lambda r: sum_of(r, "beyond_drift")),
    ("lost", lambda r: sum_of(r, "lost")),
    ("wrong", lambda r: sum_of(r, "unflagged")),
    ("late p99\n/ bare", lambda r: _ratio(r, "p99")),
    ("late p99.9\n/ bare", lambda r: _ratio(r, "p99_9")),
    ("work p99\nus", _work),
    ("skew off\np99, ms", lambda r: worst(r, "skew.error_ms.p99")),
    ("cores", lambda r: figure(r, "cpu.total_cores", digits=2)),
    ("CPU a picture\nms (/ floor)", lambda r: _pipeline(r)),
    ("PSS\nMB", lambda r: figure(r, "memory.peak_pss_bytes", scale=2.0**20, digits=0)),
    ("stop\nms", lambda r: figure(r, "waits.stop_to_durable_ms", digits=0)),
)
"""Label and cell of each column, left to right."""


def _pipeline(result: Result) -> str:
    told = at_path(result, "summary")
    spent, against = (told.get(f"against_floors.{key}") for key in
                      ("pipeline_ms", "pipeline_ratio"))  # fmt: skip
    if spent is None or against is None:
        return "-"
    return f"{spent['median']:.1f} ({against['median']:.2f})"


def cell_name(scenario: Mapping[str, Any]) -> str:
    """What a cell is, in a few words."""
    codec = " ".join(filter(None, (scenario["vcodec"], scenario["preset"])))
    pixels = "YUYV" if scenario["pixels"] == "YUYV" else "MJPEG"
    load = scenario.get("load", "none")
    beside = "" if load == "none" else f", {load.replace('_', ' ')} busy"
    return (
        f"{scenario['cameras']}x{scenario['width']}x{scenario['height']}"
        f"@{scenario['camera_fps']:g} {pixels}\n{codec}, {scenario['rate_hz']} Hz{beside}"
    )


def show(index: Mapping[str, Any], results: list[Mapping[str, Any]], console: Console) -> None:
    """Print the table of a bench, what failed, and what a reader must know."""
    machine, origin = index["machine"], index["origin"]
    console.print(
        f"\n[bold]grid {index['grid']}, recd {origin['recd']}[/] {origin['commit']} on "
        f"{machine['cpu']}, {machine['cores_allowed']} cores, Linux {machine['kernel']}"
    )
    if len(index["cells"]) < index["expected"]:
        console.print(f"[bold red]! {len(index['cells'])} of {index['expected']} cells ran[/]")
    made = table("median over the repeats (least..most)", "", *(name for name, _ in COLUMNS))
    for result in results:
        made.add_row(cell_name(result["scenario"]), *(cell(result) for _, cell in COLUMNS))
    console.print(made)
    for cell in index["cells"]:
        if cell["error"]:
            console.print(f"[bold red]! {cell['title']}: {cell['error']}[/]")
    for number, result in enumerate(results, 1):
        for row in result["budgets"]:
            if row["kept"] is False:
                found = f"{row['value']:.3g} {row['unit']}, limit {row['limit']:g}"
                console.print(f"[red]cell {number}: {row['subject']} {row['metric']} {found}[/]")
        for note in result["notes"]:
            console.print(f"[bold red]! cell {number}: {note}[/]")
