import itertools

import pytest

from recd.daemon.sim.motion import FASTEST_STEPS_S, GRID_NS, Mechanics
from recd.daemon.sim.protocol import ErrorBit
from recd.daemon.sim.registers import BY_NAME
from recd.daemon.sim.servo import Ramp, Servo

S = 1_000_000_000
MS = 1_000_000


def make_servo(angle=2048.0, **mechanics):
    servo = Servo(1, Mechanics(**mechanics), angle=angle, at_ns=S)
    changes = []
    servo.on_torque = lambda _, on, cause, at_ns: changes.append((on, cause))
    return servo, changes


def write(servo, name, value, at_ns):
    register = BY_NAME[name]
    servo.write(register.address, register.encode(value), at_ns)


def read(servo, name, at_ns):
    register = BY_NAME[name]
    return register.decode(servo.read(register.address, register.size, at_ns))


def torque_on(servo, at_ns, goal=2048):
    write(servo, "Goal_Position", goal, at_ns)
    write(servo, "Torque_Enable", 1, at_ns)


def test_an_eeprom_write_lasts_over_power_only_when_lock_was_0():
    servo, _ = make_servo()

    write(servo, "P_Coefficient", 16, S)
    assert read(servo, "P_Coefficient", S) == 16
    servo.power_cycle(2 * S)
    assert read(servo, "P_Coefficient", 2 * S) == 32

    write(servo, "Lock", 0, 2 * S)
    write(servo, "P_Coefficient", 16, 2 * S)
    servo.power_cycle(3 * S)
    assert read(servo, "P_Coefficient", 3 * S) == 16
    assert read(servo, "Lock", 3 * S) == 1


def test_a_brown_out_resets_sram_drops_torque_and_keeps_the_pose():
    servo, changes = make_servo(angle=1000.0)
    torque_on(servo, S, goal=1500)
    write(servo, "Acceleration", 254, S)
    held = servo.reported(3 * S)

    servo.power_cycle(3 * S, cause="brown-out")

    assert changes == [(True, "write"), (False, "brown-out")]
    assert read(servo, "Torque_Enable", 3 * S) == 0
    assert read(servo, "Acceleration", 3 * S) == 0
    assert read(servo, "Goal_Position", 3 * S) == round(held)


def test_identity_and_feedback_cannot_be_written():
    servo, _ = make_servo()

    servo.write(3, b"\x01\x02", S)
    servo.write(56, b"\x01\x02", S)

    assert read(servo, "Model_Number", S) == 777
    assert read(servo, "Present_Position", S) == 2048


def test_a_servo_without_torque_ignores_its_goal():
    servo, changes = make_servo()

    write(servo, "Goal_Position", 3000, S)

    assert read(servo, "Present_Position", 3 * S) == 2048
    assert changes == []


def test_firmware_that_takes_torque_with_a_goal_can_be_simulated():
    servo, changes = make_servo()
    servo.goal_enables_torque = True

    write(servo, "Goal_Position", 3000, S)

    assert changes == [(True, "goal")]
    assert read(servo, "Present_Position", 3 * S) == pytest.approx(3000, abs=2)


def test_a_goal_is_kept_inside_the_limits_and_reads_back_as_written():
    servo, _ = make_servo()
    servo.put("Min_Position_Limit", 1000, S)
    servo.put("Max_Position_Limit", 3000, S)

    torque_on(servo, S, goal=3900)

    assert read(servo, "Goal_Position", S) == 3900
    assert read(servo, "Present_Position", 4 * S) == pytest.approx(3000, abs=2)


def test_motion_keeps_speed_and_acceleration_bounds_and_does_not_overshoot():
    servo, _ = make_servo(angle=500.0)
    write(servo, "Acceleration", 100, S)
    write(servo, "Goal_Velocity", 1500, S)
    torque_on(servo, S, goal=3500)

    path = [servo.reported(S + k * GRID_NS) for k in range(2000)]

    dt = GRID_NS / 1e9
    speeds = [(b - a) / dt for a, b in itertools.pairwise(path)]
    jerks = [(b - a) / dt for a, b in itertools.pairwise(speeds)]
    assert 1400 < max(speeds) <= 1500 + 1e-6
    assert max(abs(j) for j in jerks) <= 10_000 + 1e-3
    assert max(path) < 3504  # a quarter of a degree
    assert path[-1] == pytest.approx(3500, abs=2)


def test_the_motor_is_never_faster_than_it_is():
    servo, _ = make_servo(angle=0.0)
    torque_on(servo, S, goal=4000)

    path = [servo.reported(S + k * GRID_NS) for k in range(400)]

    fastest = max(b - a for a, b in itertools.pairwise(path)) / (GRID_NS / 1e9)
    assert 0.9 * FASTEST_STEPS_S < fastest <= FASTEST_STEPS_S + 1e-6


