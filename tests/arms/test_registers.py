import pytest

from recd.daemon.arms import registers
from recd.daemon.arms.models import SO_JOINTS


@pytest.mark.parametrize(
    ("register", "value", "content"),
    [
        (registers.HOMING_OFFSET, -100, 0x0864),
        (registers.HOMING_OFFSET, 2047, 0x07FF),
        (registers.GOAL_POSITION, -1, 0x8001),
        (registers.PRESENT_LOAD, -512, 0x0600),
        (registers.MIN_POSITION, 4095, 4095),
    ],
)
def test_sign_magnitude_both_ways(register, value, content) -> None:
    assert register.encode(value) == content
    assert register.decode(content) == value


@pytest.mark.parametrize(
    ("register", "value"),
    [(registers.HOMING_OFFSET, 2048), (registers.P_GAIN, 256), (registers.LOCK, -1)],
)
def test_a_value_that_does_not_fit_is_refused(register, value) -> None:
    with pytest.raises(ValueError, match=register.name):
        register.encode(value)


def test_only_the_multi_turn_bit_of_the_phase_register_is_cleared() -> None:
    [phase] = [s for s in registers.COMMON_SETTINGS if s.register is registers.PHASE]
    assert phase.wanted(0x1C) == 0x0C
    assert phase.wanted(0x0C) == 0x0C


def test_only_a_followers_gripper_gets_the_gentle_limits() -> None:
    gains = registers.Gains()
    gentle = set(registers.GRIPPER_SETTINGS)
    for joint in SO_JOINTS:
        assert gentle.isdisjoint(registers.leader_settings(joint))
        assert gentle.issubset(registers.follower_settings(joint, gains)) is joint.gripper
