"""What a result of kind `policy` holds: its keys, and the figures whose spread is told."""

from collections.abc import Mapping

Kinds = type | tuple[type, ...]

KEYS: Mapping[str, Kinds] = {
    "scenario.latencies_ms": list,
    "scenario.horizon": int,
    "scenario.adapter": str,
    "startup.to_ready_s": float,
    "realtime": dict,
    "lateness": dict,
    "adapter": (dict, type(None)),
}
"""Beyond what every result holds: path -> type."""

RUN_KEYS: Mapping[str, Kinds] = {
    "uid": str,
    "observe": dict,
    "first_goal.periods": dict,
    "first_goal.before": dict,
    "interrupted.periods": dict,
    "frozen.late_periods": dict,
    "frozen.causes": dict,
    "tracking": dict,
    "reference.fastest_deg_s": float,
    "lateness": dict,
    "cpu.cores": dict,
    "cpu.absent_cores": dict,
    "memory.pss_bytes": dict,
    "streams": dict,
    "others_cores": float,
}
"""The same for each entry of `runs`."""

SUMMARY: Mapping[str, str] = {
    "first_goal.ms.p50": "ms",
    "first_goal.ms.p99": "ms",
    "first_goal.periods.p50": "periods",
    "first_goal.periods.p99": "periods",
    "first_goal.unseen": "chunks",
    "interrupted.last_goal_ms.max": "ms",
    "interrupted.heard_ms.max": "ms",
    "interrupted.periods.max": "periods",
    "frozen.last_goal_ms.p50": "ms",
    "frozen.last_goal_ms.max": "ms",
    "frozen.still_ms.max": "ms",
    "frozen.late_periods.max": "periods",
    "others_cores": "cores",
}
"""Figure of a run -> unit."""

GROUPS: Mapping[str, Mapping[str, str]] = {
    "observe": {
        "ms.p50": "ms",
        "ms.p90": "ms",
        "ms.p99": "ms",
        "floor_ms.p50": "ms",
        "floor_ms.p90": "ms",
        "floor_ms.p99": "ms",
        "ratio_p50": "floors",
        "ratio_p99": "floors",
        "picture_age_ms.p50": "ms",
        "bytes": "bytes",
    },
    "tracking": {
        "commanded_deg.rms": "deg",
        "commanded_deg.max": "deg",
        "reached_deg.rms": "deg",
        "reached_deg.max": "deg",
        "arrival_deg.rms": "deg",
        "held_share": "",
        "queue_empty": "times",
        "margin_ms.p50": "ms",
        "latency_ms.p50": "ms",
        "latency_ms.p99": "ms",
        "observed_age_ms.p50": "ms",
        "observed_age_ms.p99": "ms",
    },
    "lateness": {
        "with_lateness_us.p50": "us",
        "with_lateness_us.p99": "us",
        "with_lateness_us.p99_9": "us",
        "without_lateness_us.p50": "us",
        "without_lateness_us.p99": "us",
        "without_lateness_us.p99_9": "us",
        "ratio_p50": "",
        "ratio_p99": "",
        "ratio_p99_9": "",
    },
}
"""Group of a run -> figure of each of its items -> unit."""

PROCESSES: tuple[str, ...] = ("cpu.cores", "cpu.absent_cores")
"""Maps of a run from process to cores."""
