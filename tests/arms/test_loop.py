from itertools import pairwise

import numpy as np
import pytest

from recd.config.streams import HISTOGRAM_BUCKETS, STATUS_DTYPE, histogram_bucket
from recd.daemon.arms.loop import Pacer
from recd.shm.clock import now_ns, sleep_until_ns, tick_ns

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
    ("value_ns", "expected"), [(0, 0), (1, 0), (2, 2), (3, 3), (1000, 19), (1 << 40, 63)]
)
def test_buckets_are_half_octaves(value_ns, expected) -> None:
    assert histogram_bucket(value_ns) == expected
    if 0 < value_ns < 1 << 31:
        assert 2 ** (expected / 2) <= value_ns < 2 ** ((expected + 1) / 2)
    assert histogram_bucket(value_ns) < HISTOGRAM_BUCKETS
