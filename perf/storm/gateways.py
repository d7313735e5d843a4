"""Faults of the gateway and of the policy behind it, while a policy really drives.

What is judged besides: the follower's goals have to stand still within `HOLD_WITHIN_MS`.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Final

import numpy as np

from recd.clients.policy import NoObservationError, PolicyClient
from recd.config.errors import RecdError
from recd.daemon.sim.servolog import writes_of
from recd.perf.storm.devices import FOLLOWER
from recd.perf.storm.fault import Made, Strike
from recd.perf.storm.invariants import servo_entries
from recd.perf.storm.subject import StormSubject, await_true
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

HOLD_WITHIN_MS: Final = 1000
"""policy.heartbeat_ms and the way that slowing down takes."""

STEPS, DT_S = 60, 1 / 30


def gateway_killed_driving(subject: StormSubject, draw: Random) -> Made:
    """SIGKILL to the gateway while chunks of a policy move the arm."""

    def kill() -> None:
        os.kill(subject.worker("gateway"), signal.SIGKILL)

    return _while_driving(subject, draw, kill)


def gateway_stopped_driving(subject: StormSubject, draw: Random) -> Made:
    """SIGSTOP to it for two seconds."""
    pid = subject.worker("gateway")

    def stop() -> None:
        os.kill(pid, signal.SIGSTOP)

    try:
        return _while_driving(subject, draw, stop)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def policy_hangs(subject: StormSubject, draw: Random) -> Made:
    """The policy stops sending chunks and reading answers; its heartbeats go on."""
    return _while_driving(subject, draw, lambda: None, within_ms=HOLD_WITHIN_MS + 2000)


def _while_driving(
    subject: StormSubject, draw: Random, strike: Callable[[], None], within_ms: int = HOLD_WITHIN_MS
) -> Made:
    subject.client.call("hold")
    drives_ms = draw.randint(200, 1500)
    with PolicyClient(endpoint=f"ipc://{subject.directory / 'policy.sock'}") as policy:
        _seat(subject, policy)
        center = _send(policy, None)
        await_true(lambda: _moves(subject, policy, center), "the policy to drive", 30)
        until_ns = now_ns() + drives_ms * NS_PER_MS
        while now_ns() < until_ns:
            _send(policy, center)
        mark = int(subject.bus("log", since=1 << 60, limit=1)["count"])
        struck_ns = now_ns()
        strike()
        await_true(lambda: subject.motion() == "HOLD", "the arm to hold", 10)
        sleep_until_ns(now_ns() + NS_PER_S // 2)
        held_ms = _moved_until(subject, mark, struck_ns)
    if held_ms > within_ms:
        raise RecdError(f"the arm moved for {held_ms} ms more, {within_ms} are allowed")
    return {"drives_ms": drives_ms, "held_ms": held_ms}


def _seat(subject: StormSubject, policy: PolicyClient) -> None:
    """Acquire, warm up, and let a person say that it may drive."""
    policy.acquire()
    center = _send(policy, None)

    def attached() -> bool:
        _send(policy, center)
        with suppress(RecdError):  # too few sound chunks so far
            subject.client.call("policy.attach")
            return True
        return False

    await_true(attached, "the policy to be attached", 30)


def _moves(subject: StormSubject, policy: PolicyClient, center: np.ndarray) -> bool:
    _send(policy, center)
    return subject.motion() == "POLICY"


def _send(policy: PolicyClient, center: np.ndarray | None) -> np.ndarray:
    """A chunk back and forth around `center`; none at all but the present state without one."""
    while True:
        with suppress(NoObservationError):
            seen = policy.observe()
            break
    if center is None:
        return seen.state.astype(float)
    swing = np.sin(np.linspace(0.0, 6.0, STEPS))[:, None] * np.eye(1, len(center)) * 5.0
    policy.act(seen, center + swing, dt_s=DT_S)
    return center


def _moved_until(subject: StormSubject, mark: int, struck_ns: int) -> int:
    """Milliseconds from `struck_ns` to the last goal that was not the one before."""
    last: dict[int, int] = {}
    moved_ns = struck_ns
    while (answer := subject.bus("log", since=mark, limit=500, bus=FOLLOWER))["entries"]:
        for entry in servo_entries(answer):
            for write in writes_of(entry):
                if write.name != "Goal_Position":
                    continue
                if write.value != last.get(write.ident, write.value):
                    moved_ns = max(moved_ns, write.t_ns)
                last[write.ident] = write.value
        mark = answer["next"]
    return (moved_ns - struck_ns) // NS_PER_MS


def follow_the_leader(subject: StormSubject, _: Made) -> None:
    """The gateway is back; the person lets the leader drive again."""
    await_true(lambda: _detached(subject), "the gateway to be back", 60)
    subject.client.call("teleop")


def _detached(subject: StormSubject) -> bool:
    with suppress(RecdError):  # the gateway starts
        subject.client.call("policy.detach")
        return True
    return False


DRIVEN: Final[dict[str, Strike]] = {
    "gateway killed while a policy drives": gateway_killed_driving,
    "gateway stopped while a policy drives": gateway_stopped_driving,
    "policy hangs while it drives": policy_hangs,
}
