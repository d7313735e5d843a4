"""What can be told about a JPEG without decoding it: whole or cut, its size, its chroma sampling.

Walks the marker segments up to the scan (about twenty steps) and looks for the end marker; damage
inside the entropy-coded data is only seen by the decoder.
"""

from dataclasses import dataclass

from recd.daemon.cameras.source import Pixels

_SOI = b"\xff\xd8"
_EOI = b"\xff\xd9"
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA

_TAIL_BYTES = 4096
"""Cameras pad their pictures with zeros; the end marker must lie within this many last bytes."""

_MOST_SEGMENTS = 256

_SAMPLING = {
    ((2, 2), (1, 1), (1, 1)): "420",
    ((2, 1), (1, 1), (1, 1)): "422",
    ((1, 1), (1, 1), (1, 1)): "444",
    ((1, 2), (1, 1), (1, 1)): "440",
    ((4, 1), (1, 1), (1, 1)): "411",
    ((1, 1),): "gray",
    ((2, 1),): "gray",
    ((2, 2),): "gray",
    ((2, 2), (2, 1), (2, 1)): "440",
    ((2, 2), (1, 2), (1, 2)): "422",
    ((2, 1), (2, 1), (2, 1)): "444",
    ((1, 2), (1, 2), (1, 2)): "444",
    ((2, 2), (2, 2), (2, 2)): "444",
}
"""Sampling factors (horizontal, vertical) of the components -> usual name."""


@dataclass(frozen=True, slots=True)
class JpegFacts:
    """fault: empty when whole, else what is wrong; width, height: pixels, 0 unknown; sampling:
    420, 422, 444, 440, 411, gray or other; nbytes: length up to and with the end marker."""

    fault: str
    width: int = 0
    height: int = 0
    sampling: str = ""
    nbytes: int = 0


def examine(payload: Pixels) -> JpegFacts:
    """Facts about the JPEG in `payload` (uint8[n]). Never raises, whatever the bytes are."""
    total = payload.size
    if total < 4 or payload[0] != 0xFF or payload[1] != 0xD8:
        return JpegFacts("no start marker")
    data = payload.data
    size = _frame_header(data, total)
    if isinstance(size, str):
        return JpegFacts(size)
    width, height, sampling = size
    tail_at = max(0, total - _TAIL_BYTES)
    end = bytes(data[tail_at:total]).rfind(_EOI)
    if end < 0:
        return JpegFacts("cut short: no end marker", width, height, sampling)
    return JpegFacts("", width, height, sampling, tail_at + end + 2)


def _frame_header(data: memoryview, total: int) -> tuple[int, int, str] | str:
    found: tuple[int, int, str] | None = None
    at = 2
    for _ in range(_MOST_SEGMENTS):
        while at < total and data[at] == 0xFF and at + 1 < total and data[at + 1] == 0xFF:
            at += 1  # fill bytes are legal before a marker
        if at + 4 > total:
            return "cut short in its header"
        if data[at] != 0xFF:
            return "header damaged"
        marker = data[at + 1]
        if marker in _STANDALONE:
            at += 2
            continue
        length = data[at + 2] << 8 | data[at + 3]
        if length < 2 or at + 2 + length > total:
            return "cut short in its header"
        if marker == _SCAN:
            return found if found is not None else "no frame header"
        if marker in _FRAME_HEADERS:
            found = _parse_frame_header(data[at + 4 : at + 2 + length])
            if found is None:
                return "frame header damaged"
        at += 2 + length
    return "header damaged"


def _parse_frame_header(segment: memoryview) -> tuple[int, int, str] | None:
    if len(segment) < 6:
        return None
    height = segment[1] << 8 | segment[2]
    width = segment[3] << 8 | segment[4]
    components = segment[5]
    if len(segment) < 6 + 3 * components or not width or not height:
        return None
    factors = tuple((segment[7 + 3 * i] >> 4, segment[7 + 3 * i] & 0x0F) for i in range(components))
    return width, height, _SAMPLING.get(factors, "other")
