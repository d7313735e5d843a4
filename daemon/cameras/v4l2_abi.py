"""The part of the kernel's V4L2 interface that recd uses: structures, request numbers, constants.

Layouts are those of <linux/videodev2.h> on 64-bit Linux; a test compiles the header and compares
size and offset of every field here. Single-planar capture only.
"""

import ctypes
from ctypes import c_char, c_int32, c_int64, c_uint8, c_uint32, c_uint64

BUF_TYPE_VIDEO_CAPTURE = 1
MEMORY_MMAP = 1
FIELD_ANY, FIELD_NONE = 0, 1

CAP_VIDEO_CAPTURE = 0x00000001
CAP_VIDEO_CAPTURE_MPLANE = 0x00001000
CAP_META_CAPTURE = 0x00800000
CAP_READWRITE = 0x01000000
CAP_STREAMING = 0x04000000
CAP_DEVICE_CAPS = 0x80000000
CAP_TIMEPERFRAME = 0x1000

BUF_FLAG_QUEUED = 0x00000002
BUF_FLAG_DONE = 0x00000004
BUF_FLAG_ERROR = 0x00000040
BUF_FLAG_TIMESTAMP_MASK = 0x0000E000
BUF_FLAG_TIMESTAMP_MONOTONIC = 0x00002000
BUF_FLAG_TIMESTAMP_COPY = 0x00004000
BUF_FLAG_TSTAMP_SRC_MASK = 0x00070000
BUF_FLAG_TSTAMP_SRC_SOE = 0x00010000

FMT_FLAG_COMPRESSED = 0x0001
FRMSIZE_DISCRETE, FRMSIZE_CONTINUOUS, FRMSIZE_STEPWISE = 1, 2, 3
FRMIVAL_DISCRETE, FRMIVAL_CONTINUOUS, FRMIVAL_STEPWISE = 1, 2, 3

COLORSPACE_JPEG, COLORSPACE_SRGB = 7, 8
QUANTIZATION_FULL, QUANTIZATION_LIMITED = 1, 2

CTRL_FLAG_DISABLED = 0x0001
CTRL_FLAG_READ_ONLY = 0x0004
CTRL_FLAG_INACTIVE = 0x0010
CTRL_FLAG_NEXT_CTRL = 0x80000000
CTRL_TYPE_INTEGER, CTRL_TYPE_BOOLEAN, CTRL_TYPE_MENU, CTRL_TYPE_BUTTON = 1, 2, 3, 4

CID_WHITE_BALANCE_AUTO = 0x0098090C
CID_GAIN_AUTO = 0x00980912
CID_GAIN = 0x00980913
CID_POWER_LINE_FREQUENCY = 0x00980918
CID_WHITE_BALANCE_TEMPERATURE = 0x0098091A
CID_EXPOSURE_AUTO = 0x009A0901
CID_EXPOSURE_ABSOLUTE = 0x009A0902
CID_EXPOSURE_AUTO_PRIORITY = 0x009A0903
CID_FOCUS_ABSOLUTE = 0x009A090A
CID_FOCUS_AUTO = 0x009A090C

EXPOSURE_AUTO, EXPOSURE_MANUAL, EXPOSURE_SHUTTER, EXPOSURE_APERTURE = 0, 1, 2, 3


def fourcc(code: str) -> int:
    """Four characters as the number that V4L2 uses."""
    return int.from_bytes(code.encode("ascii").ljust(4), "little")


def fourcc_text(number: int) -> str:
    """The number as four characters, big-endian variants shown with `-BE`."""
    text = (number & 0x7FFFFFFF).to_bytes(4, "little").decode("ascii", "replace").strip()
    return f"{text}-BE" if number & 0x80000000 else text


class Capability(ctypes.Structure):
    _fields_ = (
        ("driver", c_char * 16),
        ("card", c_char * 32),
        ("bus_info", c_char * 32),
        ("version", c_uint32),
        ("capabilities", c_uint32),
        ("device_caps", c_uint32),
        ("reserved", c_uint32 * 3),
    )


