"""The floor: a loop that only wakes at absolute deadlines. No bus, no rings, nothing to do.

`python -m recd.perf.bare_loop JSON` in the class, core, period, phase and spin of a control loop;
prints one JSON line with its lateness. Whatever it is late, no control loop here can be better.
"""

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recd.config.streams import STATUS_DTYPE
from recd.daemon import realtime
from recd.daemon.arms.loop import Pacer
from recd.daemon.arms.tickcode import machine_code
from recd.perf.figures import buckets_of, histogram_quantiles, quantiles
from recd.shm.clock import NS_PER_US, tick_ns


@dataclass(frozen=True, slots=True)
class BareLoop:
    """One bare loop. priority: SCHED_FIFO, 0 none; cpus: affinity, () any; ticks: how many."""

    rate_hz: int
    phase_ns: int
    spin_ns: int
    priority: int
    cpus: tuple[int, ...]
    lock_memory: bool
    timer_slack_ns: int
    ticks: int


def run(loop: BareLoop) -> dict[str, Any]:
    """Wake `ticks` times by the control loops' own pacer; lateness of each (ns, CLOCK_MONOTONIC) as
    figures and histogram."""
    late_ns = np.zeros(loop.ticks, np.int64)
    report = realtime.apply(
        realtime.RealtimeRequest(
            priority=loop.priority,
            cpus=loop.cpus,
            lock_memory=loop.lock_memory,
            timer_slack_ns=loop.timer_slack_ns,
        )
    )
    realtime.freeze_garbage()
    pacer = Pacer(
        loop.rate_hz, phase_ns=loop.phase_ns, spin_ns=loop.spin_ns,
        status=np.zeros(1, STATUS_DTYPE)[0], code=machine_code(),
    )  # fmt: skip
    for number in range(loop.ticks):
        woke_ns = pacer.wait()
        late_ns[number] = woke_ns - tick_ns(loop.phase_ns, pacer.tick, loop.rate_hz)
    histogram = buckets_of(late_ns)
    return {
        "lateness_us": histogram_quantiles(histogram, scale=NS_PER_US),
        "exact_lateness_us": quantiles(late_ns, scale=NS_PER_US),
        "lateness_histogram": histogram.tolist(),
        "skipped": pacer.overruns,
        "realtime": dict(report.settings),
    }


def command(loop: BareLoop) -> list[str]:
    """Command line of a process that runs `loop`."""
    return [sys.executable, "-m", "recd.perf.bare_loop", json.dumps(asdict(loop))]


def main(argv: list[str]) -> int:
    """Entry of the process."""
    realtime.die_with_parent()
    fields = json.loads(argv[0])
    print(json.dumps(run(BareLoop(**{**fields, "cpus": tuple(fields["cpus"])}))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
