"""What durability costs: the same episodes with syncs and without, in turn, at one daemon.

Without syncs nothing is promised to be on the disk: that is for measuring alone. CPU is of all
processes of the daemon, simulated devices included, per second of recording.
"""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from recd.config.errors import RecdError
from recd.perf.storm.settings import PLAIN
from recd.perf.storm.shims import leave_out_syncs, may_preload, preloaded
from recd.perf.storm.subject import StormSubject
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns


def measure_durability(folder: Path, *, seconds: float, pairs: int) -> Iterator[str]:
    """Lines of the result. RecdError where nothing can be preloaded."""
    if why := may_preload():
        raise RecdError(f"durability: {why}", code="config")
    cpu: dict[bool, list[float]] = {True: [], False: []}
    durable: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory(prefix="recd-storm-") as base:
        subject = StormSubject(
            folder, Path(base), folder / "dataset", PLAIN, variables=preloaded(folder)
        )
        try:
            subject.start()
            subject.client.arm()
            _episode(subject, seconds)  # the first one warms up
            for pair in range(pairs):
                for synced in (True, False) if pair % 2 else (False, True):
                    leave_out_syncs(folder, out=not synced)
                    share, stop_ms = _episode(subject, seconds)
                    cpu[synced].append(share)
                    durable[synced].append(stop_ms)
            subject.end()
        finally:
            subject.destroy()
    for synced, name in ((True, "with syncs"), (False, "without")):
        yield f"{name}: CPU while recording, percent of a core: {_spread(cpu[synced])}"
        yield f"{name}: stop to durable, ms: {_spread(durable[synced])}"


def _episode(subject: StormSubject, seconds: float) -> tuple[float, float]:
    """CPU in percent of a core while recording; stop to durable in ms."""
    subject.client.start(task="measured")
    before, began_ns = _cpu_s(subject), now_ns()
    sleep_until_ns(began_ns + round(seconds * NS_PER_S))
    share = (_cpu_s(subject) - before) / ((now_ns() - began_ns) / NS_PER_S) * 100
    told = subject.client.stop()
    return share, float(told["durable_s"]) * 1000


def _cpu_s(subject: StormSubject) -> float:
    used = 0.0
    for process in subject.tree():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used += times.user + times.system
    return used


def _spread(values: Sequence[float]) -> str:
    middle = statistics.median(values)
    return f"median {middle:.0f} ({min(values):.0f} to {max(values):.0f}, {len(values)} episodes)"
