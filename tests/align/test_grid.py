import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd.daemon.align.grid import Grid
from recd.shm.clock import tick_ns

rates = st.tuples(st.integers(1, 240_000), st.integers(1, 1_001))


@given(st.integers(0, 2**60), rates, st.integers(0, 10**8))
def test_every_form_of_the_grid_is_the_clocks_own(t0, rate, k):
    num, den = rate
    if k * den // num > 10**9:  # 30 years
        k = k % 1_000
    grid = Grid(t0, num, den)
    exact = t0 + k * 10**9 * den // num
    assert grid.tick_ns(k) == exact
    assert grid.ticks_ns(k, k + 1).tolist() == [exact]
    assert tick_ns(t0, k, num, den) == exact
    assert grid.at_or_before(exact) >= k
    assert grid.tick_ns(grid.at_or_before(exact)) <= exact


def test_ten_hours_of_ntsc_drift_nowhere():
    grid = Grid(5, 30_000, 1_001)
    ticks = grid.ticks_ns(0, 1_080_000)
    assert ticks[-1] == 5 + 1_079_999 * 10**9 * 1_001 // 30_000
    assert set(np.diff(ticks).tolist()) == {33_366_666, 33_366_667}


@pytest.mark.parametrize("rate", [(0, 1), (30, 0), (-30, 1)])
def test_a_grid_without_rate_is_refused(rate):
    with pytest.raises(ValueError, match="expected over 0"):
        Grid(0, *rate)
