from dataclasses import fields

import numpy as np
import pytest

from recd.config.models import SO_JOINTS
from recd.config.streams import GoalSource, arm_sample_dtype
from recd.daemon.writer.builder import decided_until_ns
from recd.daemon.writer.rows import align_pair, bus_of

PERIOD_NS = 4_000_000
ROW_NS = 33_333_333
BUS = bus_of("main", joints=SO_JOINTS, rate_hz=250, fps=30, degrees=True, action="requested")


def samples(count: int, seed: int) -> np.ndarray:
    """Of an arm that answers late, in part, or not at all, and is told goals now and then."""
    rng = np.random.default_rng(seed)
    records = np.zeros(count, arm_sample_dtype(6))
    records["request_ns"] = 1_000_000_000 + np.arange(count) * PERIOD_NS
    records["sample_ns"] = records["request_ns"] + rng.integers(100_000, 3_000_000, count)
    records["goal_written_ns"] = records["sample_ns"] + 500_000
    records["tick"] = np.arange(count)
    records["valid"] = np.where(rng.random(count) < 0.5, 0b111111, rng.integers(0, 64, count))
    records["sample_ns"][rng.random(count) < 0.2] = 0
    records["goal_written_ns"][rng.random(count) < 0.3] = 0
    records["valid"][records["sample_ns"] == 0] = 0
    records["present"] = rng.normal(0, 50, (count, 6))
    for name in ("requested", "limited", "sent"):
        records[name] = rng.normal(0, 50, (count, 6))
    records["source"] = rng.choice([GoalSource.LEADER, GoalSource.POLICY], count)
    return records


def until(known: np.ndarray) -> int:
    newest_ns = int(known["request_ns"][-1]) if len(known) else -1
    return decided_until_ns(known[-16:], newest_ns, BUS)


@pytest.mark.parametrize("seed", range(5))
def test_no_later_sample_changes_a_row_that_was_decided(seed):
    everything = samples(120, seed)
    grid_ns = 1_000_000_000 + np.arange(60, dtype=np.int64) * 7_777_777
    final = align_pair(everything, grid_ns, BUS)
    for seen in range(1, len(everything)):
        count = int(np.searchsorted(grid_ns, until(everything[:seen]), side="right"))
        early = align_pair(everything[:seen], grid_ns[:count], BUS)
        for field in fields(early):
            found, expected = getattr(early, field.name), getattr(final, field.name)
            if isinstance(found, np.ndarray):
                np.testing.assert_array_equal(found, expected[:count], err_msg=field.name)
        np.testing.assert_array_equal(early.state.values, final.state.values[:count])
        np.testing.assert_array_equal(early.state.valid, final.state.valid[:count])
        np.testing.assert_array_equal(early.action.valid, final.action.valid[:count])


def test_a_row_of_an_arm_that_answers_is_decided_by_the_sample_after_it():
    known = samples(20, 0)
    known["valid"], known["sample_ns"] = 0b111111, known["request_ns"] + 500_000
    assert known["request_ns"][-1] - until(known) < PERIOD_NS


def test_a_silent_arm_is_waited_for_as_long_as_a_value_may_be_away_from_its_row():
    known = samples(20, 0)
    known["valid"] = 0b011111
    assert until(known) == known["request_ns"][-1] - BUS.reach_ns
