"""Plots of a result, by its kind: histograms, costs, figures over time and size. PNG or SVG.

Needs matplotlib (`pip install 'recd[bench]'`); nothing else of perf/ does.
"""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recd.config.errors import RecdError
from recd.perf import growth, memory, part_plots, waits
from recd.perf.figures import bucket_edges
from recd.shm.clock import NS_PER_US

FORMATS = ("png", "svg")

_SIZE = (8.0, 4.5)
_HIGHEST_US = 2e5


def require_matplotlib() -> None:
    """RecdError that says how to get it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise RecdError(
            "expected matplotlib for plots, found none",
            mend="Run: pip install 'recd[bench]'", code="no_matplotlib",
        )  # fmt: skip


def draw(result: Mapping[str, Any], folder: Path, *, stem: str, form: str) -> list[Path]:
    """All plots of one result as `folder/STEM-what.FORM`. RecdError without matplotlib."""
    require_matplotlib()
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, plot in plots_of(result).items():
        figure, axes = pyplot.subplots(figsize=_SIZE, layout="constrained")
        plot(result, axes)
        axes.set_title(f"{name}: {_subject(result)}", fontsize=9, loc="left")
        path = folder / f"{stem}-{name}.{form}"
        figure.savefig(path, dpi=120)
        pyplot.close(figure)
        written.append(path)
    return written


def _subject(result: Mapping[str, Any]) -> str:
    scenario = result["scenario"]
    return (
        f"{scenario['cameras']}x{scenario['width']}x{scenario['height']}"
        f"@{scenario['camera_fps']:g} {scenario['pixels']}, {scenario['vcodec']}, "
        f"{scenario['rate_hz']} Hz, recd {result['origin']['commit'] or result['origin']['recd']}"
    )


def lateness(result: Mapping[str, Any], axes: Any) -> None:
    """Share of the ticks that were later than x: ours while recording, and the bare loops."""
    pooled: dict[str, Any] = {}
    for run in result["runs"]:
        for name, loop in run["control"].items():
            counts = np.asarray(loop.get("lateness_histogram", ()), np.int64)
            if len(counts):
                pooled[name] = pooled.get(name, 0) + counts
    for name, facts in ((result["floor"] or {}).get("processes") or {}).items():
        if "bare_histogram" in facts:
            pooled[f"bare loop beside {name}"] = np.asarray(facts["bare_histogram"], np.int64)
    for name, counts in pooled.items():
        edges_us = bucket_edges(len(counts))[1:] / NS_PER_US
        above = 1.0 - np.cumsum(counts) / max(1, counts.sum())
        line = "--" if name.startswith("bare") else "-"
        axes.step(edges_us, np.maximum(above, 1e-6), line, where="post", label=name)
    axes.set(xscale="log", yscale="log", xlim=(0.5, _HIGHEST_US), ylim=(1e-6, 1.1),
             xlabel="later than, us", ylabel="share of the ticks")  # fmt: skip
    _legend(axes)


def cpu(result: Mapping[str, Any], axes: Any) -> None:
    """Cores that each process took while recording: median, least and most over the runs."""
    names = list(result["runs"][0]["cpu"]["cores"])
    told = [result["summary"][f"cpu.cores.{name}"] for name in names]
    medians = np.array([one["median"] for one in told])
    off = np.array([[one["median"] - one["least"], one["most"] - one["median"]] for one in told]).T
    axes.barh(names, medians, xerr=off, color="#4878a8", ecolor="#333333", capsize=3)
    axes.invert_yaxis()
    axes.set(xlabel="cores while recording")


def latency(result: Mapping[str, Any], axes: Any) -> None:
    """Exposure to the packet in the file over the time of the first run, per camera."""
    for name, camera in result["runs"][0]["cameras"].items():
        line = camera.get("timeline", {"s": [], "latency_ms": []})
        axes.plot(line["s"], line["latency_ms"], linewidth=0.9, label=name)
    axes.set(xlabel="time in the episode, s", ylabel="exposure to file, ms")
    axes.set_ylim(bottom=0)
    _legend(axes)


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


Plot = Callable[[Mapping[str, Any], Any], None]

PLOTS: Mapping[str, Mapping[str, Plot]] = {
    "spine": {"lateness": lateness, "cpu": cpu, "latency": latency},
    "memory": {"memory": memory.plot},
    "waits": {"waits": waits.plot},
    "growth": {"growth": growth.plot},
    "beside": {"beside": part_plots.beside},
    "imports": {"imports": part_plots.imports},
    "ticks": {"ticks": part_plots.ticks},
}
"""Kind of a result -> name in the file's name -> what draws it."""


def plots_of(result: Mapping[str, Any]) -> Mapping[str, Plot]:
    """What can be drawn of a result. RecdError when nothing can."""
    found = PLOTS.get(str(result["kind"]))
    if found is None:
        raise RecdError(
            f"expected a result of kind {' or '.join(PLOTS)} to draw, found {result['kind']!r}",
            mend="Leave --plots out.",
        )
    return found
