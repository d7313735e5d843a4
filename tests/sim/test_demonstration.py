import itertools

import pytest

from recd.config.errors import ConfigError, DeviceError
from recd.daemon.sim import so101
from recd.daemon.sim.arm import Arm, ArmSettings
from recd.daemon.sim.demonstration import FASTEST_RAD_S, JOINTS, REST, Demonstration
from recd.daemon.sim.hand import Keyframe
from recd.daemon.sim.robot import arms_of_pairs
from recd.daemon.sim.servolog import ServoLog

S = 1_000_000_000
MS = 1_000_000


def make_arm(tmp_path, role="leader", **settings):
    return Arm(ArmSettings.read(role, role, settings), tmp_path, log=ServoLog(), at_ns=S)


def widest_jump(poses):
    return max(
        max(abs(a - b) for a, b in zip(one, other, strict=True))
        for one, other in itertools.pairwise(poses)
    )


def test_a_demonstration_is_smooth_bounded_in_speed_and_never_ends():
    show = Demonstration(seed=4)
    dt = 0.004

    poses = [show.at(k * dt) for k in range(8_000)]

    assert poses[0] == REST
    assert widest_jump(poses) / dt < FASTEST_RAD_S + 0.1
    assert len({pose[0] for pose in poses[-500:]}) > 400  # still moving after 30 s
    assert all(-1.5 < value < 1.5 for pose in poses for value in pose)
    assert all(0.0 <= pose[5] <= 1.0 for pose in poses)


def test_a_seed_gives_the_same_demonstration_in_any_order_of_asking():
    forward, back = Demonstration(seed=2), Demonstration(seed=2)
    times = [0.5, 7.25, 31.0, 64.5]

    assert [forward.at(t) for t in times] == [back.at(t) for t in reversed(times)][::-1]
    assert Demonstration(seed=3).at(20.0) != forward.at(20.0)


def test_every_pose_of_a_demonstration_lies_inside_the_calibrated_ranges(tmp_path):
    arm = make_arm(tmp_path, hand="demo")

    for k in range(1000):
        at_ns = S + k * 40 * MS
        for plan, servo in zip(so101.PLAN, arm.servos, strict=True):
            limits = arm.calibration[plan.name]
            assert limits.range_min <= servo.reported(at_ns) <= limits.range_max


def test_a_leader_without_torque_plays_and_with_torque_holds(tmp_path):
    arm = make_arm(tmp_path)
    arm.take_hold("demo", S)
    moved = abs(arm.pose(S)[1] - arm.pose(4 * S)[1])
    assert moved > 0.1

    for servo in arm.servos:
        servo.write(42, servo.read(56, 2, 4 * S), 4 * S)
        servo.write(40, b"\x01", 4 * S)
    held = [arm.pose(at_ns) for at_ns in (5 * S, 7 * S)]
    assert widest_jump(held) < 0.01

    for servo in arm.servos:
        servo.write(40, b"\x00", 7 * S)
    poses = [arm.pose(7 * S + k * 4 * MS) for k in range(1500)]
    assert widest_jump([held[1], *poses]) < 0.02
    assert widest_jump([poses[0], poses[-1]]) > 0.1


def test_freezing_and_going_on_never_jumps(tmp_path):
    arm = make_arm(tmp_path)
    poses = []
    for begin_s, kind in ((1, "demo"), (4, "still"), (6, "demo"), (9, "still"), (9.1, "demo")):
        begin_ns = round(begin_s * S)
        arm.take_hold(kind, begin_ns)
        until_ns = {1: 4, 4: 6, 6: 9, 9: 9.1, 9.1: 14}[begin_s] * S
        poses += [arm.pose(t) for t in range(begin_ns, round(until_ns), 4 * MS)]

    assert widest_jump(poses) < 0.02
    frozen = poses[760:1240]
    assert widest_jump(frozen) == 0.0


def test_a_script_reaches_its_poses_in_time(tmp_path):
    arm = make_arm(tmp_path)
    goal = tuple(value + 0.2 for value in REST)

    arm.take_hold("script", S, keyframes=[Keyframe(S, goal), Keyframe(2 * S, REST)])

    assert arm.pose(2 * S) == pytest.approx(goal)
    assert arm.pose(4 * S) == pytest.approx(REST)


def test_an_attending_hand_waits_for_the_followers_torque(tmp_path):
    follower = make_arm(tmp_path, "follower")
    leader = make_arm(tmp_path)
    leader.hand.attend_to(follower.joint_pose, lambda: follower.has_torque)
    leader.take_hold("attend", S)

    def watch(from_ns, until_ns):
        poses = []
        for at_ns in range(from_ns, until_ns, 4 * MS):
            leader.hand.look(at_ns)
            poses.append(leader.pose(at_ns))
        return poses

    waiting = watch(S, 4 * S)
    assert widest_jump([follower.pose(4 * S), waiting[-1]]) < 1e-6

    for servo in follower.servos:
        servo.write(42, servo.read(56, 2, 4 * S), 4 * S)
        servo.write(40, b"\x01", 4 * S)
    showing = watch(4 * S, 10 * S)
    assert widest_jump(showing) < 0.02
    assert widest_jump([showing[0], showing[-1]]) > 0.1

    for servo in follower.servos:
        servo.write(40, b"\x00", 10 * S)
    back = watch(10 * S, 16 * S)
    assert widest_jump([showing[-1], *back]) < 0.02
    assert widest_jump([follower.pose(16 * S), back[-1]]) < 1e-3


def test_joint_names_and_calibration_are_those_of_an_so_101(tmp_path):
    arm = make_arm(tmp_path)

    assert tuple(plan.name for plan in so101.PLAN) == JOINTS
    roll = arm.calibration["wrist_roll"]
    assert (roll.range_min, roll.range_max) == (0, 4095)
    for plan, servo in zip(so101.PLAN, arm.servos, strict=True):
        entry = arm.calibration[plan.name]
        assert servo.get("Homing_Offset") == entry.homing_offset
        assert servo.get("Min_Position_Limit") == entry.range_min
        assert servo.get("Max_Position_Limit") == entry.range_max


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ({"": {"follower": {"colour": "red"}}}, "sim.follower.colour: expected one of calibration"),
        ({"": {"follower": {"firmware": {"1": "new"}}}}, "settings of a simulated arm"),
        ({"main": {"leader": {"hand": "attend"}}}, "main.leader.hand: expected a follower"),
        ({"main": {"leader": {"hand": "third"}}}, "expected one of none, demo, attend"),
        ({"main": {"middle": {}}}, "expected leader or follower, found middle"),
    ],
)
def test_an_arm_that_cannot_be_is_refused_in_words(pairs, words):
    with pytest.raises(ConfigError, match=words):
        arms_of_pairs(pairs)


def test_a_calibration_that_is_none_is_refused_with_the_file_and_the_mend(tmp_path):
    path = tmp_path / "calibration" / "leader.json"
    path.parent.mkdir()
    path.write_text('{"gripper": {"id": 6}}')

    with pytest.raises(DeviceError, match=r"leader\.json: expected a LeRobot calibration file"):
        make_arm(tmp_path)
