"""The line with random delays, in virtual time: what is accepted, what a delay costs, what is told.

Thousands of ticks of the real bus code; the position of every joint says when it was read.
"""

import itertools
from dataclasses import dataclass
from math import floor

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from recd.config.streams import JointFlag
from recd.daemon.arms.registers import POSITION_BLOCK, TELEMETRY_BLOCK
from recd.daemon.arms.tickcode import PLAIN, machine_code
from recd.daemon.sim.faults import WireFault

from .virtual_line import MS, STEP_NS, US, S, VirtualLine

PERIOD_NS = 4 * MS
CODE_NS = 250 * US
"""What a tick does besides the bus."""

READ_NS = 1_250 * US
"""A position read, its sleep's rounding and the code around it."""

GIVEN_UP_NS = 6_240 * US
"""A servo's delay after which a read is given up although its replies would just make the next
tick: they then cost what replies cost that miss it."""

TOLD_NS = PERIOD_NS - 500 * US
"""A delay after which even the shortest read has taken longer than a period."""

KNOWN = 600
"""Ticks after which the bus sleeps through most of the wait for its replies."""

ALL = 0b111111

late = st.builds(
    lambda ms, at: WireFault("late", ms=ms, at=at),
    st.floats(0.0, 60.0), st.sampled_from(["host", "servo"]),
)  # fmt: skip
lost = st.builds(
    lambda kind, ident, size: WireFault(kind, ident=ident, size=size),
    st.sampled_from(["silent", "checksum", "short", "garbage"]), st.integers(1, 6),
    st.integers(1, 8),
)  # fmt: skip
wakings = st.lists(st.sampled_from([0, 20 * US, 300 * US, 2 * MS, 5 * MS, 40 * MS]), max_size=60)


@dataclass(frozen=True)
class Tick:
    number: int
    flags: int
    valid: int


def served(line: VirtualLine, ticks: int, faults: dict[int, WireFault]) -> list[Tick]:
    """The loop of an arm process over `ticks` periods; every accepted position is judged."""
    bus, found, number = line.servos, [], 0
    bus.serve_every(PERIOD_NS)
    raw = [0] * 6
    while number < ticks:
        line.sleep_until(S + number * PERIOD_NS)
        number = max(number, (line.now - S) // PERIOD_NS)
        for at in [at for at in faults if at <= number]:
            line.bus.faults.arm(faults.pop(at))
        reading = bus.sync_read(TELEMETRY_BLOCK if number % 50 == 7 else POSITION_BLOCK)
        reading.positions(raw)
        last_ns = bus.port.last_byte_ns
        for joint in range(6):
            if reading.valid >> joint & 1:
                read_ns = line.read_at(raw[joint], reading.request_ns)
                assert reading.request_ns - STEP_NS <= read_ns <= last_ns
                assert abs(read_ns - reading.sample_ns) <= reading.half_width_ns + STEP_NS
        assert reading.valid == ALL or reading.flags & JointFlag.NO_REPLY
        found.append(Tick(number, reading.flags, reading.valid))
        line.sleep_until(line.now + CODE_NS)
        number = max(number + 1, -(-(line.now - S) // PERIOD_NS))
    return found


def gap_after(found: list[Tick], start: int) -> int:
    """Ticks from `start` on that brought nothing whole before the next one that did."""
    whole = [tick.number for tick in found if tick.valid == ALL]
    return next(b - a - 1 for a, b in itertools.pairwise(whole) if b > start)


pytestmark = pytest.mark.parametrize(
    "code", [pytest.param(PLAIN, id="Python"), pytest.param(machine_code(), id="machine code")]
)

UNSHRUNK = settings(max_examples=50, deadline=None, phases=(Phase.explicit, Phase.generate))
"""Without shrinking: an example is a second of a bus, and says enough."""


@UNSHRUNK
@given(faults=st.dictionaries(st.integers(3, 150), late | lost, max_size=12), oversleep=wakings)
def test_no_accepted_position_is_older_than_its_request_and_the_line_comes_back(
    code, faults, oversleep
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        line = VirtualLine(patch, code)
        served(line, KNOWN, {})
        line.oversleep = list(oversleep)
        found = served(line, KNOWN + 420, {KNOWN + at: fault for at, fault in faults.items()})
        assert all(tick.valid == ALL for tick in found[-20:])


@UNSHRUNK
@given(ms=st.floats(0.0, 60.0), at=st.sampled_from(["host", "servo"]))
@example(ms=6.3, at="servo")
@example(ms=3.51, at="host")
def test_a_late_reply_costs_the_ticks_it_covers_and_at_most_one_more(code, ms, at) -> None:
    with pytest.MonkeyPatch.context() as patch:
        found = served(VirtualLine(patch, code), 60, {20: WireFault("late", ms=ms, at=at)})
    covered = floor((ms * MS + READ_NS + CODE_NS) / PERIOD_NS)
    if at == "servo" and ms * MS > GIVEN_UP_NS:
        covered = max(covered, 2)
    cost = gap_after(found, 20)
    assert cost <= covered + (covered > 1)
    if ms * MS > TOLD_NS:
        assert any(t.flags & JointFlag.LATE_REPLY for t in found if 20 <= t.number <= 22 + covered)


def test_a_reply_up_to_the_end_of_the_period_costs_nothing(code, monkeypatch) -> None:
    found = served(VirtualLine(monkeypatch, code), 60, {20: WireFault("late", ms=2.4)})
    assert [tick.number for tick in found] == list(range(60))
    assert {tick.valid for tick in found} == {ALL}


@pytest.mark.parametrize("ident", range(1, 7))
def test_a_silent_servo_costs_its_own_joint_and_no_tick_of_the_others(
    code, monkeypatch, ident
) -> None:
    line, last = VirtualLine(monkeypatch, code), ident == 6
    served(line, KNOWN, {})
    found = served(line, KNOWN + 60, {KNOWN: WireFault("silent", ident=ident, count=None)})
    # Whether it is the last servo or the line that is silent is found out once, by a marker.
    assert [tick.number for tick in found] == [n for n in range(KNOWN - 1, KNOWN + 60)
                                               if not (last and n == KNOWN + 1)]  # fmt: skip
    assert {tick.valid for tick in found if tick.number >= KNOWN} == {ALL & ~(1 << ident - 1)}
    line.bus.faults.clear("silent")
    assert served(line, KNOWN + 80, {})[-1].valid == ALL


def test_a_process_that_was_stopped_in_a_read_does_not_keep_what_lay_there(
    code, monkeypatch
) -> None:
    line = VirtualLine(monkeypatch, code)
    served(line, KNOWN, {})
    line.oversleep = [2 * S]
    line.now += PERIOD_NS
    reading = line.servos.sync_read(POSITION_BLOCK)
    assert reading.valid == 0
    assert reading.flags & JointFlag.NO_REPLY
    line.sleep_until(line.now + PERIOD_NS)
    assert line.servos.sync_read(POSITION_BLOCK).valid == ALL
