"""The result document of a measurement: its figures run by run, their spread, and the budgets."""

from dataclasses import replace
from typing import Any

from recd.config.models import RobotConfig
from recd.daemon.arms.models import ARM_MODELS
from recd.perf import budgets, floor, result
from recd.perf.episode import StoredEpisode
from recd.perf.figures import ratio
from recd.perf.machine import fingerprint, origin
from recd.perf.policy import figures
from recd.perf.policy.bench import HORIZON, LATENCIES_MS, Measured, Plan, Run, scenario_of
from recd.perf.policy.stage import DT_S, WITH, WITHOUT, Leg
from recd.shm.clock import NS_PER_MS, NS_PER_S

POLICY = "policy"
FOLLOWER = "main.follower"
"""The arm that the policy drives; these scenarios have one pair."""

_PAIR = FOLLOWER.partition(".")[0]


def document(plan: Plan, measured: Measured) -> dict[str, Any]:
    """The result (result.KEYS and shape.KEYS) of what was measured; reads the stored episodes."""
    subject = measured.main
    runs = [run_figures(run, subject.robot, subject.root) for run in measured.runs]
    rig = budgets.BENCH if _is_base(plan) else budgets.ANY
    rows = budgets.load_budgets()
    judged = budgets.judge(list(runs), _judged(measured), rows, rig=rig, whole=POLICY)
    legs = [leg.loops for run in measured.runs for leg in run.legs]
    return {
        "format": result.RESULT_VERSION,
        "kind": POLICY,
        "origin": origin(),
        "machine": fingerprint(plan.directory),
        "scenario": plan.scenario.plain() | {
            "latencies_ms": list(plan.latencies_ms), "horizon": plan.horizon,
            "adapter": plan.adapter,
        },
        "silence": measured.silence.plain(),
        "startup": measured.startup,
        "realtime": {name: dict(told) for name, told in measured.realtime.items()},
        "runs": runs,
        "lateness": floor.compared(legs, (WITH, WITHOUT)) | {"noise_p99": noise(legs)},
        "adapter": _adapter(plan, measured),
        "rig": rig,
        "summary": result.summary(list(runs), result.SHAPES[POLICY]),
        "budgets": [one.plain() for one in judged],
        "notes": notes(measured, runs),
    }  # fmt: skip


def _is_base(plan: Plan) -> bool:
    usual = replace(scenario_of(), seconds=plan.scenario.seconds, runs=plan.scenario.runs)
    told = (plan.scenario, plan.latencies_ms, plan.horizon)
    return told == (usual, LATENCIES_MS, HORIZON)


def _judged(measured: Measured) -> list[str]:
    """Processes of policies and all streams: the others have limits for two cameras."""
    ours = ("process:gateway", "process:adapter")
    return [name for name in measured.subjects if name in ours or name.startswith("stream:")]


def run_figures(run: Run, robot: RobotConfig, root: Any) -> dict[str, Any]:
    """Everything about one run, from its stored episode and its marks."""
    assert run.reference is not None
    arm, joints = robot.arms[_PAIR], robot.joints(_PAIR)
    episode = StoredEpisode(root, str(run.saved["uid"]), int(run.saved["episode_index"]))
    samples = episode.samples(FOLLOWER, joints=len(joints))
    chunks = episode.chunks(width=len(robot.feature_joints()))
    period_ns = NS_PER_S // arm.rate_hz
    assert robot.policy is not None
    heartbeat_ns = robot.policy.heartbeat_ms * NS_PER_MS
    degrees = [not joint.gripper for joint in ARM_MODELS[arm.type]]
    with_policy, without = run.legs
    cores = _cores(with_policy) | _of("adapter", run.adapter)
    return {
        "uid": episode.uid,
        "observe": {name: figures.observed(told) for name, told in sorted(run.asked.items())},
        "first_goal": figures.first_goals(samples, chunks, period_ns=period_ns),
        "interrupted": figures.interruptions(samples, run.interruptions, period_ns=period_ns),
        "frozen": figures.freezes(samples, run.freezes, heartbeat_ns=heartbeat_ns,
                                  period_ns=period_ns),
        "tracking": _tracking(run, samples, chunks, degrees),
        "reference": run.reference.plain() | {
            "fastest_deg_s": figures.fastest_deg_s(run.reference, degrees)},
        "lateness": floor.compared([leg.loops for leg in run.legs], (WITH, WITHOUT))["processes"],
        "cpu": {"cores": cores, "absent_cores": _cores(without)},
        "memory": {"pss_bytes": dict(with_policy.memory) | _memory("adapter", run.adapter)},
        "streams": run.losses,
        "control": {},
        "others_cores": max(leg.others for leg in run.legs),
    }  # fmt: skip


