"""A bench's folder as one table: a line per cell, percent kept first."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from recd.perf.report import table

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


def _median(path: str, *, scale: float = 1.0, digits: int = 1) -> Callable[[Result], str]:
    def cell(result: Result) -> str:
        found = result["summary"].get(path)
        return "-" if found is None else f"{found['median'] / scale:.{digits}f}"

    return cell


def _most(key: str) -> Callable[[Result], str]:
    """Sum over the cameras, of the worst run: losses are not averaged away."""
    return lambda result: str(
        max(sum(camera[key] for camera in run["cameras"].values()) for run in result["runs"])
    )


def _skew(result: Result) -> str:
    """Of the worst camera, by its median over the runs."""
    medians = [told["median"] for key, told in result["summary"].items()
               if key.endswith("skew.error_ms.p99")]  # fmt: skip
    return f"{max(medians):.1f}" if medians else "-"


def _pictures(result: Result) -> str:
    alone = result["summary"].get("against_floors.pipeline_ms")
    if alone is not None and not result.get("floors"):
        return f"{alone['median']:.1f} (as sent)"
    spent, paced, hot = (
        result["summary"].get(f"against_floors.{key}")
        for key in ("pictures_ms", "pictures_ratio", "pipeline_ratio")
    )
    if spent is None or paced is None or hot is None:
        return "-"
    return f"{spent['median']:.1f} ({paced['median']:.2f}, {hot['median']:.2f})"


COLUMNS: tuple[tuple[str, Callable[[Result], str]], ...] = (
    ("kept\n%", _median("rows.percent_kept", digits=2)),
    ("drift\n+", _most("beyond_drift")),
    ("lost", _most("lost")),
    ("wrong", _most("unflagged")),
    ("late / bare\np99  p99.9", lambda r: f"{_ratio(r, 'p99')}  {_ratio(r, 'p99_9')}"),
    ("work\np99 us", _work),
    ("skew off\np99 ms", _skew),
    ("cores", _median("cpu.total_cores", digits=2)),
    ("ms / picture\n(/ floors)", _pictures),
    ("PSS\nMB", _median("memory.peak_pss_bytes", scale=2.0**20, digits=0)),
    ("stop\nms", _median("waits.stop_to_durable_ms", digits=0)),
)
"""Label and cell of each column, left to right. Counts are of the worst run, the rest medians."""


def cell_name(scenario: Mapping[str, Any]) -> str:
    """What a cell is, in a few words."""
    codec = " ".join(filter(None, (scenario["vcodec"], scenario["preset"])))
    pixels = scenario["pixels"].split()[0]
    load = scenario.get("load", "none")
    beside = "" if load == "none" else f", {load.replace('_', ' ')} busy"
    pairs = scenario.get("arm_pairs", 1)
    arms = f", {pairs} pairs" if pairs > 1 else ""
    return (
        f"{scenario['cameras']}x{scenario['width']}x{scenario['height']}"
        f"@{scenario['camera_fps']:g} {pixels}\n{codec}, {scenario['rate_hz']} Hz{arms}{beside}"
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
    made = table(
        "medians over the repeats; counts of the worst one; spreads: --each",
        "",
        *(name for name, _ in COLUMNS),
    )
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
