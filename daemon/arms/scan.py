"""Which servos are on a port: for `recctl devices --scan PORT` and for setting up a new arm.

Opens the port for itself; only asks, never writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scservo_sdk import BROADCAST_ID, COMM_SUCCESS, INST_PING, PacketHandler

from recd.config.errors import DeviceError
from recd.daemon.arms.attach import SERVO_MODELS
from recd.daemon.arms.feetech.bus import ServoBus
from recd.daemon.arms.feetech.port import BusPort
from recd.daemon.arms.registers import (
    FIRMWARE_MAJOR,
    FIRMWARE_MINOR,
    MODEL_NUMBER,
    TELEMETRY_BLOCK,
)
from recd.shm.clock import NS_PER_MS

_ANSWER_BYTES = 6
ANSWER_NS = 800 * NS_PER_MS
"""Servos answer a broadcast one after another, by id: 253 slots of about 3 ms."""


@dataclass(frozen=True, slots=True)
class FoundServo:
    """One id that answered. model: number from the servo, 0 when its answers are garbled."""

    baud: int
    servo_id: int
    model: int
    model_name: str
    firmware: str


@dataclass(frozen=True, slots=True)
class PortScan:
    """What a port has. garbled: replies collided, so several servos share an id."""

    path: str
    servos: tuple[FoundServo, ...]
    garbled: bool


def scan_port(path: str, *, bauds: Sequence[int] = (1_000_000,)) -> PortScan:
    """Ask every id at each line rate. Raises DeviceError when the port cannot be opened."""
    found: list[FoundServo] = []
    garbled = False
    for baud in bauds:
        port = BusPort(path, baud=baud)
        bus = ServoBus(port, (1,))
        bus.open()
        try:
            ids, collided = _ask_all(port)
            described = [_describe(port, servo, baud) for servo in ids]
        finally:
            bus.close()
        found += described
        garbled |= collided or any(not servo.model for servo in described)
    return PortScan(path, tuple(found), garbled)


def _ask_all(port: BusPort) -> tuple[list[int], bool]:
    packets: Any = PacketHandler(0)
    packets.txPacket(port, [0, 0, BROADCAST_ID, 2, INST_PING, 0])
    port.extend_deadline(ANSWER_NS)
    ids: set[int] = set()
    before = port.received_bytes
    while not port.isPacketTimeout():
        packet, result = packets.rxPacket(port)
        if result == COMM_SUCCESS:
            ids.add(packet[2])
    # Colliding answers are dropped by the packet layer; their bytes were received all the same.
    return sorted(ids), port.received_bytes - before != _ANSWER_BYTES * len(ids)


def _describe(port: BusPort, servo: int, baud: int) -> FoundServo:
    bus = ServoBus(port, (servo,))
    try:
        model = bus.read(servo, MODEL_NUMBER)
        firmware = f"{bus.read(servo, FIRMWARE_MAJOR)}.{bus.read(servo, FIRMWARE_MINOR)}"
        # Twins answer alike until they tell where they stand: then their bytes collide.
        bus.read_bytes(servo, TELEMETRY_BLOCK.address, TELEMETRY_BLOCK.length)
    except DeviceError:
        return FoundServo(baud, servo, 0, "garbled", "")
    return FoundServo(baud, servo, model, SERVO_MODELS.get(model, "unknown"), firmware)
