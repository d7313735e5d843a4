"""The result file: one JSON document per bench, its keys as a table, its spread over the runs.

Limit: a reader needs the same version; figures of different versions are not compared silently.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recd.config.errors import RecdError
from recd.perf.figures import at_path, spread
from recd.perf.policy import shape as policy

RESULT_VERSION = 1

Kinds = type | tuple[type, ...]

KEYS: Mapping[str, Kinds] = {
    "format": int,
    "kind": str,
    "origin.recd": str,
    "origin.commit": str,
    "origin.made_at": str,
    "machine.cpu": str,
    "machine.cores": int,
    "machine.kernel": str,
    "machine.governor": str,
    "machine.memory_mb": int,
    "machine.python": str,
    "machine.libraries": dict,
    "scenario": dict,
    "silence.quiet": bool,
    "silence.load.busy_cores": float,
    "silence.load_average": list,
    "startup.to_ready_s": float,
    "realtime": dict,
    "startup.to_teleop_s": float,
    "runs": list,
    "summary": dict,
    "budgets": list,
    "notes": list,
}
"""Path in the document -> type; every one must be there, whatever the kind."""

SPINE_KEYS: Mapping[str, Kinds] = {"floor": (dict, type(None)), "dataset": dict}

RUN_KEYS: Mapping[str, Kinds] = {
    "uid": str,
    "rows.expected": int,
    "rows.stored": int,
    "rows.kept": int,
    "rows.percent_kept": float,
    "rows.joints_invalid": int,
    "rows.differences": list,
    "cameras": dict,
    "waits.start_reply_ms": float,
    "waits.start_to_first_row_ms": float,
    "waits.stop_to_durable_ms": float,
    "cpu.cores": dict,
    "cpu.total_cores": float,
    "cpu.simulator_cores": dict,
    "finish.cpu_s": float,
    "memory.peak_pss_bytes": int,
    "memory.peak_rss_bytes": int,
    "control": dict,
    "streams": dict,
    "verdict": str,
    "motion": str,
    "codec": dict,
    "others_cores": float,
}
"""The same for each entry of `runs` of a spine."""

CAMERA_KEYS: Mapping[str, Kinds] = {
    "fresh": int,
    "repeated": int,
    "expected_repeats": int,
    "skipped": int,
    "missing": int,
    "lost": int,
    "allowed_by_drift": int,
    "beyond_drift": int,
    "unflagged": int,
    "truth.wrong": int,
    "times.from_row_ms": dict,
    "times.claim_error_ms": dict,
    "times.phase": (float, type(None)),
    "skew.error_ms": dict,
    "skew.true_ms": dict,
}
"""The same for each camera of a run."""

SUMMARY: Mapping[str, str] = {
    "rows.percent_kept": "%",
    "rows.stored": "rows",
    "waits.start_reply_ms": "ms",
    "waits.start_to_row_time_ms": "ms",
    "waits.start_to_first_row_ms": "ms",
    "waits.stop_to_durable_ms": "ms",
    "cpu.total_cores": "cores",
    "cpu.total_cpu_s": "s",
    "finish.cpu_s": "s",
    "finish.episode_written_bytes": "bytes",
    "memory.peak_pss_bytes": "bytes",
    "memory.peak_rss_bytes": "bytes",
    "memory.peak_simulator_pss_bytes": "bytes",
    "others_cores": "cores",
    "against_floors.pipeline_ms": "ms",
    "against_floors.pipeline_ratio": "",
    "against_floors.pictures_ms": "ms",
    "against_floors.pictures_ratio": "",
    "against_floors.statistics_ms": "ms",
    "against_floors.all_ms": "ms",
}
"""Figures of a run whose spread over the runs is told, with their unit."""

CAMERA_SUMMARY: Mapping[str, str] = {
    "repeated": "rows",
    "expected_repeats": "rows",
    "skipped": "frames",
    "missing": "rows",
    "lost": "frames",
    "beyond_drift": "rows",
    "unflagged": "rows",
    "times.from_row_ms.p50": "ms",
    "times.from_row_ms.p99": "ms",
    "times.claim_error_ms.p50": "ms",
    "times.claim_error_ms.p99": "ms",
    "skew.true_ms.p50": "ms",
    "skew.true_ms.p99": "ms",
    "skew.error_ms.p50": "ms",
    "skew.error_ms.p99": "ms",
}
"""The same for each camera."""

LOOP_SUMMARY: Mapping[str, str] = {
    "hz": "Hz",
    "skipped": "ticks",
    "skipped_by_bus": "ticks",
    "work_longest_us": "us",
    "lateness_us.p50": "us",
    "lateness_us.p99": "us",
    "lateness_us.p99_9": "us",
    "work_us.p50": "us",
    "work_us.p99": "us",
    "work_us.p99_9": "us",
    "request_us.p99": "us",
    "wire_us": "us",
    "cycle_us.p50": "us",
    "cycle_us.p99": "us",
    "leader_to_goal_us.p50": "us",
    "leader_to_goal_us.p99": "us",
}
"""The same for each control loop."""


MEMORY_RUN_KEYS: Mapping[str, Kinds] = {
    "minutes": float,
    "planned_minutes": float,
    "warm_up_minutes": float,
    "episodes.saved": int,
    "episodes.failed": int,
    "stop_ms": list,
    "memory.peak_mb": float,
    "memory.peak_each_mb": dict,
    "slopes_mb.all": (dict, type(None)),
    "slopes_mb.each": dict,
    "slopes.descriptors": (dict, type(None)),
    "slopes.segments": (dict, type(None)),
    "looks": dict,
    "restarts": dict,
    "others_cores": float,
}
"""The run of a result of kind `memory`."""

MEMORY_SUMMARY: Mapping[str, str] = {
    "memory.peak_mb": "MB",
    "slopes_mb.all.slope": "MB/h",
    "slopes.descriptors.slope": "1/h",
    "slopes.segments.slope": "1/h",
    "others_cores": "cores",
}

WAITS_RUN_KEYS: Mapping[str, Kinds] = {
    "episodes": list,
    "start_reply_ms": dict,
    "first_row_periods": dict,
    "stop_to_durable_ms": dict,
}
"""The run of a result of kind `waits`; with a size, each of kind `growth` under `recd`."""

WAITS_SUMMARY: Mapping[str, str] = {
    "start_reply_ms.p99": "ms",
    "first_row_periods.max": "periods",
    "stop_to_durable_ms.p50": "ms",
    "stop_to_durable_ms.p99": "ms",
}

GROWTH_RUN_KEYS: Mapping[str, Kinds] = {
    "episodes_before": int,
    **{f"recd.{path}": kind for path, kind in WAITS_RUN_KEYS.items()},
    "recd.start_up_s": float,
    "recd.open_s": float,
    "recd.verify_s": float,
    "lerobot": (dict, type(None)),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a kind of result holds. keys: beyond KEYS; run_keys; item_keys: group of a run -> keys
    of each of its items; summary, groups: figures whose spread is told; processes: maps of a run
    from process to cores."""

    keys: Mapping[str, Kinds]
    run_keys: Mapping[str, Kinds]
    item_keys: Mapping[str, Mapping[str, Kinds]]
    summary: Mapping[str, str]
    groups: Mapping[str, Mapping[str, str]]
    processes: tuple[str, ...]


