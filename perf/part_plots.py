"""Plots of measurements of one part: recd beside lerobot, imports, the steady state of ticks.

Each draws one result on one matplotlib axes (plots.py).
"""

from collections.abc import Mapping
from typing import Any

from recd.perf.beside import COLUMNS, OURS, THEIRS
from recd.perf.figures import at_path, spread

_COLOURS = {OURS: "#4878a8", THEIRS: "#c8793c"}

BESIDE = ("percent_kept", "repeated", "stale_joints", "skew_ms.p99", "save_s", "start_s", "cores",
          "peak_pss_bytes", "written_bytes")  # fmt: skip
"""Lines of the table that are drawn, by their paths, left to right and down."""

_ACROSS = 3
_HEAVY_MS = 8.0
"""Packages that take less in every process are `others`."""


def beside(told: Mapping[str, Any], axes: Any) -> None:
    """A small panel for each figure, for each has its own unit: median, least and most over the
    pairs, of both recorders."""
    axes.set_axis_off()
    columns = [next(column for column in COLUMNS if column.path == path) for path in BESIDE]
    down = -(-len(columns) // _ACROSS)
    for number, column in enumerate(columns):
        left, top = number % _ACROSS / _ACROSS, 1 - number // _ACROSS / down
        panel = axes.inset_axes([left + 0.05, top - 1 / down + 0.09, 0.26, 1 / down - 0.17])
        for at, name in enumerate((OURS, THEIRS)):
            found = spread(at_path(pair[name], column.path) for pair in told["pairs"])
            if found is None:
                continue
            median, least, most = (
                value / column.scale for value in (found.median, found.least, found.most)
            )
            panel.barh([at], [median], xerr=[[median - least], [most - median]], capsize=2,
                       color=_COLOURS[name], ecolor="#333333")  # fmt: skip
            panel.annotate(f" {median:.{column.digits}f}", (most, at), va="center", fontsize=7)
        panel.set_yticks([0, 1], (OURS, THEIRS), fontsize=7)
        panel.invert_yaxis()
        panel.margins(x=0.3)
        panel.set_xlim(left=0)
        panel.tick_params(axis="x", labelsize=7)
        panel.set_title(column.label, fontsize=7, loc="left")


def imports(told: Mapping[str, Any], axes: Any) -> None:
    """Time that each process's imports take, by package."""
    processes = told["processes"]
    heavy = sorted({
        package
        for one in processes.values()
        for package, ms in one["packages"].items()
        if ms >= _HEAVY_MS
    })  # fmt: skip
    begun = [0.0] * len(processes)
    for package in (*heavy, "others"):
        widths = [
            one["ms"] - sum(one["packages"].get(name, 0.0) for name in heavy)
            if package == "others"
            else one["packages"].get(package, 0.0)
            for one in processes.values()
        ]
        colour = {"color": "#bbbbbb"} if package == "others" else {}
        axes.barh(list(processes), widths, left=begun, label=package, **colour)
        begun = [left + width for left, width in zip(begun, widths, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel="imports, ms (accounting itself included)")
    axes.legend(fontsize=7, ncols=2)


def ticks(told: Mapping[str, Any], axes: Any) -> None:
    """Blocks that each loop's process holds at each look, less those at the first."""
    for name, loop in told["loops"].items():
        blocks = loop["blocks"]
        axes.plot([count - blocks[0] for count in blocks], ".-", linewidth=0.9, label=name)
    axes.set(xlabel="look", ylabel="blocks of Python's allocator, change")
    axes.legend(fontsize=8)
