"""What a fault at the real process or the simulated servos does to the arm, told by their log."""

from itertools import pairwise

import numpy as np
import pytest

from recd.config.streams import JointFlag, Motion
from recd.shm.clock import now_ns

BUS = "main.follower"
REST = {
    "shoulder_pan": 0.0, "shoulder_lift": -85.0, "elbow_flex": 70.0, "wrist_flex": 40.0,
    "wrist_roll": 0.0, "gripper": 5.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def sim_settings() -> dict:
    return {"main.follower.goal_enables_torque": True}  # the more dangerous kind of servo


def torque_changes(rig, since: int = 0) -> list[tuple[int, bool, str]]:
    """(servo, on, cause) for each change of torque, by whatever cause."""
    return [
        (entry.fields["id"], entry.fields["on"], entry.fields["cause"])
        for entry in rig.control.entries(since=since, bus=BUS)
        if entry.kind == "torque"
    ]


def assert_untouched(rig, since: int) -> None:
    """No register of the follower was written since then."""
    assert rig.control.writes(since=since, bus=BUS) == []


def assert_gentle(rig, since: int) -> None:
    per_period = rig.config["limits"]["velocity_per_s"] / rig.config["rate_hz"]
    for goals in rig.goal_steps(since).values():
        steps = max((abs(b - a) for a, b in pairwise(goals)), default=0)
        assert steps <= per_period * 15 + 2


def test_killed_arm_process_leaves_the_arm_holding_and_its_successor_adopts_it(rig) -> None:
    # The leader goes on demonstrating: the successor has to glide to wherever it is by then.
    anywhere = rig.limits(align_error=400.0)
    _, follower = rig.teleoperating(**anywhere)
    rig.gather("follower", 30)
    mark = rig.control.mark()
    follower.kill()
    again = rig.ready("follower", **anywhere)
    found = again.answer("motion")
    assert (found["state"], found["cause"], found["armed"]) == ("HOLD", "found_with_torque", False)
    rig.skip("follower")
    held = rig.gather("follower", 30)
    assert set(held["motion"]) == {Motion.HOLD}
    assert torque_changes(rig, mark) == []
    last = {ident: goals[-1] for ident, goals in rig.goal_steps().items()}
    mark = rig.control.mark()
    assert held["sent_raw"][-1].tolist() == list(last.values())
    assert_untouched(rig, mark)
    since = again.command("arm")
    again.answer("motion", since=since, state="TELEOP")
    rig.gather("follower", 30)
    assert torque_changes(rig, mark) == []
    assert_gentle(rig, 0)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_unplugged_bus_comes_back_holding_and_waits_for_arm(rig, elsewhere) -> None:
    by_id = rig.control.describe()["arms"][BUS]["by_id"]
    _, follower = rig.teleoperating(
        follower={**rig.config["follower"], "port": by_id}, **rig.limits(align_error=400.0)
    )
    since = follower.command("nothing")
    rig.control.unplug(bus=BUS)
    follower.event("bus lost", since=since)
    gone = follower.answer("motion", since=since, state="FAULT")
    assert gone["cause"] == "bus_silent"
    rig.until(lambda: follower.state() == "CONNECTING", "the status says that the bus is away")
    mark = rig.control.mark()
    rig.control.plug(bus=BUS, link=str(rig.sim.directory / "other") if elsewhere else "")
    back = follower.event("bus back", since=since)
    assert back["torque"] == [True] * 6
    rig.skip("follower")
    rig.gather("follower", 30)
    assert follower.state() == "HOLD"
    assert_untouched(rig, mark)
    assert torque_changes(rig, mark) == []
    since = follower.command("arm")
    follower.answer("motion", since=since, state="TELEOP")
    assert_gentle(rig, mark)


@pytest.mark.parametrize("rate_hz", [100, 400], ids=["torque with the position", "apart"])
@pytest.mark.parametrize("idents", [None, [3]])
def test_brown_out_ends_in_a_fault_and_nothing_takes_torque_again(rig, idents, rate_hz) -> None:
    _, follower = rig.teleoperating(rate_hz=rate_hz)
    since = follower.command("nothing")
    mark = rig.control.mark()
    rig.control.brown_out(bus=BUS, idents=idents, down_ms=250)
    motion = follower.answer("motion", since=since, state="FAULT")
    assert motion["cause"] in ("bus_silent", "torque_lost")
    rig.skip("follower")
    rig.gather("follower", 60)
    assert {on for _, on, _ in torque_changes(rig, mark)} == {False}
    since = follower.command("arm")
    follower.answer("motion", since=since, state="TELEOP")
    assert_gentle(rig, 0)


def test_late_follower_line_costs_its_ticks_and_teleoperation_goes_on(rig) -> None:
    _, follower = rig.teleoperating()
    before = rig.gather("follower", 50)
    # One request of the two is a goal write, which has no reply to be late.
    rig.control.fault(bus=BUS, kind="late", ms=60.0, count=2)
    samples = np.concatenate([before, rig.gather("follower", 60)])
    whole = samples["valid"] == 0b111111
    assert (samples["flags"][~whole] & JointFlag.NO_REPLY).all()
    assert np.diff(samples["request_ns"][whole]).max() > 50_000_000
    late = np.flatnonzero(samples["flags"] & JointFlag.LATE_REPLY)
    assert late.size
    assert (samples["goal_written_ns"][~whole & (samples["flags"] & 2 != 0)] == 0).all()
    follower.hear()
    assert not [m for m in follower.messages if m.get("state") == "FAULT"]
    assert follower.state() == "TELEOP"
    assert_gentle(rig, 0)


def test_silent_follower_bus_is_not_driven_again_before_arm(rig) -> None:
    _, follower = rig.teleoperating()
    since = follower.command("nothing")
    rig.control.fault(bus=BUS, kind="silent", for_ms=60_000)
    motion = follower.answer("motion", since=since, state="FAULT")
    assert motion["cause"] == "bus_silent"
    mark = rig.control.mark()
    rig.control.clear(bus=BUS)
    rig.skip("follower")
    rig.until(lambda: (rig.gather("follower", 5)["valid"] == 0b111111).any(), "it to answer again")
    rig.gather("follower", 40)
    assert_untouched(rig, mark)
    assert torque_changes(rig, mark) == []


def test_overheated_joint_brings_the_arm_to_rest_before_it_is_released(rig) -> None:
    _, follower = rig.teleoperating(park=REST)
    since = follower.command("nothing")
    mark = rig.control.mark()
    rig.control.register(bus=BUS, ident=2, name="Max_Temperature_Limit", value=90)
    rig.control.temperature(bus=BUS, ident=2, celsius=75)
    warned = follower.event("protection", since=since)
    assert (warned["joint"], warned["quantity"]) == ("shoulder_lift", "temperature")
    follower.answer("motion", since=since, state="DISARMED", cause="parked")
    rested = rig.gather("follower", 3)[-1]["present"]
    assert np.nanmax(np.abs(rested - np.array(list(REST.values())))) < 12
    assert {cause for _, _, cause in torque_changes(rig, mark)} == {"write"}
    assert_gentle(rig, 0)


def test_hot_gripper_is_relaxed_and_the_arm_goes_on(rig) -> None:
    _, follower = rig.teleoperating()
    rig.gather("follower", 60)
    since = follower.command("nothing")
    rig.control.block(bus=BUS, ident=6)
    rig.control.temperature(bus=BUS, ident=6, celsius=66)
    found = follower.event("protection", since=since)
    assert found["joint"] == "gripper"
    deadline_ns = now_ns() + 10_000_000_000
    while now_ns() < deadline_ns:
        sample = rig.gather("follower", 10)[-1]
        if abs(sample["sent"][5] - sample["present"][5]) <= 2.2:
            break
    assert abs(sample["sent"][5] - sample["present"][5]) <= 2.2
    assert follower.state() == "TELEOP"
    assert_gentle(rig, 0)


def test_overloaded_joint_is_a_fault_and_is_not_driven_on(rig) -> None:
    _, follower = rig.teleoperating()
    since = follower.command("nothing")
    rig.control.block(bus=BUS, ident=3)
    rig.control.overload(bus=BUS, ident=3)
    rig.control.error_bits(bus=BUS, ident=3, bits=0x20)
    motion = follower.answer("motion", since=since, state="FAULT", cause="overload")
    assert "arm" in motion["legal"]
    mark = rig.control.mark()
    rig.gather("follower", 20)
    assert_untouched(rig, mark)


def test_end_of_the_link_ends_the_process_and_leaves_the_torque(rig) -> None:
    _, follower = rig.teleoperating(torque_on_exit="release")
    mark = rig.control.mark()
    follower.link.close()
    assert follower.process.wait(timeout=20) == 0
    assert torque_changes(rig, mark) == []


def test_a_signal_to_the_process_leaves_the_torque_and_counts_as_a_failure(rig) -> None:
    _, follower = rig.teleoperating(torque_on_exit="release")
    mark = rig.control.mark()
    follower.process.terminate()
    assert follower.process.wait(timeout=20) == 1
    assert torque_changes(rig, mark) == []


def test_a_stop_on_purpose_applies_the_torque_policy(rig) -> None:
    mark = rig.control.mark()
    _, follower = rig.teleoperating(torque_on_exit="hold")
    assert follower.finish() == 0
    assert {on for _, on, _ in torque_changes(rig, mark)} == {True}
    follower = rig.ready("follower", torque_on_exit="park", park=REST)
    mark = rig.control.mark()
    assert follower.finish() == 0
    follower.hear()
    assert follower.messages[-1]["state"] == "DISARMED"
    assert [on for _, on, _ in torque_changes(rig, mark)] == [False] * 6
    assert_gentle(rig, mark)


def test_park_without_a_resting_pose_holds(rig) -> None:
    _, follower = rig.teleoperating()
    since = follower.command("disarm", policy="park")
    motion = follower.answer("motion", since=since, state="HOLD", cause="no_park_pose")
    assert not motion["armed"]


def test_an_idle_arm_is_parked_and_released(rig) -> None:
    rig.control.hand(bus="main.leader", kind="still")
    _, follower = rig.teleoperating(park=REST, **rig.limits(idle_park_s=1.0, align_error=400.0))
    follower.answer("motion", state="DISARMED", cause="parked")
    assert_gentle(rig, 0)


def test_a_wrong_calibration_is_refused_with_the_mend(rig) -> None:
    other = rig.sim.calibrations["main.leader"]
    follower = rig.start("follower", follower={**rig.config["follower"], "calibration": other})
    refused = follower.answer("refused")
    assert follower.process.wait(timeout=20) == 2
    assert refused["code"] == "calibration"
    assert "main.follower.json" in refused["mend"]
    assert_untouched(rig, rig.start_mark)
