"""The packets of a control tick: built by the SDK once and kept, replies recognised whole.

The SDK goes over a packet byte by byte in Python, six replies and two requests a tick. Limit: what
is not exactly the next reply that is due is left to the SDK.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recd.daemon.arms.registers import Block, Register

FRAME_BYTES = 6
"""Bytes of a reply without data: two of header, id, length, error, checksum."""

_HEAD_BYTES, _ERROR, _DATA = 4, 4, 5
_LARGEST_ERROR = 0x7F
_SOUND_SUM = (0xFF + 0xFF + 0xFF) & 0xFF
"""Low byte of the sum of a whole packet: two header bytes, and the rest with its complement."""


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
    """A sync read. packet: to be sent; reply_bytes: of all replies, and reply_size of each;
    replies: (first four bytes, joint) in the order in which servos answer."""

    packet: bytes
    reply_bytes: int
    reply_size: int
    replies: tuple[tuple[bytes, int], ...]


def read_request(sdk: Any, block: Block, order: Sequence[int], ids: Sequence[int]) -> ReadRequest:
    """Sync read of `block`. order: servos as they are asked; ids: servos by joint."""
    recorder = _Recorder()
    sdk.syncReadTx(recorder, block.address, block.length, list(order), len(order))
    heads = (bytes((0xFF, 0xFF, servo, block.length + 2)) for servo in order)
    joints = (ids.index(servo) for servo in order)
    return ReadRequest(
        recorder.packet,
        recorder.reply_bytes,
        FRAME_BYTES + block.length,
        tuple(zip(heads, joints, strict=True)),
    )


def is_reply(frame: bytearray, head: bytes) -> bool:
    """Whether `frame` is a whole, sound reply that begins with `head`, as the SDK judges it."""
    return (
        frame[:_HEAD_BYTES] == head
        and frame[_ERROR] <= _LARGEST_ERROR
        and sum(frame) & 0xFF == _SOUND_SUM
    )


def reply_data(frame: bytearray) -> tuple[int, bytes]:
    """(error byte, data) of a sound reply."""
    return frame[_ERROR], bytes(frame[_DATA:-1])


class WordsRequest:
    """A sync write of one two-byte register of all servos, filled anew each time."""

    def __init__(self, sdk: Any, register: Register, ids: Sequence[int]) -> None:
        recorder = _Recorder()
        data = [byte for servo in ids for byte in (servo, 0, 0)]
        sdk.syncWriteTxOnly(recorder, register.address, register.size, data, len(data))
        self._packet = bytearray(recorder.packet)
        self._words = struct.Struct("<" + "BH" * len(ids))
        self._first = len(self._packet) - 1 - self._words.size
        self._values = [value for servo in ids for value in (servo, 0)]

    def packet(self, words: Sequence[int]) -> bytes:
        """The request with these register contents, one per servo."""
        packet, self._values[1::2] = self._packet, words
        self._words.pack_into(packet, self._first, *self._values)
        packet[-1] = 0
        packet[-1] = (_SOUND_SUM - sum(packet)) & 0xFF
        return bytes(packet)