def _tracking(
    run: Run, samples: figures.Records, chunks: figures.Records, degrees: list[bool]
) -> dict[str, Any]:
    told = {}
    for stretch, said in run.stretches:
        assert run.reference is not None
        found = figures.tracking(samples, chunks, run.reference, stretch, degrees=degrees,
                                 dt_ns=round(DT_S * NS_PER_S))  # fmt: skip
        age = figures.with_p90(said["age_ns"], scale=NS_PER_MS)
        name = f"{stretch.latency_ms:g}"
        told[name] = found | {"observed_age_ms": age, "troubles": said["troubles"]}
    return told


def _cores(leg: Leg) -> dict[str, float]:
    return {name: used / leg.use.span_s for name, used in leg.use.cpu_s.items()}


def _of(process: str, leg: Leg | None) -> dict[str, float]:
    return {} if leg is None else {process: _cores(leg)[process]}


def _memory(process: str, leg: Leg | None) -> dict[str, int]:
    return {} if leg is None else {process: leg.memory[process]}


def _adapter(plan: Plan, measured: Measured) -> dict[str, Any] | None:
    """Cores of adapter and gateway while there is no server, and while it drives."""
    if measured.unserved is None:
        return None
    names = ("adapter", "gateway")
    legs = [run.adapter for run in measured.runs if run.adapter is not None]
    return {
        "type": plan.adapter,
        "unserved_cores": {name: _cores(measured.unserved)[name] for name in names},
        "driving_cores": {name: [_cores(leg)[name] for leg in legs] for name in names},
    }


def noise(legs: list[floor.Leg]) -> dict[str, float | None]:
    """Process -> p99 of the latest leg without a policy by that of the calmest one: what nothing
    but chance did. Pure."""
    without = [leg for leg in legs if leg.kind == WITHOUT]
    told = {}
    for process in sorted({name for leg in without for name in leg.loops}):
        late = [leg.loops[process]["lateness_us"]["p99"] for leg in without if process in leg.loops]
        known = [value for value in late if value is not None]
        told[process] = ratio(max(known), min(known), least=floor.RESOLUTION_US) if known else None
    return told


def notes(measured: Measured, runs: list[dict[str, Any]]) -> list[str]:
    """What a reader must know before believing a figure."""
    told = list(measured.failures)
    told += [] if measured.silence.quiet else [measured.silence.sentence()]
    for number, run in enumerate(runs, 1):
        if run["others_cores"] > 0.2:
            told.append(f"run {number}: others used {run['others_cores']:.2f} cores")
        for name, asked in run["observe"].items():
            if asked["refused"]:
                told.append(f"run {number}: {asked['refused']} requests over {name} were answered "
                            "with a stream in trouble")  # fmt: skip
        if run["interrupted"]["idle"]:
            told.append(f"run {number}: {run['interrupted']['idle']} interruptions came while the "
                         "policy did not drive")  # fmt: skip
        others = {cause: count for cause, count in run["frozen"]["causes"].items()
                  if cause != "heartbeat_missed"}  # fmt: skip
        if others:
            told.append(f"run {number}: holds for other causes than the heartbeat: {others}")
    refused = {f"{setting} {why}" for settings in measured.realtime.values()
               for setting, why in settings.items() if why != "granted"}  # fmt: skip
    return told + sorted(refused)
