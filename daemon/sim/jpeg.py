"""Full-range JPEGs from YUV planes that are drawn in place: no copy, no RGB. One thread.

PyAV's mjpeg encoder; the tables are in every picture, as a JPEG file has them (UVC cameras may
leave the Huffman tables out; readers that cope with those cope with these).
"""

from fractions import Fraction
from typing import Any

import numpy as np

from recd.daemon.sim.render import Plane

PATTERNS: dict[str, tuple[str, tuple[int, int]]] = {
    "420": ("yuvj420p", (2, 2)),
    "422": ("yuvj422p", (2, 1)),
    "444": ("yuvj444p", (1, 1)),
}
"""Chroma pattern -> (full-range pixel format of libav, chroma divisors across and down)."""


class JpegEncoder:
    """One picture size and pattern. Draw into `planes`, then call `encode`.

    quality: libav's quantiser scale, 2 (best) to 31.
    """

    def __init__(self, width: int, height: int, *, pattern: str = "420", quality: int = 4) -> None:
        import av

        pixel_format, self.subsampling = PATTERNS[pattern]
        context: Any = av.CodecContext.create("mjpeg", "w")
        context.width, context.height, context.pix_fmt = width, height, pixel_format
        context.time_base = Fraction(1, 1000)
        context.thread_count = 1
        context.qmin = context.qmax = quality
        self._context = context
        self._frame = av.VideoFrame(width, height, pixel_format)
        self._pts = 0
        across, down = self.subsampling
        sizes = ((width, height), *((-(-width // across), -(-height // down)),) * 2)
        self.planes: tuple[Plane, ...] = tuple(
            np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:rows, :columns]
            for plane, (columns, rows) in zip(self._frame.planes, sizes, strict=True)
        )
        """Y, U, V of the next picture: uint8, full range, views into the encoder's own frame."""

    def encode(self) -> bytes:
        """The present content of `planes` as one JPEG."""
        self._frame.pts = self._pts
        self._pts += 1
        return b"".join(bytes(packet) for packet in self._context.encode(self._frame))