class FmtDesc(ctypes.Structure):
    _fields_ = (
        ("index", c_uint32),
        ("type", c_uint32),
        ("flags", c_uint32),
        ("description", c_char * 32),
        ("pixelformat", c_uint32),
        ("mbus_code", c_uint32),
        ("reserved", c_uint32 * 3),
    )


class Fract(ctypes.Structure):
    _fields_ = (("numerator", c_uint32), ("denominator", c_uint32))


class FrmSizeDiscrete(ctypes.Structure):
    _fields_ = (("width", c_uint32), ("height", c_uint32))


class FrmSizeStepwise(ctypes.Structure):
    _fields_ = (
        ("min_width", c_uint32),
        ("max_width", c_uint32),
        ("step_width", c_uint32),
        ("min_height", c_uint32),
        ("max_height", c_uint32),
        ("step_height", c_uint32),
    )


class _FrmSizeUnion(ctypes.Union):
    _fields_ = (("discrete", FrmSizeDiscrete), ("stepwise", FrmSizeStepwise))


class FrmSizeEnum(ctypes.Structure):
    _anonymous_ = ("u",)
    _fields_ = (
        ("index", c_uint32),
        ("pixel_format", c_uint32),
        ("type", c_uint32),
        ("u", _FrmSizeUnion),
        ("reserved", c_uint32 * 2),
    )


class FrmIvalStepwise(ctypes.Structure):
    _fields_ = (("min", Fract), ("max", Fract), ("step", Fract))


class _FrmIvalUnion(ctypes.Union):
    _fields_ = (("discrete", Fract), ("stepwise", FrmIvalStepwise))


class FrmIvalEnum(ctypes.Structure):
    _anonymous_ = ("u",)
    _fields_ = (
        ("index", c_uint32),
        ("pixel_format", c_uint32),
        ("width", c_uint32),
        ("height", c_uint32),
        ("type", c_uint32),
        ("u", _FrmIvalUnion),
        ("reserved", c_uint32 * 2),
    )


class PixFormat(ctypes.Structure):
    _fields_ = tuple(
        (name, c_uint32)
        for name in (
            "width", "height", "pixelformat", "field", "bytesperline", "sizeimage",
            "colorspace", "priv", "flags", "ycbcr_enc", "quantization", "xfer_func",
        )
    )  # fmt: skip


class _FormatUnion(ctypes.Union):
    # The kernel's union also holds pointers, hence its alignment of eight.
    _fields_ = (("pix", PixFormat), ("raw_data", c_uint8 * 200), ("align", c_uint64))


class Format(ctypes.Structure):
    _anonymous_ = ("fmt",)
    _fields_ = (("type", c_uint32), ("fmt", _FormatUnion))


class CaptureParm(ctypes.Structure):
    _fields_ = (
        ("capability", c_uint32),
        ("capturemode", c_uint32),
        ("timeperframe", Fract),
        ("extendedmode", c_uint32),
        ("readbuffers", c_uint32),
        ("reserved", c_uint32 * 4),
    )


class _ParmUnion(ctypes.Union):
    _fields_ = (("capture", CaptureParm), ("raw_data", c_uint8 * 200))


class StreamParm(ctypes.Structure):
    _anonymous_ = ("parm",)
    _fields_ = (("type", c_uint32), ("parm", _ParmUnion))


class RequestBuffers(ctypes.Structure):
    _fields_ = (
        ("count", c_uint32),
        ("type", c_uint32),
        ("memory", c_uint32),
        ("capabilities", c_uint32),
        ("flags", c_uint8),
        ("reserved", c_uint8 * 3),
    )


class Timeval(ctypes.Structure):
    _fields_ = (("tv_sec", c_int64), ("tv_usec", c_int64))


