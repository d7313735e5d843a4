"""Control loops against bare loops, run alternately (A B A B) under the same load.

In every leg the whole daemon records. In the A legs its own loops have the real-time priority they
were granted and are measured; in the B legs they go on one step lower, so that the load stays, and
bare loops of that priority, core, rate, phase and spin take their place and are measured.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from recd.config.errors import RecdError
from recd.config.models import RobotConfig
from recd.daemon.arms.loop import ROLE_PHASE
from recd.daemon.supervisor.processes import process_table
from recd.perf.bare_loop import BareLoop, command
from recd.perf.control import StatusCells, loop_between
from recd.perf.figures import QUANTILES, at_path, histogram_quantiles, ratio, spread
from recd.perf.subject import Subject
from recd.shm.clock import NS_PER_S, NS_PER_US, now_ns, sleep_until_ns

OURS, BARE = "ours", "bare"

BARE_START_NS = NS_PER_S
"""A bare loop's process has imported everything after this; both kinds of leg wait for it."""

RESOLUTION_US = 1.0
"""Lateness below this is the clock's own cost; ratios of it say nothing."""

_BARE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Leg:
    """One leg. kind: OURS or BARE; loops: arm process -> figures, histograms included."""

    kind: str
    loops: Mapping[str, Mapping[str, Any]]


def run_legs(subject: Subject, cells: StatusCells, *, pairs: int, seconds: float) -> list[Leg]:
    """`pairs` times an A and a B leg of `seconds` each; their episodes are thrown away.

    RecdError when an episode ended by itself: its leg had another load than the others.
    """
    legs = []
    for _ in range(pairs):
        for kind in (OURS, BARE):
            subject.client.start()
            measure = _ours if kind == OURS else _bare
            legs.append(Leg(kind, measure(subject, cells, seconds)))
            subject.client.discard()
    return legs


def _ours(subject: Subject, cells: StatusCells, seconds: float) -> dict[str, dict[str, Any]]:
    sleep_until_ns(now_ns() + BARE_START_NS)
    before = cells.read()
    sleep_until_ns(now_ns() + round(seconds * NS_PER_S))
    after = cells.read()
    return {process: loop_between(before.get(process), counts) for process, counts in after.items()}


def _bare(subject: Subject, cells: StatusCells, seconds: float) -> dict[str, dict[str, Any]]:
    del cells
    loops = bare_loops(subject.robot, seconds=seconds)
    names = subject.names()
    with _one_step_down([names[process] for process in loops]):
        running = {
            process: subprocess.Popen(command(loop), stdout=subprocess.PIPE, text=True)
            for process, loop in loops.items()
        }
        told = {}
        for process, popen in running.items():
            said, _ = popen.communicate(timeout=seconds + _BARE_TIMEOUT_S)
            if popen.returncode != 0:
                raise RecdError(f"the bare loop beside {process} ended with {popen.returncode}")
            told[process] = json.loads(said)
    return told


def bare_loops(robot: RobotConfig, *, seconds: float) -> dict[str, BareLoop]:
    """A bare loop for each arm process, asking for what that process asks for."""
    loops = {}
    spin_us = robot.realtime.spin_us if robot.realtime.enabled else 0
    for row in process_table(robot):
        if row.kind != "arm":
            continue
        rate_hz, wanted = int(row.config["rate_hz"]), row.realtime
        loops[row.name] = BareLoop(
            rate_hz=rate_hz,
            phase_ns=round(ROLE_PHASE[row.config["side"]] * (NS_PER_S // rate_hz)),
            spin_ns=spin_us * NS_PER_US,
            priority=int(wanted.get("priority", 0)),
            cpus=tuple(wanted.get("cpus", ())),
            lock_memory=bool(wanted.get("lock_memory", False)),
            timer_slack_ns=int(wanted.get("timer_slack_ns", 0)),
            ticks=round(rate_hz * seconds),
        )
    return loops


@contextmanager
def _one_step_down(pids: list[int]) -> Iterator[None]:
    """These real-time processes one priority lower for a while; ordinary ones stay as they are."""
    before = {pid: (os.sched_getscheduler(pid), os.sched_getparam(pid)) for pid in pids}
    ranked = {pid: was for pid, was in before.items() if was[1].sched_priority > 1}
    try:
        for pid, (policy, param) in ranked.items():
            os.sched_setscheduler(pid, policy, os.sched_param(param.sched_priority - 1))
        yield
    finally:
        for pid, (policy, param) in ranked.items():
            os.sched_setscheduler(pid, policy, param)


def compared(legs: list[Leg], kinds: tuple[str, str] = (OURS, BARE)) -> dict[str, Any]:
    """Figures of both kinds and their ratio per process, pooled over legs and leg by leg. Pure.

    legs: of the two kinds in turn; ratio: first / second kind of the pooled legs; ratio_spread: of
    each A with the B after it; skipped: ticks left out, of each leg.
    """
    processes = sorted({name for leg in legs for name in leg.loops})
    return {
        "legs": [
            {"kind": leg.kind, "loops": {n: _without_lists(leg.loops[n]) for n in leg.loops}}
            for leg in legs
        ],
        "processes": {name: _compare_one(legs, name, kinds) for name in processes},
    }


def _compare_one(legs: list[Leg], process: str, kinds: tuple[str, str]) -> dict[str, Any]:
    counts = {
        kind: np.sum([leg.loops[process]["lateness_histogram"] for leg in legs if leg.kind == kind],
                     axis=0)
        for kind in kinds
    }  # fmt: skip
    pooled = {kind: histogram_quantiles(of_kind, scale=NS_PER_US)
              for kind, of_kind in counts.items()}  # fmt: skip
    told: dict[str, Any] = {f"{kind}_lateness_us": figures for kind, figures in pooled.items()}
    told |= {f"{kind}_histogram": of_kind.tolist() for kind, of_kind in counts.items()}
    told |= {
        f"{kind}_skipped": [leg.loops[process]["skipped"] for leg in legs if leg.kind == kind]
        for kind in kinds
    }
    for name in QUANTILES:
        path = f"lateness_us.{name}"
        each = [
            ratio(
                at_path(one.loops[process], path),
                at_path(other.loops[process], path),
                least=RESOLUTION_US,
            )
            for one, other in zip(legs[::2], legs[1::2], strict=True)
        ]
        found = spread(each)
        first, second = (pooled[kind][name] for kind in kinds)
        told[f"ratio_{name}"] = ratio(first, second, least=RESOLUTION_US)
        told[f"ratio_{name}_spread"] = found.plain() if found else None
    return told


def _without_lists(loop: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in loop.items() if not isinstance(value, list)}
