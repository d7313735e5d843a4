"""Pictures for a simulated V4L2 camera: a numbered card in any pixel format.

The frame number is in the bytes: in a comment segment of a JPEG, in the first eight bytes of a raw
picture. Drawing costs nothing per frame; a bar moves through a few prepared pictures.
"""

from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.daemon.sim.v4l2shim.spec import BYTES_PER_PIXEL

STEPS = 8
"""Positions of the moving bar."""

JPEG_FORMATS = {"420": "yuvj420p", "422": "yuvj422p", "444": "yuvj444p"}

_COMMENT = b"\xff\xfe\x00\x0a"


def numbered_card(number: int, pixelformat: str, width: int, height: int) -> bytes:
    """Pictures for a VirtualDevice: the card with `number` in it."""
    if pixelformat == "MJPG":
        return number_jpeg(card_jpeg(number % STEPS, width, height), number)
    nbytes = int(width * height * BYTES_PER_PIXEL[pixelformat])
    base = _noise(nbytes)
    return number.to_bytes(8, "little") + base[number % STEPS : nbytes - 8 + number % STEPS]


@cache
def _noise(nbytes: int) -> bytes:
    return np.random.default_rng(1).integers(16, 235, nbytes + STEPS, np.uint8).tobytes()


def number_jpeg(jpeg: bytes, number: int) -> bytes:
    """The JPEG with `number` in a comment segment behind its start marker."""
    return jpeg[:2] + _COMMENT + number.to_bytes(8, "little") + jpeg[2:]


def number_of(payload: bytes | npt.NDArray[np.uint8], pixelformat: str = "MJPG") -> int:
    """The frame number in a picture of `numbered_card`; -1 when a JPEG has none."""
    head = bytes(payload[:14])
    if pixelformat != "MJPG":
        return int.from_bytes(head[:8], "little")
    return int.from_bytes(head[6:14], "little") if head[2:6] == _COMMENT else -1


@cache
def card_jpeg(step: int, width: int, height: int, pattern: str = "420") -> bytes:
    """A grey ramp with a bar at `step`, as a full-range JPEG of the given chroma pattern."""
    import av

    context: Any = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = width, height, JPEG_FORMATS[pattern]
    context.time_base = Fraction(1, 30)
    context.thread_count = 1
    context.options = {"qmin": "4", "qmax": "4"}
    frame = av.VideoFrame(width, height, JPEG_FORMATS[pattern])
    ramp = np.tile(np.linspace(20, 230, width, dtype=np.uint8), (height, 1))
    left = step * width // STEPS
    ramp[:, left : left + width // STEPS] = 255
    for index, plane in enumerate(frame.planes):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        rows[:] = 128
        if index == 0:
            rows[:, :width] = ramp
    frame.pts = 0
    return b"".join(bytes(packet) for packet in context.encode(frame))
