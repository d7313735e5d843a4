import numpy as np
import pytest

from recd.config.streams import arm_sample_dtype
from recd.daemon.policy.observe import state_at

MS = 1_000_000
ARM_AND_GRIPPER = (False, True)


def samples(*rows: tuple[float, float], every_ms: int = 4) -> np.ndarray:
    found = np.zeros(len(rows), arm_sample_dtype(2))
    found["sample_ns"] = np.arange(len(rows)) * every_ms * MS
    found["present"] = rows
    return found


def test_a_joint_is_between_its_samples_and_a_gripper_at_the_nearer_one() -> None:
    taken = samples((0.0, 10.0), (4.0, 50.0), (8.0, 90.0))
    assert state_at(taken, 5 * MS, ARM_AND_GRIPPER).tolist() == [5.0, 50.0]
    assert state_at(taken, 7 * MS, ARM_AND_GRIPPER).tolist() == [7.0, 90.0]


def test_outside_of_the_samples_the_first_and_the_newest_one_count() -> None:
    taken = samples((1.0, 10.0), (2.0, 20.0))
    assert state_at(taken, -MS, ARM_AND_GRIPPER).tolist() == [1.0, 10.0]
    assert state_at(taken, 99 * MS, ARM_AND_GRIPPER).tolist() == [2.0, 20.0]


@pytest.mark.parametrize(("at_ms", "turned"), [(1, 179.5), (3, -179.5)])
def test_a_joint_that_passes_its_seam_does_not_turn_back(at_ms: int, turned: float) -> None:
    taken = samples((179.0, 0.0), (-179.0, 0.0))
    assert state_at(taken, at_ms * MS, ARM_AND_GRIPPER)[0] == pytest.approx(turned)


def test_a_missing_reading_is_bridged_and_a_joint_without_any_is_not_known() -> None:
    nan = float("nan")
    taken = samples((0.0, nan), (nan, nan), (8.0, nan))
    state = state_at(taken, 4 * MS, ARM_AND_GRIPPER)
    assert state[0] == pytest.approx(4.0)
    assert np.isnan(state[1])


def test_one_sample_is_the_state_whenever_it_was_taken() -> None:
    assert state_at(samples((3.0, 4.0)), 50 * MS, ARM_AND_GRIPPER).tolist() == [3.0, 4.0]
