"""The bus against the simulated servos: what a reading is worth when the wire misbehaves."""

import grp
import os
from collections.abc import Iterator

import pytest

from recd.config.errors import DeviceError
from recd.config.streams import JointFlag
from recd.daemon.arms.attach import attach
from recd.daemon.arms.feetech.bus import ServoBus
from recd.daemon.arms.feetech.port import BusPort, open_error
from recd.daemon.arms.registers import (
    MIN_POSITION,
    POSITION_BLOCK,
    PRESENT_POSITION,
    TORQUE_ENABLE,
)
from recd.daemon.arms.scan import scan_port
from recd.daemon.arms.side import arm_side
from recd.daemon.arms.torque import disengage, engage
from recd.daemon.permission import way_in
from recd.daemon.sim import launch
from recd.shm.clock import NS_PER_MS, now_ns, sleep_until_ns

NAME = "follower"
ALL = 0b111111
TICK_NS = 8 * NS_PER_MS
PATIENCE_NS = 6 * NS_PER_MS


@pytest.fixture(scope="module")
def sim(tmp_path_factory) -> Iterator[launch.RunningSim]:
    directory = tmp_path_factory.mktemp("sim")
    with launch.running(directory, pairs=["main"], hand="none") as running:
        yield running


def side_of(sim: launch.RunningSim):
    config = {
        "type": "so101", "use_degrees": True,
        "follower": {
            "port": sim.endpoints["main.follower"],
            "calibration": sim.calibrations["main.follower"], "id": "", "baud": 1_000_000,
            "p_coefficient": 16, "i_coefficient": 0, "d_coefficient": 32,
        },
    }  # fmt: skip
    return arm_side("main", "follower", config, runtime_dir="")


@pytest.fixture
def side(sim):
    return side_of(sim)


@pytest.fixture
def bus(sim, side) -> Iterator[ServoBus]:
    port = BusPort(side.port, baud=side.baud, bus=side.bus)
    servos = ServoBus(port, side.ids)
    servos.open()
    sim.control.hand(bus="main.follower", kind="still")
    yield servos
    servos.close()
    sim.control.clear()
    sim.control.latency_timer(bus="main.follower", ms=0)
    sim.control.brown_out(bus="main.follower", down_ms=0)


def readings(bus: ServoBus, count: int) -> list[tuple[int, int, int, int]]:
    """(flags, valid, request, sample) of `count` reads on a grid, as the loop does them."""
    bus.port.reply_timeout_ns = PATIENCE_NS
    found, at_ns = [], now_ns()
    for _ in range(count):
        at_ns += TICK_NS
        sleep_until_ns(at_ns)
        reading = bus.sync_read(POSITION_BLOCK)
        found.append((reading.flags, reading.valid, reading.request_ns, reading.sample_ns))
    return found


def attached(bus: ServoBus, side):
    return attach(bus, side, alive=lambda: None)


def until_valid(bus: ServoBus, wanted: int) -> None:
    """Read until exactly these joints answer: a busy computer may cost any single reading."""
    for _ in range(1_000):
        if readings(bus, 1)[0][1] == wanted:
            return
    pytest.fail(f"no reading of joints {wanted:06b} came")


@pytest.mark.parametrize("ident", [3, 6])
def test_a_silent_servo_is_not_believed_and_the_others_are(sim, bus, ident) -> None:
    own = 1 << ident - 1
    sim.control.fault(bus="main.follower", kind="silent", ident=ident, count=None)
    assert not any(valid & own for _, valid, _, _ in readings(bus, 30))
    until_valid(bus, ALL & ~own)
    sim.control.clear(bus="main.follower")
    until_valid(bus, ALL)


@pytest.mark.parametrize("late_ms", [15.0, 60.0, 130.0])
def test_a_late_line_costs_ticks_that_are_all_flagged_and_comes_back(sim, bus, late_ms) -> None:
    # What it costs at most, and whom a silent servo costs a tick, is for test_late_replies.py.
    until_valid(bus, ALL)
    sim.control.fault(bus="main.follower", kind="late", ms=late_ms)
    found = readings(bus, 45)
    missed = [flags for flags, valid, _, _ in found if valid != ALL]
    assert len(missed) >= late_ms / (TICK_NS / NS_PER_MS) - 2
    assert all(flags & JointFlag.NO_REPLY for flags in missed)
    assert any(flags & JointFlag.LATE_REPLY for flags, *_ in found)
    until_valid(bus, ALL)


