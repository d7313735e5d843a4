import struct

import numpy as np
import pytest

from recd.config.errors import DeviceError
from recd.daemon.sim.pose import HEADER_BYTES, ArmPose, PoseHistory, PoseJoint, PoseWriter

S = 1_000_000_000
MS = 1_000_000
JOINTS = [
    PoseJoint("main.follower", "shoulder_pan", 2048.0, 651.9, 100, 800.0, 3300.0),
    PoseJoint("main.follower", "gripper", 2000.0, 1500.0, -50, 2000.0, 3500.0),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pose.bin"


def test_a_pose_between_two_records_lies_on_their_line(path):
    writer = PoseWriter(path, JOINTS)
    for k in range(10):
        writer.publish(S + k * 4 * MS, [2048.0 + k, 2000.0 + 150 * k])

    history = PoseHistory(path)

    np.testing.assert_allclose(history.angles_at(S + 10 * MS), [2050.5, 2375.0])
    np.testing.assert_allclose(history.at(S + 20 * MS), [5 / 651.9, 0.5])
    np.testing.assert_allclose(history.steps_at(S), [1948.0, 2050.0])
    assert history.span_ns() == (S, S + 36 * MS)
    assert [joint.joint for joint in history.joints] == ["shoulder_pan", "gripper"]


def test_the_newest_movement_goes_on_for_a_moment_and_then_stands(path):
    writer = PoseWriter(path, JOINTS)
    writer.publish(S, [0.0, 0.0])
    writer.publish(S + 4 * MS, [4.0, 0.0])

    history = PoseHistory(path)

    assert history.angles_at(S + 6 * MS)[0] == pytest.approx(6.0)
    assert history.angles_at(S + 9 * S)[0] == pytest.approx(24.0)


def test_only_the_last_records_are_kept_and_older_times_are_refused(path):
    writer = PoseWriter(path, JOINTS, records=100)
    for k in range(250):
        writer.publish(S + k * 4 * MS, [float(k), 0.0])

    history = PoseHistory(path)

    assert history.angles_at(S + 151 * 4 * MS)[0] == pytest.approx(151.0)
    with pytest.raises(LookupError, match="no pose is kept"):
        history.angles_at(S + 100 * 4 * MS)


def test_a_torn_record_is_never_believed(path):
    writer = PoseWriter(path, JOINTS, records=100)
    for k in range(50):
        writer.publish(S + k * 4 * MS, [float(k), 0.0])
    history = PoseHistory(path)
    size = struct.calcsize("<Qq2d") + 8

    with path.open("r+b") as file:
        file.seek(HEADER_BYTES + 20 * size + 16)
        file.write(struct.pack("<d", 9e9))

    with pytest.raises(LookupError):
        history.angles_at(S + 20 * 4 * MS + MS)
    assert history.angles_at(S + 30 * 4 * MS)[0] == pytest.approx(30.0)


def test_a_file_that_is_none_is_refused_with_a_mend(path):
    path.write_bytes(b"\0" * 8192)
    with pytest.raises(DeviceError, match="pose file"):
        PoseHistory(path)
    with pytest.raises(DeviceError, match="running simulated robot"):
        PoseHistory(path.with_name("none"))
    PoseWriter(path, JOINTS)
    with pytest.raises(LookupError, match="yet"):
        PoseHistory(path).at(S)


def test_cameras_get_radians_of_one_arm_gripper_from_shut(path):
    others = [PoseJoint("main.leader", "shoulder_pan", 0.0, 1.0, 0, 0.0, 1.0)]
    writer = PoseWriter(path, [*others, *JOINTS])
    writer.publish(S, [7.0, 2048.0 + 651.9, 3500.0])

    pose = ArmPose(PoseHistory(path), "main.follower").pose_at(S)

    assert pose == pytest.approx([1.0, 1500 * 2 * np.pi / 4096])
