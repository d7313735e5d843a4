from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np

from recd.daemon.encode.colour import plane_view

Rgb = np.ndarray[Any, np.dtype[np.uint8]]


def _yuv(rgb: Rgb, *, full: bool) -> list[Rgb]:
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    y = 0.299 * r + 0.587 * g + 0.114 * b
    cb, cr = (b - y) / 1.772, (r - y) / 1.402
    low, span, chroma = (0, 1.0, 1.0) if full else (16, 219 / 255, 224 / 255)
    planes = (low + y * span, 128 + cb * chroma, 128 + cr * chroma)
    return [np.rint(plane).clip(0, 255).astype(np.uint8) for plane in planes]


def jpeg_of(rgb: Rgb, fmt: str) -> bytes:
    height, width = rgb.shape[:2]
    frame = av.VideoFrame(width, height, fmt)
    for plane, values in zip(frame.planes, _yuv(rgb, full=True), strict=True):
        view = plane_view(plane)
        view[:] = values[:: height // view.shape[0], :: width // view.shape[1]]
    frame.pts = 0
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, fmt
    encoder.time_base = Fraction(1, 30)
    encoder.qmin = encoder.qmax = 2
    return bytes([*encoder.encode(frame), *encoder.encode(None)][0])


def _yuyv(rgb: Rgb, *, full: bool) -> bytes:
    y, u, v = _yuv(rgb, full=full)
    out = np.empty((*y.shape, 2), np.uint8)
    out[..., 0] = y
    out[:, 0::2, 1], out[:, 1::2, 1] = u[:, ::2], v[:, ::2]
    return out.tobytes()


def _nv12(rgb: Rgb) -> bytes:
    y, u, v = _yuv(rgb, full=False)
    chroma = np.stack([u[::2, ::2], v[::2, ::2]], axis=-1)
    return y.tobytes() + chroma.tobytes()


def _planar(rgb: Rgb) -> bytes:
    y, u, v = _yuv(rgb, full=False)
    return y.tobytes() + u[::2, ::2].tobytes() + v[::2, ::2].tobytes()


PAYLOADS: dict[str, tuple[str, bool, Callable[[Rgb], bytes]]] = {
    "jpeg 4:2:0": ("mjpeg", True, lambda rgb: jpeg_of(rgb, "yuvj420p")),
    "jpeg 4:2:2": ("mjpeg", True, lambda rgb: jpeg_of(rgb, "yuvj422p")),
    "jpeg 4:4:4": ("mjpeg", True, lambda rgb: jpeg_of(rgb, "yuvj444p")),
    "yuyv limited": ("yuyv", False, lambda rgb: _yuyv(rgb, full=False)),
    "yuyv full": ("yuyv", True, lambda rgb: _yuyv(rgb, full=True)),
    "nv12": ("nv12", False, _nv12),
    "yuv420p": ("yuv420p", False, _planar),
    "rgb24": ("rgb24", True, lambda rgb: rgb.tobytes()),
    "bgr24": ("bgr24", True, lambda rgb: rgb[..., ::-1].tobytes()),
}
"""Name -> (ring payload kind, full range, maker from RGB)."""


WIDTH, HEIGHT = 640, 480
BAR, ROW = 80, 240

BARS = [
    tuple(level * on for on in bar)
    for level in (191, 255)
    for bar in ((1, 1, 1), (1, 1, 0), (0, 1, 1), (0, 1, 0), (1, 0, 1), (1, 0, 0), (0, 0, 1))
]
GREYS = [(0, 0, 0), (16, 16, 16)]
COLOURS = BARS[:7] + GREYS[:1] + BARS[7:] + GREYS[1:]


def bars():
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for i, colour in enumerate(COLOURS):
        row, bar = divmod(i, 8)
        image[row * ROW : (row + 1) * ROW, bar * BAR : (bar + 1) * BAR] = colour
    return image


def worst_on_flat_areas(image):
    worst = 0
    for i, colour in enumerate(COLOURS):
        row, bar = divmod(i, 8)
        flat = image[row * ROW + 12 : row * ROW + 228, bar * BAR + 12 : bar * BAR + 68]
        worst = max(worst, int(np.abs(flat.astype(int) - colour).max()))
    return worst
