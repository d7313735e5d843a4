"""What follows the end of the daemon: the stop hook, and when a restart has to wait."""

from typing import Any

import pytest

from recd.config.errors import DeviceError
from recd.daemon.arms.release import ReleaseReport
from recd.daemon.service.idle import reasons_to_wait
from recd.daemon.service.stopped import apply_policy, died


@pytest.mark.parametrize(
    ("result", "code", "status", "how"),
    [
        ("success", "exited", "0", ""),
        ("success", "killed", "TERM", ""),
        ("exit-code", "exited", "2", ""),
        ("", "", "", ""),
        ("exit-code", "exited", "1", "exit-code (exited 1)"),
        ("signal", "killed", "KILL", "signal (killed KILL)"),
        ("watchdog", "dumped", "ABRT", "watchdog (dumped ABRT)"),
        ("core-dump", "dumped", "SEGV", "core-dump (dumped SEGV)"),
        ("oom-kill", "killed", "KILL", "oom-kill (killed KILL)"),
        ("timeout", "killed", "KILL", "timeout (killed KILL)"),
    ],
)
def test_only_an_unclean_death_calls_for_the_torque_policy(
    result: str, code: str, status: str, how: str
) -> None:
    told = {"SERVICE_RESULT": result, "EXIT_CODE": code, "EXIT_STATUS": status}
    assert died(told) == how


def report(bus: str, held: bool) -> ReleaseReport:
    return ReleaseReport(bus, "release", (True,) * 6, (held,) * 6, False, "")


def test_a_bus_that_fails_does_not_keep_the_others_from_their_policy() -> None:
    def release(bus: str) -> ReleaseReport:
        if bus == "left.follower":
            raise DeviceError("left.follower: no such port")
        return report(bus, held=False)

    assert apply_policy(["left.follower", "right.follower"], release) == {
        "left.follower": "not applied: left.follower: no such port",
        "right.follower": "policy release: torque on at 0 of 6 joints",
    }


def test_a_bus_still_held_by_a_dying_process_is_asked_again() -> None:
    answers = [DeviceError("in use by 17", code="busy"), DeviceError("in use by 17", code="busy")]

    def release(bus: str) -> ReleaseReport:
        if answers:
            raise answers.pop()
        return report(bus, held=False)

    assert apply_policy(["main.follower"], release) == {
        "main.follower": "policy release: torque on at 0 of 6 joints"
    }
    assert answers == []


RESTING: dict[str, Any] = {
    "state": "READY", "episode": None, "committing": [], "plan": None,
    "arms": {"main": {"motion": {"state": "DISARMED"}}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("busy", "reason"),
    [
        ({"episode": {"uid": "0a1b"}}, "episode 0a1b is being recorded"),
        ({"state": "FINALIZING"}, "an episode is being recorded"),
        ({"committing": ["0a1b"]}, "1 episode(s) are being saved"),
        ({"plan": {"active": True}}, "a plan is running"),
        ({"arms": {"main": {"motion": {"state": "TELEOP"}}}}, "arm main is in TELEOP"),
        ({"arms": {"main": {"motion": {"state": "HOLD"}}}}, "arm main is in HOLD"),
    ],
)
def test_a_restart_waits_for_rest(busy: dict[str, Any], reason: str) -> None:
    assert reasons_to_wait({**RESTING, **busy}) == [reason]


def test_a_daemon_at_rest_or_in_fault_may_be_restarted() -> None:
    assert reasons_to_wait(RESTING) == []
    assert reasons_to_wait({**RESTING, "state": "FAULT", "plan": {"active": False}}) == []
