"""The measurement: which daemons run, what is done with each, and the result document of it all.

Three daemons, one after the other: the main one (ipc, CURVE), one whose TCP asks for no keys, one
with an adapter. Figures are found after the machine was measured.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recd.clients.policybench.script import Script
from recd.clients.recctl.sim_policy import new_server
from recd.config import keys
from recd.config.errors import RecdError
from recd.config.paths import policy_endpoint
from recd.perf import budgets
from recd.perf.control import StatusCells
from recd.perf.policy import stage
from recd.perf.policy.figures import Freeze, Interruption, Stretch
from recd.perf.policy.process import echoing, policy_process
from recd.perf.policy.reference import Reference
from recd.perf.policy.stage import WITH, WITHOUT, Leg, Stage
from recd.perf.ports import free_ports
from recd.perf.quiet import Silence, wait_for_quiet
from recd.perf.scenario import Scenario
from recd.perf.subject import Subject, running
from recd.shm.clock import clock_pair, wall_iso

Say = Callable[[str], None]

CAMERAS, ROWS_HZ = 3, 10
"""Rows are few: what the encoders leave of two cores is the simulated robot's and the policy's.
Samples and chunks are recorded at their own rates."""

LATENCIES_MS = (50.0, 100.0, 180.0, 300.0)
HORIZON = 30
ADAPTERS = ("none", "openpi", "gr00t")
TRANSPORTS = ("ipc", "curve", "tcp")

BUSY_MS = 0.0
"""In the legs the policy answers every frame: thirty observations and chunks a second."""

QUICK_MS = 50.0
"""Latency of the policy that is interrupted and stopped."""

INTERRUPTIONS = ("hold", "policy.takeover", "policy.pause") * 2
FREEZES = 3

_KEY_NAME = "bench"


@dataclass(frozen=True, slots=True)
class Plan:
    """How it is measured. horizon: rows of a chunk; adapter: its type, `none` leaves it out;
    settle_s: first heartbeats, imports and the glide to the leader are over; quiet_s: patience for
    a quiet machine."""

    scenario: Scenario
    directory: Path
    latencies_ms: tuple[float, ...] = LATENCIES_MS
    horizon: int = HORIZON
    adapter: str = "openpi"
    interruptions: tuple[str, ...] = INTERRUPTIONS
    freezes: int = FREEZES
    transports: tuple[str, ...] = TRANSPORTS
    settle_s: float = 4.0
    quiet_s: float = 60.0


def scenario_of(**options: Any) -> Scenario:
    """The usual load of this measurement with some of it otherwise."""
    return Scenario(**{"cameras": CAMERAS, "fps": ROWS_HZ, **options})


@dataclass(slots=True)
class Run:
    """What one run left. asked: transport -> what the client measured; stretches: with what the
    policy said of each; legs: with and without a policy; adapter: a leg in which it drove."""

    asked: dict[str, dict[str, Any]] = field(default_factory=dict)
    saved: dict[str, Any] = field(default_factory=dict)
    reference: Reference | None = None
    stretches: list[tuple[Stretch, dict[str, Any]]] = field(default_factory=list)
    interruptions: list[Interruption] = field(default_factory=list)
    freezes: list[Freeze] = field(default_factory=list)
    losses: dict[str, int] = field(default_factory=dict)
    legs: list[Leg] = field(default_factory=list)
    adapter: Leg | None = None


@dataclass(slots=True)
class Measured:
    """Everything that was taken while daemons ran. failures: what is missing, and why; unserved: a
    leg in which the adapter had no server."""

    silence: Silence
    runs: list[Run]
    startup: dict[str, float]
    realtime: dict[str, dict[str, str]]
    subjects: tuple[str, ...]
    main: Subject
    failures: list[str] = field(default_factory=list)
    unserved: Leg | None = None


def measure(plan: Plan, say: Say) -> Measured:
    """Run everything. ConfigError when a process or stream has no budget row; RecdError with the
    last words of a daemon or of the policy's process when one fails.
    """
    plan.directory.mkdir(parents=True, exist_ok=True)
    silence = wait_for_quiet(plan.quiet_s)
    say(silence.sentence())
    key = _make_keys(plan.directory / "keys")
    measured = _main(plan, silence, key, say)
    if "tcp" in plan.transports:
        _plain_tcp(plan, measured.runs, say)
    if plan.adapter != "none":
        try:
            measured.unserved = _adapter(plan, measured, say)
        except RecdError as error:
            measured.failures.append(f"no figures of an adapter: {error.message}")
    return measured


def _make_keys(folder: Path) -> Path:
    """A client's key with the role of a policy; the daemon's own lies beside it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = wall_iso(clock_pair().real_ns)
    return keys.make_client(folder, _KEY_NAME, "policy", created=now)[1]


@contextmanager
def _robot(
    plan: Plan, name: str, policy: Mapping[str, Any], say: Say,
    control: Mapping[str, Any] | None = None,
) -> Iterator[Subject]:  # fmt: skip
    """A daemon with these sections, in a folder of its own; every part of it has a budget."""
    folder = plan.directory / name
    folder.mkdir(exist_ok=True)
    more = {
        "policy": {**stage.PATIENCE, **policy},
        "control": control or {},
        "arms": {"main": {"limits": stage.LIMITS}},
    }
    with running(plan.scenario, folder, more) as subject:
        budgets.require_complete(subject.robot, budgets.load_budgets())
        say(f"daemon ready after {subject.start_s:.1f} s ({name})")
        yield subject


