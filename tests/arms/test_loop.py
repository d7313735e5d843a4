from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd.config.streams import HISTOGRAM_BUCKETS, STATUS_DTYPE, histogram_bucket
from recd.daemon.arms import loop, pacing
from recd.daemon.arms.loop import Pacer
from recd.daemon.arms.tickcode import PLAIN, Code, machine_code
from recd.shm.clock import now_ns, sleep_until_ns, tick_at_or_before, tick_ns

from .virtual_kernel import VirtualKernel

MS = 1_000_000


CODES = pytest.mark.parametrize(
    "code", [pytest.param(PLAIN, id="Python"), pytest.param(machine_code(), id="machine code")]
)


def pacer(code: Code, rate_hz: int = 200, phase_ns: int = 0) -> tuple[Pacer, np.void]:
    status = np.zeros(1, STATUS_DTYPE)[0]
    return Pacer(rate_hz, phase_ns=phase_ns, spin_ns=0, status=status, code=code), status


@CODES
def test_every_wake_lies_at_or_after_its_own_tick_and_no_tick_comes_twice(code: Code) -> None:
    grid, status = pacer(code, phase_ns=2 * MS)
    ticks = []
    for _ in range(20):
        woke_ns = grid.wait()
        assert woke_ns >= tick_ns(2 * MS, grid.tick, 200)
        ticks.append(grid.tick)
    assert all(b > a for a, b in pairwise(ticks))
    assert int(status["lateness"].sum()) == 20
    assert int(status["work"].sum()) == 19


@CODES
def test_an_overrun_skips_to_the_grid_and_is_counted_never_made_up(code: Code) -> None:
    grid, _ = pacer(code)
    grid.wait()
    before = grid.tick
    sleep_until_ns(now_ns() + 23 * MS)
    grid.wait()
    assert grid.skipped >= 4
    assert grid.tick == before + 1 + grid.skipped
    assert grid.overruns >= grid.skipped


@CODES
def test_time_asleep_for_the_bus_is_no_work_of_the_tick(code: Code) -> None:
    grid, status = pacer(code)
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


@given(st.one_of(st.integers(1, 10**9), st.integers(-5, 2**62)))
def test_a_bucket_in_64_bits_is_the_bucket_itself(value_ns) -> None:
    assert pacing.bucket(value_ns, HISTOGRAM_BUCKETS) == histogram_bucket(value_ns)


@pytest.mark.parametrize("eighth", range(1, 256))
def test_a_bucket_begins_at_the_same_value_in_64_bits(eighth) -> None:
    first = next(v for v in range(int(2 ** (eighth / 8)) - 2, 1 << 33)
                 if histogram_bucket(v) >= eighth)  # fmt: skip
    for value_ns in (first - 1, first):
        assert pacing.bucket(value_ns, HISTOGRAM_BUCKETS) == histogram_bucket(value_ns)


@given(st.integers(1, 1000), st.integers(0, 10**7), st.integers(0, 2**62))
def test_ticks_in_64_bits_are_the_ticks_themselves(rate_hz, phase_ns, at_ns) -> None:
    tick = tick_at_or_before(phase_ns, at_ns, rate_hz)
    assert tick_ns(phase_ns, tick, rate_hz) == phase_ns + tick * 10**9 // rate_hz <= at_ns
    assert phase_ns + (tick + 1) * 10**9 // rate_hz > at_ns


@CODES
@given(rate_hz=st.integers(1, 1000), phase_ns=st.integers(0, 10**7), busy=st.integers(0, 30),
       overslept=st.integers(0, 30), edge=st.integers(-2, 2))  # fmt: skip
def test_the_tick_of_a_waking_is_the_newest_that_is_due_and_never_an_old_one(
    code, rate_hz, phase_ns, busy, overslept, edge
) -> None:
    clock = [10**15]

    def sleep_until(due_ns: int) -> None:
        late = tick_ns(phase_ns, tick_at_or_before(phase_ns, due_ns, rate_hz) + overslept,
                       rate_hz)  # fmt: skip
        clock[0] = max(due_ns, late + edge)

    kernel = VirtualKernel(
        clock=lambda: clock[0], sleep_until=sleep_until, wait_input=lambda *_: False,
        read=lambda *_: b"", write=lambda *_: 0,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "now_ns", lambda: clock[0])
        patch.setattr(loop.libc, "table", lambda: kernel.table)
        patch.setattr(pacing, "now", lambda _: clock[0])
        patch.setattr(pacing, "sleep_until", lambda _, due_ns: sleep_until(due_ns))
        grid, status = pacer(code, rate_hz, phase_ns)
        before = grid.tick
        clock[0] = tick_ns(phase_ns, before + busy, rate_hz) + edge
        begun = tick_at_or_before(phase_ns, clock[0], rate_hz)
        woke_ns = grid.wait()
        first = max(before + 1, begun + 1)
        assert grid.tick == max(first, tick_at_or_before(phase_ns, woke_ns, rate_hz))
        assert grid.skipped == grid.overruns == grid.tick - before - 1
        late_ns = woke_ns - tick_ns(phase_ns, grid.tick, rate_hz)
        assert status["lateness"][histogram_bucket(late_ns)] == 1
        clock[0] += 12_345
        grid.wait(345)
        assert status["work"].nonzero()[0].tolist() == [histogram_bucket(12_000)]