def test_goals_at_250_hz_are_followed_closely():
    servo, _ = make_servo()
    write(servo, "P_Coefficient", 16, S)
    torque_on(servo, S)

    errors = []
    for tick in range(500):
        at_ns = S + tick * 4 * MS
        goal = 2048 + tick * 2  # 500 steps a second, 44 degrees a second
        write(servo, "Goal_Position", goal, at_ns)
        errors.append(abs(servo.reported(at_ns) - goal))

    assert max(errors) < 15  # a lag of 20 ms and a tick


def test_the_path_does_not_depend_on_who_asks_how_often():
    often, _ = make_servo(angle=700.0, weight=50.0, rest=300.0)
    seldom, _ = make_servo(angle=700.0, weight=50.0, rest=300.0)
    for servo in (often, seldom):
        torque_on(servo, S, goal=2500)

    for k in range(1, 700):
        often.reported(S + k * 777_777)
    end_ns = S + 700 * 777_777

    assert often.reported(end_ns) == seldom.reported(end_ns)


def test_a_raised_joint_sags_slowly_without_torque_and_is_held_with_it():
    servo, _ = make_servo(angle=2048.0, weight=60.0, rest=1000.0, stops=(900.0, 3200.0))
    torque_on(servo, S)
    assert abs(servo.reported(3 * S) - 2048) < 10

    write(servo, "Torque_Enable", 0, 3 * S)

    after_1_s = servo.reported(4 * S)
    assert 1800 < after_1_s < 2000
    assert servo.reported(60 * S) == pytest.approx(1000, abs=60)


def test_overload_lasts_until_the_goal_yields_and_lowers_the_torque():
    servo, changes = make_servo()
    torque_on(servo, S, goal=3000)
    servo.joint.angle, servo.joint.blocked = servo.joint.angle_at(S), True

    servo.protect(S + 100 * MS)
    servo.protect(S + 1900 * MS)
    assert not servo.error(S + 1900 * MS)
    assert read(servo, "Present_Load", S + 1900 * MS) == 1000

    servo.protect(S + 2300 * MS)
    assert servo.error(S + 2300 * MS) == ErrorBit.OVERLOAD
    assert read(servo, "Present_Load", S + 2400 * MS) == 200
    assert read(servo, "Status", S + 2400 * MS) == ErrorBit.OVERLOAD
    assert changes == [(True, "write")]

    write(servo, "Goal_Position", 2900, S + 2500 * MS)
    assert servo.error(S + 2500 * MS)
    write(servo, "Goal_Position", 2048, S + 2600 * MS)
    assert not servo.error(S + 2600 * MS)


def test_heat_sets_its_bit_and_releases_the_torque_by_itself():
    servo, changes = make_servo()
    torque_on(servo, S)
    servo.temperature = Ramp(32.0, 80.0, S, 2 * S)

    assert servo.error(S + 500 * MS) == 0
    assert servo.error(2 * S) == ErrorBit.OVERHEAT

    assert read(servo, "Present_Temperature", 2 * S) == 80
    assert read(servo, "Torque_Enable", 2 * S) == 0
    assert changes[-1] == (False, "overheat")


def test_a_supply_outside_its_bounds_sets_the_voltage_bit():
    servo, _ = make_servo()
    servo.voltage = 38

    assert servo.error(S) == ErrorBit.VOLTAGE
    assert read(servo, "Present_Voltage", S) == 38


def test_feedback_has_its_signs():
    servo, _ = make_servo(angle=3000.0)
    torque_on(servo, S, goal=1000)

    assert read(servo, "Present_Velocity", S + 200 * MS) < -1000
    assert read(servo, "Present_Load", S + 200 * MS) < -100
    assert read(servo, "Moving", S + 200 * MS) == 1
    assert read(servo, "Present_Velocity", 5 * S) == 0
    assert read(servo, "Moving", 5 * S) == 0


def test_a_freely_turning_joint_jumps_from_4095_to_0_at_its_seam():
    servo, _ = make_servo(angle=4090.0)
    servo.joint.hand = lambda t_ns: 4090.0 + (t_ns - S) / 1e8

    seen = [read(servo, "Present_Position", S + k * 100 * MS) for k in range(12)]

    assert seen == [4090, 4091, 4092, 4093, 4094, 4095, 0, 1, 2, 3, 4, 5]
    write(servo, "Phase", 12 | 0x10, 3 * S)  # multi-turn feedback
    assert read(servo, "Present_Position", 3 * S) == 4110


def test_the_centre_command_makes_the_present_pose_2048():
    servo, changes = make_servo(angle=1500.0)

    write(servo, "Torque_Enable", 128, S)

    assert read(servo, "Homing_Offset", S) == -548
    assert read(servo, "Present_Position", S) == 2048
    assert changes == []


def test_velocity_mode_turns_at_the_given_speed():
    servo, _ = make_servo()
    write(servo, "Operating_Mode", 1, S)
    write(servo, "Goal_Velocity", -300, S)
    write(servo, "Torque_Enable", 1, S)

    before, after = servo.joint.angle_at(2 * S), servo.joint.angle_at(3 * S)

    assert after - before == pytest.approx(-300, abs=5)
