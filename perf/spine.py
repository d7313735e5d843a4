"""The spine measured: a real daemon records several times, at several camera phases, then a floor.

Nothing is judged while it is measured; figures come from what was stored and counted. What fails in
the middle leaves the folder with dataset and log where it is.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recd.config.errors import RecdError
from recd.daemon.doctor.disk import existing
from recd.perf import budgets, floor, floors, load, pass_through, result
from recd.perf.carried import require_encoder
from recd.perf.control import StatusCells
from recd.perf.episode import disk_bytes
from recd.perf.machine import fingerprint, origin
from recd.perf.quiet import Silence, wait_for_quiet
from recd.perf.recording import Recorded, idle_cores, phased_start_ns, record
from recd.perf.run_result import run_result
from recd.perf.scenario import Scenario, is_base
from recd.perf.skew import PoseTrack
from recd.perf.subject import Subject, running
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns

SETTLE_S = 6.0
"""Arms glide in within one second; the first heartbeats and imports are over."""

IDLE_S = 3.0

FOLLOWING = "TELEOP"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a scenario is measured. quiet_s: patience for a quiet machine; floor_pairs: times A B,
    0 none; floor_s: of each leg; floors: also measure what the work costs without recd."""

    scenario: Scenario
    directory: Path
    quiet_s: float = 60.0
    floor_pairs: int = 2
    floor_s: float = 15.0
    floors: bool = True


@dataclass(frozen=True, slots=True)
class Measured:
    """All that has to happen while the daemon runs."""

    startup: Mapping[str, float]
    recorded: list[Recorded]
    legs: list[floor.Leg]
    subjects: tuple[str, ...]
    realtime: Mapping[str, Mapping[str, str]]
    failures: list[str]


def measure(plan: Plan, say: Say) -> dict[str, Any]:
    """Run everything and return the result document (result.KEYS).

    ConfigError when a process or stream of this scenario has no budget row; RecdError with the
    daemon's last words when it fails.
    """
    scenario = plan.scenario
    rows = budgets.load_budgets()
    plan.directory.mkdir(parents=True, exist_ok=True)
    require_space(plan)
    require_encoder(scenario)
    say(scenario.title())
    silence = wait_for_quiet(plan.quiet_s)
    say(silence.sentence())
    with running(scenario, plan.directory) as subject:
        budgets.require_complete(subject.robot, rows)
        track = PoseTrack(subject.pose_path, plan.directory / "poses")
        measured = _while_running(plan, subject, track, say)
        robot, root = subject.robot, subject.root
    say("decoding every stored picture and reading its stamp ...")
    poses = track.poses()
    runs = [
        run_result(recorded, scenario, robot, poses=poses, root=root)
        for recorded in measured.recorded
    ]
    found = _floors(plan, say) if plan.floors and not scenario.as_sent else None
    for run in runs:
        if found is not None:
            run["against_floors"] = floors.ratios(run, found)
        elif scenario.as_sent:
            run["against_floors"] = pass_through.costs(run)
    return _document(plan, silence, measured, runs, rows, root) | {"floors": found}


def _floors(plan: Plan, say: Say) -> dict[str, Any]:
    say("floors: copying, decoding and encoding the same pictures without recd, disk ...")
    with load.running(plan.scenario.load, plan.directory):
        return floors.measure(plan.scenario, plan.directory)


BYTES_PER_PIXEL = 0.12
"""Of a stored picture, at the most: h264 with a key frame in two takes 0.06 [1280x720, crf 30]."""

SPARE_BYTES = 1 << 30
"""Left free beside what is recorded: the daemon's own reserve, logs, poses."""


def require_space(plan: Plan) -> None:
    """RecdError when the file system below the plan's directory has too little room."""
    scenario = plan.scenario
    seconds = scenario.seconds * scenario.runs + 2 * plan.floor_pairs * (plan.floor_s + 2)
    pixels = scenario.width * scenario.height * scenario.cameras * scenario.fps * seconds
    needed = round(pixels * BYTES_PER_PIXEL) + SPARE_BYTES
    free = shutil.disk_usage(existing(plan.directory)).free
    if free < needed:
        raise RecdError(
            f"{plan.directory}: expected {needed / 1e9:.1f} GB free, found {free / 1e9:.1f} GB",
            mend="Free some, or name another folder with --directory.", code="disk_full",
        )  # fmt: skip


