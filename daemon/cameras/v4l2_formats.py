"""What a V4L2 device offers, and which of it fits a request. Enumerating disturbs no stream."""

import ctypes
import errno
import fcntl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from recd.daemon.cameras import v4l2_abi as abi
from recd.daemon.cameras.request import FOURCC_OF_PAYLOAD, CameraRequest
from recd.daemon.cameras.source import CameraRefusedError

PAYLOAD_OF_PIXELFORMAT = {
    "MJPG": "mjpeg",
    "JPEG": "mjpeg",
    "YUYV": "yuyv",
    "UYVY": "yuyv",
    "NV12": "nv12",
    "YU12": "yuv420p",
    "GREY": "gray8",
    "BGR3": "bgr24",
    "RGB3": "rgb24",
    "H264": "h264",
}
"""V4L2 pixel format -> ring payload. UYVY becomes YUYV in the one copy that is made anyway."""

AUTO_ORDER = ("mjpeg", "yuyv", "nv12", "yuv420p", "gray8", "bgr24", "rgb24")

RATE_TOLERANCE = 0.005
"""29.97 is 30: cameras round their intervals to 100 ns units and to 1/1001."""

_MOST_ENTRIES = 128
"""A driver that enumerates more than this does not end."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Frame rates at one size, in Hz. values: the discrete ones, descending; low, high: a range
    instead, when values is empty. All empty or zero: the driver does not say."""

    values: tuple[Fraction, ...] = ()
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(0)

    def nearest(self, fps: Fraction) -> Fraction:
        """The offered rate closest to `fps`; `fps` itself when the driver does not say."""
        if self.values:
            return min(self.values, key=lambda rate: abs(rate - fps))
        return min(max(fps, self.low), self.high) if self.high else fps

    def __str__(self) -> str:
        if self.values:
            return " ".join(f"{float(rate):g}" for rate in sorted(self.values))
        return f"{float(self.low):g}..{float(self.high):g}" if self.high else "any rate"


@dataclass(frozen=True, slots=True)
class Size:
    """A picture size, or a range of them (steps in pixels; 0 for a single size)."""

    width: int
    height: int
    rates: Rates
    max_width: int = 0
    max_height: int = 0
    step_width: int = 0
    step_height: int = 0

    def fits(self, width: int, height: int) -> bool:
        if not self.max_width:
            return (width, height) == (self.width, self.height)
        return (
            self.width <= width <= self.max_width
            and self.height <= height <= self.max_height
            and (width - self.width) % (self.step_width or 1) == 0
            and (height - self.height) % (self.step_height or 1) == 0
        )

    def nearest(self, width: int, height: int) -> tuple[int, int]:
        if not self.max_width:
            return self.width, self.height
        return (
            _step_to(width, self.width, self.max_width, self.step_width),
            _step_to(height, self.height, self.max_height, self.step_height),
        )

    def __str__(self) -> str:
        if not self.max_width:
            return f"{self.width}x{self.height}"
        return f"{self.width}x{self.height}..{self.max_width}x{self.max_height}"


@dataclass(frozen=True, slots=True)
class Offer:
    """One pixel format of a device. payload: ring payload kind, empty: recd cannot take it."""

    pixelformat: str
    payload: str
    sizes: tuple[Size, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """What to set on the device."""

    pixelformat: str
    payload: str
    width: int
    height: int
    fps: Fraction


def _step_to(value: int, low: int, high: int, step: int) -> int:
    step = step or 1
    bounded = min(max(value, low), high)
    return low + (bounded - low) // step * step


def ioctl(fd: int, request: int, argument: ctypes.Structure | ctypes.c_int) -> None:
    """ioctl that writes back into `argument`. OSError as the kernel gave it."""
    while True:
        try:
            fcntl.ioctl(fd, request, argument, True)
            return
        except InterruptedError:
            continue


def capability(fd: int) -> abi.Capability:
    """Driver, card and bus names, capabilities. OSError ENOTTY: not a video device."""
    caps = abi.Capability()
    ioctl(fd, abi.QUERYCAP, caps)
    return caps


def can_capture(caps: abi.Capability) -> bool:
    """True for a single-planar capture node with streaming (metadata nodes are not)."""
    bits = caps.device_caps if caps.capabilities & abi.CAP_DEVICE_CAPS else caps.capabilities
    return bool(bits & abi.CAP_VIDEO_CAPTURE and bits & abi.CAP_STREAMING)


def offers(fd: int) -> tuple[Offer, ...]:
    """Every pixel format with its sizes and rates, in the driver's order."""
    found = []
    for index in range(_MOST_ENTRIES):
        desc = abi.FmtDesc(index=index, type=abi.BUF_TYPE_VIDEO_CAPTURE)
        if not _enumerated(fd, abi.ENUM_FMT, desc):
            break
        name = abi.fourcc_text(desc.pixelformat)
        sizes = tuple(_sizes(fd, desc.pixelformat))
        found.append(Offer(name, PAYLOAD_OF_PIXELFORMAT.get(name, ""), sizes))
    return tuple(found)


def _enumerated(fd: int, request: int, argument: ctypes.Structure) -> bool:
    try:
        ioctl(fd, request, argument)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTTY):
            return False
        raise
    return True


