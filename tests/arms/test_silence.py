from recd.daemon.arms.silence import BUS_SILENT_NS, JOINT_SILENT_NS, Silence, SilenceFinding
from recd.shm.clock import NS_PER_S

TICK = 4_000_000


def test_a_bus_that_answers_finds_nothing() -> None:
    watch = Silence(2, 0)
    assert all(watch.note(0b11, tick * TICK) == () for tick in range(1000))


def test_a_short_stall_is_nothing_and_a_long_one_is_told_once_and_ends_once() -> None:
    watch = Silence(2, 0)
    assert watch.note(0, BUS_SILENT_NS) == ()
    assert watch.note(0b11, BUS_SILENT_NS + 1) == ()
    began = [watch.note(0, BUS_SILENT_NS + tick * TICK) for tick in range(1, 100)]
    assert [found for found in began if found] == [(SilenceFinding(None, began=True),)]
    assert watch.bus_silent
    assert watch.note(0b01, 4 * BUS_SILENT_NS) == (SilenceFinding(None, began=False),)
    assert not watch.bus_silent


def test_one_silent_joint_is_named_and_the_bus_is_not() -> None:
    watch = Silence(2, 0)
    found = [watch.note(0b01, tick * TICK) for tick in range(JOINT_SILENT_NS // TICK + 5)]
    assert [one for one in found if one] == [(SilenceFinding(1, began=True),)]
    assert watch.note(0b11, 2 * JOINT_SILENT_NS) == (SilenceFinding(1, began=False),)


def test_a_process_that_was_stopped_takes_its_own_absence_for_nobodys_silence() -> None:
    watch = Silence(2, 0)
    assert watch.note(0b11, TICK) == ()
    back_ns = 2 * NS_PER_S
    assert watch.note(0, back_ns) == ()
    assert not watch.bus_silent
    told = [watch.note(0, back_ns + tick * TICK) for tick in range(1, BUS_SILENT_NS // TICK + 5)]
    assert [one for one in told if one] == [(SilenceFinding(None, began=True),)]
