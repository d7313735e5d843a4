"""Pictures of a snapshot: raw payloads as JPEGs, and all cameras side by side on one sheet."""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from recd.config.errors import RecdError
from recd.config.streams import RAW_PAYLOADS

TILE_WIDTH, TILE_HEIGHT = 480, 360
GAP = 8
JPEG_QSCALE = 2

PIXEL_FORMATS: dict[str, str] = {
    "yuyv": "yuyv422", "nv12": "nv12", "yuv420p": "yuv420p", "rgb24": "rgb24", "bgr24": "bgr24",
    "gray8": "gray",
}  # fmt: skip
"""Raw payload of a ring -> FFmpeg's name of the same bytes."""


def save_picture(picture: Mapping[str, Any], folder: Path) -> Path:
    """Write one entry of a snapshot's reply to `folder/<camera>.jpg`; returns the path.

    A JPEG stays as it came, byte for byte; of H.264 the last picture is decoded.
    RecdError for a payload of another length than its width and height say.
    """
    data, payload = Path(picture["path"]).read_bytes(), picture["payload"]
    target = folder / f"{picture['camera']}.jpg"
    if payload in RAW_PAYLOADS:
        data = raw_to_jpeg(data, payload, width=picture["width"], height=picture["height"])
    elif payload == "h264":
        data = last_to_jpeg(data)
    target.write_bytes(data)
    return target


def raw_to_jpeg(data: bytes, payload: str, *, width: int, height: int) -> bytes:
    """A raw picture with unpadded rows (config/streams.RAW_PAYLOADS) as a JPEG."""
    per_pixel, divisor = RAW_PAYLOADS[payload]
    expected = width * height * per_pixel // divisor
    if len(data) != expected:
        raise RecdError(
            f"snapshot: expected {expected} bytes of {payload} {width}x{height}, found {len(data)}",
            code="device",
        )
    # av copies rows to its own padding only from arrays of the format's own shape.
    shape = {
        "yuyv422": (height, width, 2), "nv12": (height * 3 // 2, width),
        "yuv420p": (height * 3 // 2, width), "gray": (height, width),
    }.get(PIXEL_FORMATS[payload], (height, width, 3))  # fmt: skip
    raw = np.frombuffer(data, np.uint8).reshape(shape)
    frame = av.VideoFrame.from_ndarray(raw, format=PIXEL_FORMATS[payload])
    return _jpeg(frame)


def last_to_jpeg(data: bytes) -> bytes:
    """The last picture of a group of H.264 access units (Annex B) as a JPEG."""
    frame = None
    try:
        with av.open(io.BytesIO(data), format="h264") as group:
            for frame in group.decode(video=0):  # noqa: B007
                pass
    except av.FFmpegError:
        frame = None
    if frame is None:
        raise RecdError(
            "snapshot: expected a group of pictures from a key frame on, found none in the ring",
            mend="Set ring_seconds to more than the camera's key frame interval.",
            code="device",
        )
    return _jpeg(frame)


def _jpeg(frame: av.VideoFrame) -> bytes:
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuvj444p"
    encoder.options = {"qmin": str(JPEG_QSCALE), "qmax": str(JPEG_QSCALE)}
    shown = frame.reformat(format="yuvj444p", dst_color_range="JPEG", dst_colorspace="ITU601")
    return b"".join(bytes(packet) for packet in [*encoder.encode(shown), *encoder.encode(None)])


def read_picture(path: Path, *, width: int, height: int) -> npt.NDArray[np.uint8]:
    """A picture file as uint8 RGB [height, width, 3], scaled to fit on black."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    scale = min(width / frame.width, height / frame.height)
    size = (max(2, int(frame.width * scale)) // 2 * 2, max(2, int(frame.height * scale)) // 2 * 2)
    picture = frame.reformat(width=size[0], height=size[1], format="rgb24").to_ndarray()
    tile = np.zeros((height, width, 3), np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = picture
    return tile


def write_contact_sheet(pictures: Mapping[str, Path], folder: Path) -> tuple[Path, list[str]]:
    """Tile the pictures, in the order given, into `folder/contact_sheet.png`.

    Returns its path and the names whose pictures could not be decoded: their tiles stay black.
    """
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    sheet = np.full(
        (rows * (TILE_HEIGHT + GAP) + GAP, columns * (TILE_WIDTH + GAP) + GAP, 3), 40, np.uint8
    )
    damaged = []
    for i, (name, path) in enumerate(pictures.items()):
        top = GAP + (i // columns) * (TILE_HEIGHT + GAP)
        left = GAP + (i % columns) * (TILE_WIDTH + GAP)
        try:
            tile = read_picture(path, width=TILE_WIDTH, height=TILE_HEIGHT)
        except (av.FFmpegError, StopIteration):
            tile = np.zeros((TILE_HEIGHT, TILE_WIDTH, 3), np.uint8)
            damaged.append(name)
        sheet[top : top + TILE_HEIGHT, left : left + TILE_WIDTH] = tile
    target = folder / "contact_sheet.png"
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = sheet.shape[1], sheet.shape[0], "rgb24"
    packets = [*encoder.encode(av.VideoFrame.from_ndarray(sheet, "rgb24")), *encoder.encode(None)]
    target.write_bytes(b"".join(bytes(packet) for packet in packets))
    return target, damaged
