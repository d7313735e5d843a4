"""Machine-readable stamp in a picture: camera, frame number and capture time, with a checksum.

A block code in luma, 8x8 pixels a bit, which survives JPEG 4:2:0, h264 and AV1 at the rates used
for datasets, a change of range and rotation by quarters. It does not survive scaling or cropping.
"""

import binascii
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

COLUMNS = 20
ROWS = 6
SMALL_BLOCK_PX = 8
LARGE_BLOCK_PX = 16
LARGE_FROM_PX = 1280
"""A picture whose longer side has this many pixels or more carries the large blocks."""

_SYNC = np.unpackbits(np.array([0xE4, 0xB2], dtype=np.uint8)).astype(bool)
_CAMERA_BYTES, _FRAME_BYTES, _TIME_BYTES, _CRC_BYTES = 1, 4, 6, 2
_DATA_BYTES = _CAMERA_BYTES + _FRAME_BYTES + _TIME_BYTES
_CRC_SEED = 0x5EC0
_DARK, _BRIGHT = 28, 228  # inside both ranges, so no conversion clips them
_LEAST_CONTRAST = 48  # luma steps between dark and bright reference cells; below is no stamp

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a picture says about itself.

    camera: 0..255; frame: 0..2**32-1, counted by the camera; t_capture_us: microseconds of the
    simulator's CLOCK_MONOTONIC at exposure, 48 bits (8.9 years).
    """

    camera: int
    frame: int
    t_capture_us: int

    @property
    def t_capture_ns(self) -> int:
        """Capture time in ns of CLOCK_MONOTONIC, exact to one microsecond (rounded down)."""
        return self.t_capture_us * 1000


def stamp_size_px(width: int, height: int) -> tuple[int, int]:
    """(width, height) in pixels of the stamp in the upper left corner of such a picture.

    ValueError when the picture is too small to carry one.
    """
    block = _block_px(width, height)
    size = COLUMNS * block, ROWS * block
    if width < size[0] or height < size[1]:
        raise ValueError(f"picture of {width}x{height} is smaller than its stamp, {size}")
    return size


def draw_stamp(picture: Picture, stamp: Stamp) -> None:
    """Draw into the upper left corner, in place.

    picture: uint8[H, W] (luma, any range) or uint8[H, W, 3] (RGB or BGR). When drawing into luma
    the caller keeps the chroma underneath neutral.
    """
    height, width = picture.shape[:2]
    stamp_width, stamp_height = stamp_size_px(width, height)
    block = stamp_width // COLUMNS
    cells = np.where(_bits(stamp), _BRIGHT, _DARK).astype(np.uint8).reshape(ROWS, COLUMNS)
    blocks = cells.repeat(block, axis=0).repeat(block, axis=1)
    corner = picture[:stamp_height, :stamp_width]
    corner[...] = blocks if picture.ndim == 2 else blocks[:, :, None]


def read_stamp(picture: Picture) -> Stamp | None:
    """The stamp of uint8[H, W] or uint8[H, W, 3] (luma, RGB or BGR), or None where none is intact.

    Pictures turned by quarters are understood. A damaged stamp is None, never a wrong stamp
    (two sync bytes and a 16-bit checksum).
    """
    luma = picture if picture.ndim == 2 else picture[:, :, 1]  # the stamp is grey: G equals luma
    for quarters in range(4):
        upright = np.rot90(luma, quarters)
        stamp = _read_upright(upright)
        if stamp is not None:
            return stamp
    return None


def _block_px(width: int, height: int) -> int:
    return LARGE_BLOCK_PX if max(width, height) >= LARGE_FROM_PX else SMALL_BLOCK_PX


def _bits(stamp: Stamp) -> npt.NDArray[np.bool_]:
    data = (
        stamp.camera.to_bytes(_CAMERA_BYTES)
        + stamp.frame.to_bytes(_FRAME_BYTES)
        + stamp.t_capture_us.to_bytes(_TIME_BYTES)
    )
    crc = binascii.crc_hqx(data, _CRC_SEED).to_bytes(_CRC_BYTES)
    payload = np.unpackbits(np.frombuffer(data + crc, dtype=np.uint8)).astype(bool)
    return np.concatenate((_SYNC, payload))


def _read_upright(luma: Picture) -> Stamp | None:
    height, width = luma.shape
    block = _block_px(width, height)
    if width < COLUMNS * block or height < ROWS * block:
        return None
    corner = luma[: ROWS * block, : COLUMNS * block].reshape(ROWS, block, COLUMNS, block)
    edge = block // 4  # codecs ring at the borders of a block, its middle is flat
    levels = corner[:, edge:-edge, :, edge:-edge].mean(axis=(1, 3), dtype=np.float32).ravel()
    sync = levels[: _SYNC.size]
    dark, bright = float(sync[~_SYNC].max()), float(sync[_SYNC].min())
    if bright - dark < _LEAST_CONTRAST:
        return None
    payload = np.packbits(levels[_SYNC.size :] > (dark + bright) / 2).tobytes()
    data, crc = payload[:_DATA_BYTES], payload[_DATA_BYTES:]
    if binascii.crc_hqx(data, _CRC_SEED) != int.from_bytes(crc):
        return None
    frame_at, time_at = _CAMERA_BYTES, _CAMERA_BYTES + _FRAME_BYTES
    return Stamp(
        camera=data[0],
        frame=int.from_bytes(data[frame_at:time_at]),
        t_capture_us=int.from_bytes(data[time_at:]),
    )
