"""The packets of a control tick: built by the SDK once and kept, replies recognised whole.

The SDK goes over a packet byte by byte in Python, six replies and two requests a tick. Limit: what
is not exactly the next reply that is due is left to the SDK.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from recd.daemon.arms.passes import FRAME_BYTES, ROOM, integers, octets
from recd.daemon.arms.registers import PRESENT_POSITION, Block, Register


class _Recorder:
    """A port that keeps what the SDK hands over."""

    is_using = False
    packet = b""
    reply_bytes = 0

    def clearPort(self) -> None:  # noqa: N802 (the SDK's name)
        pass

    def writePort(self, packet: Sequence[int]) -> int:  # noqa: N802
        self.packet = bytes(packet)
        return len(packet)

    def setPacketTimeout(self, packet_length: int) -> None:  # noqa: N802
        self.reply_bytes = packet_length


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A sync read.

    packet: to be sent; reply_bytes: of all replies, and reply_size of each; due: for
    passes.take_replies; position_at: byte of a reply's data at which its position is;
    answered: joints of the first replies, as bits: of none, one, two, ...
    """

    packet: bytearray
    reply_bytes: int
    reply_size: int
    due: Sequence[int]
    position_at: int
    answered: tuple[int, ...]


def read_request(sdk: Any, block: Block, order: Sequence[int], ids: Sequence[int]) -> ReadRequest:
    """Sync read of `block`. order: servos as they are asked; ids: servos by joint.

    ValueError for a block longer than a reading has room for.
    """
    if block.length > ROOM:
        raise ValueError(f"a block of {block.length} bytes, at most {ROOM}")
    recorder = _Recorder()
    sdk.syncReadTx(recorder, block.address, block.length, list(order), len(order))
    heads = [bytes((0xFF, 0xFF, servo, block.length + 2)) for servo in order]
    joints = [ids.index(servo) for servo in order]
    return ReadRequest(
        octets(recorder.packet),
        recorder.reply_bytes,
        FRAME_BYTES + block.length,
        integers([*(int.from_bytes(head, "little") for head in heads), *joints]),
        block.offset(PRESENT_POSITION),
        tuple(accumulate((1 << joint for joint in joints), initial=0)),
    )


def words_request(
    sdk: Any, register: Register, ids: Sequence[int]
) -> tuple[bytearray, int, int, int]:
    """A sync write of one two-byte register of all servos, to be filled anew each time: (packet as
    the SDK makes it, byte of the first servo's entry, bytes, servos), as exchange.send_words has
    them."""
    recorder = _Recorder()
    data = [byte for servo in ids for byte in (servo, 0, 0)]
    sdk.syncWriteTxOnly(recorder, register.address, register.size, data, len(data))
    packet = octets(recorder.packet)
    return packet, len(packet) - 1 - len(data), len(packet), len(ids)
