"""Rows of the three tables of an inference log, and the block at the terminal. Pure.

Times are UTC for people and ns of the daemon's clock for programs; positions in dataset units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.clients.observation import LoggedChunk, Observation
from recd.config.policy_wire import Representation, Status
from recd.shm.clock import NS_PER_MS, wall_iso

Row = list[Any]

STATE, INFERENCE, TRAJECTORY = "robot_state", "policy_inference", "trajectory"

READINGS = ("load", "temperature", "voltage")
STATISTICS = ("mean", "std", "min", "max")

_STATE_HEAD = ("time", "daemon_ns", "step", "motion", "cause", "connected")
_INFERENCE_HEAD = (
    "time", "daemon_ns", "number", "chunk", "observation", "inference_ms", "latency_ms", "status",
    "reason", "first_applied", "late", "clipped", "margin_ms", "policy", "holder", "task",
    "representation", "mode", "step_ms", "steps", "images",
)  # fmt: skip
_TRAJECTORY_HEAD = (
    "time", "daemon_ns", "number", "chunk", "row", "status", "applied", "representation",
    "episode", "episode_rows", "task",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Episode:
    """The one that is recorded meanwhile; empty when none is."""

    uid: str = ""
    rows: int | None = None
    task: str = ""


def columns(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Table -> its columns, for joints of these names."""
    bare = [name.removesuffix(".pos") for name in names]
    return {
        STATE: (*_STATE_HEAD, *names, *(f"{j}.{reading}" for reading in READINGS for j in bare)),
        INFERENCE: (
            *_INFERENCE_HEAD,
            *(f"input_{one}" for one in STATISTICS),
            *(f"output_{one}" for one in STATISTICS),
            *(f"input.{name}" for name in names),
            *(f"output.{name}" for name in names),
        ),
        TRAJECTORY: (*_TRAJECTORY_HEAD, *names, *(f"action.{name}" for name in names)),
    }


def state_row(seen: Observation | None, step: int, at_ns: int, wall_ns: int, width: int) -> Row:
    """What the arms are at; `connected` is 0 and the rest empty where nothing is known."""
    if seen is None:
        return [wall_iso(wall_ns), at_ns, step, "", "", 0, *[""] * (width * (1 + len(READINGS)))]
    motions = "|".join(arm.motion for arm in seen.arms.values())
    causes = "|".join(arm.cause for arm in seen.arms.values())
    nothing = np.full(width, np.nan)
    readings = [value for one in READINGS for value in seen.telemetry.get(one, nothing)]
    connected = int(bool(np.isfinite(seen.state).any()))
    return [wall_iso(wall_ns), at_ns, step, motions, causes, connected,
            *_numbers(seen.state), *_numbers(readings)]  # fmt: skip


def inference_row(chunk: LoggedChunk, wall_ns: int, width: int) -> Row:
    """One inference: what went in, what came out, how long it took, what became of it."""
    told, values = chunk.told, chunk.values
    first = values[0] if _fits(chunk, width) else np.full(width, np.nan)
    state = chunk.state if len(chunk.state) == width else np.full(width, np.nan)
    images = " ".join(f"{name}={form}" for name, form in told.get("inputs", {}).items())
    return [
        wall_iso(wall_ns), told["received"], chunk.number, told.get("chunk"), told.get("obs"),
        _ms(told.get("infer_ns")), _ms(told.get("latency_ns")), told["status"], told.get("reason"),
        told.get("first_applied"), told.get("late"), told.get("clipped"),
        _ms(told.get("margin_ns")), told.get("policy"), told.get("holder"), told.get("task"),
        told.get("rep") or Representation.ABSOLUTE, told.get("mode"), _ms(told.get("dt_ns")),
        len(values), images, *_numbers(statistics(state)), *_numbers(statistics(values)),
        *_numbers(state), *_numbers(first),
    ]  # fmt: skip


