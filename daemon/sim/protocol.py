"""Feetech STS frames: building them, and finding requests in what a line carries.

Knows bytes only: no servo, no time beyond the gap that ends a torn request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

HEADER = b"\xff\xff"
BROADCAST = 0xFE
LARGEST_ID = 0xFC
OVERHEAD_BYTES = 6
"""Bytes of a frame without parameters: header 2, id, length, instruction or error, checksum."""

TORN_AFTER_NS = 5_000_000
"""A request whose rest has not come by then is given up; a servo's own limit is of this order."""


class Instruction(IntEnum):
    """Second byte after the id of a request."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


class ErrorBit(IntFlag):
    """Error byte of a reply, and the servo's status register (65)."""

    VOLTAGE = 0x01
    SENSOR = 0x02
    OVERHEAT = 0x04
    OVERCURRENT = 0x08
    OVERLOAD = 0x20


def checksum(body: bytes) -> int:
    """Inverted low byte of the sum of `body` (id up to the last parameter)."""
    return ~sum(body) & 0xFF


def request(ident: int, instruction: int, parameters: bytes = b"") -> bytes:
    """A whole request frame."""
    return frame(ident, instruction, parameters)


def reply(ident: int, error: int, parameters: bytes = b"") -> bytes:
    """A whole reply frame; `error` is a sum of ErrorBit."""
    return frame(ident, error, parameters)


def frame(ident: int, code: int, parameters: bytes) -> bytes:
    """Header, id, length, code (instruction or error), parameters, checksum."""
    body = bytes((ident, len(parameters) + 2, code)) + parameters
    return HEADER + body + bytes((checksum(body),))


def sync_read_request(idents: Sequence[int], address: int, length: int) -> bytes:
    """Request that makes each of `idents` send `length` bytes from `address`, in that order."""
    return request(BROADCAST, Instruction.SYNC_READ, bytes((address, length, *idents)))


def sync_write_request(address: int, data: dict[int, bytes]) -> bytes:
    """Request that writes `data[id]` (all of one length) at `address`; nobody answers."""
    length = len(next(iter(data.values())))
    body = b"".join(bytes((ident,)) + value for ident, value in data.items())
    return request(BROADCAST, Instruction.SYNC_WRITE, bytes((address, length)) + body)


@dataclass(frozen=True, slots=True)
class Request:
    """One well-formed request as it came over the line. raw: the whole frame."""

    ident: int
    instruction: int
    parameters: bytes
    raw: bytes


def register_writes(raw: bytes) -> list[tuple[int, int, bytes]]:
    """(id, address, data) of each register write that the request frame `raw` asks for.

    Registered writes (REG_WRITE) are not in: they take effect with the ACTION that follows.
    """
    ident, instruction, body = raw[2], raw[4], raw[5:-1]
    match instruction:
        case Instruction.WRITE if len(body) >= 2:
            return [(ident, body[0], body[1:])]
        case Instruction.SYNC_WRITE if len(body) >= 2:
            return sync_write_items(body)
    return []


def sync_write_items(body: bytes) -> list[tuple[int, int, bytes]]:
    """(id, address, data) per servo of a sync write's parameters; a torn last one is left out."""
    address, length = body[0], body[1]
    step = length + 1
    return [
        (body[at], address, body[at + 1 : at + step]) for at in range(2, len(body) - length, step)
    ]


class RequestParser:
    """Finds requests in bytes that may hold junk, torn frames and wrong checksums.

    A frame with a wrong checksum costs its header only: the search goes on right behind it, so a
    torn request swallows no whole one that follows. `junk_bytes` counts what belonged to none.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._last_ns = 0
        self.junk_bytes = 0

    def feed(self, data: bytes, at_ns: int) -> list[Request]:
        """Requests completed by `data`, which arrived at `at_ns`."""
        if self._buffer and at_ns - self._last_ns > TORN_AFTER_NS:
            self.reset()
        self._last_ns = at_ns
        self._buffer += data
        found = []
        while (item := self._next()) is not None:
            found.append(item)
        return found

    def reset(self) -> None:
        """Forget an unfinished request (the line was quiet, or the host closed the port)."""
        self.junk_bytes += len(self._buffer)
        self._buffer.clear()

    def _skip(self, count: int) -> None:
        del self._buffer[:count]
        self.junk_bytes += count

    def _next(self) -> Request | None:
        buffer = self._buffer
        while True:
            start = buffer.find(HEADER)
            if start < 0:
                self._skip(len(buffer) - 1 if buffer.endswith(b"\xff") else len(buffer))
                return None
            if start:
                self._skip(start)
            if len(buffer) < OVERHEAD_BYTES:
                return None
            ident, length = buffer[2], buffer[3]
            if ident > BROADCAST or length < 2:
                self._skip(1)
                continue
            total = length + 4
            if len(buffer) < total:
                return None
            raw = bytes(buffer[:total])
            if checksum(raw[2:-1]) != raw[-1]:
                self._skip(2)
                continue
            del buffer[:total]
            return Request(ident, raw[4], raw[5:-1], raw)