def _sizes(fd: int, pixelformat: int) -> Iterator[Size]:
    for index in range(_MOST_ENTRIES):
        entry = abi.FrmSizeEnum(index=index, pixel_format=pixelformat)
        if not _enumerated(fd, abi.ENUM_FRAMESIZES, entry):
            return
        if entry.type == abi.FRMSIZE_DISCRETE:
            width, height = entry.discrete.width, entry.discrete.height
            yield Size(width, height, _rates(fd, pixelformat, width, height))
            continue
        span = entry.stepwise
        rates = _rates(fd, pixelformat, span.max_width, span.max_height)
        yield Size(span.min_width, span.min_height, rates, span.max_width, span.max_height,
                   span.step_width, span.step_height)  # fmt: skip
        return


def _rates(fd: int, pixelformat: int, width: int, height: int) -> Rates:
    values = []
    for index in range(_MOST_ENTRIES):
        entry = abi.FrmIvalEnum(index=index, pixel_format=pixelformat, width=width, height=height)
        if not _enumerated(fd, abi.ENUM_FRAMEINTERVALS, entry):
            break
        if entry.type != abi.FRMIVAL_DISCRETE:
            return Rates((), rate_of(entry.stepwise.max), rate_of(entry.stepwise.min))
        values.append(rate_of(entry.discrete))
    return Rates(tuple(sorted(filter(None, values), reverse=True)))


def rate_of(interval: abi.Fract) -> Fraction:
    """Frames per second of a frame interval; 0 when the driver gives none."""
    if not interval.numerator or not interval.denominator:
        return Fraction(0)
    return Fraction(interval.denominator, interval.numerator)


def same_rate(one: Fraction, other: Fraction) -> bool:
    """Equal but for the rounding that cameras do."""
    return abs(one - other) <= RATE_TOLERANCE * max(one, other)


def choose(request: CameraRequest, offered: Sequence[Offer]) -> Choice:
    """The format to set. CameraRefusedError, naming what is offered, when nothing fits.

    With `accept_mismatch` the nearest size and rate are taken instead. A device that lists no
    sizes gets the request as it is; what it makes of it is checked afterwards.
    """
    kinds = (request.payload,) if request.payload else AUTO_ORDER
    usable = [offer for kind in kinds for offer in offered if offer.payload == kind]
    if not usable:
        raise _no_such_format(request, offered)
    size_asked = request.width, request.height
    for offer in usable:
        if not offer.sizes:
            return Choice(offer.pixelformat, offer.payload, *size_asked, request.fps)
        for size in offer.sizes:
            rate = size.rates.nearest(request.fps)
            if size.fits(*size_asked) and same_rate(rate, request.fps):
                return Choice(offer.pixelformat, offer.payload, *size_asked, rate)
    if not request.accept_mismatch:
        raise _no_such_size_or_rate(request, usable)
    return _nearest(request, usable[0])


def _nearest(request: CameraRequest, offer: Offer) -> Choice:
    def distance(size: Size) -> tuple[int, Fraction]:
        width, height = size.nearest(request.width, request.height)
        pixels = abs(width - request.width) + abs(height - request.height)
        return pixels, abs(size.rates.nearest(request.fps) - request.fps)

    size = min(offer.sizes, key=distance)
    width, height = size.nearest(request.width, request.height)
    rate = size.rates.nearest(request.fps)
    return Choice(offer.pixelformat, offer.payload, width, height, rate)


def _no_such_format(request: CameraRequest, offered: Sequence[Offer]) -> CameraRefusedError:
    words = sorted({FOURCC_OF_PAYLOAD[offer.payload] for offer in offered if offer.payload})
    formats = ", ".join(offer.pixelformat for offer in offered) or "nothing"
    mend = f"Set fourcc: {words[0]}." if words else (
        "recd takes MJPG, YUYV, UYVY, NV12, YU12, GREY, BGR3 and RGB3; try source: pyav."
    )  # fmt: skip
    return CameraRefusedError(
        f"{request.key}.fourcc",
        expected=f"one of {', '.join(words) or 'none'} ({request.device} offers {formats})",
        found=FOURCC_OF_PAYLOAD.get(request.payload, "auto"),
        mend=mend,
        code="format",
    )


def _no_such_size_or_rate(request: CameraRequest, usable: Sequence[Offer]) -> CameraRefusedError:
    size_asked = f"{request.width}x{request.height}"
    rates = [
        f"{offer.pixelformat} {size.rates}"
        for offer in usable
        for size in offer.sizes
        if size.fits(request.width, request.height)
    ]
    mend = "Set one of these, or 'accept_mismatch: true' to take the nearest."
    if rates:
        return CameraRefusedError(
            f"{request.key}.fps",
            expected=f"a rate that {request.device} offers at {size_asked} ({'; '.join(rates)})",
            found=f"{float(request.fps):g}",
            mend=mend,
            code="rate",
        )
    sizes = ", ".join(dict.fromkeys(str(size) for offer in usable for size in offer.sizes))
    return CameraRefusedError(
        f"{request.key}.width",
        expected=f"a size that {request.device} offers ({sizes})",
        found=size_asked,
        mend=mend,
        code="size",
    )