def test_no_accepted_sample_is_older_than_its_request(sim, bus, side) -> None:
    sim.control.script(
        bus="main.follower", frames=[[0.01, {"shoulder_pan": 1200}], [2.0, {"shoulder_pan": 2900}]]
    )
    for number in range(4):
        sim.control.fault(bus="main.follower", kind="late", ms=20.0 + 13 * number, skip=12 * number)
    raw = [0] * 6
    bus.port.reply_timeout_ns = PATIENCE_NS
    checked, at_ns = 0, now_ns()
    while checked < 60:
        at_ns += TICK_NS
        sleep_until_ns(at_ns)
        reading = bus.sync_read(POSITION_BLOCK)
        if not reading.valid & 1:
            continue
        reading.positions(raw)
        span = (
            reading.sample_ns - reading.half_width_ns,
            reading.sample_ns + reading.half_width_ns,
        )
        truth = [sim.control.true_position("main.follower", "shoulder_pan", t) for t in span]
        assert min(truth) - 2 <= raw[0] <= max(truth) + 2
        checked += 1


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("checksum", {"ident": 2}),
        ("garbage", {"ident": 4, "size": 7}),
        ("short", {"ident": 5, "size": 3}),
        ("short", {"ident": 6, "size": 4}),
        ("error", {"ident": 1, "bits": 0x20}),
    ],
)
def test_damaged_replies_are_never_believed_and_the_line_recovers(sim, bus, kind, fields) -> None:
    expected = [0] * 6
    until_valid(bus, ALL)
    bus.reading.positions(expected)
    sim.control.fault(bus="main.follower", kind=kind, **fields)
    raw = list(expected)
    bad = 0
    for _ in range(12):
        [(flags, valid, _, _)] = readings(bus, 1)
        bus.reading.positions(raw)
        bad += valid != ALL
        assert max(abs(a - b) for a, b in zip(raw, expected, strict=True)) <= 1
        assert valid == ALL or flags & JointFlag.NO_REPLY
    assert bad > 0 or kind in ("garbage", "error")
    until_valid(bus, ALL)


def test_an_echoing_adapter_is_noticed_and_its_echo_is_not_a_reply(sim, bus, side) -> None:
    bus.close()
    sim.control.echo(bus="main.follower")
    bus.open()
    assert bus.port.echo
    present = list(attached(bus, side).present)
    assert present == [bus.read(servo, PRESENT_POSITION) for servo in side.ids]
    until_valid(bus, ALL)


def test_a_slow_adapter_still_attaches(sim, bus, side) -> None:
    sim.control.latency_timer(bus="main.follower", ms=16)
    found = attached(bus, side)
    assert found.reply_ns > 10 * NS_PER_MS


def test_attaching_twice_writes_nothing_the_second_time(sim, bus, side) -> None:
    attached(bus, side)
    mark = sim.control.mark()
    assert attached(bus, side).changed == ()
    assert sim.control.writes(since=mark) == []


def test_an_arm_that_holds_torque_is_attached_without_a_single_write(sim, bus, side) -> None:
    attached(bus, side)
    engage(bus)
    sim.control.register(bus="main.follower", ident=2, name="P_Coefficient", value=20)
    mark = sim.control.mark()
    found = attached(bus, side)
    assert found.torque == (True,) * 6
    assert found.deferred == ("shoulder_lift.p_gain: 20 -> 16",)
    assert sim.control.writes(since=mark) == []
    disengage(bus)
    assert attached(bus, side).changed == ("shoulder_lift.p_gain: 20 -> 16",)


def test_engaging_takes_the_present_pose_as_goal_before_torque(sim, bus, side) -> None:
    attached(bus, side)
    mark = sim.control.mark()
    goals = engage(bus)
    writes = sim.control.writes(since=mark)
    names = [write.name for write in writes]
    assert names == ["Goal_Position"] * 6 + ["Torque_Enable"] * 6 + ["Lock"] * 6
    assert [write.value for write in writes[:6]] == goals
    disengage(bus)


def test_a_servo_that_cannot_be_engaged_leaves_the_others_as_they_were(sim, bus, side) -> None:
    attached(bus, side)
    sim.control.missing(bus="main.follower", ident=4)
    mark = sim.control.mark()
    with pytest.raises(DeviceError, match="no answer from servo 4"):
        engage(bus)
    assert [w.value for w in sim.control.writes(since=mark, name="Torque_Enable")] == []
    sim.control.missing(bus="main.follower", ident=4, on=False)


