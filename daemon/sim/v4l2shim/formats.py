"""Format negotiation and controls of a simulated V4L2 camera, by the kernel's rules: what is asked
for is bent to the nearest that the device has."""

import ctypes
import errno
from collections.abc import Callable, Mapping
from fractions import Fraction

from recd.daemon.cameras import v4l2_abi as abi
from recd.daemon.sim.v4l2shim.spec import (
    BYTES_PER_PIXEL,
    COMPRESSED,
    VirtualCamera,
    VirtualFormat,
    VirtualSize,
    fill,
)

PAGE = 4096

Served = Mapping[int, tuple[type[ctypes.Structure], Callable[..., int]]]
"""ioctl request -> (structure of its argument, what answers it: 0 or the error number)."""


class Formats:
    """Formats, sizes and rates; the chosen ones in `chosen`, `size` and `fps`."""

    def __init__(self, camera: VirtualCamera) -> None:
        self._camera = camera
        self.chosen = camera.formats[0]
        self.size = self.chosen.sizes[0]
        self.fps = Fraction(self.size.rates[0])
        self.served: Served = {
            abi.ENUM_FMT: (abi.FmtDesc, self._enum_fmt),
            abi.ENUM_FRAMESIZES: (abi.FrmSizeEnum, self._enum_sizes),
            abi.ENUM_FRAMEINTERVALS: (abi.FrmIvalEnum, self._enum_rates),
            abi.G_FMT: (abi.Format, self._g_fmt),
            abi.TRY_FMT: (abi.Format, self._try_fmt),
            abi.S_FMT: (abi.Format, self._s_fmt),
            abi.G_PARM: (abi.StreamParm, self._g_parm),
            abi.S_PARM: (abi.StreamParm, self._s_parm),
        }

    def buffer_bytes(self) -> int:
        """Size of one buffer for the chosen format, whole pages."""
        return -(-self._row_bytes(self.chosen, self.size) * self.size.height // PAGE) * PAGE

    def padded(self, data: bytes) -> bytes:
        """A packed picture as this device lays it out, with its padding after every row."""
        padding = self._camera.row_padding
        if not padding or self.chosen.pixelformat in COMPRESSED:
            return data
        row = len(data) // self.size.height
        return b"".join(data[at : at + row] + bytes(padding) for at in range(0, len(data), row))

    def _row_bytes(self, offered: VirtualFormat, size: VirtualSize) -> int:
        packed = int(size.width * BYTES_PER_PIXEL[offered.pixelformat])
        return packed if offered.pixelformat in COMPRESSED else packed + self._camera.row_padding

    def _line_bytes(self, offered: VirtualFormat, size: VirtualSize) -> int:
        """Of the first plane; compressed formats have none."""
        planar = offered.pixelformat in ("NV12", "YU12")
        if planar or offered.pixelformat in COMPRESSED:
            return size.width if planar else 0
        return self._row_bytes(offered, size)

    def _find(self, pixelformat: int) -> VirtualFormat | None:
        name = abi.fourcc_text(pixelformat)
        return next((f for f in self._camera.formats if f.pixelformat == name), None)

    def _enum_fmt(self, desc: abi.FmtDesc) -> int:
        if desc.type != abi.BUF_TYPE_VIDEO_CAPTURE or desc.index >= len(self._camera.formats):
            return errno.EINVAL
        name = self._camera.formats[desc.index].pixelformat
        compressed = abi.FMT_FLAG_COMPRESSED if name in COMPRESSED else 0
        fill(desc, pixelformat=abi.fourcc(name), description=name.encode(), flags=compressed)
        return 0

    def _enum_sizes(self, entry: abi.FrmSizeEnum) -> int:
        offered = self._find(entry.pixel_format)
        if offered is None or entry.index >= len(offered.sizes):
            return errno.EINVAL
        size = offered.sizes[entry.index]
        entry.type = abi.FRMSIZE_DISCRETE
        fill(entry.discrete, width=size.width, height=size.height)
        return 0

    def _enum_rates(self, entry: abi.FrmIvalEnum) -> int:
        offered = self._find(entry.pixel_format)
        for size in () if offered is None else offered.sizes:
            if (size.width, size.height) != (entry.width, entry.height):
                continue
            if entry.index >= len(size.rates):
                return errno.EINVAL
            rate = Fraction(size.rates[entry.index])
            entry.type = abi.FRMIVAL_DISCRETE
            fill(entry.discrete, numerator=rate.denominator, denominator=rate.numerator)
            return 0
        return errno.EINVAL

    def _g_fmt(self, fmt: abi.Format) -> int:
        if fmt.type != abi.BUF_TYPE_VIDEO_CAPTURE:
            return errno.EINVAL
        self._describe(fmt, self.chosen, self.size)
        return 0

    def _try_fmt(self, fmt: abi.Format) -> int:
        if fmt.type != abi.BUF_TYPE_VIDEO_CAPTURE:
            return errno.EINVAL
        self._describe(fmt, *self._nearest(fmt))
        return 0

    def _s_fmt(self, fmt: abi.Format) -> int:
        if fmt.type != abi.BUF_TYPE_VIDEO_CAPTURE:
            return errno.EINVAL
        self.chosen, self.size = self._nearest(fmt)
        self.fps = self._nearest_rate(self.fps)
        self._describe(fmt, self.chosen, self.size)
        return 0

    def _nearest(self, fmt: abi.Format) -> tuple[VirtualFormat, VirtualSize]:
        offered = self._find(fmt.pix.pixelformat) or self._camera.formats[0]
        width, height = self._camera.size_answer or (fmt.pix.width, fmt.pix.height)
        return offered, min(
            offered.sizes, key=lambda size: abs(size.width - width) + abs(size.height - height)
        )

    def _nearest_rate(self, asked: Fraction) -> Fraction:
        return min(map(Fraction, self.size.rates), key=lambda rate: abs(rate - asked))

    def _describe(self, fmt: abi.Format, offered: VirtualFormat, size: VirtualSize) -> None:
        row = self._row_bytes(offered, size)
        fill(
            fmt.pix,
            width=size.width,
            height=size.height,
            pixelformat=abi.fourcc(offered.pixelformat),
            field=abi.FIELD_NONE,
            bytesperline=self._line_bytes(offered, size),
            sizeimage=row * size.height,
            colorspace=abi.COLORSPACE_SRGB,
            quantization=0,
        )

    def _g_parm(self, parm: abi.StreamParm) -> int:
        if parm.type != abi.BUF_TYPE_VIDEO_CAPTURE:
            return errno.EINVAL
        parm.capture.capability = abi.CAP_TIMEPERFRAME
        parm.capture.timeperframe = abi.Fract(self.fps.denominator, self.fps.numerator)
        return 0

    def _s_parm(self, parm: abi.StreamParm) -> int:
        interval = parm.capture.timeperframe
        if interval.numerator and interval.denominator:
            asked = Fraction(interval.denominator, interval.numerator)
            self.fps = self._camera.rate_answer or self._nearest_rate(asked)
        return self._g_parm(parm)


class Controls:
    """Controls with range and menu checks; values survive closing, as in a real camera."""

    def __init__(self, camera: VirtualCamera) -> None:
        self._known = camera.controls
        self.values = {cid: control.default for cid, control in self._known.items()}
        self.served: Served = {
            abi.QUERYCTRL: (abi.QueryCtrl, self._query),
            abi.QUERYMENU: (abi.QueryMenu, self._menu),
            abi.G_CTRL: (abi.Control, self._get),
            abi.S_CTRL: (abi.Control, lambda control: self._set(control.id, control.value)),
        }

    def extended(self, argument: bytearray, array: bytearray, *, write: bool) -> int:
        """G_EXT_CTRLS or S_EXT_CTRLS: the array travels beside its header."""
        call = abi.ExtControls.from_buffer(argument)
        entries = (abi.ExtControl * call.count).from_buffer(array)
        for index, entry in enumerate(entries):
            error = self._set(entry.id, entry.value) if write else 0
            if entry.id not in self.values:
                error = errno.EINVAL
            if error:
                call.error_idx = index
                return error
            entry.value64 = self.values[entry.id] & 0xFFFFFFFF
        return 0

    def _query(self, query: abi.QueryCtrl) -> int:
        cid = query.id & ~abi.CTRL_FLAG_NEXT_CTRL
        if query.id & abi.CTRL_FLAG_NEXT_CTRL:
            cid = min((known for known in self._known if known > cid), default=0)
        control = self._known.get(cid)
        if control is None:
            return errno.EINVAL
        fill(
            query, id=cid, type=control.kind, name=control.name.encode(), step=control.step,
            minimum=control.minimum, maximum=control.maximum, default_value=control.default,
            flags=0,
        )  # fmt: skip
        return 0

    def _menu(self, menu: abi.QueryMenu) -> int:
        control = self._known.get(menu.id)
        if control is None or menu.index not in control.menu:
            return errno.EINVAL
        menu.name = control.menu[menu.index].encode()
        return 0

    def _get(self, control: abi.Control) -> int:
        if control.id not in self.values:
            return errno.EINVAL
        control.value = self.values[control.id]
        return 0

    def _set(self, cid: int, value: int) -> int:
        control = self._known.get(cid)
        if control is None:
            return errno.EINVAL
        if not control.minimum <= value <= control.maximum:
            return errno.ERANGE
        if control.menu and value not in control.menu:
            return errno.EINVAL
        self.values[cid] = value
        return 0
