"""The pace of reads: woken once, just before the last reply, whatever the computer is like."""

import pytest

from recd.daemon.arms.feetech.pace import WAKE_NS, ReplyPace

LINE_NS = 1_040_000
READS = 20_000


def wakings(late_by_ns: int) -> list[int]:
    """Times at which READS reads have everything, when each wakes `late_by_ns` after its time."""
    pace, seen = ReplyPace(), []
    for _ in range(READS):
        woke_ns = max(0, pace.sleep_ns) + late_by_ns
        overslept = pace.sleep_ns > 0 and woke_ns >= LINE_NS
        span_ns = woke_ns if overslept else LINE_NS + late_by_ns
        pace.learn(span_ns, overslept=overslept)
        seen.append(span_ns)
    return seen


@pytest.mark.parametrize("late_by_ns", [0, 20_000, WAKE_NS, 100_000, 400_000, 900_000])
def test_a_computer_that_wakes_late_does_not_read_later_and_later(late_by_ns):
    assert max(wakings(late_by_ns)) <= LINE_NS + late_by_ns + WAKE_NS


def test_reads_sleep_through_most_of_the_wait_once_the_line_is_known():
    pace = ReplyPace()
    for _ in range(1_000):
        pace.learn(LINE_NS, overslept=False)
    assert pace.sleep_ns == LINE_NS - WAKE_NS


def test_a_block_that_is_read_a_few_times_a_second_is_known_within_seconds():
    pace = ReplyPace()
    for _ in range(20):
        pace.learn(LINE_NS, overslept=False)
    assert pace.sleep_ns > 0.9 * LINE_NS


def test_one_late_reply_while_the_line_is_searched_costs_no_period():
    pace = ReplyPace()
    for span_ns in (LINE_NS, 6_800_000):
        pace.learn(span_ns, overslept=False)
    assert pace.sleep_ns < 2 * LINE_NS
    for _ in range(100):
        pace.learn(max(LINE_NS, pace.sleep_ns), overslept=pace.sleep_ns > LINE_NS)
    assert pace.sleep_ns <= LINE_NS


def test_a_line_that_became_faster_is_followed():
    pace = ReplyPace(usual_ns=3_000_000)
    for _ in range(200):
        pace.learn(max(LINE_NS, pace.sleep_ns), overslept=pace.sleep_ns > LINE_NS)
    assert pace.sleep_ns <= LINE_NS
