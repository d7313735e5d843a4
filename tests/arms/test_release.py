import pytest

from recd.config.errors import DeviceError, RecdError
from recd.daemon.arms.release import release

REST = {
    "shoulder_pan": 0.0, "shoulder_lift": -85.0, "elbow_flex": 70.0, "wrist_flex": 40.0,
    "wrist_roll": 0.0, "gripper": 5.0,
}  # fmt: skip
BUS = "main.follower"


@pytest.fixture
def held(rig):
    """An arm left holding by a process that was killed."""
    leader, follower = rig.teleoperating()
    follower.kill()
    leader.kill()
    return rig


def config(rig, **changes) -> dict:
    return {"arms": {"main": {**rig.config, **changes}}}


def torque(rig) -> list[bool]:
    joints = rig.control.describe()["arms"][BUS]["joints"]
    return [joint["torque"] for joint in joints.values()]


def test_release_lets_go_of_an_arm_that_a_dead_daemon_left_holding(held) -> None:
    report = release(config(held), BUS, policy="release")
    assert report.torque_before == (True,) * 6
    assert report.torque_after == (False,) * 6
    assert torque(held) == [False] * 6
    again = release(config(held), BUS, policy="release")
    assert again.note == "no joint held torque"


def test_the_configured_policy_is_the_default_and_hold_changes_nothing(held) -> None:
    mark = held.control.mark()
    report = release(config(held, torque_on_exit="hold"), BUS)
    assert (report.policy, report.torque_after) == ("hold", (True,) * 6)
    assert held.control.writes(since=mark, bus=BUS) == []


def test_park_brings_the_arm_to_rest_first(held) -> None:
    mark = held.control.mark()
    report = release(config(held, torque_on_exit="park", park=REST), BUS)
    assert report.parked
    assert torque(held) == [False] * 6
    names = [write.name for write in held.control.writes(since=mark, bus=BUS)]
    assert names.index("Torque_Enable") > max(
        at for at, name in enumerate(names) if name == "Goal_Position"
    )


def test_park_without_a_pose_or_into_an_obstacle_keeps_holding(held) -> None:
    report = release(config(held), BUS, policy="park")
    assert not report.parked
    assert "no resting pose" in report.note
    assert torque(held) == [True] * 6


def test_it_refuses_while_a_process_holds_the_bus_unless_forced(rig) -> None:
    rig.teleoperating()
    with pytest.raises(DeviceError, match="is in use by") as caught:
        release(config(rig), BUS, policy="release")
    assert caught.value.code == "busy"
    assert torque(rig) == [True] * 6


def test_a_bus_that_is_half_dead_is_told_to_let_go_all_the_same(held) -> None:
    held.control.missing(bus=BUS, ident=6)
    report = release(config(held), BUS, policy="release")
    held.control.missing(bus=BUS, ident=6, on=False)
    assert "told to let go" in report.note
    assert torque(held)[:5] == [False] * 5


def test_unknown_bus_and_policy_are_told_what_there_is(rig) -> None:
    with pytest.raises(RecdError, match=r"no bus 'left.follower'"):
        release(config(rig), "left.follower")
    with pytest.raises(RecdError, match="expected one of hold, park, release"):
        release(config(rig), BUS, policy="drop")


def test_a_simulated_arm_without_its_daemon_is_no_unplugged_cable(rig, tmp_path) -> None:
    simulated = {**rig.config, "follower": {**rig.config["follower"], "port": "sim"}}
    with pytest.raises(DeviceError, match="only while its daemon runs") as caught:
        release({"arms": {"main": simulated}}, BUS, runtime_dir=str(tmp_path))
    assert "USB" not in str(caught.value)
