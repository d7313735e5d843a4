import numpy as np
import pytest

from recd.config.models import SO_JOINTS
from recd.config.streams import GoalSource, Motion, arm_sample_dtype
from recd.daemon.writer.rows import align_pair, bus_of

PERIOD_NS = 4_000_000
BUS = bus_of("main", joints=SO_JOINTS, rate_hz=250, fps=30, degrees=True, action="requested")


def moving(count: int) -> np.ndarray:
    """Every joint moves 1 unit a sample; the goal written in sample i is 100 + i."""
    records = np.zeros(count, arm_sample_dtype(6))
    at = np.arange(count)
    records["request_ns"] = 1_000_000_000 + at * PERIOD_NS
    records["sample_ns"] = records["request_ns"] + 500_000
    records["goal_written_ns"] = records["request_ns"] + 2_000_000
    records["valid"] = 0b111111
    records["present"] = at[:, None]
    records["requested"] = 100 + at[:, None]
    records["source"] = GoalSource.LEADER
    return records


def grid(*offsets_ns: int) -> np.ndarray:
    return 1_000_500_000 + np.array(offsets_ns, np.int64)


def test_joints_are_interpolated_and_the_gripper_is_not():
    rows = align_pair(moving(20), grid(PERIOD_NS // 4, 10 * PERIOD_NS + PERIOD_NS * 3 // 4), BUS)
    assert rows.state_values[:, 0] == pytest.approx([0.25, 10.75])
    assert rows.state_values[:, 5].tolist() == [0, 11]
    assert rows.state.valid.all()


def test_the_action_is_the_goal_in_force_not_one_that_comes_later():
    rows = align_pair(moving(20), grid(5 * PERIOD_NS + 1_499_999, 5 * PERIOD_NS + 1_500_000), BUS)
    assert rows.action_values[:, 0].tolist() == [104, 105]
    assert rows.control_source.tolist() == [GoalSource.LEADER] * 2


def test_the_action_is_what_was_asked_for_or_what_was_sent_as_configured():
    samples = moving(20)
    samples["sent"] = samples["requested"] - 7  # limits held the goal back
    sent = bus_of("main", joints=SO_JOINTS, rate_hz=250, fps=30, degrees=True, action="sent")
    at = grid(5 * PERIOD_NS + 1_500_000)
    assert align_pair(samples, at, BUS).action_values[0].tolist() == [105] * 6
    assert align_pair(samples, at, sent).action_values[0].tolist() == [98] * 6


def test_a_joint_that_did_not_answer_is_invalid_and_only_that_one():
    samples = moving(30)
    samples["valid"][10:20] &= ~np.uint32(1 << 2)
    samples["present"][10:20, 2] = np.nan
    rows = align_pair(samples, grid(15 * PERIOD_NS), BUS)
    assert rows.state.valid[0].tolist() == [True, True, False, True, True, True]
    assert np.isfinite(rows.state_values).all()


def test_without_any_goal_the_action_stays_where_the_arm_is_and_is_not_valid():
    samples = moving(20)
    samples["goal_written_ns"] = 0
    samples["source"] = GoalSource.NONE
    rows = align_pair(samples, grid(3 * PERIOD_NS), BUS)
    assert rows.action_values[0, 0] == pytest.approx(3)
    assert not rows.action.valid.any()
    assert rows.control_source.tolist() == [GoalSource.NONE]


def test_a_silent_bus_gives_finite_rows_that_are_all_invalid():
    rows = align_pair(moving(0), grid(0, PERIOD_NS), BUS)
    assert np.isfinite(rows.state_values).all()
    assert np.isfinite(rows.action_values).all()
    assert not rows.state.valid.any()


def test_the_wrist_is_interpolated_over_its_seam_not_through_the_whole_turn():
    samples = moving(10)
    samples["present"][:, 4] = np.where(np.arange(10) % 2, -179.0, 179.0)
    rows = align_pair(samples, grid(2 * PERIOD_NS + PERIOD_NS // 2), BUS)
    assert abs(rows.state_values[0, 4]) == pytest.approx(180, abs=0.01)


def test_a_lost_reply_with_its_resynchronisation_leaves_the_row_valid_and_says_how_far_it_reaches():
    samples = moving(40)
    samples["valid"][18:23] = 0
    samples["present"][18:23] = np.nan
    rows = align_pair(samples, grid(20 * PERIOD_NS), BUS)
    assert rows.state_values[0, 0] == pytest.approx(20)
    assert rows.state.valid.all()
    assert abs(rows.state.error_ns[0, 0]) == 3 * PERIOD_NS


def test_a_row_tells_the_chunk_that_drove_it_and_a_hold_in_which_nothing_is_written():
    samples = moving(20)
    samples["source"], samples["chunk"] = GoalSource.POLICY, 7
    samples["chunk_index"] = np.arange(20) // 5
    samples["source"][10:], samples["chunk"][10:], samples["chunk_index"][10:] = 1, -1, -1
    samples["goal_written_ns"][10:] = 0
    samples["motion"][13:] = Motion.CORRECTING
    samples["source"][13:15], samples["source"][15:] = GoalSource.HAND_OVER, GoalSource.LEADER
    rows = align_pair(samples, grid(*(k * PERIOD_NS for k in (4, 9, 12, 14, 16))), BUS)
    assert rows.control_source.tolist() == [
        GoalSource.POLICY, GoalSource.POLICY, GoalSource.HOLD, GoalSource.HAND_OVER,
        GoalSource.LEADER,
    ]  # fmt: skip
    assert rows.chunk_id.tolist() == [7, 7, -1, -1, -1]
    assert rows.chunk_index.tolist() == [0, 1, -1, -1, -1]
    assert rows.intervention.tolist() == [False, False, False, False, True]
    assert rows.action_values[2, 0] == rows.action_values[1, 0] + 1, "the goal stays in force"
