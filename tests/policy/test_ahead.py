from dataclasses import replace

import numpy as np
import pytest

from recd.daemon.policy.ahead import ahead
from tests.policy.test_playback import DT_NS, plan

RAMP = [[float(k), 50.0 + k] for k in range(10)]


def test_a_joint_is_told_earlier_by_its_own_delay_and_the_others_are_not() -> None:
    moved = ahead(plan(rows=RAMP), (2 * DT_NS, 0))
    assert [row[0] for row in moved.rows] == [2, 3, 4, 5, 6, 7, 8, 9, 9, 9]
    assert [row[1] for row in moved.rows] == [row[1] for row in RAMP]
    half = ahead(plan(rows=RAMP), (DT_NS // 2, 0))
    np.testing.assert_allclose([row[0] for row in half.rows[:9]], np.arange(9) + 0.5, atol=1e-6)


def test_velocities_lose_no_way_but_what_lay_before_the_plan() -> None:
    rows = [[float(k), 0.0] for k in range(10)]
    moved = ahead(replace(plan(rows=rows), velocity=True), (3 * DT_NS, 0))
    np.testing.assert_allclose([row[0] for row in moved.rows], [3, 4, 5, 6, 7, 8, 9, 0, 0, 0])


def test_a_joint_that_the_policy_leaves_alone_stays_left_alone() -> None:
    rows = [[float("nan"), 1.0]] * 5
    assert np.isnan([row[0] for row in ahead(plan(rows=rows), (DT_NS, 0)).rows]).all()


@pytest.mark.parametrize("more_ns", [(0, 0), (DT_NS, DT_NS)])
def test_nothing_to_do_costs_nothing_and_a_stop_stays_a_stop(more_ns: tuple[int, int]) -> None:
    same = plan(rows=RAMP)
    assert (ahead(same, more_ns) is same) == (more_ns == (0, 0))
    stop = plan(rows=[])
    assert ahead(stop, more_ns) is stop
