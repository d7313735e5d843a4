from itertools import pairwise

import numpy as np

from recd.config.streams import GoalSource, JointFlag, Motion

STEPS_PER_UNIT = dict.fromkeys(range(1, 6), 4095 / 360) | {6: 15.0}


def allowed_step(rig, ident: int) -> float:
    per_period = rig.config["limits"]["velocity_per_s"] / rig.config["rate_hz"]
    return per_period * STEPS_PER_UNIT[ident] + 2


def whole(rig, role: str, count: int) -> np.ndarray:
    """Samples of one side, at least `count` of them with every joint."""
    parts = [rig.gather(role, count)]
    while (np.concatenate(parts)["valid"] == 0b111111).sum() < count:
        parts.append(rig.gather(role, 5))
    return np.concatenate(parts)


def assert_no_goal_step_beyond_limits(rig, since: int = 0) -> None:
    for ident, goals in rig.goal_steps(since).items():
        assert len(goals) > 0
        assert max((abs(b - a) for a, b in pairwise(goals)), default=0) <= allowed_step(rig, ident)


def test_boot_reads_and_publishes_but_commands_nothing(rig) -> None:
    rig.ready("leader")
    rig.ready("follower")
    samples = whole(rig, "follower", 15)
    assert set(samples["motion"]) == {Motion.DISARMED}
    assert np.isnan(samples["sent"]).all()
    assert (samples["sent_raw"] == -1).all()
    assert rig.torque_writes() == []
    assert not any(rig.goal_steps().values())


def test_telemetry_tells_heat_voltage_load_and_torque(rig) -> None:
    rig.ready("leader")
    idle = rig.newest_telemetry("leader")
    assert idle["valid"] == 0b111111
    assert (idle["voltage"] == 74).all()
    assert (idle["temperature"] == 32).all()
    assert not idle["torque"].any()
    rig.teleoperating()
    rig.control.block(bus="main.follower", ident=2)
    rig.until(
        lambda: abs(rig.newest_telemetry("follower")["load"][1]) > 100, "load on a held joint"
    )
    assert rig.newest_telemetry("follower")["torque"].all()


def test_arm_engages_at_the_present_pose_and_then_follows_within_limits(rig) -> None:
    _, follower = rig.teleoperating()
    rig.skip("follower")
    following = rig.gather("follower", 120)
    assert set(following["motion"]) == {Motion.TELEOP}
    assert set(following["source"]) <= {GoalSource.LEADER, GoalSource.HOLD}
    assert np.nanmedian(np.abs(following["present"] - following["leader"])) < 3.0
    writes = rig.control.writes(since=rig.start_mark, bus="main.follower")
    order = [write.name for write in writes if write.ident == 1]
    assert order.index("Goal_Position") < order.index("Torque_Enable")
    assert_no_goal_step_beyond_limits(rig)
    assert follower.state() == "TELEOP"


def test_sample_times_are_ordered_and_hold_their_uncertainty(rig) -> None:
    rig.ready("leader")
    samples = whole(rig, "leader", 30)
    good = samples[samples["valid"] == 0b111111]
    assert (np.diff(samples["tick"]) >= 1).all()
    assert (good["sample_ns"] - good["half_width_ns"] >= good["request_ns"] - 1).all()
    joint = "shoulder_pan"
    for sample in good[-10:]:
        ends = [
            rig.control.true_position("main.leader", joint, int(sample["sample_ns"]) + shift)
            for shift in (-int(sample["half_width_ns"]), int(sample["half_width_ns"]))
        ]
        assert min(ends) - 1.5 <= sample["present_raw"][0] <= max(ends) + 1.5


def test_silent_leader_makes_the_follower_hold_within_two_periods(rig) -> None:
    _, follower = rig.teleoperating()
    since = follower.command("nothing")
    rig.skip("follower")
    rig.control.fault(bus="main.leader", kind="silent", for_ms=2500)
    motion = follower.answer("motion", since=since, state="HOLD")
    assert motion["cause"] == "leader_silent"
    samples = rig.gather("follower", 5)
    stale = samples[(samples["flags"] & JointFlag.STALE_LEADER) != 0]
    last_leader_ns = stale["leader_ns"][-1]  # a busy computer may have had others before
    limit_ns = 2 * 1_000_000_000 // rig.config["rate_hz"]
    late = samples[samples["request_ns"] > last_leader_ns + limit_ns + 5_000_000]
    held = late[late["leader_ns"] == last_leader_ns]
    assert len(held) > 10
    assert (held["sent_raw"] == held["sent_raw"][0]).all()
    assert set(held["source"]) == {GoalSource.HOLD}


def test_after_a_lost_leader_a_person_resumes_and_the_follower_glides(rig) -> None:
    leader, follower = rig.teleoperating(**rig.limits(align_error=400.0))
    leader.kill()
    follower.answer("motion", state="HOLD", cause="leader_silent")
    rig.ready("leader")
    mark = rig.control.mark()
    rig.gather("follower", 20)
    assert not any(rig.goal_steps(mark).values())
    rig.skip("follower")
    since = follower.command("resume")
    follower.answer("motion", since=since, state="TELEOP")
    assert (rig.gather("follower", 10)["flags"] & JointFlag.RAMPING).any()
    assert_no_goal_step_beyond_limits(rig)


