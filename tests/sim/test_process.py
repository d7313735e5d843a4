import json
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
import scservo_sdk as scs

from recd.config.errors import DeviceError
from recd.daemon.sim import launch
from recd.daemon.sim.control import SimControl
from recd.shm.clock import now_ns, sleep_until_ns

S = 1_000_000_000
MS = 1_000_000
IDS = range(1, 7)
PATIENCE_NS = 30 * S


@pytest.fixture
def sim(tmp_path):
    with launch.running(tmp_path / "sim") as running:
        yield running


class Host:
    """A host as the vendor's SDK makes it, with timeouts that a loaded machine does not reach."""

    def __init__(self, path, baud=1_000_000):
        self.port = scs.PortHandler(str(path))
        self.port.baudrate = baud
        assert self.port.openPort()
        self.port.setPacketTimeout = lambda _: self.port.setPacketTimeoutMillis(PATIENCE_NS // MS)
        self.packets = scs.PacketHandler(0)

    def read1(self, ident, address):
        value, result, error = self.packets.read1ByteTxRx(self.port, ident, address)
        assert result == scs.COMM_SUCCESS, self.packets.getTxRxResult(result)
        return value, error

    def read2(self, ident, address):
        value, result, error = self.packets.read2ByteTxRx(self.port, ident, address)
        assert result == scs.COMM_SUCCESS, self.packets.getTxRxResult(result)
        return value, error

    def write1(self, ident, address, value):
        result, error = self.packets.write1ByteTxRx(self.port, ident, address, value)
        assert (result, error) == (scs.COMM_SUCCESS, 0)

    def write2(self, ident, address, value):
        result, error = self.packets.write2ByteTxRx(self.port, ident, address, value)
        assert (result, error) == (scs.COMM_SUCCESS, 0)

    def positions(self, idents=IDS):
        group = scs.GroupSyncRead(self.port, self.packets, 56, 2)
        for ident in idents:
            group.addParam(ident)
        result = group.txRxPacket()
        assert result == scs.COMM_SUCCESS, self.packets.getTxRxResult(result)
        return [group.getData(ident, 56, 2) for ident in idents]

    def goals(self, values):
        group = scs.GroupSyncWrite(self.port, self.packets, 42, 2)
        for ident, value in values.items():
            group.addParam(ident, [value & 0xFF, value >> 8])
        assert group.txPacket() == scs.COMM_SUCCESS

    def close(self):
        self.port.closePort()


@pytest.fixture
def host(sim):
    opened = Host(sim.endpoints["follower"])
    yield opened
    opened.close()


def until(condition):
    deadline_ns = now_ns() + PATIENCE_NS
    while not (found := condition()):
        assert now_ns() < deadline_ns, "what was waited for did not happen"
        sleep_until_ns(now_ns() + 5 * MS)
    return found


def test_the_vendors_sdk_finds_reads_and_moves_the_arm(sim, host):
    for ident in IDS:
        model, result, error = host.packets.ping(host.port, ident)
        assert (model, result, error) == (777, scs.COMM_SUCCESS, 0)
    calibration = json.loads(Path(sim.calibrations["follower"]).read_text())
    for joint in calibration.values():
        assert host.read2(joint["id"], 9)[0] == joint["range_min"]
        assert host.read2(joint["id"], 11)[0] == joint["range_max"]
        word = host.read2(joint["id"], 31)[0]
        assert (word & 0x7FF) * (-1 if word & 0x800 else 1) == joint["homing_offset"]
    start = host.positions()

    host.goals(dict(zip(IDS, start, strict=True)))
    for ident in IDS:
        host.write1(ident, 40, 1)
        host.write1(ident, 55, 1)
    goal = {ident: position + 120 for ident, position in zip(IDS, start, strict=True)}
    host.goals(goal)

    until(
        lambda: all(abs(a - b) < 15 for a, b in zip(host.positions(), goal.values(), strict=True))
    )


def test_what_lerobot_sends_at_connect_is_answered_117_times(sim, host):
    for ident in IDS:
        assert host.packets.ping(host.port, ident)[1] == scs.COMM_SUCCESS  # ping and model
    for ident in IDS:
        assert host.read1(ident, 0)[0] == 3
        assert host.read1(ident, 1)[0] == 10
    for ident in IDS:
        for address in (9, 11, 31):
            host.read2(ident, address)
    for ident in IDS:
        host.write1(ident, 40, 0)
        host.write1(ident, 55, 0)
    for ident in IDS:
        for address, value in ((7, 0), (85, 254), (41, 254)):
            host.write1(ident, address, value)
        assert not host.read1(ident, 18)[0] & 0x10
    for ident in IDS:
        for address, value in ((33, 0), (21, 16), (23, 0), (22, 32)):
            host.write1(ident, address, value)
    host.write2(6, 16, 500)
    host.write2(6, 28, 250)
    host.write1(6, 36, 25)
    for ident in IDS:
        host.write1(ident, 40, 1)
        host.write1(ident, 55, 1)

    entries = [entry for entry in sim.control.entries() if entry.kind == "request"]
    assert len(entries) == 117
    assert all(len(entry.heard) == 1 for entry in entries)
    sim.control.brown_out(bus="follower", down_ms=0)
    assert host.read1(1, 21)[0] == 16  # written with lock 0
    assert host.read1(1, 40)[0] == 0


def test_a_late_burst_leaves_the_sdk_one_reply_behind(sim, host):
    host.positions()
    host.port.setPacketTimeout = lambda _: host.port.setPacketTimeoutMillis(40)
    before = sim.control.mark()
    sim.control.fault(bus="follower", kind="late", ms=400)

    group = scs.GroupSyncRead(host.port, host.packets, 56, 2)
    for ident in IDS:
        group.addParam(ident)
    assert group.txRxPacket() != scs.COMM_SUCCESS
    until(lambda: host.port.getBytesAvailable() == 48)

    sim.control.place(bus="follower", joints={"shoulder_pan": 2500})
    host.port.setPacketTimeout = lambda _: host.port.setPacketTimeoutMillis(PATIENCE_NS // MS)
    assert host.positions()[0] != 2500  # the reply to the request before
    assert host.positions()[0] == 2500
    until(lambda: host.port.getBytesAvailable() == 48)  # and so on until somebody flushes
    faults = [entry.fields for entry in sim.control.entries(since=before) if entry.kind == "fault"]
    assert faults == [{"fault": "late", "id": 1}]


def test_a_port_can_be_closed_and_opened_again_at_any_rate(sim):
    for baud in (1_000_000, 500_000, 250_000, 1_000_000):
        host = Host(sim.endpoints["follower"], baud)
        if baud == 1_000_000:
            assert host.packets.ping(host.port, 1)[1] == scs.COMM_SUCCESS
        else:
            host.port.setPacketTimeout = lambda _, port=host.port: port.setPacketTimeoutMillis(100)
            assert host.packets.ping(host.port, 1)[1] == scs.COMM_RX_TIMEOUT
        host.close()


def test_an_unplugged_port_hangs_up_and_comes_back_under_another_name(sim, host):
    host.write1(1, 40, 1)
    by_id = Path(sim.control.describe()["arms"]["follower"]["by_id"])
    assert by_id.resolve() == Path(sim.endpoints["follower"]).resolve()

    sim.control.unplug(bus="follower")

    assert not os.path.lexists(sim.endpoints["follower"])
    assert not os.path.lexists(by_id)
    poll = select.poll()
    poll.register(host.port.ser.fileno(), select.POLLIN)
    assert poll.poll(5000)[0][1] & select.POLLHUP

    other = sim.directory / "ttyACM7"
    assert sim.control.plug(bus="follower", link=str(other))["path"] == str(other)
    again = Host(by_id)
    assert again.read1(1, 40)[0] == 1  # servos had power all the time
    assert by_id.resolve() == other.resolve()
    again.close()


def test_the_truth_about_a_pose_is_what_the_servo_reports(sim, host):
    leader = Host(sim.endpoints["leader"])
    for _ in range(20):
        before = now_ns()
        reported = leader.positions([2])[0]
        after = now_ns()
        until(lambda after=after: sim.control.poses.span_ns()[1] > after)
        between = [
            sim.control.true_position("leader", "shoulder_lift", at_ns)
            for at_ns in range(before, after + MS, MS // 2)
        ]
        assert min(between) - 1 <= reported <= max(between) + 1
    leader.close()


def test_a_scripted_leader_crosses_the_seam(sim):
    leader = Host(sim.endpoints["leader"])

    sim.control.script(bus="leader", frames=[[0.3, {"wrist_roll": 4050}]])
    until(lambda: leader.positions([5])[0] == pytest.approx(4050, abs=1))
    sim.control.script(bus="leader", frames=[[0.7, {"wrist_roll": 4300}]])
    until(lambda: leader.positions([5])[0] == pytest.approx(4300 - 4096, abs=1))
    leader.close()


def test_faults_of_servos_show_on_the_wire(sim, host):
    control = sim.control
    host.goals(dict(zip(IDS, host.positions(), strict=True)))
    for ident in IDS:
        host.write1(ident, 40, 1)
    control.temperature(bus="follower", ident=2, celsius=75)
    control.voltage(bus="follower", volts=3.5, idents=[3])
    control.overload(bus="follower", ident=4)
    control.error_bits(bus="follower", ident=5, bits=0x08)

    assert [host.read1(ident, 63)[1] for ident in range(1, 6)] == [0, 0x04, 0x01, 0x20, 0x08]
    assert host.read1(2, 40)[0] == 0

    with SimControl(sim.directory / "control.sock") as other:
        other.fault("follower", "clear")
    assert host.read1(5, 63)[1] == 0
    control.missing(bus="follower", ident=1)
    host.port.setPacketTimeout = lambda _: host.port.setPacketTimeoutMillis(60)
    assert host.packets.ping(host.port, 1)[1] == scs.COMM_RX_TIMEOUT
    control.missing(bus="follower", ident=1, on=False)
    control.duplicate(bus="follower", ident=2, of=1)
    results = [host.packets.read2ByteTxRx(host.port, 1, 56)[1] for _ in range(3)]
    assert scs.COMM_SUCCESS not in results


def test_the_log_on_disk_holds_what_the_ring_holds(tmp_path):
    path = tmp_path / "log.jsonl"
    with launch.running(tmp_path / "sim", log_path=path, pairs=["main"]) as sim:
        host = Host(sim.endpoints["main.follower"])
        host.write1(3, 40, 1)
        host.close()
        writes = sim.control.writes(bus="main.follower", name="Torque_Enable")
        assert [(w.ident, w.value) for w in writes] == [(3, 1)]
        kept = [entry.plain() for entry in sim.control.entries()]

    assert [json.loads(line) for line in path.read_text().splitlines()] == kept


def test_a_robot_leaves_nothing_behind_and_refuses_what_it_cannot_be(tmp_path):
    sim = launch.start(tmp_path / "sim")
    with pytest.raises(DeviceError, match="found a simulated robot running"):
        launch.start(tmp_path / "sim")
    with pytest.raises(ValueError, match="expected one of late"):
        sim.control.fault(bus="follower", kind="magic")
    with pytest.raises(ValueError, match="expected a bus of leader, follower"):
        sim.control.unplug(bus="other")
    with pytest.raises(ValueError, match="unexpected keyword"):
        sim.control.unplug(bus="follower", hard=True)

    assert launch.stop(sim) == 0

    left = {path.name for path in (tmp_path / "sim").iterdir()}
    assert left == {"by-id", "calibration", "pose.bin"}
    assert list((tmp_path / "sim" / "by-id").iterdir()) == []
    with pytest.raises(DeviceError, match="expected a running simulated robot"):
        SimControl(tmp_path / "sim")


def test_missing_servos_other_models_and_firmware_can_be_there_from_the_start(tmp_path):
    settings = {
        "follower.missing": [2],
        "follower.model": {3: 2825},
        "follower.firmware": {4: [3, 9]},
    }
    with launch.running(tmp_path / "sim", settings=settings) as sim:
        host = Host(sim.endpoints["follower"])
        assert host.read2(3, 3)[0] == 2825
        assert host.read1(4, 1)[0] == 9
        host.port.setPacketTimeout = lambda _: host.port.setPacketTimeoutMillis(60)
        assert host.packets.ping(host.port, 2)[1] == scs.COMM_RX_TIMEOUT
        host.close()


def test_the_robot_ends_with_the_process_that_started_it(tmp_path):
    program = (
        "import sys; from recd.daemon.sim import launch;"
        "sim = launch.start(sys.argv[1]); print(sim.process.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "sim")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(parent.stdout.readline())
    child = os.pidfd_open(pid)

    parent.kill()
    parent.communicate()

    ended, _, _ = select.select([child], [], [], 10)
    os.close(child)
    assert ended
