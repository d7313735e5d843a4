from recd.daemon.sim import protocol
from recd.daemon.sim.bus import Bus, LineTiming
from recd.daemon.sim.faults import WireFault
from recd.daemon.sim.motion import Mechanics
from recd.daemon.sim.servo import Servo
from recd.daemon.sim.servolog import ServoLog

S = 1_000_000_000
US = 1_000
MS = 1_000_000
READ_ALL = protocol.sync_read_request(range(1, 7), 56, 2)
PING = protocol.request(1, 1)


def make_bus(idents=(1, 2, 3, 4, 5, 6), **timing):
    servos = [Servo(ident, Mechanics(), angle=2048.0, at_ns=S) for ident in idents]
    settings = {"packet_ns": 0} | timing
    return Bus("test", servos, log=ServoLog(), timing=LineTiming(**settings))


def arrivals(bus, until_ns, start_ns=S):
    """(time, bytes) as they reach the host, found by walking the bus's own deadlines."""
    found, now = [], start_ns
    while (due := bus.next_ns()) is not None and due <= until_ns:
        now = max(now, due)
        bus.run(now)
        if data := bus.take_due(now):
            found.append((now, data))
    return found


def test_a_position_read_of_six_servos_takes_the_time_of_its_bytes_and_delays():
    bus = make_bus(out_ns=150 * US, in_ns=150 * US, servo_ns=20 * US)

    bus.receive(READ_ALL, S, 1_000_000)
    got = arrivals(bus, 2 * S)

    first_ns = 150 * US + 14 * 10 * US + 20 * US + 8 * 10 * US + 150 * US
    assert [at - S for at, _ in got] == [first_ns + k * 100 * US for k in range(6)]
    assert all(len(data) == 8 for _, data in got)


def test_replies_that_end_close_together_come_in_one_usb_packet_with_the_last():
    single, packed = make_bus(), make_bus(packet_ns=250 * US)

    for bus in (single, packed):
        bus.receive(READ_ALL, S, 1_000_000)
    one_by_one, together = arrivals(single, 2 * S), arrivals(packed, 2 * S)

    assert [len(data) for _, data in together] == [24, 24]
    assert [at for at, _ in together] == [one_by_one[2][0], one_by_one[5][0]]


def test_a_slower_line_takes_longer_by_its_bits():
    bus = make_bus((1,), out_ns=0, in_ns=0, servo_ns=0)
    bus.servos[0].put("Baud_Rate", 6, S)  # 38 400 baud

    bus.receive(PING, S, 38_400)

    [(at, _)] = arrivals(bus, 2 * S)
    assert at - S == 12 * (10 * S // 38_400)


def test_the_return_delay_register_is_waited_for():
    bus = make_bus((1,), out_ns=0, in_ns=0, servo_ns=0)
    bus.servos[0].put("Return_Delay_Time", 250, S)

    bus.receive(PING, S, 1_000_000)

    [(at, _)] = arrivals(bus, 2 * S)
    assert at - S == 120 * US + 500 * US


def test_a_late_reply_delays_everything_behind_it_and_nothing_overtakes():
    bus = make_bus()
    bus.faults.arm(WireFault("late", ms=60))

    for tick in range(4):
        bus.receive(READ_ALL, S + tick * 4 * MS, 1_000_000)
        early = bus.take_due(S + tick * 4 * MS + 3 * MS)
        assert early == b""
    got = arrivals(bus, 2 * S)

    idents = [data[at + 2] for _, data in got for at in range(0, len(data), 8)]
    assert idents == [1, 2, 3, 4, 5, 6] * 4
    assert got[0][0] - S > 60 * MS
    assert got[-1][0] == got[0][0]  # all were waiting in the adapter by then


def test_a_servo_that_is_late_keeps_the_line_itself_busy():
    bus = make_bus((1, 2))
    bus.faults.arm(WireFault("late", ident=1, ms=20, at="servo"))

    bus.receive(PING, S, 1_000_000)
    bus.receive(protocol.request(2, 1), S, 1_000_000)
    got = arrivals(bus, 2 * S)

    assert [data[2] for _, data in got] == [1, 2]
    assert got[0][0] - S > 20 * MS
    assert got[1][0] - got[0][0] >= 12 * 10 * US


def test_requests_written_together_are_carried_out_one_after_the_other():
    bus = make_bus((1, 2))
    write = protocol.sync_write_request(42, {1: b"\x00\x04", 2: b"\x00\x04"})

    bus.receive(write + PING + PING, S, 1_000_000)
    got = arrivals(bus, 2 * S)

    assert [data[2] for _, data in got] == [1, 1]
    gap_ns = got[1][0] - got[0][0]
    assert gap_ns == (6 + 6) * 10 * US + 20 * US
    assert bus.servos[1].get("Goal_Position") == 0x400


def test_a_silent_servo_leaves_its_slot_empty_and_the_rest_answer():
    bus = make_bus((1, 2, 4, 5, 6))

    bus.receive(READ_ALL, S, 1_000_000)
    got = arrivals(bus, 2 * S)

    assert [data[2] for _, data in got] == [1, 2, 4, 5, 6]
    times = [at for at, _ in got]
    assert times[2] - times[1] == 2 * (times[1] - times[0])


def test_a_latency_timer_holds_short_replies_until_it_expires():
    bus = make_bus(latency_timer_ns=16 * MS)

    bus.receive(PING, S, 1_000_000)
    [(at, data)] = arrivals(bus, 2 * S)
    assert at - S > 16 * MS
    assert len(data) == 6

    block = protocol.sync_read_request(range(1, 7), 56, 15)
    bus.receive(block, 2 * S, 1_000_000)
    got = arrivals(bus, 3 * S, 2 * S)

    # 126 bytes: two full packets of the adapter come at once, the last two bytes wait.
    assert [len(data) for _, data in got] == [62, 62, 2]
    assert got[1][0] - 2 * S < 3 * MS
    assert got[2][0] - got[1][0] == 16 * MS


def test_positions_of_a_sync_read_are_taken_one_after_the_other():
    bus = make_bus((1, 2))
    for servo in bus.servos:
        servo.joint.hand = lambda t_ns: (t_ns - S) / 1000  # one step a microsecond

    bus.receive(protocol.sync_read_request((1, 2), 56, 2), S, 1_000_000)
    data = bus.take_due(2 * S)

    first = int.from_bytes(data[5:7], "little")
    second = int.from_bytes(data[13:15], "little")
    assert second - first == 100


def test_a_host_that_never_reads_costs_bytes_that_are_counted():
    bus = make_bus()

    for tick in range(2000):
        bus.receive(READ_ALL, S + tick * 4 * MS, 1_000_000)

    assert bus.lost_bytes > 0
    assert len(bus.take_due(20 * S)) + bus.lost_bytes == 2000 * 48
