"""Control loops as they ran: lateness and work from status cells, times from native-rate samples.

Status cells are read through the supervisor's own descriptors, so the daemon is not asked anything
while it is measured.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.errors import RecdError
from recd.config.streams import STATUS_COUNTER_NAMES, JointFlag
from recd.daemon.arms.loop import ROLE_PHASE
from recd.perf.figures import histogram_percentile, histogram_quantiles, quantiles
from recd.perf.floors import wire_us
from recd.shm import CellReader, Segment
from recd.shm.clock import NS_PER_MS, NS_PER_S, NS_PER_US

Counts = npt.NDArray[np.int64]

_MEMFD = "/memfd:recd:"
_OVERRUNS = STATUS_COUNTER_NAMES["arm"].index("overruns")


@dataclass(frozen=True, slots=True)
class LoopCounts:
    """Histograms (config/streams.py) and counters of one process until now."""

    lateness: Counts
    work: Counts
    progress: int
    overruns: int = 0


class StatusCells:
    """The status cells of a running daemon, by process name. Context manager."""

    def __init__(self, supervisor_pid: int, processes: Mapping[str, Any] | list[str]) -> None:
        """RecdError when a process has no cell that may be read."""
        found = segment_descriptors(supervisor_pid)
        self._segments: dict[str, Segment] = {}
        self._readers: dict[str, CellReader] = {}
        for process in processes:
            path = found.get(f"status.{process}")
            if path is None:
                raise RecdError(
                    f"no status cell of {process} among the descriptors of process "
                    f"{supervisor_pid}",
                    mend="Run the bench as the user that runs the daemon.",
                )
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._segments[process] = Segment.attach(fd, readonly=True)
            finally:
                os.close(fd)
            self._readers[process] = CellReader(self._segments[process])

    def __enter__(self) -> "StatusCells":
        return self

    def __exit__(self, *_: object) -> None:
        for segment in self._segments.values():
            segment.close()

    def read(self) -> dict[str, LoopCounts]:
        """Histograms of all processes now; those that never beat are left out."""
        told = {}
        for process, reader in self._readers.items():
            if (value := reader.read()) is not None:
                record = value[1]
                told[process] = LoopCounts(
                    record["lateness"].astype(np.int64),
                    record["work"].astype(np.int64),
                    int(record["progress"]),
                    int(record["counters"][_OVERRUNS]) if process.startswith("arm:") else 0,
                )
        return told


@contextmanager
def open_cell(supervisor_pid: int, name: str) -> Iterator[CellReader]:
    """A reader of one cell of a running daemon. RecdError when there is none."""
    path = segment_descriptors(supervisor_pid).get(name)
    if path is None:
        raise RecdError(f"no cell {name} among the descriptors of process {supervisor_pid}",
                        mend="Run the bench as the user that runs the daemon.")  # fmt: skip
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        segment = Segment.attach(fd, readonly=True)
    finally:
        os.close(fd)
    try:
        yield CellReader(segment)
    finally:
        segment.close()


def segment_descriptors(pid: int) -> dict[str, Path]:
    """Name of a piece of shared memory -> where the daemon of this pid holds it."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue  # closed meanwhile
        if target.startswith(_MEMFD):
            found[target.removeprefix(_MEMFD).removesuffix(" (deleted)")] = entry
    return found


def loop_between(before: LoopCounts | None, after: LoopCounts) -> dict[str, Any]:
    """Figures of one process between two readings: lateness and work in us, the histograms, and the
    ticks that it left out."""
    started = before is None or after.progress < before.progress
    lateness = after.lateness if started or before is None else after.lateness - before.lateness
    work = after.work if started or before is None else after.work - before.work
    return {
        "lateness_us": histogram_quantiles(lateness, scale=NS_PER_US),
        "work_us": histogram_quantiles(work, scale=NS_PER_US),
        "lateness_histogram": lateness.tolist(),
        "work_histogram": work.tolist(),
        "work_longest_us": (histogram_percentile(work, 1.0) or 0.0) / NS_PER_US,
        "skipped": after.overruns - (0 if started or before is None else before.overruns),
        "restarted": bool(started and before is not None),
    }