SHAPES: Mapping[str, Shape] = {
    "spine": Shape(
        SPINE_KEYS, RUN_KEYS, {"cameras": CAMERA_KEYS}, SUMMARY,
        {"cameras": CAMERA_SUMMARY, "control": LOOP_SUMMARY}, ("cpu.cores",),
    ),
    "policy": Shape(
        policy.KEYS, policy.RUN_KEYS, {}, policy.SUMMARY, policy.GROUPS, policy.PROCESSES
    ),
    "waits": Shape({}, WAITS_RUN_KEYS, {}, WAITS_SUMMARY, {}, ()),
    "growth": Shape({}, GROWTH_RUN_KEYS, {}, {}, {}, ()),
    "memory": Shape({}, MEMORY_RUN_KEYS, {}, MEMORY_SUMMARY, {}, ()),
}  # fmt: skip
"""Kind of a result -> what it holds."""


def problems(result: Any) -> list[str]:
    """What is wrong with a result document, as sentences; none when it is a whole one. Pure."""
    if not isinstance(result, Mapping):
        return [f"expected an object, found {type(result).__name__}"]
    kind = SHAPES.get(str(result.get("kind")))
    if kind is None:
        return [f"kind: expected {' or '.join(SHAPES)}, found {result.get('kind')!r}"]
    found = _missing(result, {**KEYS, **kind.keys}, "")
    if result.get("format") != RESULT_VERSION:
        found.append(f"format: expected {RESULT_VERSION}, found {result.get('format')!r}")
    for number, run in enumerate(result.get("runs") or []):
        found += _missing(run, kind.run_keys, f"runs[{number}].")
        for group, keys in kind.item_keys.items():
            for name, item in (run.get(group) or {}).items():
                found += _missing(item, keys, f"runs[{number}].{group}.{name}.")
    return found


