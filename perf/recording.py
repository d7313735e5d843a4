"""One measured recording: start at a chosen camera phase, watch it, stop, and account for it.

Watching must not disturb: between start and stop only the kernel's files are read, memory a few
times a run, and the simulator's pose file is copied.
"""

from dataclasses import dataclass
from typing import Any

from recd.perf import costs
from recd.perf.control import LoopCounts, StatusCells
from recd.perf.quiet import CpuClock, Load
from recd.perf.skew import PoseTrack
from recd.perf.subject import Subject
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

MEMORY_LOOKS = 5
"""Times the memory of all processes is read in a run; each costs about 10 ms on one core."""

AFTERMATH_NS = 2 * NS_PER_S
"""After the episode is durable, work that was left for later is charged to it: at least for so
long, and until every picture of it was decoded once."""

_STEP_NS = 500 * NS_PER_MS


@dataclass(frozen=True, slots=True)
class Waits:
    """Times of one recording, CLOCK_MONOTONIC ns. asked: start called; replied: its reply; t0: row
    0; stopping: stop called; durable: its reply."""

    asked_ns: int
    replied_ns: int
    t0_ns: int
    stopping_ns: int
    durable_ns: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recording and all that was read beside it. saved: what `stop` replied; motion: states of
    the arms afterwards."""

    uid: str
    saved: dict[str, Any]
    waits: Waits
    recording: costs.Use
    finishing: costs.Use
    memory: dict[str, Any]
    loops_before: dict[str, LoopCounts]
    loops_after: dict[str, LoopCounts]
    losses: dict[str, int]
    load: Load
    idle_cores: float
    motion: str


def record(
    subject: Subject, cells: StatusCells, *, seconds: float, row_period_ns: int, start_at_ns: int,
    track: PoseTrack, idle_cores: float,
) -> Recorded:  # fmt: skip
    """Record one episode of `seconds`, begun at `start_at_ns` (CLOCK_MONOTONIC).

    idle_cores: what the daemon uses while it does not record, taken off the aftermath.
    """
    tree = subject.tree()
    lost_before = subject.losses()
    track.keep(at_once=True)
    sleep_until_ns(start_at_ns)
    machine, loops = CpuClock.read(), cells.read()
    before = costs.read_ledger(tree)
    asked = now_ns()
    started = subject.client.start()
    replied = now_ns()
    t0_ns = int(started["t0_ns"])
    # The last row is the one before the stop: ask between it and the next.
    stop_at_ns = t0_ns + round(seconds * NS_PER_S) - row_period_ns // 2
    memory = _watch(tree, track, until_ns=stop_at_ns)
    at_stop, loops_after = costs.read_ledger(tree), cells.read()
    load = CpuClock.read().since(machine)
    stopping = now_ns()
    saved = subject.client.stop()
    durable = now_ns()
    track.keep(at_once=True)
    sleep_until_ns(durable + AFTERMATH_NS)
    subject.await_decoded()
    after = costs.read_ledger(subject.tree())
    lost_after = subject.losses()
    memory.append(costs.read_memory(subject.tree()))
    return Recorded(
        uid=str(started["uid"]),
        saved=saved,
        waits=Waits(asked, replied, t0_ns, stopping, durable),
        recording=costs.used_between(before, at_stop),
        finishing=costs.used_between(at_stop, after),
        memory=costs.peak_memory(memory),
        loops_before=loops,
        loops_after=loops_after,
        losses={ring: lost - lost_before.get(ring, 0) for ring, lost in lost_after.items()},
        load=load,
        idle_cores=idle_cores,
        motion=subject.motion(),
    )


def _watch(
    tree: list[costs.Process], track: PoseTrack, *, until_ns: int
) -> list[list[costs.Memory]]:
    """Memory samples, evenly over the time left; poses kept all along."""
    every_ns = max(1, (until_ns - now_ns()) // MEMORY_LOOKS)
    due_ns = now_ns() + every_ns // 2
    samples = []
    while (now := now_ns()) < until_ns:
        track.keep()
        if now >= due_ns:
            samples.append(costs.read_memory(tree))
            due_ns += every_ns
        sleep_until_ns(min(until_ns, now_ns() + _STEP_NS, max(due_ns, now_ns())))
    return samples


def idle_cores(subject: Subject, *, seconds: float) -> float:
    """Cores that the daemon uses while it is READY and its arms follow."""
    tree = subject.tree()
    before = costs.read_ledger(tree)
    sleep_until_ns(now_ns() + round(seconds * NS_PER_S))
    used = costs.used_between(before, costs.read_ledger(tree))
    return sum(used.cpu_s.values()) / used.span_s


def phased_start_ns(reference_ns: int, period_ns: int, share: float) -> int:
    """The next time, a tenth of a second from now or more, that lies `share` of a period after
    `reference_ns` and whole periods."""
    earliest = now_ns() + 100 * NS_PER_MS
    offset = round(share * period_ns)
    periods = -(-(earliest - reference_ns - offset) // period_ns)
    return reference_ns + offset + periods * period_ns