def sample_figures(
    samples: npt.NDArray[np.void], *, role: str, rate_hz: int, first_ns: int, last_ns: int
) -> dict[str, Any]:
    """What the samples of one bus say about its loop between two times (CLOCK_MONOTONIC).

    request_us: position request on the wire after the tick's time, exact; leader_to_goal_us: leader
    sample to goal on the wire; cycle_us: request on the wire until the line is free again; skipped:
    ticks that have no sample; skipped_by_bus: those after a tick whose replies came so late, or not
    at all, that no loop could have been in time; invalid: samples without every joint.
    """
    inside = samples[(samples["request_ns"] >= first_ns) & (samples["request_ns"] < last_ns)]
    period_ns = NS_PER_S // rate_hz
    phase_ns = round(ROLE_PHASE.get(role, 0.0) * period_ns)
    due_ns = phase_ns + inside["tick"] * NS_PER_S // rate_hz
    goal = inside[(inside["goal_written_ns"] > 0) & (inside["leader_ns"] > 0)]
    flags = inside["flags"]
    skipped = np.diff(inside["tick"], prepend=inside["tick"][:1] - 1)[1:] - 1
    span_ns = int(inside["request_ns"][-1] - inside["request_ns"][0]) if len(inside) > 1 else 0
    return {
        "samples": len(inside),
        "hz": (len(inside) - 1) * NS_PER_S / span_ns if span_ns else None,
        "skipped": int(skipped.sum()),
        "skipped_by_bus": int(skipped[_bus_late(inside, due_ns, period_ns)[:-1]].sum()),
        "invalid": int(((flags & (JointFlag.NO_REPLY | JointFlag.RESYNC)) != 0).sum()),
        "stale_leader": int(((flags & JointFlag.STALE_LEADER) != 0).sum()),
        "request_us": quantiles(inside["request_ns"] - due_ns, scale=NS_PER_US),
        "leader_to_goal_us": quantiles(
            goal["goal_written_ns"] - goal["leader_ns"], scale=NS_PER_US
        ),
        "cycle_us": quantiles(_cycles_ns(inside), scale=NS_PER_US),
        "read_us": quantiles(2 * inside["half_width_ns"], scale=NS_PER_US),
    }


BUS_ROOM_NS = NS_PER_MS // 2
"""Between a line that is free and the next tick, what a tick still has to do after its replies."""


def _bus_late(
    samples: npt.NDArray[np.void], due_ns: Counts, period_ns: int
) -> npt.NDArray[np.bool_]:
    """Ticks whose line was not free in time for the next one."""
    unanswered = (samples["flags"] & (JointFlag.NO_REPLY | JointFlag.RESYNC)) != 0
    free_ns = samples["request_ns"] + 2 * samples["half_width_ns"]
    return np.asarray(unanswered | (free_ns - due_ns > period_ns - BUS_ROOM_NS))


def _cycles_ns(samples: npt.NDArray[np.void]) -> Counts:
    """Time of each tick from its first byte handed to the bus until the line is free, goals and
    readings in whatever order; ticks without an answer of every joint are left out."""
    answered = samples[(samples["flags"] & (JointFlag.NO_REPLY | JointFlag.RESYNC)) == 0]
    request, goal = answered["request_ns"], answered["goal_written_ns"]
    last = request + 2 * answered["half_width_ns"]
    goals_ns = round((wire_us()["follower"] - wire_us()["leader"]) * NS_PER_US)
    first = np.where(goal > 0, np.minimum(request, goal), request)
    return np.asarray(np.maximum(last, np.where(goal > 0, goal + goals_ns, 0)) - first)
