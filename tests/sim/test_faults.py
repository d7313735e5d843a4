import pytest

from recd.daemon.sim import protocol
from recd.daemon.sim.bus import Bus
from recd.daemon.sim.collision import collide
from recd.daemon.sim.faults import WireFault
from recd.daemon.sim.motion import Mechanics
from recd.daemon.sim.servo import Servo
from recd.daemon.sim.servolog import ServoLog, writes_of

S = 1_000_000_000
MS = 1_000_000
PING = protocol.request(1, 1)
PONG = protocol.reply(1, 0)
READ_ALL = protocol.sync_read_request(range(1, 7), 56, 2)


def make_bus(idents=(1, 2, 3, 4, 5, 6)):
    servos = [Servo(ident, Mechanics(), angle=2048.0, at_ns=S) for ident in idents]
    return Bus("test", servos, log=ServoLog())


def exchange(bus, frame, at_ns):
    bus.receive(frame, at_ns, 1_000_000)
    return bus.take_due(at_ns + S)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (WireFault("checksum"), PONG[:-1] + b"\xa9"),
        (WireFault("short", size=2), PONG[:-2]),
        (WireFault("error", bits=0x20), protocol.reply(1, 0x20)),
        (WireFault("silent"), b""),
    ],
    ids=lambda value: value.kind if isinstance(value, WireFault) else "",
)
def test_a_fault_mars_one_reply_and_the_next_is_whole(fault, expected):
    bus = make_bus()
    bus.faults.arm(fault)

    assert exchange(bus, PING, S) == expected
    assert exchange(bus, PING, 3 * S) == PONG


def test_garbage_comes_before_the_reply():
    bus = make_bus()
    bus.faults.arm(WireFault("garbage", size=5))

    got = exchange(bus, PING, S)

    assert len(got) == 5 + len(PONG)
    assert got.endswith(PONG)


def test_a_fault_can_wait_last_and_choose_its_servo():
    bus = make_bus()
    bus.faults.arm(WireFault("checksum", ident=3, skip=1, count=2))

    wrong = []
    for turn in range(4):
        packets = exchange(bus, READ_ALL, (1 + 2 * turn) * S)
        whole = [
            protocol.checksum(packets[at + 2 : at + 7]) == packets[at + 7] for at in range(0, 48, 8)
        ]
        wrong.append([place + 1 for place, good in enumerate(whole) if not good])

    assert wrong == [[], [3], [3], []]
    assert bus.faults.applied == 2


def test_a_fault_by_time_ends_by_itself():
    bus = make_bus()
    bus.faults.arm(WireFault("silent", count=None, until_ns=S + 500 * MS))

    assert exchange(bus, PING, S) == b""
    assert exchange(bus, READ_ALL, S + 400 * MS) == b""
    assert exchange(bus, PING, S + 600 * MS) == PONG


def test_a_silent_servo_does_not_hear_either():
    bus = make_bus()
    bus.faults.arm(WireFault("silent", ident=2, count=None))

    exchange(bus, protocol.sync_write_request(42, {1: b"\x64\x00", 2: b"\x64\x00"}), S)

    assert bus.servos[0].get("Goal_Position") == 100
    assert bus.servos[1].get("Goal_Position") == 2048
    bus.faults.clear("silent")
    assert exchange(bus, protocol.request(2, 1), 3 * S) == protocol.reply(2, 0)


def test_an_echoing_adapter_returns_the_request_before_the_reply():
    bus = make_bus()
    bus.echo = True

    assert exchange(bus, PING, S) == PING + PONG


def test_two_servos_of_one_id_collide_bit_by_bit():
    bus = make_bus((1, 1))
    bus.servos[1].joint.angle = 1000.0

    got = [exchange(bus, protocol.request(1, 2, b"\x38\x02"), (1 + 2 * n) * S) for n in range(5)]

    whole = protocol.reply(1, 0, (2048).to_bytes(2, "little"))
    assert all(packet and packet != whole for packet in got)


def test_equal_bytes_at_the_same_moment_stay_what_they_are():
    assert collide(PONG, PONG, 0) == PONG
    assert collide(b"\x0f", b"\xf0", 0) == b"\x00"
    assert collide(PONG, b"", 3) == PONG


def test_a_browned_out_servo_is_silent_until_it_is_up():
    bus = make_bus((1,))
    bus.servos[0].power_cycle(S, down_ns=300 * MS)

    assert exchange(bus, PING, S + 100 * MS) == b""
    assert exchange(bus, PING, S + 400 * MS) == PONG


def test_the_log_tells_every_write_that_a_servo_carried_out_and_no_other():
    bus = make_bus((1, 2))
    exchange(bus, protocol.request(1, 3, b"\x28\x01"), S)
    exchange(
        bus, protocol.sync_write_request(42, {1: b"\x64\0", 2: b"\x65\0", 3: b"\x66\0"}), 2 * S
    )
    exchange(bus, protocol.request(3, 3, b"\x28\x01"), 3 * S)

    entries = bus._log.since(0, 100)
    writes = [(w.ident, w.name, w.value) for entry in entries for w in writes_of(entry)]

    assert writes == [
        (1, "Torque_Enable", 1),
        (1, "Goal_Position", 100),
        (2, "Goal_Position", 101),
    ]
    torque = [entry.fields for entry in entries if entry.kind == "torque"]
    assert torque == [{"id": 1, "on": True, "cause": "write"}]
