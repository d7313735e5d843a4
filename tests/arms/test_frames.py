"""Packets of the tick against the SDK's own: the same bytes out, the same reading of what comes."""

import os
import select
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scservo_sdk import PacketHandler

from recd.daemon.arms import exchange as exchange_module
from recd.daemon.arms.feetech import bus as bus_module
from recd.daemon.arms.feetech import port as port_module
from recd.daemon.arms.feetech.bus import ServoBus
from recd.daemon.arms.feetech.port import BusPort
from recd.daemon.arms.passes import integers
from recd.daemon.arms.registers import GOAL_POSITION, POSITION_BLOCK, TELEMETRY_BLOCK
from recd.daemon.arms.tickcode import PLAIN, Code, Plain, machine_code
from recd.shm.aot_parts import with_parts

from .virtual_kernel import VirtualKernel

IDS = (1, 2, 3, 4, 5, 6)
PATIENCE_NS = 2_000_000


TAKES_NOTHING = Plain(
    {
        "exchange": with_parts(PLAIN["exchange"], take_replies=lambda *_: 0),
        "send_words": PLAIN["send_words"],
    }
)
"""Leaves every reply to the SDK."""


class Wire:
    """A port on a socket, in virtual time; `reply` comes as soon as a read sleeps for it."""

    def __init__(self, code: Code) -> None:
        ours, self._theirs = socket.socketpair()
        ours.setblocking(False)
        self._theirs.setblocking(False)
        port = BusPort("wire", baud=1_000_000)
        port.use(ours.fileno())
        self._ours = ours
        self._answer: Callable[[int], None] = lambda _at_ns: None
        self._kernel = VirtualKernel(
            clock=self._clock, sleep_until=lambda at_ns: self._answer(at_ns), read=os.read,
            write=os.write,
            wait_input=lambda fd, for_ns: bool(self._select([fd], (), (), for_ns / 1e9)[0]),
        )  # fmt: skip
        port.calls = self._kernel.table
        self.bus = ServoBus(port, IDS, code)
        self.sent: list[bytes] = []
        self._now = 10**9

    def _clock(self) -> int:
        self._now += 1_000
        return self._now

    def _select(self, fds, _w, _x, timeout_s: float):
        came = select.select(fds, (), (), 0)
        if not came[0]:
            self._now += round(timeout_s * 1e9)
        return came

    def read(self, block, reply: bytes):
        def answer(_at_ns: int) -> None:
            self.sent.append(self._theirs.recv(4096))
            self._theirs.send(reply)

        self.bus.port.reply_timeout_ns = PATIENCE_NS
        self.bus.line.in_step = True
        self._answer = answer
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exchange_module, "sleep_until_ns", answer)
            patch.setattr(bus_module, "now_ns", self._clock)
            for module in (port_module, exchange_module):
                patch.setattr(module, "now_ns", self._clock)
                patch.setattr(module, "select", SimpleNamespace(select=self._select))
            return self.bus.sync_read(block)

    def heard(self) -> bytes:
        return self._theirs.recv(4096)

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


@pytest.fixture(scope="module")
def wires() -> Iterator[tuple[Wire, Wire, Wire]]:
    """By machine code, by the same as Python, by the SDK alone."""
    all_three = Wire(machine_code()), Wire(PLAIN), Wire(TAKES_NOTHING)
    yield all_three
    for wire in all_three:
        wire.close()


def packet(servo: int, error: int, data: bytes) -> bytes:
    body = bytes([servo, len(data) + 2, error, *data])
    return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])


@st.composite
def streams(draw, length: int) -> bytes:
    """Replies of six servos, some of them spoilt as a wire spoils them."""
    parts = []
    for servo in IDS:
        data = draw(st.binary(min_size=length, max_size=length))
        error = draw(st.sampled_from([0, 0, 0, 0x20, 0x7F, 0x80]))
        whole = bytearray(packet(servo, error, data))
        match draw(
            st.sampled_from(["whole"] * 12 + ["gone", "bit", "cut", "noise", "other", "id"])
        ):
            case "gone":
                whole = bytearray()
            case "bit":
                whole[draw(st.integers(0, len(whole) - 1))] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del whole[draw(st.integers(0, len(whole) - 1)) :]
            case "noise":
                whole[:0] = draw(st.binary(min_size=1, max_size=5))
            case "other":
                whole = bytearray(packet(servo, 0, data + b"\1"))
            case "id":
                whole = bytearray(packet(draw(st.integers(1, 9)), 0, data))
        parts.append(bytes(whole))
    return b"".join(parts)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), block=st.sampled_from([POSITION_BLOCK, TELEMETRY_BLOCK]))
def test_whatever_comes_is_read_as_the_sdk_alone_reads_it(wires, data, block) -> None:
    reply = data.draw(streams(block.length))
    found = []
    for wire in wires:
        bad, bus = wire.bus.bad_packets, wire.bus
        reading = wire.read(block, reply)
        replies = [
            (reading.errors[joint], [reading.byte(joint, at) for at in range(block.length)])
            for joint in range(len(IDS))
            if reading.valid >> joint & 1
        ]
        found.append(
            (reading.valid, replies, reading.flags, bus.bad_packets - bad, bus.line.in_step,
             wire.sent[-1])
        )  # fmt: skip
    assert found[0] == found[1] == found[2]


def test_a_signal_in_an_exchange_costs_no_reply() -> None:
    wire = Wire(machine_code())
    try:
        wire._kernel.signals = 3
        wire.bus.write_goals(integers([2000] * 6))
        assert wire.heard()
        wire._kernel.signals = 3
        whole = b"".join(packet(servo, 0, b"\1\2") for servo in IDS)
        assert wire.read(POSITION_BLOCK, whole).valid == 0b111111
    finally:
        wire.close()


@given(st.lists(st.integers(-32767, 32767), min_size=6, max_size=6), st.integers(0, 62))
def test_goals_are_byte_for_byte_the_sdks_packet(wires, steps, skip) -> None:
    found = []
    for wire in wires[:2]:
        wire.bus.write_goals(integers(steps), skip=skip)
        found.append(wire.heard())
    data = []
    for joint, step in enumerate(steps):
        if not skip >> joint & 1:
            data += [IDS[joint], *GOAL_POSITION.encode(step).to_bytes(2, "little")]
    PacketHandler(0).syncWriteTxOnly(wire.bus.port, 42, 2, data, len(data))
    assert found == [wire.heard()] * 2


def test_requests_are_byte_for_byte_the_sdks_packets_in_any_order() -> None:
    wire = Wire(PLAIN)
    try:
        for order in (IDS, (3, 1, 2, 4, 5, 6)):
            wire.bus._ask_in_order(order)
            for block in (POSITION_BLOCK, TELEMETRY_BLOCK):
                wire.read(block, b"".join(packet(s, 0, bytes(block.length)) for s in order))
                wire.bus.port.is_using = False
                PacketHandler(0).syncReadTx(
                    wire.bus.port, block.address, block.length, list(order), 6
                )
                wire.bus.port.is_using = False
                assert wire.sent[-1] == wire.heard()
    finally:
        wire.close()