def _missing(data: Any, keys: Mapping[str, type | tuple[type, ...]], above: str) -> list[str]:
    found = []
    for path, kind in keys.items():
        value = at_path(data, path)
        optional = isinstance(kind, tuple) and type(None) in kind
        if value is None and not (optional and _is_there(data, path)):
            found.append(f"{above}{path}: missing")
        elif not isinstance(value, (int, float) if kind is float else kind):
            found.append(f"{above}{path}: found {type(value).__name__}")
    return found


def _is_there(data: Any, path: str) -> bool:
    parent, _, key = path.rpartition(".")
    holder = at_path(data, parent) if parent else data
    return isinstance(holder, Mapping) and key in holder


def summary(runs: list[Mapping[str, Any]], kind: Shape = SHAPES["spine"]) -> dict[str, Any]:
    """Median, least and most over the runs of every figure in the tables of the kind. Pure."""
    told = {path: _spread_of(runs, path, unit) for path, unit in kind.summary.items()}
    for group, table in kind.groups.items():
        names = dict.fromkeys(name for run in runs for name in run[group])
        for name in names:
            each = [run[group][name] for run in runs if name in run[group]]
            for path, unit in table.items():
                told[f"{group}.{name}.{path}"] = _spread_of(each, path, unit)
    for path in kind.processes:
        each = [at_path(run, path) for run in runs]
        for process in dict.fromkeys(name for cores in each for name in cores):
            told[f"{path}.{process}"] = _plain([cores.get(process) for cores in each], "cores")
    return {path: figure for path, figure in told.items() if figure is not None}


def _spread_of(items: list[Any], path: str, unit: str) -> dict[str, Any] | None:
    return _plain([at_path(item, path) for item in items], unit)


def _plain(values: list[Any], unit: str) -> dict[str, Any] | None:
    found = spread(values)
    return None if found is None else {**found.plain(), "unit": unit}


def save(result: Mapping[str, Any], path: Path) -> Path:
    """Write a result; RecdError when it is not a whole one."""
    if wrong := problems(result):
        raise RecdError(f"{path}: not written: {'; '.join(wrong[:5])}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def load(path: Path) -> dict[str, Any]:
    """Read a result. RecdError when it cannot be read or is not a whole one."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RecdError(f"{path}: expected a result file, found: {error}") from error
    if wrong := problems(result):
        raise RecdError(f"{path}: expected a result file, found: {'; '.join(wrong[:5])}")
    return dict(result)
