import numpy as np
import pytest

from recd.daemon.sim.pose import PoseJoint, PoseWriter
from recd.perf.skew import JointTruth, PoseTrack, joint_truth, skew_figures
from recd.shm.clock import NS_PER_MS, NS_PER_S

T0_NS = 9_000_000_000_000
BUS = "main.follower"
JOINTS = 3
DEGREES = 360.0 / 4095.0
JUDGED = (0, 1)


def angle(joint, t_ns):
    """Mechanical steps: every joint on a sine of its own, the last one standing still."""
    if joint == JOINTS - 1:
        return 2000.0
    return 2048.0 + 500.0 * np.sin(2 * np.pi * (0.25 + 0.1 * joint) * (t_ns - T0_NS) / NS_PER_S)


@pytest.fixture
def poses(tmp_path):
    joints = [PoseJoint("main.leader", "pan", 2048.0, 651.9, 0, 0.0, 4095.0)] + [
        PoseJoint(BUS, f"j{at}", 2048.0, 651.9, -30, 800.0, 3296.0) for at in range(JOINTS)
    ]
    source = tmp_path / "pose.bin"
    writer = PoseWriter(source, joints)
    track = PoseTrack(source, tmp_path / "kept")
    for at_ns in range(T0_NS, T0_NS + 6 * NS_PER_S, 4 * NS_PER_MS):
        writer.publish(at_ns, [0.0, *(angle(joint, at_ns) for joint in range(JOINTS))])
        if (at_ns - T0_NS) % (2 * NS_PER_S) == NS_PER_S:
            track.keep(at_once=True)
    writer.close()
    return track.poses()


def state_at(times_ns, *, rounded=False):
    centre = (800.0 + 3296.0) / 2
    steps = np.array([[angle(j, int(t)) for j in range(JOINTS)] for t in times_ns])
    steps = np.round(steps) if rounded else steps
    return ((steps - centre) * DEGREES).astype(np.float32)


ROWS_NS = T0_NS + 200 * NS_PER_MS + np.arange(120) * 33_333_333


@pytest.mark.parametrize("late_ms", [-9.0, 0.0, 3.0, 17.0])
def test_the_moment_at_which_the_arm_stood_like_a_row_is_found(poses, late_ms):
    shifted = ROWS_NS + int(late_ms * NS_PER_MS)
    found = joint_truth(state_at(shifted), ROWS_NS, poses, bus=BUS, judged=JUDGED)
    assert found.judged.mean() > 0.8
    assert np.nanmax(np.abs(found.late_ns / NS_PER_MS - late_ms)) < 0.1


def test_whole_servo_steps_cost_less_than_four_milliseconds(poses):
    found = joint_truth(state_at(ROWS_NS, rounded=True), ROWS_NS, poses, bus=BUS, judged=JUDGED)
    assert np.nanmax(np.abs(found.late_ns)) < 4 * NS_PER_MS


def test_rows_in_which_nothing_moves_are_not_judged(poses):
    found = joint_truth(state_at(ROWS_NS), ROWS_NS, poses, bus=BUS, judged=(JOINTS - 1,))
    assert not found.judged.any()


def test_rows_outside_what_was_kept_are_not_judged(poses):
    rows_ns = ROWS_NS + 20 * NS_PER_S
    found = joint_truth(state_at(rows_ns), rows_ns, poses, bus=BUS, judged=JUDGED)
    assert not found.judged.any()


def test_skew_is_off_by_what_the_claims_of_picture_and_joints_are_off():
    rows_ns = ROWS_NS[:50]
    joints = JointTruth(np.full(50, 1.0 * NS_PER_MS), np.full(50, 500.0))
    captured = rows_ns - 6 * NS_PER_MS
    claimed = captured + 4 * NS_PER_MS
    told = skew_figures(joints, captured_ns=captured, claimed_ns=claimed, rows_ns=rows_ns)
    assert told["true_ms"]["p50"] == pytest.approx(7.0)
    assert told["bias_ms"] == pytest.approx(-5.0)
    assert told["error_ms"]["p99"] == pytest.approx(5.0)


def test_rows_without_a_stamp_or_a_claim_do_not_count():
    joints = JointTruth(np.zeros(4), np.full(4, 500.0))
    rows_ns = ROWS_NS[:4]
    captured, claimed = rows_ns.copy(), rows_ns.copy()
    captured[1] = claimed[2] = 0
    told = skew_figures(joints, captured_ns=captured, claimed_ns=claimed, rows_ns=rows_ns)
    assert told["rows_judged"] == 2
