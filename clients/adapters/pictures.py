"""Frames of an observation as the pictures that a policy server wants: RGB, scaled, padded."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from recd.config.errors import RecdError
from recd.config.streams import RAW_PAYLOADS

Picture = npt.NDArray[np.uint8]

_TO_RGB: Mapping[str, int] = {
    "yuyv": cv2.COLOR_YUV2RGB_YUY2, "nv12": cv2.COLOR_YUV2RGB_NV12,
    "yuv420p": cv2.COLOR_YUV2RGB_I420, "bgr24": cv2.COLOR_BGR2RGB, "gray8": cv2.COLOR_GRAY2RGB,
}  # fmt: skip
_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


def rgb_of(data: bytes, facts: Mapping[str, Any], *, rotation: int = 0) -> Picture:
    """uint8 RGB [H, W, 3] of a frame. facts: fmt, w, h; rotation: as the dataset's pictures are
    turned. RecdError for bytes that are no such picture.
    """
    kind, width, height = facts["fmt"], int(facts["w"]), int(facts["h"])
    if kind in RAW_PAYLOADS:
        picture = _raw(data, kind, width, height)
    else:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if found is None:
            raise RecdError("a frame is no picture", mend="recctl snapshot shows it.",
                            code="picture")  # fmt: skip
        picture = cv2.cvtColor(found, cv2.COLOR_BGR2RGB)
    return np.asarray(cv2.rotate(picture, _TURNS[rotation]) if rotation else picture, np.uint8)


def _raw(data: bytes, kind: str, width: int, height: int) -> Any:
    per_pixel, divisor = RAW_PAYLOADS[kind]
    if len(data) < width * height * per_pixel // divisor:
        raise RecdError(f"a frame of {kind} {width}x{height} is too short", code="picture",
                        mend="recctl snapshot shows it.")  # fmt: skip
    shape: tuple[int, ...] = {
        "yuyv": (height, width, 2), "nv12": (height * 3 // 2, width),
        "yuv420p": (height * 3 // 2, width), "gray8": (height, width),
    }.get(kind, (height, width, 3))  # fmt: skip
    raw = np.frombuffer(data, np.uint8, int(np.prod(shape))).reshape(shape)
    return raw if kind == "rgb24" else cv2.cvtColor(raw, _TO_RGB[kind])


def fitted(picture: Picture, size: int) -> Picture:
    """`picture` in a square of `size`, its shape kept, centred on black; as it is for 0."""
    height, width = picture.shape[:2]
    if not size or (height, width) == (size, size):
        return picture
    ratio = max(width, height) / size
    inside = (max(1, int(width / ratio)), max(1, int(height / ratio)))
    smooth = cv2.INTER_AREA if ratio > 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(picture, inside, interpolation=smooth)
    out = np.zeros((size, size, 3), np.uint8)
    top, left = (size - inside[1]) // 2, (size - inside[0]) // 2
    out[top : top + inside[1], left : left + inside[0]] = scaled
    return out
