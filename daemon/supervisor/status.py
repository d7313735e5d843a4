"""`recctl status`: everything about the daemon as one map, from status cells and plain state.

Read only when asked; rates are measured between samples taken once a second.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.models import RobotConfig
from recd.config.streams import BUCKETS_PER_OCTAVE, STATUS_COUNTER_NAMES
from recd.daemon.supervisor.fleet import Fleet, Seat, trouble
from recd.shm.clock import NS_PER_MS, NS_PER_S

SAMPLE_NS = NS_PER_S

RATE_OF: Mapping[str, str] = {"camera": "frames", "arm": "ticks", "encoder": "rows"}
"""kind -> counter whose growth per second is the rate that an operator watches."""

Counts = npt.NDArray[np.uint32]

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class _Sample:
    at_ns: int
    count: int


@dataclass(frozen=True, slots=True)
class _Mark:
    """Histograms of one worker at one time, uint32 [64] each. started_ns: of its process."""

    started_ns: int
    lateness: Counts
    work: Counts


class Meters:
    """Rates and histograms of all workers, measured over the last second or two."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._samples: dict[str, _Sample] = {}
        self._rates: dict[str, float] = {}
        self._marks: dict[str, tuple[_Mark, _Mark]] = {}
        self._next_ns = 0

    def watch(self, now: int) -> None:
        """Take a sample when one is due."""
        if now < self._next_ns:
            return
        self._next_ns = now + SAMPLE_NS
        for name, seat in self._fleet.seats.items():
            counter = RATE_OF.get(seat.row.kind)
            record = self._fleet.status_record(name)
            if record is None:
                continue
            mark = _Mark(int(record["started_ns"]), record["lateness"].copy(),
                         record["work"].copy())  # fmt: skip
            self._marks[name] = (self._marks.get(name, (mark, mark))[1], mark)
            if counter is None:
                continue
            index = STATUS_COUNTER_NAMES[seat.row.kind].index(counter)
            sample = _Sample(int(record["beat_ns"]), int(record["counters"][index]))
            before = self._samples.get(name)
            self._samples[name] = sample
            if before is None or sample.count < before.count:
                continue
            span_ns = sample.at_ns - before.at_ns
            self._rates[name] = (
                (sample.count - before.count) * NS_PER_S / span_ns if span_ns > 0 else 0.0
            )

    def rate(self, process: str) -> float | None:
        """Per second; None before two samples."""
        return self._rates.get(process)

    def recent(self, process: str) -> dict[str, dict[str, int]]:
        """Percentiles of lateness and work of the last one to two seconds, as `histogram` has them;
        empty before the first sample and after a restart."""
        record, marks = self._fleet.status_record(process), self._marks.get(process)
        if record is None or marks is None or marks[0].started_ns != int(record["started_ns"]):
            return {}
        return {
            "lateness": histogram(record["lateness"] - marks[0].lateness),
            "work": histogram(record["work"] - marks[0].work),
        }


def counters(fleet: Fleet, process: str) -> dict[str, int]:
    """Named counters of a worker's status cell; empty before its first beat."""
    record = fleet.status_record(process)
    if record is None:
        return {}
    names = STATUS_COUNTER_NAMES.get(fleet.seats[process].row.kind, ())
    return {name: int(record["counters"][i]) for i, name in enumerate(names)}


def histogram(counts: Any) -> dict[str, int]:
    """Percentiles of a log2 histogram of a status cell, each the upper edge of its bucket, in ns.

    counts: uint32 [HISTOGRAM_BUCKETS] (config/streams.py).
    """
    total = int(counts.sum())
    if total == 0:
        return {"count": 0}
    upto = np.cumsum(counts, dtype=np.int64)

    def edge(share: float) -> int:
        bucket = int(np.searchsorted(upto, share * total))
        return int(2 ** ((bucket + 1) / BUCKETS_PER_OCTAVE))

    return {
        "count": total, "p50_ns": edge(0.5), "p99_ns": edge(0.99), "p999_ns": edge(0.999),
        "max_ns": edge(1.0),
    }  # fmt: skip


def _histograms(fleet: Fleet, process: str) -> dict[str, dict[str, int]]:
    record = fleet.status_record(process)
    if record is None:
        return {}
    return {name: histogram(record[name]) for name in ("lateness", "work", "lag")}


def describe_processes(fleet: Fleet, meters: Meters, now: int) -> dict[str, Any]:
    """process -> what it is doing, how long, how often restarted, what it costs."""
    return {
        name: {
            **_describe_seat(seat, now),
            **_histograms(fleet, name),
            "recent": meters.recent(name),
        }
        for name, seat in fleet.seats.items()
    }


def _describe_seat(seat: Seat, now: int) -> dict[str, Any]:
    pid = seat.pid
    cost = process_cost(pid) if pid is not None else {}
    return {
        "kind": seat.row.kind,
        "phase": seat.phase.value,
        "state": seat.state_word,
        "required": seat.row.required.value,
        "pid": pid,
        "uptime_s": (now - seat.started_ns) / NS_PER_S if pid else None,
        "restarts": seat.restarts,
        "beat_age_ms": (now - seat.beat_ns) / NS_PER_MS if pid and seat.beat_ns else None,
        "error": dict(trouble(seat)),
        "realtime": dict(seat.facts.get("realtime", {})),
        **cost,
    }


def process_cost(pid: int) -> dict[str, float]:
    """CPU seconds and resident bytes of one process; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            # The command name may hold spaces and brackets; everything after it is plain.
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return {}
    return {
        "cpu_s": (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS,
        "rss_bytes": int(fields[21]) * _PAGE,
    }


def describe_cameras(
    robot: RobotConfig, fleet: Fleet, meters: Meters, ages_ms: Mapping[str, float | None]
) -> dict[str, Any]:
    """camera -> state, rate, losses, age of its newest frame."""
    return {
        name: {
            "state": _state_of(fleet, f"camera:{name}"),
            "required": camera.required,
            "fps": meters.rate(f"camera:{name}"),
            "nominal_fps": camera.fps,
            "age_ms": ages_ms.get(name),
            **counters(fleet, f"camera:{name}"),
            "encoder": {
                "state": _state_of(fleet, f"encoder:{name}"),
                **counters(fleet, f"encoder:{name}"),
            },
        }
        for name, camera in robot.cameras.items()
    }


def describe_arms(
    robot: RobotConfig, fleet: Fleet, meters: Meters, motion: Mapping[str, Any]
) -> dict[str, Any]:
    """pair -> motion as its follower last said, and each bus with rate and counters."""
    described: dict[str, Any] = {}
    for bus in robot.buses():
        pair, _, side = bus.partition(".")
        entry = described.setdefault(pair, {"motion": dict(motion.get(pair, {}))})
        entry[side] = {
            "state": _state_of(fleet, f"arm:{bus}"),
            "hz": meters.rate(f"arm:{bus}"),
            "nominal_hz": robot.arms[pair].rate_hz,
            **counters(fleet, f"arm:{bus}"),
        }
    return described


def _state_of(fleet: Fleet, process: str) -> str:
    seat = fleet.seats.get(process)
    if seat is None:
        return "absent"
    return seat.state_word if seat.child is not None and seat.state_word else seat.phase.value
