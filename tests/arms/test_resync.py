from recd.daemon.arms.feetech.resync import (
    LONGEST_PATIENCE_NS,
    MARKER_LENGTHS,
    PATIENCE_NS,
    QUIET_NS,
    Line,
)
from recd.daemon.arms.registers import POSITION_BLOCK, TELEMETRY_BLOCK, TORQUE_BLOCK

IDS = (1, 2, 3, 4, 5, 6)
S = 1_000_000_000


def lost() -> Line:
    line = Line(IDS)
    line.lose(S)
    return line


def test_no_marker_goes_out_before_the_line_is_quiet() -> None:
    line = lost()
    assert line.next_marker(S + QUIET_NS - 1, last_traffic_ns=S) is None
    assert line.next_marker(S + QUIET_NS, last_traffic_ns=S) is not None


def test_only_the_newest_marker_ends_the_search() -> None:
    line = lost()
    first = line.next_marker(2 * S, last_traffic_ns=S)
    assert line.next_marker(2 * S + PATIENCE_NS - 1, last_traffic_ns=S) is None
    second = line.next_marker(2 * S + PATIENCE_NS, last_traffic_ns=S)
    assert first != second
    assert not line.hear(*first)
    assert not line.hear(1, POSITION_BLOCK.length)
    assert not line.in_step
    assert line.hear(*second)
    assert line.in_step


def test_a_marker_looks_like_no_ordinary_reply() -> None:
    for block in (POSITION_BLOCK, TELEMETRY_BLOCK, TORQUE_BLOCK):
        assert block.length not in MARKER_LENGTHS
    assert 0 not in MARKER_LENGTHS  # an acknowledged write


def test_markers_ask_every_servo_and_repeat_only_after_seconds() -> None:
    line, at_ns, shapes, times = lost(), S, [], []
    while len(shapes) < 61:
        at_ns += QUIET_NS
        marker = line.next_marker(at_ns, last_traffic_ns=S)
        if marker is not None:
            shapes.append(marker)
            times.append(at_ns)
    assert {servo for servo, _ in shapes[:6]} == set(IDS)
    assert len(set(shapes[:60])) == 60
    assert shapes[60] == shapes[0]
    assert times[60] - times[0] > 50 * LONGEST_PATIENCE_NS


def test_losing_again_while_searching_changes_nothing() -> None:
    line = lost()
    marker = line.next_marker(2 * S, last_traffic_ns=S)
    line.lose(2 * S)
    assert line.hear(*marker)
