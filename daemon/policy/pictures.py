"""Frames of a camera as the pictures that a policy wants: RGB, turned, scaled, padded. Pure."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from recd.config.errors import RecdError
from recd.config.policy_wishes import Fit
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
        try:
            found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:  # sizes beyond any picture
            found = None
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


Place = tuple[int, int, int, int]
"""Where the camera's own pixels lie in a picture: left, top, width, height."""


def fitted(
    picture: Picture, width: int, height: int, *, fit: Fit = Fit.PAD
) -> tuple[Picture, Place]:  # fmt: skip
    """`picture` as uint8 RGB [height, width, 3], and where it lies in that; 0: as it is.

    PAD keeps its shape, centred on black, with sizes and places rounded down, as openpi's
    resize_with_pad does it.
    """
    had_height, had_width = picture.shape[:2]
    width, height = width or had_width, height or had_height
    if (had_width, had_height) == (width, height):
        return picture, (0, 0, width, height)
    ratio = max(had_width / width, had_height / height)
    inside = (width, height)
    if fit is Fit.PAD:
        inside = (max(1, int(had_width / ratio)), max(1, int(had_height / ratio)))
    smooth = cv2.INTER_AREA if ratio > 1 else cv2.INTER_LINEAR
    scaled = np.asarray(cv2.resize(picture, inside, interpolation=smooth), np.uint8)
    if inside == (width, height):
        return scaled, (0, 0, width, height)
    out = np.zeros((height, width, 3), np.uint8)
    left, top = (width - inside[0]) // 2, (height - inside[1]) // 2
    out[top : top + inside[1], left : left + inside[0]] = scaled
    return out, (left, top, *inside)


def jpeg_of(picture: Picture, quality: int) -> bytes:
    """A JPEG file of a uint8 RGB picture."""
    told, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert told, "any uint8 RGB picture has a JPEG"
    return bytes(encoded)
