import pytest

from recd.daemon.sim import protocol
from recd.daemon.sim.bus import Bus
from recd.daemon.sim.motion import Mechanics
from recd.daemon.sim.registers import from_sign_magnitude, sign_magnitude
from recd.daemon.sim.servo import Servo
from recd.daemon.sim.servolog import ServoLog

S = 1_000_000_000
BAUD = 1_000_000


def make_bus(idents=(1, 2, 3, 4, 5, 6), angle=2048.0):
    servos = [Servo(ident, Mechanics(), angle=angle, at_ns=S) for ident in idents]
    return Bus("test", servos, log=ServoLog())


def exchange(bus, text, at_ns=S):
    bus.receive(bytes.fromhex(text), at_ns, BAUD)
    return bus.take_due(at_ns + S).hex(" ").upper()


# Pairs of request and reply as seen between LeRobot and a servo with factory settings.
SEEN = {
    "ping": ("FF FF 01 02 01 FB", "FF FF 01 02 00 FC"),
    "model": ("FF FF 01 04 02 03 02 F3", "FF FF 01 04 00 09 03 EE"),
    "firmware major": ("FF FF 01 04 02 00 01 F7", "FF FF 01 03 00 03 F8"),
    "firmware minor": ("FF FF 01 04 02 01 01 F6", "FF FF 01 03 00 0A F1"),
    "min": ("FF FF 01 04 02 09 02 ED", "FF FF 01 04 00 00 00 FA"),
    "max": ("FF FF 01 04 02 0B 02 EB", "FF FF 01 04 00 FF 0F EC"),
    "offset": ("FF FF 01 04 02 1F 02 D7", "FF FF 01 04 00 00 00 FA"),
    "torque off": ("FF FF 01 04 03 28 00 CF", "FF FF 01 02 00 FC"),
    "torque on": ("FF FF 01 04 03 28 01 CE", "FF FF 01 02 00 FC"),
    "lock 0": ("FF FF 01 04 03 37 00 C0", "FF FF 01 02 00 FC"),
    "lock 1": ("FF FF 01 04 03 37 01 BF", "FF FF 01 02 00 FC"),
    "delay": ("FF FF 01 04 03 07 00 F0", "FF FF 01 02 00 FC"),
    "acceleration": ("FF FF 01 04 03 29 FE D0", "FF FF 01 02 00 FC"),
    "phase": ("FF FF 01 04 02 12 01 E5", "FF FF 01 03 00 0C EF"),
    "P": ("FF FF 01 04 03 15 10 D2", "FF FF 01 02 00 FC"),
    "gripper torque": ("FF FF 06 05 03 10 F4 01 EC", "FF FF 06 02 00 F7"),
    "gripper current": ("FF FF 06 05 03 1C FA 00 DB", "FF FF 06 02 00 F7"),
    "gripper overload": ("FF FF 06 04 03 24 19 B5", "FF FF 06 02 00 F7"),
    "offset write": ("FF FF 01 05 03 1F 64 08 6B", "FF FF 01 02 00 FC"),
}


@pytest.mark.parametrize("name", SEEN)
def test_every_frame_lerobot_sends_gets_the_reply_of_a_real_servo(name):
    request, reply = SEEN[name]

    assert exchange(make_bus(), request) == reply


def test_a_written_offset_is_sign_magnitude_and_shifts_the_position():
    bus = make_bus(angle=2048.0)

    exchange(bus, "FF FF 01 05 03 1F 64 08 6B")

    assert bus.servos[0].get("Homing_Offset") == -100
    assert exchange(bus, "FF FF 01 04 02 38 02 BE", 2 * S) == "FF FF 01 04 00 64 08 8E"


def test_a_sync_read_is_answered_by_each_servo_in_listed_order():
    bus = make_bus(angle=2047.0)

    replies = exchange(bus, "FF FF FE 0A 82 38 02 01 02 03 04 05 06 26")

    assert replies.startswith("FF FF 01 04 00 FF 07 F4")
    packets = bytes.fromhex(replies)
    assert [packets[at + 2] for at in range(0, len(packets), 8)] == [1, 2, 3, 4, 5, 6]
    assert exchange(bus, protocol.sync_read_request([3, 1], 56, 2).hex(), 2 * S)[6:8] == "03"


def test_a_sync_write_reaches_every_servo_and_nobody_answers():
    bus = make_bus()
    frame = "FF FF FE 16 83 2A 02 01 00 08 02 00 08 03 00 08 04 00 08 05 00 08 06 00 08 F7"

    assert exchange(bus, frame) == ""
    assert [servo.get("Goal_Position") for servo in bus.servos] == [2048] * 6
    assert (
        protocol.sync_write_request(42, dict.fromkeys(range(1, 7), b"\0\x08")).hex(" ").upper()
        == frame
    )


def test_a_telemetry_block_is_six_replies_of_21_bytes():
    replies = exchange(make_bus(), "FF FF FE 0A 82 38 0F 01 02 03 04 05 06 19")

    assert len(bytes.fromhex(replies)) == 6 * 21


def test_an_overloaded_servo_says_so_in_every_reply():
    bus = make_bus(angle=2047.0)
    bus.servos[2].trip_overload(S)

    reply = exchange(bus, protocol.request(3, 2, bytes((56, 2))).hex())

    assert reply == "FF FF 03 04 20 FF 07 D2"


def test_a_broadcast_ping_is_answered_by_all_in_turn():
    replies = exchange(make_bus((1, 2, 5)), "FF FF FE 02 01 FE")

    assert replies == "FF FF 01 02 00 FC FF FF 02 02 00 FB FF FF 05 02 00 F8"


def test_an_absent_servo_a_wrong_baud_and_a_wrong_checksum_get_no_answer():
    bus = make_bus((1,))

    assert exchange(bus, "FF FF 02 02 01 FA") == ""
    assert exchange(bus, "FF FF 01 02 01 FA", 2 * S) == ""
    bus.receive(bytes.fromhex("FF FF 01 02 01 FB"), 3 * S, 500_000)
    assert bus.take_due(4 * S) == b""
    assert exchange(bus, "FF FF 01 02 01 FB", 5 * S) == "FF FF 01 02 00 FC"


def test_junk_and_torn_requests_cost_no_whole_one():
    bus = make_bus((1,))
    ping, pong = bytes.fromhex("FF FF 01 02 01 FB"), bytes.fromhex("FF FF 01 02 00 FC")

    bus.receive(b"\x00\xff\x13" + ping + b"\xff\xff\x01\x04\x02" + ping + b"\xff" + ping, S, BAUD)

    # The torn read swallows the header of the ping behind it as its parameters would, no more.
    assert bus.take_due(2 * S) == pong * 3


def test_a_registered_write_takes_effect_with_action():
    bus = make_bus((1,))
    exchange(bus, protocol.request(1, 4, bytes((42, 0x10, 0x02))).hex())
    assert bus.servos[0].get("Goal_Position") == 2048

    assert exchange(bus, protocol.request(protocol.BROADCAST, 5).hex(), 2 * S) == ""

    assert bus.servos[0].get("Goal_Position") == 0x210


def test_sign_magnitude_is_its_own_inverse_and_refuses_what_does_not_fit():
    for value in (-2047, -100, 0, 1, 2047):
        assert from_sign_magnitude(sign_magnitude(value, 11), 11) == value
    with pytest.raises(ValueError, match="2048"):
        sign_magnitude(2048, 11)