class Timecode(ctypes.Structure):
    _fields_ = (
        ("type", c_uint32),
        ("flags", c_uint32),
        ("frames", c_uint8),
        ("seconds", c_uint8),
        ("minutes", c_uint8),
        ("hours", c_uint8),
        ("userbits", c_uint8 * 4),
    )


class _BufferUnion(ctypes.Union):
    _fields_ = (("offset", c_uint32), ("userptr", c_uint64), ("fd", c_int32))


class Buffer(ctypes.Structure):
    _fields_ = (
        ("index", c_uint32),
        ("type", c_uint32),
        ("bytesused", c_uint32),
        ("flags", c_uint32),
        ("field", c_uint32),
        ("timestamp", Timeval),
        ("timecode", Timecode),
        ("sequence", c_uint32),
        ("memory", c_uint32),
        ("m", _BufferUnion),
        ("length", c_uint32),
        ("reserved2", c_uint32),
        ("request_fd", c_int32),
    )


class Control(ctypes.Structure):
    _fields_ = (("id", c_uint32), ("value", c_int32))


class QueryCtrl(ctypes.Structure):
    _fields_ = (
        ("id", c_uint32),
        ("type", c_uint32),
        ("name", c_char * 32),
        ("minimum", c_int32),
        ("maximum", c_int32),
        ("step", c_int32),
        ("default_value", c_int32),
        ("flags", c_uint32),
        ("reserved", c_uint32 * 2),
    )


