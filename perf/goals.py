"""What recd shall keep, and what it kept: goals as rows, of each control loop and of all. Pure.

Limit: ratios to the bare loop need legs (`--floor-pairs`); a goal without a figure is told as such.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from recd.perf.figures import at_path

Result = Mapping[str, Any]

WHOLE = "recd"
"""Stands for all of it, where a row of a control loop has the loop's name."""

START_MS, STOP_MS, START_FRAMES = 50.0, 100.0, 2.0
ARMED_S = 2.5
TWO_CAMERAS_MB = 400.0
WRITTEN_TO_DATASET = 1.1
PIPELINE_TO_FLOOR = 1.25
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


def _beyond_bare(result: Result, loop: str) -> float | None:
    """What the machine does to a loop that does nothing, it does to ours as well."""
    floor = (at_path(result, "floor.processes") or {}).get(loop, {})
    if "bare_skipped" not in floor:
        return None
    return float(max(0, sum(floor["ours_skipped"]) - sum(floor["bare_skipped"])))


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
    Goal("ticks skipped in all legs, beyond the bare loop's", "", _beyond_bare, _constant(0)),
)  # fmt: skip
"""Work is known to half an octave, like lateness."""


def _worst(path: str, *, scale: float = 1.0) -> Callable[[Result, str], float | None]:
    """Of the worst run."""

    def of(result: Result, _: str) -> float | None:
        told = result["summary"].get(path)
        return None if told is None else float(told["most"]) / scale

    return of


def _middle(path: str) -> Callable[[Result, str], float | None]:
    def of(result: Result, _: str) -> float | None:
        told = result["summary"].get(path)
        return None if told is None else float(told["median"])

    return of


def _rows_not_whole(result: Result, _: str) -> float | None:
    told = result["summary"].get("rows.percent_kept")
    return None if told is None else 100.0 - float(told["least"])


def _first_row_frames(result: Result, _: str) -> float | None:
    waited_ms = _worst("waits.start_to_row_time_ms")(result, _)
    return None if waited_ms is None else waited_ms * result["scenario"]["fps"] / 1e3


def _armed_s(result: Result, _: str) -> float | None:
    found = (result.get("startup") or {}).get("to_teleop_s")
    return None if found is None else float(found)


def _written_to_dataset(result: Result, _: str) -> float | None:
    """Bytes written for an episode by what it takes in the dataset's folder, side files included.
    None where legs recorded more episodes than the runs."""
    written, size = _middle("finish.episode_written_bytes")(result, _), result.get("dataset")
    if written is None or not size or result.get("floor"):
        return None
    return written * len(result["runs"]) / float(size["with_side_files_bytes"])


def _pss_limit(result: Result, _: str) -> float | None:
    scenario = result["scenario"]
    usual = (scenario["cameras"], scenario["width"], scenario["height"]) == (2, 640, 480)
    return TWO_CAMERAS_MB if usual else None


def _cores_limit(result: Result, _: str) -> float | None:
    """Of three 640x480@30 cameras: raw pictures with the quickest h264, and AV1."""
    scenario = result["scenario"]
    usual = [scenario[name] for name in ("cameras", "width", "height", "fps")] == [3, 640, 480, 30]
    codec = (scenario["vcodec"], scenario["preset"])
    if usual and codec == ("h264", "ultrafast") and scenario["pixels"] == "YUYV":
        return 0.55
    return 1.25 if usual and "av1" in codec[0] else None


WHOLES: tuple[Goal, ...] = (
    Goal("rows not whole, worst run", "%", _rows_not_whole, _constant(0)),
    Goal("start: reply, worst run", "ms", _worst("waits.start_reply_ms"), _constant(START_MS)),
    Goal("start: first row, frames, worst run", "", _first_row_frames, _constant(START_FRAMES)),
    Goal("stop to durable, worst run", "ms", _worst("waits.stop_to_durable_ms"),
         _constant(STOP_MS)),
    Goal("start-up to armed", "s", _armed_s, _constant(ARMED_S)),
    Goal("memory (PSS), worst run", "MB", _worst("memory.peak_pss_bytes", scale=1e6), _pss_limit),
    Goal("CPU", "cores", _middle("cpu.total_cores"), _cores_limit),
    Goal("pictures' CPU / floor's at their pace", "", _middle("against_floors.pictures_ratio"),
         _constant(PIPELINE_TO_FLOOR)),
    Goal("with statistics, verification / hot floor's", "",
         _middle("against_floors.pipeline_ratio"), _constant(PIPELINE_TO_FLOOR)),
    Goal("bytes written / dataset's", "", _written_to_dataset, _constant(WRITTEN_TO_DATASET)),
)  # fmt: skip
"""Of the whole; memory and CPU have a goal for the loads alone that they were given for."""


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
    """(WHOLE or loop, goal, found, limit) of every loop and goal that is meant for it."""
    rows: list[tuple[str, Goal, float | None, float | None]] = [
        (WHOLE, goal, goal.found(result, WHOLE), limit)
        for goal in WHOLES
        if (limit := goal.limit(result, WHOLE)) is not None
    ]
    for loop in loops_of(result):
        for goal in GOALS:
            found, limit = goal.found(result, loop), goal.limit(result, loop)
            if found is not None or not goal.label.startswith("leader"):
                rows.append((loop, goal, found, limit))
    return rows


def number(value: float | None, unit: str) -> str:
    """For people: whole in a small unit, two digits else, `-` for nothing."""
    if value is None:
        return "-"
    fine = f"{value:.2f}".removesuffix(".00")
    return f"{value:.0f} {unit}" if unit in ("us", "ms", "MB") else f"{fine} {unit}".rstrip()