def _while_running(plan: Plan, subject: Subject, track: PoseTrack, say: Say) -> Measured:
    scenario = plan.scenario
    say(f"daemon ready after {subject.start_s:.1f} s")
    armed_s = subject.arm()
    startup = {"to_ready_s": subject.start_s, "to_teleop_s": subject.start_s + armed_s}
    sleep_until_ns(now_ns() + round(SETTLE_S * NS_PER_S))
    idle = idle_cores(subject, seconds=IDLE_S)
    arms = [f"arm:{bus}" for bus in subject.robot.buses()]
    failures: list[str] = []
    legs: list[floor.Leg] = []
    # The load begins after the start: what a loaded machine costs the start is another question.
    with (
        load.running(scenario.load, plan.directory),
        StatusCells(subject.pid, arms) as cells,
    ):
        recorded = _runs(scenario, subject, cells, track, idle=idle, failures=failures, say=say)
        if plan.floor_pairs and not failures:
            times = f"{plan.floor_pairs} x (A, B) of {plan.floor_s:g} s"
            say(f"control loop against a bare loop: {times}")
            try:
                legs = floor.run_legs(subject, cells, pairs=plan.floor_pairs, seconds=plan.floor_s)
            except RecdError as error:
                failures.append(f"no floor: {error.message}")
    subjects = budgets.subjects_of(subject.robot)
    return Measured(startup, recorded, legs, subjects, subject.realtime(), failures)


def _runs(
    scenario: Scenario, subject: Subject, cells: StatusCells, track: PoseTrack, *, idle: float,
    failures: list[str], say: Say,
) -> list[Recorded]:  # fmt: skip
    """All runs, or those before the first that failed; `failures` then says why.

    RecdError when not even one could be recorded.
    """
    recorded: list[Recorded] = []
    for number in range(scenario.runs):
        share = number / scenario.runs
        say(f"run {number + 1} of {scenario.runs}: {scenario.seconds:g} s, phase +{share:.2f}")
        reference = recorded[0].waits.asked_ns if recorded else now_ns()
        at = phased_start_ns(reference, scenario.camera_period_ns, share)
        try:
            recorded.append(
                record(
                    subject, cells, seconds=scenario.seconds,
                    row_period_ns=scenario.row_period_ns, start_at_ns=at, track=track,
                    idle_cores=idle,
                )
            )  # fmt: skip
        except RecdError as error:
            if not recorded:
                raise
            failures.append(f"run {number + 1} and later ones are missing: {error.message}")
            break
    return recorded


def _document(
    plan: Plan, silence: Silence, measured: Measured, runs: list[dict[str, Any]],
    rows: tuple[budgets.Budget, ...], root: Path,
) -> dict[str, Any]:  # fmt: skip
    rig = budgets.BENCH if is_base(plan.scenario) else budgets.ANY
    judged = budgets.judge(list(runs), measured.subjects, rows, rig=rig)
    return {
        "format": result.RESULT_VERSION,
        "kind": "spine",
        "origin": origin(),
        "machine": fingerprint(plan.directory),
        "scenario": plan.scenario.plain(),
        "silence": silence.plain(),
        "startup": dict(measured.startup),
        "rig": rig,
        "realtime": {name: dict(facts) for name, facts in measured.realtime.items()},
        "runs": runs,
        "floor": floor.compared(measured.legs) if measured.legs else None,
        "dataset": disk_bytes(root),
        "summary": result.summary(list(runs)),
        "budgets": [one.plain() for one in judged],
        "notes": [*measured.failures, *_notes(silence, runs, measured.realtime, plan.scenario)],
    }


def _notes(
    silence: Silence, runs: list[dict[str, Any]], realtime: Mapping[str, Mapping[str, str]],
    scenario: Scenario,
) -> list[str]:  # fmt: skip
    """What a reader must know before believing a figure."""
    others_allowed = 0.2 + load.cores_of(scenario.load)
    notes = [] if silence.quiet else [silence.sentence()]
    for number, run in enumerate(runs, 1):
        if run["others_cores"] > others_allowed or run["machine_stolen_cores"] > 0.05:
            notes.append(
                f"run {number}: others used {run['others_cores']:.2f} cores and the host took "
                f"{run['machine_stolen_cores']:.2f}"
            )
        if run["motion"] != FOLLOWING:
            notes.append(f"run {number}: the arms did not follow at its end: {run['motion']}")
    refused = {
        f"{setting} {told}"
        for settings in realtime.values()
        for setting, told in settings.items()
        if told != "granted"
    }
    return notes + sorted(refused)
