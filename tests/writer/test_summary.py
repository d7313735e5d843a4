import numpy as np
import pytest

from recd.config.streams import TICK_DTYPE, GoalSource, JointFlag, TickFlag, arm_sample_dtype
from recd.daemon.writer.summary import bus_summary, camera_summary, longest_run

JOINTS = ("shoulder_pan", "elbow_flex", "gripper")
PERIOD_NS = 33_333_333


def ticks(flags: list[int]) -> np.ndarray:
    records = np.zeros(len(flags), TICK_DTYPE)
    records["k"] = np.arange(len(flags))
    records["flags"] = flags
    records["capture_ns"] = np.arange(1, len(flags) + 1) * PERIOD_NS
    records["source_index"] = np.arange(len(flags))
    return records


def samples(count: int) -> np.ndarray:
    records = np.zeros(count, arm_sample_dtype(3))
    records["tick"] = np.arange(count)
    records["request_ns"] = np.arange(count) * 4_000_000
    return records


@pytest.mark.parametrize(
    ("mask", "run"), [([], (0, -1)), ([0, 0], (0, -1)), ([1, 1, 0, 1], (2, 0)), ([0, 1], (1, 1))]
)
def test_longest_run(mask, run):
    assert longest_run(np.array(mask, bool)) == run


def test_every_row_of_a_camera_is_fresh_repeated_expected_or_missing():
    repeat, expected, missing = TickFlag.REPEAT, TickFlag.EXPECTED, TickFlag.MISSING
    flags = [0, repeat, repeat, 0, repeat | expected, repeat | missing, 0]
    counted = camera_summary(ticks(flags), fps=30, camera_fps=30, lost=1)
    assert (counted.fresh, counted.repeated, counted.expected, counted.missing) == (3, 2, 1, 1)
    assert counted.fresh + counted.repeated + counted.expected + counted.missing == counted.rows
    assert (counted.repeat_run, counted.repeat_run_at_s) == (2, pytest.approx(1 / 30))
    assert counted.missing_at_s == pytest.approx(5 / 30)
    assert counted.measured_fps == pytest.approx(30, rel=1e-4)


def test_frozen_and_black_runs_are_measured_in_seconds_from_their_first_row():
    frozen, black = TickFlag.FROZEN, TickFlag.BLACK
    flags = [0, black, 0, frozen, frozen, frozen | black, black, black, 0]
    counted = camera_summary(ticks(flags), fps=30, camera_fps=30, lost=0)
    assert (counted.frozen_s, counted.frozen_at_s) == (pytest.approx(0.1), pytest.approx(0.1))
    assert (counted.black_s, counted.black_at_s) == (pytest.approx(0.1), pytest.approx(5 / 30))


def test_an_old_picture_counts_with_its_age_as_time_error():
    records = ticks([0, 0, *[TickFlag.REPEAT | TickFlag.MISSING] * 3, 0])
    records["error_ns"] = np.array([0, 0, -1, -2, -3, 0]) * PERIOD_NS
    counted = camera_summary(records, fps=30, camera_fps=30, lost=0)
    assert counted.error_p99_periods == pytest.approx(3, abs=0.1)
    assert counted.error_at_s == pytest.approx(4 / 30)


def test_bus_counts_overruns_late_replies_and_the_worst_joint():
    records = samples(100)
    records["tick"][50:] += 3
    records["flags"][10:12] = JointFlag.LATE_REPLY
    records["leader"][:, 1] = 5
    records["leader"][20, 1] = 9
    valid = np.ones((12, 3), bool)
    valid[3:5, 2] = False
    counted = bus_summary(records, valid_rows=valid, joints=JOINTS, fps=30, t0_ns=0, recorded=True)
    assert (counted.overruns, counted.late_replies) == (3, 2)
    assert (counted.invalid_rows, counted.invalid_run, counted.invalid_joint) == (2, 2, "gripper")
    assert counted.tracking_p95 == pytest.approx(5)
    assert (counted.tracking_joint, counted.tracking_at_s) == ("elbow_flex", pytest.approx(0.08))
    assert counted.measured_hz == pytest.approx(250)


def test_a_bus_without_a_leader_has_no_tracking_error():
    records = samples(10)
    records["leader"] = np.nan
    valid = np.ones((2, 3), bool)
    counted = bus_summary(records, valid_rows=valid, joints=JOINTS, fps=30, t0_ns=0, recorded=True)
    assert counted.tracking_p95 is None


def test_ramping_in_is_neither_clipping_nor_bad_tracking():
    records = samples(10)
    records["flags"] = JointFlag.CLIPPED | JointFlag.RAMPING
    records["leader"] = 50
    valid = np.ones((2, 3), bool)
    counted = bus_summary(records, valid_rows=valid, joints=JOINTS, fps=30, t0_ns=0, recorded=True)
    assert (counted.clipped_rows, counted.tracking_p95) == (0, None)


@pytest.mark.parametrize("driver", [GoalSource.POLICY, GoalSource.REPLAY])
def test_a_leader_that_lies_about_while_somebody_else_drives_is_no_bad_tracking(driver):
    records = samples(100)
    records["source"], records["leader"] = driver, 80
    records["source"][90:] = GoalSource.HOLD
    valid = np.ones((12, 3), bool)
    plan = {"valid_rows": valid, "joints": JOINTS, "fps": 30, "t0_ns": 0, "recorded": True}
    assert bus_summary(records, **plan).tracking_p95 is None
    records["source"][50:60] = GoalSource.LEADER  # a correction
    records["leader"][50:60] = 7
    assert bus_summary(records, **plan).tracking_p95 == pytest.approx(7)


def test_smoothing_by_the_acceleration_limit_is_not_clipping_but_a_cut_goal_is():
    records = samples(10)
    records["flags"] = JointFlag.CLIPPED
    records["requested"] = 10
    records["limited"] = 9
    records["limited"][6:, 2] = 4
    valid = np.ones((2, 3), bool)
    counted = bus_summary(records, valid_rows=valid, joints=JOINTS, fps=30, t0_ns=0, recorded=True)
    assert (counted.clipped_rows, counted.clipped_joint) == (2, "gripper")
