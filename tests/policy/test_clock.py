import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd.clients.heartbeat import DRIFT_PPM, better
from recd.config.messages import MessageError
from recd.config.policy_wire import Clock, read_clock

NS = st.integers(0, 10**9)


@given(ahead=st.integers(-(2**50), 2**50), out=NS, inside=NS, back=NS)
def test_the_true_offset_lies_within_the_bound_however_long_each_way_took(
    ahead: int, out: int, inside: int, back: int
) -> None:
    rx = 10**15 + out + ahead
    found = Clock.measured(sent_ns=10**15, rx_ns=rx, tx_ns=rx + inside,
                           back_ns=10**15 + out + inside + back)  # fmt: skip
    assert abs(found.offset_ns - ahead) <= found.bound_ns + 1
    assert 0 <= found.bound_ns <= (out + back + 1) // 2


def test_a_sure_measurement_outlives_worse_ones_until_clocks_may_have_parted_by_as_much() -> None:
    sure, worse = Clock(1_000, 10), Clock(1_400, 600)
    assert better(None, worse, age_ns=0) == worse
    assert better(worse, sure, age_ns=0) == sure
    kept = better(sure, worse, age_ns=10**6)
    assert kept == Clock(1_000, 10 + DRIFT_PPM)
    assert better(kept, worse, age_ns=10**6) == worse


def test_a_clock_comes_back_as_it_was_told_and_none_is_none() -> None:
    assert read_clock(Clock(-7, 0).told()) == Clock(-7, 0)
    assert read_clock(None) is None


@pytest.mark.parametrize(
    "told",
    [7, "now", [], {}, {"offset_ns": 1}, {"offset_ns": 1.0, "bound_ns": 1},
     {"offset_ns": True, "bound_ns": 1}, {"offset_ns": 1, "bound_ns": -1},
     {"offset_ns": 2**62, "bound_ns": 1}, {"offset_ns": 0, "bound_ns": float("nan")}],
)  # fmt: skip
def test_whatever_else_is_no_clock(told: object) -> None:
    with pytest.raises(MessageError, match="expected whole numbers offset_ns and bound_ns"):
        read_clock(told)
