"""What a picture costs that is recorded as its camera sends it: no decode, no encode, no floor.

Rows that are encoded all the same (the first ones, repeats) are part of it. Pure.
"""

from collections.abc import Mapping
from typing import Any

CAPTURING = ("camera", "encoder")
"""Kinds of processes that a picture goes through."""


def costs(run: Mapping[str, Any]) -> dict[str, float]:
    """CPU a stored picture of one run, ms, by the names of `floors.ratios`, without any ratio.

    pipeline_ms: processes of cameras and encoders, and all that was left after the end; all_ms: all
    of recd.
    """
    cores = run["cpu"]["cores"]
    capturing_s = run["cpu"]["span_s"] * sum(
        share for name, share in cores.items() if name.partition(":")[0] in CAPTURING
    )
    each = _ms_per_picture(run)
    return {
        "pipeline_ms": capturing_s * each + finish_ms(run),
        "all_ms": run["cpu"]["total_cpu_s"] * each + finish_ms(run),
    }


def finish_ms(run: Mapping[str, Any]) -> float:
    """CPU a stored picture that was left after the end, ms."""
    return float(run["finish"]["cpu_s"]) * _ms_per_picture(run)


def _ms_per_picture(run: Mapping[str, Any]) -> float:
    """What a second of one run is for each of its stored pictures."""
    return 1000.0 / max(1, sum(camera["truth"]["pictures"] for camera in run["cameras"].values()))


def line(result: Mapping[str, Any]) -> str | None:
    """For people; None for a result that has a floor, or no cost."""
    told = result["summary"].get("against_floors.pipeline_ms")
    if result.get("floors") or told is None:
        return None
    everything = result["summary"]["against_floors.all_ms"]["median"]
    return (
        f"pictures as their camera sends them: {told['median']:.2f} ms of CPU each, all of recd "
        f"{everything:.2f} ms; no floor: nothing has to be decoded or encoded"
    )
