"""What is done with a policy while the daemon runs: it drives, is interrupted, is stopped, leaves.

Only marks are taken here (CLOCK_MONOTONIC); what they mean is found later in what was recorded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recd.config.errors import RecdError
from recd.perf import costs, floor
from recd.perf.control import StatusCells, loop_between, open_cell
from recd.perf.policy.figures import Freeze, Interruption, Stretch
from recd.perf.policy.process import PolicyProcess
from recd.perf.policy.reference import Reference
from recd.perf.quiet import CpuClock
from recd.perf.subject import ARM_TIMEOUT_S, Subject, await_state
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns

DT_S = 1 / 30
WITH, WITHOUT = "with", "without"

GLIDE_S = 0.3
"""`limits.ramp_s` of the robot that is measured: after a hold the arm glides in for twice as long,
and what is measured begins after that."""

LIMITS: Mapping[str, Any] = {"align_error": 400, "ramp_s": GLIDE_S}
"""The leader moves by itself meanwhile: nobody brings it back to the follower."""

PATIENCE: Mapping[str, Any] = {"lease_kept_s": 10.0, "stuck_s": 10.0}
"""A busy machine whose cameras starve costs a hold, and not the lease; when an arm holds is left as
it is."""

SETTLED_S = 2 * GLIDE_S + 0.4

BEGUN_S = 0.5
"""What a start costs is over."""

FROZEN_S = 0.8
"""Longer than the heartbeat's limit and the slowing down, shorter than the lease is kept."""

LONG_PLAN = 50
"""Rows of a chunk where the queue must not be what ends a movement: 1.7 s."""

ATTACH = "policy.attach"

GIVE_BACK: Mapping[str, str] = {"hold": ATTACH, "policy.pause": "policy.resume",
                                "policy.takeover": "policy.resume"}  # fmt: skip
"""How a person interrupts a policy -> how it is let go on."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A running robot and the process of its policy. endpoint: by which the policy drives."""

    subject: Subject
    policy: PolicyProcess
    endpoint: str


def await_motion(subject: Subject, *states: str) -> None:
    """Until the arm is in one of these. RecdError when that takes too long."""

    def look(status: dict[str, Any]) -> set[str]:
        state = str(status["arms"]["main"]["motion"].get("state"))
        return {"there"} if state in states else {state}

    await_state(subject.client, look, {"there"}, timeout_s=ARM_TIMEOUT_S)


def pause(seconds: float) -> None:
    """Let it run for so long."""
    sleep_until_ns(now_ns() + round(seconds * NS_PER_S))


def seat(stage: Stage, *, latency_ms: float, horizon: int) -> Reference:
    """The policy takes the lease, is let drive, and drives. RecdError when it never may."""
    told = stage.policy.tell("begin", endpoint=stage.endpoint, key="", dt_s=DT_S,
                             latency_ms=latency_ms, horizon=horizon)  # fmt: skip
    let_drive(stage.subject)
    return Reference.of(told["reference"])


def let_drive(subject: Subject, command: str = ATTACH) -> None:
    """A person lets it (go on to) drive. RecdError when it never may."""
    deadline_ns = now_ns() + round(ARM_TIMEOUT_S * NS_PER_S)
    while True:
        try:
            subject.client.call(command)
            break
        except RecdError:
            # Not yet: its chunks have to be sound first; or it lost its lease meanwhile.
            if now_ns() > deadline_ns:
                raise
            command = ATTACH
            pause(0.05)
    await_motion(subject, "POLICY")
    pause(SETTLED_S)


def begin_episode(subject: Subject) -> None:
    """As soon as every stream delivers. RecdError when one never does."""
    subject.client.wait_until("READY")
    subject.client.start()


def leave(stage: Stage) -> None:
    """The policy goes, and the arm follows its leader again."""
    stage.policy.tell("leave")
    await_motion(stage.subject, "HOLD")
    stage.subject.client.call("teleop")
    await_motion(stage.subject, "TELEOP")
    pause(SETTLED_S)


def track(
    stage: Stage, *, latency_ms: float, horizon: int, seconds: float
) -> tuple[Stretch, dict[str, Any]]:  # fmt: skip
    """It drives with another latency. The stretch, and what the policy says of it."""
    stage.policy.tell("pace", latency_ms=latency_ms, horizon=horizon)
    pause(2 * latency_ms / 1000 + 0.3)  # until chunks of that latency are played
    began = now_ns()
    pause(seconds)
    stretch = Stretch(latency_ms, began, now_ns())
    return stretch, stage.policy.tell("count")


def interrupt(stage: Stage, command: str) -> Interruption:
    """A person interrupts the policy, and lets it go on."""
    asked = now_ns()
    stage.subject.client.call(command)
    await_motion(stage.subject, "HOLD", "PAUSED", "CORRECTING")
    pause(0.1)
    mark = Interruption(command, asked, now_ns())
    let_drive(stage.subject, GIVE_BACK[command])
    return mark


def freeze(stage: Stage) -> Freeze:
    """The policy's process stops for a while."""
    with open_cell(stage.subject.pid, "lease.main") as lease:
        with stage.policy.stopped():
            pause(FROZEN_S)
            read = lease.read()
            mark = Freeze(int(read[1]["beat_ns"]) if read is not None else 0, now_ns())
        await_motion(stage.subject, "POLICY")
        pause(SETTLED_S)
    return mark


@dataclass(frozen=True, slots=True)
class Leg:
    """A time with or without a policy. use: of all processes; others: cores used by nobody of ours;
    loops: as floor.Leg has them."""

    loops: floor.Leg
    use: costs.Use
    memory: dict[str, int]
    others: float


def leg(subject: Subject, cells: StatusCells, kind: str, *, seconds: float) -> Leg:
    """Control loops and CPU for `seconds` while the daemon records; the episode is thrown away."""
    begin_episode(subject)
    pause(BEGUN_S)
    tree = subject.tree()
    machine, loops, before = CpuClock.read(), cells.read(), costs.read_ledger(tree)
    pause(seconds)
    after, counts = costs.read_ledger(tree), cells.read()
    load = CpuClock.read().since(machine)
    memory = costs.peak_memory([costs.read_memory(tree)])["pss_bytes"]
    subject.client.discard()
    use = costs.used_between(before, after)
    ours = (sum(use.cpu_s.values()) + sum(use.simulator_cpu_s.values())) / use.span_s
    figures = {name: loop_between(loops.get(name), now) for name, now in counts.items()}
    return Leg(floor.Leg(kind, figures), use, memory, max(0.0, load.busy_cores - ours))