class QueryMenu(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (
        ("id", c_uint32),
        ("index", c_uint32),
        ("name", c_char * 32),
        ("reserved", c_uint32),
    )


class ExtControl(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (
        ("id", c_uint32),
        ("size", c_uint32),
        ("reserved2", c_uint32),
        ("value64", c_int64),
    )

    @property
    def value(self) -> int:
        """The 32-bit member of the kernel's union."""
        return c_int32(self.value64 & 0xFFFFFFFF).value


class ExtControls(ctypes.Structure):
    _fields_ = (
        ("which", c_uint32),
        ("count", c_uint32),
        ("error_idx", c_uint32),
        ("request_fd", c_int32),
        ("reserved", c_uint32),
        ("controls", ctypes.POINTER(ExtControl)),
    )


class Input(ctypes.Structure):
    _fields_ = (
        ("index", c_uint32),
        ("name", c_char * 32),
        ("type", c_uint32),
        ("audioset", c_uint32),
        ("tuner", c_uint32),
        ("std", c_uint64),
        ("status", c_uint32),
        ("capabilities", c_uint32),
        ("reserved", c_uint32 * 3),
    )


_READ, _WRITE = 2, 1
_Argument = ctypes.Structure | ctypes.c_int | c_uint32


def _request(direction: int, number: int, argument: type[_Argument]) -> int:
    return direction << 30 | ctypes.sizeof(argument) << 16 | ord("V") << 8 | number


QUERYCAP = _request(_READ, 0, Capability)
ENUM_FMT = _request(_READ | _WRITE, 2, FmtDesc)
G_FMT = _request(_READ | _WRITE, 4, Format)
S_FMT = _request(_READ | _WRITE, 5, Format)
REQBUFS = _request(_READ | _WRITE, 8, RequestBuffers)
QUERYBUF = _request(_READ | _WRITE, 9, Buffer)
QBUF = _request(_READ | _WRITE, 15, Buffer)
DQBUF = _request(_READ | _WRITE, 17, Buffer)
STREAMON = _request(_WRITE, 18, ctypes.c_int)
STREAMOFF = _request(_WRITE, 19, ctypes.c_int)
G_PARM = _request(_READ | _WRITE, 21, StreamParm)
S_PARM = _request(_READ | _WRITE, 22, StreamParm)
ENUMINPUT = _request(_READ | _WRITE, 26, Input)
G_CTRL = _request(_READ | _WRITE, 27, Control)
S_CTRL = _request(_READ | _WRITE, 28, Control)
QUERYCTRL = _request(_READ | _WRITE, 36, QueryCtrl)
QUERYMENU = _request(_READ | _WRITE, 37, QueryMenu)
G_INPUT = _request(_READ, 38, ctypes.c_int)
S_INPUT = _request(_READ | _WRITE, 39, ctypes.c_int)
TRY_FMT = _request(_READ | _WRITE, 64, Format)
G_PRIORITY = _request(_READ, 67, c_uint32)
G_EXT_CTRLS = _request(_READ | _WRITE, 71, ExtControls)
S_EXT_CTRLS = _request(_READ | _WRITE, 72, ExtControls)
TRY_EXT_CTRLS = _request(_READ | _WRITE, 73, ExtControls)
ENUM_FRAMESIZES = _request(_READ | _WRITE, 74, FrmSizeEnum)
ENUM_FRAMEINTERVALS = _request(_READ | _WRITE, 75, FrmIvalEnum)

REQUESTS: dict[str, tuple[int, type[ctypes.Structure] | None]] = {
    "VIDIOC_QUERYCAP": (QUERYCAP, Capability),
    "VIDIOC_ENUM_FMT": (ENUM_FMT, FmtDesc),
    "VIDIOC_G_FMT": (G_FMT, Format),
    "VIDIOC_S_FMT": (S_FMT, Format),
    "VIDIOC_REQBUFS": (REQBUFS, RequestBuffers),
    "VIDIOC_QUERYBUF": (QUERYBUF, Buffer),
    "VIDIOC_QBUF": (QBUF, Buffer),
    "VIDIOC_DQBUF": (DQBUF, Buffer),
    "VIDIOC_STREAMON": (STREAMON, None),
    "VIDIOC_STREAMOFF": (STREAMOFF, None),
    "VIDIOC_G_PARM": (G_PARM, StreamParm),
    "VIDIOC_S_PARM": (S_PARM, StreamParm),
    "VIDIOC_ENUMINPUT": (ENUMINPUT, Input),
    "VIDIOC_G_CTRL": (G_CTRL, Control),
    "VIDIOC_S_CTRL": (S_CTRL, Control),
    "VIDIOC_QUERYCTRL": (QUERYCTRL, QueryCtrl),
    "VIDIOC_QUERYMENU": (QUERYMENU, QueryMenu),
    "VIDIOC_G_INPUT": (G_INPUT, None),
    "VIDIOC_S_INPUT": (S_INPUT, None),
    "VIDIOC_TRY_FMT": (TRY_FMT, Format),
    "VIDIOC_G_PRIORITY": (G_PRIORITY, None),
    "VIDIOC_G_EXT_CTRLS": (G_EXT_CTRLS, ExtControls),
    "VIDIOC_S_EXT_CTRLS": (S_EXT_CTRLS, ExtControls),
    "VIDIOC_TRY_EXT_CTRLS": (TRY_EXT_CTRLS, ExtControls),
    "VIDIOC_ENUM_FRAMESIZES": (ENUM_FRAMESIZES, FrmSizeEnum),
    "VIDIOC_ENUM_FRAMEINTERVALS": (ENUM_FRAMEINTERVALS, FrmIvalEnum),
}
"""Name in the kernel's header -> (request number, structure it carries; None for an int)."""

STRUCTURES: dict[str, type[ctypes.Structure]] = {
    "v4l2_capability": Capability,
    "v4l2_fmtdesc": FmtDesc,
    "v4l2_frmsizeenum": FrmSizeEnum,
    "v4l2_frmivalenum": FrmIvalEnum,
    "v4l2_pix_format": PixFormat,
    "v4l2_format": Format,
    "v4l2_streamparm": StreamParm,
    "v4l2_requestbuffers": RequestBuffers,
    "v4l2_buffer": Buffer,
    "v4l2_control": Control,
    "v4l2_queryctrl": QueryCtrl,
    "v4l2_querymenu": QueryMenu,
    "v4l2_ext_control": ExtControl,
    "v4l2_ext_controls": ExtControls,
    "v4l2_input": Input,
}
"""Name in the kernel's header -> our structure."""
