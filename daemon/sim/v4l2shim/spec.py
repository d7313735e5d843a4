"""What a simulated V4L2 camera is and what can go wrong with it, as tables."""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

from recd.daemon.cameras import v4l2_abi as abi

Pictures = Callable[[int, str, int, int], bytes]
"""(frame number, pixel format, width, height) -> the payload of that frame."""


@dataclass(frozen=True, slots=True)
class VirtualSize:
    """A picture size in pixels and its frame rates in Hz."""

    width: int
    height: int
    rates: tuple[int | Fraction, ...] = (30, 25, 20, 15)


@dataclass(frozen=True, slots=True)
class VirtualFormat:
    """A pixel format and its sizes."""

    pixelformat: str
    sizes: tuple[VirtualSize, ...]


@dataclass(frozen=True, slots=True)
class VirtualControl:
    """A control. menu: names of its values where it is a menu."""

    name: str
    minimum: int
    maximum: int
    default: int
    step: int = 1
    kind: int = abi.CTRL_TYPE_INTEGER
    menu: Mapping[int, str] = field(default_factory=dict)


SIZES = (VirtualSize(640, 480), VirtualSize(320, 240, (60, 30, 15)), VirtualSize(1280, 720))

WEBCAM_FORMATS = (
    VirtualFormat("MJPG", SIZES),
    VirtualFormat("YUYV", (VirtualSize(640, 480, (30, 15)), VirtualSize(320, 240, (30,)))),
)

WEBCAM_CONTROLS: Mapping[int, VirtualControl] = {
    abi.CID_WHITE_BALANCE_AUTO: VirtualControl(
        "White Balance, Automatic", 0, 1, 1, kind=abi.CTRL_TYPE_BOOLEAN
    ),
    abi.CID_GAIN: VirtualControl("Gain", 0, 255, 64),
    abi.CID_WHITE_BALANCE_TEMPERATURE: VirtualControl(
        "White Balance Temperature", 2800, 6500, 4600
    ),
    abi.CID_EXPOSURE_AUTO: VirtualControl(
        "Auto Exposure", 0, 3, 3, kind=abi.CTRL_TYPE_MENU,
        menu={1: "Manual Mode", 3: "Aperture Priority Mode"},
    ),
    abi.CID_EXPOSURE_ABSOLUTE: VirtualControl("Exposure Time, Absolute", 3, 2047, 250),
}  # fmt: skip
"""A usual webcam without focus."""

FOCUS_CONTROLS: Mapping[int, VirtualControl] = {
    abi.CID_FOCUS_ABSOLUTE: VirtualControl("Focus, Absolute", 0, 250, 0, step=5),
    abi.CID_FOCUS_AUTO: VirtualControl(
        "Focus, Automatic Continuous", 0, 1, 1, kind=abi.CTRL_TYPE_BOOLEAN
    ),
}
"""What a better one has in addition."""


@dataclass(frozen=True, slots=True)
class VirtualCamera:
    """One camera. size_answer, rate_answer: what it sets instead of anything asked for."""

    card: str = "Simulated Webcam"
    driver: str = "uvcvideo"
    bus: str = "usb-0000:00:14.0-1"
    formats: tuple[VirtualFormat, ...] = WEBCAM_FORMATS
    controls: Mapping[int, VirtualControl] = field(default_factory=lambda: WEBCAM_CONTROLS)
    size_answer: tuple[int, int] | None = None
    rate_answer: Fraction | None = None
    row_padding: int = 0


class V4l2Fault(StrEnum):
    """What happens to the next so many exposures."""

    DROP = "drop"  # numbered, never delivered
    FREEZE = "freeze"  # the last picture again
    SHORT = "short"  # the transfer ends in the middle
    EMPTY = "empty"  # a buffer without a byte
    ERROR = "error"  # delivered with the error bit
    SILENT = "silent"  # nothing is exposed, no number is used up


class StampKind(StrEnum):
    """Clock of the buffer stamps."""

    MONOTONIC = "monotonic"
    FOREIGN = "foreign"  # a clock of its own, flagged as unknown
    WRONG = "wrong"  # flagged monotonic, but an hour off


STAMP_FLAGS: Mapping[StampKind, int] = {
    StampKind.MONOTONIC: abi.BUF_FLAG_TIMESTAMP_MONOTONIC | abi.BUF_FLAG_TSTAMP_SRC_SOE,
    StampKind.FOREIGN: 0,
    StampKind.WRONG: abi.BUF_FLAG_TIMESTAMP_MONOTONIC,
}

STAMP_OFFSET_NS: Mapping[StampKind, int] = {
    StampKind.MONOTONIC: 0,
    StampKind.FOREIGN: 7_777_777_777_000,
    StampKind.WRONG: -3_600_000_000_000,
}

COMPRESSED = ("MJPG", "H264")
"""Pixel formats whose frames vary in length."""

BYTES_PER_PIXEL: Mapping[str, Fraction] = {
    "H264": Fraction(2), "MJPG": Fraction(2), "YUYV": Fraction(2), "UYVY": Fraction(2),
    "NV12": Fraction(3, 2), "YU12": Fraction(3, 2), "GREY": Fraction(1), "BGR3": Fraction(3),
    "RGB3": Fraction(3),
}  # fmt: skip


def fill(structure: ctypes.Structure, **values: object) -> None:
    """Set fields of a structure by name."""
    for name, value in values.items():
        setattr(structure, name, value)
