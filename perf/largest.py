"""The largest number of cameras that are still recorded whole: tried, not computed.

Doubles until a trial is not whole, then halves the gap. What decides is a trial; `recd_trial` and
`lerobot_trial` are two. Limit: one run each, so the border is known to one camera at best.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recd.config.errors import RecdError
from recd.perf import beside
from recd.perf.scenario import Scenario
from recd.perf.spine import Plan, measure

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Trial:
    """One number of cameras tried. whole: nothing was missing; told: in words."""

    cameras: int
    whole: bool
    told: str


def search(trial: Callable[[int], Trial], *, most: int, first: int = 1) -> list[Trial]:
    """Trials in their order. The largest whole one is the answer; none: not even one camera."""
    done: dict[int, Trial] = {}

    def tried(cameras: int) -> bool:
        if cameras not in done:
            done[cameras] = trial(cameras)
        return done[cameras].whole

    good, at = 0, min(first, most)
    while tried(at):
        good = at
        if at == most:
            return list(done.values())
        at = min(most, 2 * at)
    bad = at
    while bad - good > 1:
        middle = (good + bad) // 2
        if tried(middle):
            good = middle
        else:
            bad = middle
    return list(done.values())


def largest(trials: list[Trial]) -> int:
    """The most cameras of a whole trial; 0 when there was none."""
    return max((trial.cameras for trial in trials if trial.whole), default=0)


def recd_trial(scenario: Scenario, folder: Path, *, quiet_s: float, say: Say) -> Trial:
    """One run of recd with the scenario's cameras; a daemon that refuses them is not whole."""
    plan = Plan(replace(scenario, runs=1), folder, quiet_s=quiet_s, floor_pairs=0, floors=False)
    try:
        run: dict[str, Any] = measure(plan, say)["runs"][0]
    except RecdError as error:
        return Trial(scenario.cameras, False, error.message)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    cameras = run["cameras"].values()
    lost = sum(camera["lost"] for camera in cameras)
    beyond = sum(camera["beyond_drift"] for camera in cameras)
    kept = run["rows"]["percent_kept"]
    told = (
        f"{kept:.2f} % kept, {lost} lost, {beyond} beyond drift, "
        f"{run['cpu']['total_cores']:.2f} cores"
    )
    return Trial(scenario.cameras, kept >= 100.0 and lost == 0 and beyond == 0, told)


def lerobot_trial(scenario: Scenario, folder: Path) -> Trial:
    """One run of lerobot-record with the scenario's cameras."""
    try:
        run = beside.theirs(scenario, folder)
    except RecdError as error:
        return Trial(scenario.cameras, False, error.message)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if "error" in run:
        return Trial(scenario.cameras, False, run["error"])
    told = f"{run['percent_kept']:.2f} % kept, {run['repeated']} repeated, {run['cores']:.2f} cores"
    return Trial(scenario.cameras, run["percent_kept"] >= 100.0, told)
