"""`recctl top` as plain lines: what every process costs, how late it is, what it lost."""

from collections.abc import Mapping, Sequence
from typing import Any

from recd.clients.recctl.output import size, table

Told = Mapping[str, Any]


def costs(before: Told, now: Told, rings: Sequence[Told] = ()) -> dict[str, dict[str, Any]]:
    """Processes of the status `now`, each with `cpu_percent` since the status `before`, what it
    `lost` since its start (frames of cameras and encoders, control ticks of arms; None for others),
    and `ring_lag`: records of `rings` (as `shm` tells them) that it must keep and has yet to read,
    in the ring where that is most; None when it reads none."""
    passed_s = max(1e-9, (now["t_ns"] - before["t_ns"]) / 1e9)
    told, lost = {}, _lost_by_process(now)
    for name, process in now["processes"].items():
        was = before["processes"].get(name, {})
        percent = None
        if process["pid"] is not None and process["pid"] == was.get("pid"):
            used_s = process.get("cpu_s", 0) - was.get("cpu_s", 0)
            percent = 100 * used_s / passed_s
        lag = _ring_lag(rings, process["pid"])
        told[name] = {**process, "cpu_percent": percent, "lost": lost.get(name), "ring_lag": lag}
    return told


def _ring_lag(rings: Sequence[Told], pid: int | None) -> int | None:
    lags = [
        int(reader["lag"]) for ring in rings for reader in ring["readers"]
        if reader["pid"] == pid and reader["policy"] == "MUST_KEEP"
    ]  # fmt: skip
    return max(lags, default=None) if pid is not None else None


def _lost_by_process(now: Told) -> dict[str, int]:
    lost = {}
    for name, camera in now["cameras"].items():
        lost[f"camera:{name}"] = camera.get("device_lost", 0) + camera.get("corrupt", 0)
        lost[f"encoder:{name}"] = camera["encoder"].get("ring_lost", 0)
    for pair, arm in now["arms"].items():
        lost |= {
            f"arm:{pair}.{side}": arm[side].get("overruns", 0)
            for side in ("leader", "follower") if side in arm
        }  # fmt: skip
    return lost


SHARES = ("p50_ns", "p99_ns", "p999_ns")


def top(processes: Told) -> list[str]:
    """Processes as `costs` tells them: CPU, memory; lateness and work of the last seconds, or since
    their start where nothing newer is known; ring lag and losses."""
    rows = [
        (name, process["pid"], process["state"] or process["phase"],
         _fixed(process["cpu_percent"], 0), size(process.get("rss_bytes", 0)),
         _us(_newest(process, "lateness")), _us(_newest(process, "work")),
         _figure(process["ring_lag"]), _figure(process["lost"]), process["restarts"])
        for name, process in processes.items()
    ]  # fmt: skip
    head = ("process", "pid", "state", "CPU %", "memory", "late us", "work us", "lag", "lost",
            "restarts")  # fmt: skip
    return [
        *table(head, rows),
        "late, work: the last seconds, p50 / p99 / p99.9 in us; lag: records not read yet; lost, "
        "since start: frames, of arms ticks",
    ]


def _newest(process: Told, name: str) -> Told | None:
    recent: Told = process.get("recent", {}).get(name) or {}
    return recent if recent.get("count") else process.get(name)


def _figure(count: int | None) -> str:
    return "" if count is None else str(count)


def _us(histogram: Told | None) -> str:
    if not histogram or not histogram.get("count"):
        return ""
    return " / ".join(_fixed(histogram.get(share, 0) / 1000, 0) for share in SHARES)


def _fixed(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
