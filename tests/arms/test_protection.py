from hypothesis import given
from hypothesis import strategies as st

from recd.daemon.arms.guardian import OVERLOAD_MASK, rules_of
from recd.daemon.arms.passes import integers
from recd.daemon.arms.protection import Action, Quantity, Watch, guards
from recd.daemon.arms.tickcode import PLAIN, machine_code

SECOND = 1_000_000_000
BODY, GRIPPER = 0, 1


def watch() -> Watch:
    rows = guards(temperature_warn_c=60, temperature_release_c=70, load_warn=800, voltage_min=4.5)
    return Watch(rows, (False, True))


def reading(
    *, temperature=(30, 30), load=(0, 0), voltage=(74, 74), overload=(0, 0)
) -> dict[Quantity, tuple[int, ...]]:
    return dict(zip(Quantity, (temperature, load, voltage, overload), strict=True))


def begun(findings) -> set[tuple[Action, int]]:
    return {(finding.guard.action, finding.joint) for finding in findings if finding.began}


def test_ordinary_readings_find_nothing() -> None:
    guard = watch()
    assert [guard.assess(reading(), 0b11, at * SECOND) for at in range(1, 5)] == [[]] * 4


def test_heat_warns_then_relaxes_the_gripper_then_parks() -> None:
    guard = watch()
    assert begun(guard.assess(reading(temperature=(60, 60)), 0b11, SECOND)) == {
        (Action.WARN, BODY), (Action.WARN, GRIPPER),
    }  # fmt: skip
    assert begun(guard.assess(reading(temperature=(66, 66)), 0b11, 2 * SECOND)) == {
        (Action.RELAX, GRIPPER)
    }
    assert begun(guard.assess(reading(temperature=(71, 66)), 0b11, 3 * SECOND)) == set()
    assert begun(guard.assess(reading(temperature=(71, 66)), 0b11, 4 * SECOND)) == {
        (Action.PARK, BODY)
    }


def test_a_peak_of_load_does_nothing_and_a_lasting_squeeze_relaxes_the_gripper() -> None:
    guard = watch()
    squeeze = reading(load=(0, 450))
    assert guard.assess(squeeze, 0b11, SECOND) == []
    assert guard.assess(reading(), 0b11, SECOND + 1) == []
    assert guard.assess(squeeze, 0b11, 2 * SECOND) == []
    assert begun(guard.assess(squeeze, 0b11, 3 * SECOND)) == {(Action.RELAX, GRIPPER)}
    assert guard.acts(Action.RELAX, GRIPPER)
    assert not guard.acts(Action.RELAX, BODY)


def test_relaxing_ends_only_well_below_its_threshold() -> None:
    guard = watch()
    for at in (1, 2):
        guard.assess(reading(load=(0, 450)), 0b11, at * SECOND)
    assert guard.assess(reading(load=(0, 350)), 0b11, 3 * SECOND) == []
    [ended] = guard.assess(reading(load=(0, 250)), 0b11, 4 * SECOND)
    assert not ended.began
    assert not guard.acts(Action.RELAX, GRIPPER)


def test_low_voltage_warns_and_full_voltage_ends_it() -> None:
    guard = watch()
    guard.assess(reading(voltage=(44, 74)), 0b11, SECOND)
    [finding] = guard.assess(reading(voltage=(44, 74)), 0b11, 2 * SECOND)
    assert (finding.guard.quantity, finding.joint, finding.value) == (Quantity.VOLTAGE, BODY, 44)
    [ended] = guard.assess(reading(voltage=(50, 74)), 0b11, 3 * SECOND)
    assert not ended.began


def test_overload_of_the_body_is_a_fault_and_of_the_gripper_relaxes_it() -> None:
    guard = watch()
    assert begun(guard.assess(reading(overload=(1, 1)), 0b11, SECOND)) == {(Action.RELAX, GRIPPER)}
    assert begun(guard.assess(reading(overload=(1, 1)), 0b11, 2 * SECOND)) == {(Action.FAULT, BODY)}


def test_a_silent_joint_keeps_what_was_known_of_it() -> None:
    guard = watch()
    guard.assess(reading(temperature=(65, 30)), 0b11, SECOND)
    assert guard.assess(reading(temperature=(0, 30)), 0b10, 2 * SECOND) == []
    assert guard.acts(Action.WARN, BODY)


class EveryRow(Watch):
    def _idle(self, row, values) -> bool:
        return False


ROWS = guards(temperature_warn_c=60, temperature_release_c=70, load_warn=800, voltage_min=4.5)
both = st.integers(0, 1), st.integers(0, 1)
sample = st.tuples(
    st.tuples(*[st.integers(55, 75)] * 2), st.tuples(*[st.integers(200, 900)] * 2),
    st.tuples(*[st.integers(40, 50)] * 2), st.tuples(*both), st.integers(0, 3),
)  # fmt: skip


@given(st.lists(sample, max_size=30))
def test_rows_that_are_not_walked_would_have_found_nothing(samples) -> None:
    one, other = Watch(ROWS, (False, True)), EveryRow(ROWS, (False, True))
    for number, (*values, valid) in enumerate(samples, start=1):
        readings = dict(zip(Quantity, values, strict=True))
        at_ns = number * SECOND // 5
        assert one.assess(readings, valid, at_ns) == other.assess(readings, valid, at_ns)
        assert (one.since, one.acting) == (other.since, other.acting)


numbers = st.integers(-1_100, 1_100)


@given(
    load=st.tuples(numbers, numbers),
    heat=st.tuples(st.integers(0, 90), st.integers(0, 90)),
    voltage=st.tuples(st.integers(30, 90), st.integers(30, 90)),
    status=st.tuples(st.integers(0, 255), st.integers(0, 255)),
)
def test_a_reading_is_walked_whenever_a_row_would_begin_to_be_exceeded(
    load, heat, voltage, status
) -> None:
    table = integers((*load, 0, 0, *voltage, *heat, *status, 0, 0))
    guard = watch()
    bits = tuple(int(value & OVERLOAD_MASK != 0) for value in status)
    sizes = tuple(map(abs, load))
    guard.assess(reading(temperature=heat, load=sizes, voltage=voltage, overload=bits), 0b11, 1)
    rules = rules_of(guard)
    for code in (PLAIN, machine_code()):
        found = code["anything_exceeded"](table, 2, rules, len(guard.rows))
        assert bool(found) == guard.busy