def test_a_missing_servo_is_named_with_its_joint(sim, bus, side) -> None:
    sim.control.missing(bus="main.follower", ident=3)
    with pytest.raises(DeviceError, match=r"no answer from elbow_flex \(id 3\); ids found: 1, 2"):
        attached(bus, side)
    sim.control.missing(bus="main.follower", ident=3, on=False)


def test_two_servos_with_one_id_are_not_taken_for_an_arm(tmp_path) -> None:
    with launch.running(tmp_path, pairs=["main"], hand="none") as own:
        own.control.duplicate(bus="main.follower", ident=5, of=2)
        side = side_of(own)
        servos = ServoBus(BusPort(side.port, baud=side.baud, bus=side.bus), side.ids)
        servos.open()
        with pytest.raises(DeviceError, match="two servos with one id"):
            attached(servos, side)
        servos.close()
        found = scan_port(side.port)
        assert found.garbled
        assert {servo.servo_id for servo in found.servos} >= {3, 4, 6}


def test_a_foreign_servo_model_is_named(sim, bus, side) -> None:
    sim.control.register(bus="main.follower", ident=1, name="Model_Number", value=2825)
    with pytest.raises(DeviceError, match=r"expected servo model 777 \(STS3215\), found 2825"):
        attached(bus, side)
    sim.control.register(bus="main.follower", ident=1, name="Model_Number", value=777)


def test_the_wrong_line_rate_is_told_with_the_right_one(sim, bus, side) -> None:
    for ident in side.ids:
        sim.control.register(bus="main.follower", ident=ident, name="Baud_Rate", value=1)
    try:
        with pytest.raises(DeviceError, match=r"at 1000000 baud.*at 500000"):
            attached(bus, side)
    finally:
        for ident in side.ids:
            sim.control.register(bus="main.follower", ident=ident, name="Baud_Rate", value=0)
    assert attached(bus, side).torque == (False,) * 6


def test_servos_that_hold_another_calibration_are_refused(sim, bus, side) -> None:
    before = sim.control.register(bus="main.follower", ident=1, name="Min_Position_Limit")["value"]
    sim.control.register(bus="main.follower", ident=1, name="Min_Position_Limit", value=5)
    with pytest.raises(DeviceError, match=f"range_min file {before}, servo 5"):
        attached(bus, side)
    sim.control.register(bus="main.follower", ident=1, name="Min_Position_Limit", value=before)


def test_a_port_has_one_owner_and_says_who(sim, bus, side) -> None:
    with pytest.raises(DeviceError, match="is in use by") as caught:
        BusPort(side.port, baud=side.baud, bus=side.bus).openPort()
    assert caught.value.code == "busy"


def test_a_scan_finds_every_servo_and_writes_nothing(sim, bus, side) -> None:
    bus.close()
    mark = sim.control.mark()
    found = scan_port(side.port)
    assert [servo.servo_id for servo in found.servos] == [1, 2, 3, 4, 5, 6]
    assert {(s.model_name, s.firmware) for s in found.servos} == {("STS3215", "3.10")}
    assert not found.garbled
    assert sim.control.writes(since=mark) == []


def test_a_missing_port_and_a_file_that_is_no_port_are_told_apart(tmp_path) -> None:
    with pytest.raises(DeviceError, match="there is no"):
        BusPort(str(tmp_path / "ttyACM9"), baud=1_000_000, bus="main.leader").openPort()
    plain = tmp_path / "plain"
    plain.write_text("")
    with pytest.raises(DeviceError, match="not a serial port"):
        BusPort(str(plain), baud=1_000_000, bus="main.leader").openPort()


def test_a_forbidden_port_names_the_group_to_join(sim, side) -> None:
    refused = open_error(PermissionError(13, "denied"), side.port, side.bus, side.baud)
    group = grp.getgrgid(os.stat(side.port).st_gid).gr_name
    assert f"it belongs to group {group}" in refused.message
    assert refused.mend == way_in(side.port, usual="dialout")
    assert refused.code == "permission"


def test_a_write_the_servo_does_not_keep_is_an_error(sim, bus, side) -> None:
    sim.control.missing(bus="main.follower", ident=1)
    with pytest.raises(DeviceError, match="servo 1 does not answer"):
        bus.write(1, TORQUE_ENABLE, 0)
    sim.control.missing(bus="main.follower", ident=1, on=False)
    assert bus.read(1, MIN_POSITION) > 0


def test_a_device_that_is_no_serial_port_is_told_as_such():
    with pytest.raises(DeviceError, match="/dev/null is not a serial port") as refused:
        ServoBus(BusPort("/dev/null", baud=1_000_000, bus="main.leader"), (1,)).open()
    assert "recctl devices" in refused.value.mend
