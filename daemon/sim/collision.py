"""What a receiver makes of two servos that talk at the same time on one wire.

The wire idles high and a driver pulling low wins, so the bits are ANDed; the receiver then finds
start bits as a UART does.
"""

_FRAME_BITS = 10


def collide(first: bytes, second: bytes, shift_bits: int) -> bytes:
    """Bytes received when `second` starts `shift_bits` bit times after `first`."""
    one, two = _serialise(first), [1] * shift_bits + _serialise(second)
    length = max(len(one), len(two))
    one += [1] * (length - len(one))
    two += [1] * (length - len(two))
    return _receive([a & b for a, b in zip(one, two, strict=True)])


def _serialise(data: bytes) -> list[int]:
    bits = []
    for byte in data:
        bits += [0, *(byte >> at & 1 for at in range(8)), 1]
    return bits


def _receive(bits: list[int]) -> bytes:
    found = bytearray()
    at = 0
    while at + _FRAME_BITS <= len(bits):
        if bits[at]:
            at += 1
            continue
        found.append(sum(bit << place for place, bit in enumerate(bits[at + 1 : at + 9])))
        at += _FRAME_BITS  # a missing stop bit is a framing error; most drivers deliver the byte
    return bytes(found)