def trajectory_rows(
    chunk: LoggedChunk, episode: Episode, wall_ns: int, width: int
) -> list[Row]:  # fmt: skip
    """One row per step of a chunk: where it leads (empty for velocities), and the action as sent.

    wall_ns: wall time of the observation.
    """
    if not _fits(chunk, width):
        return []
    told = chunk.told
    t_ref_ns, first = int(told.get("t_ref") or 0), int(told.get("first_applied") or 0)
    played = told["status"] == Status.APPLIED
    places = waypoints(chunk)
    return [
        [
            wall_iso(wall_ns + offset), t_ref_ns + offset, chunk.number, told.get("chunk"), step,
            told["status"], int(played and step >= first),
            told.get("rep") or Representation.ABSOLUTE, episode.uid, episode.rows,
            told.get("task") or episode.task, *_numbers(places[step]),
            *_numbers(chunk.values[step]),
        ]
        for step, offset in enumerate(chunk.offsets_ns.tolist())
    ]  # fmt: skip


def waypoints(chunk: LoggedChunk) -> npt.NDArray[np.float32]:
    """float32 [T, D]: positions that the actions mean, NaN where they are velocities."""
    match chunk.told.get("rep") or Representation.ABSOLUTE:
        case Representation.ABSOLUTE:
            return chunk.values
        case Representation.RELATIVE if len(chunk.state):
            return chunk.values + chunk.state
        case Representation.DELTA if len(chunk.state):
            return np.cumsum(chunk.values, axis=0) + chunk.state
    return np.full_like(chunk.values, np.nan)


def statistics(values: npt.NDArray[Any]) -> tuple[float, ...]:
    """(mean, std, min, max) of the finite numbers, NaN where there is none."""
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known):
        return (np.nan,) * len(STATISTICS)
    return float(known.mean()), float(known.std()), float(known.min()), float(known.max())


def block(
    chunk: LoggedChunk, seen: Observation | None, names: Sequence[str], wall_ns: int
) -> list[str]:
    """What the terminal shows of one inference: servos, output, timing, task."""
    told = chunk.told
    head = f"step {chunk.number}  {wall_iso(wall_ns)[11:23]}  chunk {told.get('chunk')} " \
           f"{told['status']}"  # fmt: skip
    lines = [head + (f": {told['reason']}" if told.get("reason") else "")]
    if seen is not None:
        motions = ", ".join(f"{pair} {arm.motion}" for pair, arm in seen.arms.items())
        lines.append(f"  servos  {_listed(names, seen.state)}  ({motions})")
    if _fits(chunk, len(names)):
        figures = ", ".join(f"{name} {value:.2f}" for name, value in
                            zip(STATISTICS, statistics(chunk.values), strict=True))  # fmt: skip
        lines += [f"  output  {_listed(names, chunk.values[0])}",
                  f"          {len(chunk.values)} steps: {figures}"]  # fmt: skip
    timing = [f"{what} {value:.0f} ms" for what, value in (
        ("inference", _ms(told.get("infer_ns"))),
        ("observation to chunk", _ms(told.get("latency_ns")) or None),
        ("plan lasted", _ms(told.get("margin_ns"))),
    ) if value is not None]  # fmt: skip
    if told.get("late"):
        timing.append(f"{told['late']} rows late")
    return [*lines, f"  timing  {', '.join(timing)}", f"  task    {told.get('task') or '-'}"]


def _listed(names: Sequence[str], values: npt.NDArray[Any]) -> str:
    return "  ".join(
        f"{name.removesuffix('.pos')} {value:.1f}"
        for name, value in zip(names, values, strict=True)
    )


def _fits(chunk: LoggedChunk, width: int) -> bool:
    values = chunk.values
    return values.ndim == 2 and len(values) > 0 and values.shape[1] == width


def _ms(ns: Any) -> float | None:
    return None if ns is None else round(ns / NS_PER_MS, 3)


def _numbers(values: Any) -> Row:
    """Rounded to a ten-thousandth; empty where not known."""
    return [round(float(value), 4) if np.isfinite(value) else "" for value in values]


def told_facts(status: Mapping[str, Any]) -> Episode:
    """The running episode in a `plan.status` of the daemon."""
    episode = status.get("episode")
    if not episode:
        return Episode()
    return Episode(episode["uid"], episode.get("rows"), episode.get("task", ""))