def test_arming_waits_and_names_the_joints_that_differ(rig) -> None:
    rig.ready("leader")
    follower = rig.ready("follower")
    rig.settled()
    pan = rig.control.describe()["arms"]["main.leader"]["joints"]["shoulder_pan"]["steps"]
    rig.control.script(bus="main.leader", frames=[[0.1, {"shoulder_pan": pan + 800}]])
    rig.until(
        lambda: rig.gather("leader", 1)[-1]["present_raw"][0] > pan + 790, "the leader is led away"
    )
    since = follower.command("arm")
    waiting = follower.answer("motion", since=since, cause="leader_differs")
    assert waiting["waiting_joints"] == ["shoulder_pan"]
    assert waiting["state"] == "HOLD"
    since = len(follower.messages)
    rig.control.script(bus="main.leader", frames=[[0.5, {"shoulder_pan": pan}]])
    follower.answer("motion", since=since, state="TELEOP")
    assert_no_goal_step_beyond_limits(rig)


def test_estop_holds_within_one_period_and_twice_applies_the_policy(rig) -> None:
    _, follower = rig.teleoperating(torque_on_exit="release")
    rig.gather("follower", 60)
    since = follower.command("estop")
    motion = follower.answer("motion", since=since, state="HOLD", cause="estop")
    rig.skip("follower")
    held = rig.gather("follower", 20)
    assert (held["sent_raw"] == held["sent_raw"][0]).all()
    assert "resume" not in motion["legal"]
    since = follower.command("estop")
    follower.answer("motion", since=since, state="DISARMED")
    assert {write.value for write in rig.torque_writes()[-6:]} == {0}


def lead_pan_away(rig, by: int) -> int:
    """Lead the leader's first joint `by` steps off; returns where that is."""
    pan = rig.control.describe()["arms"]["main.leader"]["joints"]["shoulder_pan"]["steps"]
    rig.control.script(bus="main.leader", frames=[[0.3, {"shoulder_pan": pan + by}]])
    rig.until(
        lambda: abs(rig.gather("leader", 1)[-1]["present_raw"][0] - pan - by) < 10,
        "the leader is led away",
    )
    return round(pan + by)


def test_max_relative_target_keeps_the_goal_near_an_arm_that_is_in_the_way(rig) -> None:
    relative = 4.0
    rig.teleoperating(follower={**rig.config["follower"], "max_relative_target": relative})
    rig.gather("follower", 60)
    rig.control.block(bus="main.follower", ident=1)
    at = rig.control.register(bus="main.follower", ident=1, name="Present_Position")["value"]
    mark = rig.control.mark()
    away = lead_pan_away(rig, 500 if at < 2048 else -500)
    rig.gather("follower", 60)
    goals = rig.goal_steps(mark)[1]
    furthest = max(abs(goal - at) for goal in goals)
    assert furthest <= relative * STEPS_PER_UNIT[1] + 3
    assert furthest < abs(away - at) - 100
    assert_no_goal_step_beyond_limits(rig)


def test_arming_and_resuming_far_from_the_leader_glide_there(rig) -> None:
    changes = rig.limits(align_error=400.0, ramp_s=1.0)
    glide = changes["limits"]["ramp_velocity_per_s"] / rig.config["rate_hz"] * STEPS_PER_UNIT[1] + 2
    rig.ready("leader")
    follower = rig.ready("follower", **changes)
    rig.settled()
    for command, by in (("arm", 400), ("resume", -400)):
        if command == "resume":
            since = follower.command("hold")
            follower.answer("motion", since=since, state="HOLD")
        lead_pan_away(rig, by)
        mark = rig.control.mark()
        since = follower.command(command)
        follower.answer("motion", since=since, state="TELEOP")
        rig.until(lambda: len(rig.goal_steps(mark)[1]) > 110, "more than a second of goals")  # noqa: B023
        gliding = rig.goal_steps(mark)[1][:90]
        assert gliding[0] != gliding[-1]
        assert max(abs(b - a) for a, b in pairwise(gliding)) <= glide
    assert_no_goal_step_beyond_limits(rig)


def test_a_command_the_state_does_not_allow_is_refused_in_words(rig) -> None:
    follower = rig.ready("follower")
    since = follower.command("resume")
    refusal = follower.answer("refused_op", since=since)
    assert refusal["state"] == "DISARMED"
    assert "arm" in refusal["legal"]
    since = follower.command("dance")
    assert "not a motion command" in follower.answer("refused_op", since=since)["reason"]


def test_a_leader_takes_no_commands_and_says_when_it_holds_torque(rig) -> None:
    rig.control.register(bus="main.leader", ident=2, name="Torque_Enable", value=1)
    mark = rig.control.mark()
    leader = rig.start("leader")
    held = leader.event("leader holds torque")
    assert held["joints"] == ["shoulder_lift"]
    since = leader.command("arm")
    assert "takes no commands" in leader.answer("refused_op", since=since)["reason"]
    assert rig.control.writes(since=mark, bus="main.leader", name="Torque_Enable") == []
    rig.end("leader")
