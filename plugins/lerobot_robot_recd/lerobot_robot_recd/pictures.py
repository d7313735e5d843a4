"""A camera's newest frame, as recd gives it, to what LeRobot wants: uint8 [H, W, 3] in RGB."""

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


def _converted(code: int, channels: int, height_share: float = 1.0) -> Callable[..., Picture]:
    def convert(data: bytes, width: int, height: int) -> Picture:
        rows = int(height * height_share)
        shape = (rows, width) if channels == 1 else (rows, width, channels)
        return cv2.cvtColor(np.frombuffer(data, np.uint8).reshape(shape), code)

    return convert


def _jpeg(data: bytes, width: int, height: int) -> Picture:
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if found is None:
        raise ValueError("its JPEG cannot be decoded")
    return cv2.cvtColor(found, cv2.COLOR_BGR2RGB)


def _rgb(data: bytes, width: int, height: int) -> Picture:
    return np.frombuffer(data, np.uint8).reshape(height, width, 3).copy()


FORMS: Mapping[str, Callable[[bytes, int, int], Picture]] = {
    "mjpeg": _jpeg,
    "rgb24": _rgb,
    "bgr24": _converted(cv2.COLOR_BGR2RGB, 3),
    "gray8": _converted(cv2.COLOR_GRAY2RGB, 1),
    "yuyv": _converted(cv2.COLOR_YUV2RGB_YUYV, 2),
    "nv12": _converted(cv2.COLOR_YUV2RGB_NV12, 1, 1.5),
    "yuv420p": _converted(cv2.COLOR_YUV2RGB_I420, 1, 1.5),
}
"""Payload kinds of recd's cameras."""


def rgb(data: bytes, facts: Mapping[str, Any]) -> Picture:
    """uint8 [H, W, 3]. facts: {fmt, w, h} of the frame. ValueError for what is no such picture."""
    form = FORMS.get(facts["fmt"])
    if form is None:
        raise ValueError(f"expected one of {', '.join(FORMS)}, found {facts['fmt']!r}")
    width, height = facts["w"], facts["h"]
    picture = form(data, width, height)
    if picture.shape != (height, width, 3):
        raise ValueError(f"expected {width}x{height}, found {picture.shape[1]}x{picture.shape[0]}")
    return picture
