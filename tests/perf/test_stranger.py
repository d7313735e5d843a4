import numpy as np

from recd.daemon.sim.stamp import Stamp
from recd.perf import stranger
from recd.perf.skew import JointTruth


def stamps(*frames, camera=0):
    return [frame if frame is None else Stamp(camera, frame, frame * 33_333) for frame in frames]


def test_repeats_and_skips_are_counted_from_the_stamps_alone():
    seen = stranger.pictures(stamps(5, 6, 6, 9, 10), 5, camera=0)
    assert (seen["repeated"], seen["skipped"], seen["wrong"]) == (1, 2, 0)
    assert seen["fresh"].tolist() == [True, True, False, True, True]
    assert seen["captured_ns"][4] == 10 * 33_333_000


def test_unreadable_foreign_and_backward_pictures_are_wrong_and_not_intact():
    seen = stranger.pictures([*stamps(5), None, *stamps(6, camera=1), *stamps(4, 7)], 5, camera=0)
    assert seen["wrong"] == 3
    assert seen["intact"].tolist() == [True, False, False, False, True]
    assert (seen["captured_ns"] > 0).tolist() == seen["intact"].tolist()


def test_pictures_without_a_row_and_rows_without_a_picture_are_wrong():
    assert stranger.pictures(stamps(1, 2, 3), 2, camera=0)["wrong"] == 1
    assert stranger.pictures(stamps(1, 2), 4, camera=0)["wrong"] == 2


def test_a_row_that_repeats_the_joints_is_stale_only_while_the_arm_moves():
    values = np.array([[1, 2], [1, 2], [1, 3], [1, 3]], np.float32)
    joints = JointTruth(np.zeros(4), np.array([900.0, 900.0, 900.0, 0.0]))
    assert stranger.stale_rows(values, joints).tolist() == [False, True, False, False]
