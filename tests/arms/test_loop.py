from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd.config.streams import HISTOGRAM_BUCKETS, STATUS_DTYPE, histogram_bucket
from recd.daemon.arms import loop
from recd.daemon.arms.loop import Pacer
from recd.shm.clock import now_ns, sleep_until_ns, tick_at_or_before, tick_ns

MS = 1_000_000


def pacer(rate_hz: int = 200, phase_ns: int = 0) -> tuple[Pacer, np.void]:
    status = np.zeros(1, STATUS_DTYPE)[0]
    return Pacer(rate_hz, phase_ns=phase_ns, spin_ns=0, status=status), status


def test_every_wake_lies_at_or_after_its_own_tick_and_no_tick_comes_twice() -> None:
    grid, status = pacer(phase_ns=2 * MS)
    ticks = []
    for _ in range(20):
        woke_ns = grid.wait()
        assert woke_ns >= tick_ns(2 * MS, grid.tick, 200)
        ticks.append(grid.tick)
    assert all(b > a for a, b in pairwise(ticks))
    assert int(status["lateness"].sum()) == 20
    assert int(status["work"].sum()) == 19


def test_an_overrun_skips_to_the_grid_and_is_counted_never_made_up() -> None:
    grid, _ = pacer()
    grid.wait()
    before = grid.tick
    sleep_until_ns(now_ns() + 23 * MS)
    grid.wait()
    assert grid.skipped >= 4
    assert grid.tick == before + 1 + grid.skipped
    assert grid.overruns >= grid.skipped


def test_time_asleep_for_the_bus_is_no_work_of_the_tick() -> None:
    grid, status = pacer()
    grid.wait()
    before = now_ns()
    sleep_until_ns(before + 40 * MS)
    grid.wait(now_ns() - before)
    assert int(status["work"].sum()) == 1
    assert int(status["work"][histogram_bucket(40 * MS) :].sum()) == 0


@pytest.mark.parametrize(
    ("value_ns", "expected"), [(0, 0), (1, 0), (2, 8), (3, 12), (1000, 79), (1 << 40, 255)]
)
def test_buckets_are_eighths_of_an_octave(value_ns, expected) -> None:
    assert histogram_bucket(value_ns) == expected
    if 0 < value_ns < 1 << 31:
        assert 2 ** (expected / 8) <= value_ns < 2 ** ((expected + 1) / 8)
    assert histogram_bucket(value_ns) < HISTOGRAM_BUCKETS


@given(st.integers(1, 1000), st.integers(0, 10**7), st.integers(0, 30), st.integers(0, 30),
       st.integers(-2, 2))  # fmt: skip
def test_the_tick_of_a_waking_is_the_newest_that_is_due_and_never_an_old_one(
    rate_hz, phase_ns, busy, overslept, edge
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = [10**15]
        patch.setattr(loop, "now_ns", lambda: clock[0])
        grid, _ = pacer(rate_hz, phase_ns)
        before = grid.tick

        def woken(due_ns: int, spin_ns: int) -> int:
            late = tick_ns(phase_ns, tick_at_or_before(phase_ns, due_ns, rate_hz) + overslept,
                           rate_hz)  # fmt: skip
            clock[0] = max(due_ns, late + edge)
            return clock[0]

        patch.setattr(loop, "sleep_until_spinning_ns", woken)
        clock[0] = tick_ns(phase_ns, before + busy, rate_hz) + edge
        begun = tick_at_or_before(phase_ns, clock[0], rate_hz)
        woke_ns = grid.wait()
        first = max(before + 1, begun + 1)
        assert grid.tick == max(first, tick_at_or_before(phase_ns, woke_ns, rate_hz))
        assert grid.skipped == grid.tick - before - 1