def _main(plan: Plan, silence: Silence, key: Path, say: Say) -> Measured:
    port = free_ports(4)
    guarded = {"keys_dir": str(key.parent.parent), "curve": "always"}
    address = f"tcp://127.0.0.1:{port}"
    with (
        _robot(plan, "main", {"endpoint": address}, say, guarded) as subject,
        policy_process(plan.directory) as policy,
        StatusCells(subject.pid, [f"arm:{bus}" for bus in subject.robot.buses()]) as cells,
    ):
        armed_s = subject.arm()
        stage.pause(plan.settle_s)
        here = policy_endpoint(subject.runtime_dir)
        place = Stage(subject, policy, here)
        runs = []
        for number in range(plan.scenario.runs):
            say(f"run {number + 1} of {plan.scenario.runs}")
            run = Run()
            say("  observations")
            run.asked["ipc"] = _ask(plan, place, here, f"ipc://{subject.runtime_dir}/echo.sock")
            run.asked["curve"] = _ask(plan, place, address, "tcp://127.0.0.1:*", key)
            say("  a policy drives, is interrupted, is stopped")
            _drive(plan, place, run)
            say("  control loops with and without it")
            _legs(plan, place, cells, run)
            runs.append(run)
        startup = {"to_ready_s": subject.start_s, "to_teleop_s": subject.start_s + armed_s}
        subjects = budgets.subjects_of(subject.robot)
        return Measured(silence, runs, startup, subject.realtime(), subjects, subject)


def _ask(
    plan: Plan, place: Stage, endpoint: str, echo: str, key: Path | None = None
) -> dict[str, Any]:  # fmt: skip
    """Observations over one transport, beside a plain socket over the same."""
    server = None if key is None else key.parent.parent / keys.SERVER_FILE
    seconds = plan.scenario.seconds
    with echoing(echo, plan.directory, server) as where:
        return place.policy.tell("ask", endpoint=endpoint, key=str(key or ""), echo=where,
                                 seconds=seconds, wait_s=seconds + 60)  # fmt: skip


def _drive(plan: Plan, place: Stage, run: Run) -> None:
    """An episode in which the policy drives with each latency, is interrupted, and is stopped."""
    client = place.subject.client
    lost = place.subject.losses()
    stage.begin_episode(place.subject)
    run.reference = stage.seat(place, latency_ms=plan.latencies_ms[0], horizon=plan.horizon)
    for latency_ms in plan.latencies_ms:
        run.stretches.append(stage.track(place, latency_ms=latency_ms, horizon=plan.horizon,
                                         seconds=plan.scenario.seconds))  # fmt: skip
    place.policy.tell("pace", latency_ms=QUICK_MS, horizon=stage.LONG_PLAN)
    stage.pause(stage.SETTLED_S)
    for command in plan.interruptions:
        run.interruptions.append(stage.interrupt(place, command))
    for _ in range(plan.freezes):
        run.freezes.append(stage.freeze(place))
    run.saved = client.stop()
    run.losses = {ring: count - lost.get(ring, 0)
                  for ring, count in place.subject.losses().items()}  # fmt: skip


def _legs(plan: Plan, place: Stage, cells: StatusCells, run: Run) -> None:
    """The policy of the episode goes on, answering every frame; then it is gone."""
    seconds = plan.scenario.seconds
    place.policy.tell("pace", latency_ms=BUSY_MS, horizon=stage.LONG_PLAN)
    run.legs.append(stage.leg(place.subject, cells, WITH, seconds=seconds))
    stage.leave(place)
    run.legs.append(stage.leg(place.subject, cells, WITHOUT, seconds=seconds))


def _plain_tcp(plan: Plan, runs: list[Run], say: Say) -> None:
    """Observations over TCP without keys: another daemon, since one has one address."""
    address = f"tcp://127.0.0.1:{free_ports(4)}"
    with (
        _robot(plan, "tcp", {"endpoint": address}, say) as subject,
        policy_process(plan.directory) as policy,
    ):
        stage.pause(plan.settle_s)
        place = Stage(subject, policy, address)
        for run in runs:
            run.asked["tcp"] = _ask(plan, place, address, "tcp://127.0.0.1:*")


def _adapter(plan: Plan, measured: Measured, say: Say) -> Leg:
    """A robot whose adapter asks a scripted server: a leg for each run, and one without server."""
    port = free_ports(1)
    server = {"address": f"127.0.0.1:{port}", "step_s": stage.DT_S}
    policy = {"type": plan.adapter, "server": server}
    seconds = plan.scenario.seconds
    with ExitStack() as ends:
        subject = ends.enter_context(_robot(plan, "adapter", policy, say))
        cells = ends.enter_context(StatusCells(subject.pid, []))
        subject.arm()
        stage.pause(plan.settle_s)
        unserved = stage.leg(subject, cells, WITHOUT, seconds=seconds)
        script = Script(latency_ms=QUICK_MS)
        ends.enter_context(closing(new_server(plan.adapter, script, port=port)))
        subject.client.call("hold")
        stage.let_drive(subject)
        for run in measured.runs:
            run.adapter = stage.leg(subject, cells, WITH, seconds=seconds)
        measured.subjects = tuple(dict.fromkeys(
            (*measured.subjects, *budgets.subjects_of(subject.robot))))  # fmt: skip
    return unserved
