"""V4L2 capture by ioctl and mmap: frame numbers, kernel stamps and error bits as the driver gives
them. One copy per frame, from the driver's buffer into the ring. Single-planar devices only."""

import errno
import mmap
import os
import select
from contextlib import suppress
from ctypes import c_int
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from recd.config.errors import DeviceError
from recd.config.streams import FrameFlag
from recd.daemon.cameras import access, v4l2_controls
from recd.daemon.cameras import v4l2_abi as abi
from recd.daemon.cameras.clockmap import ClockMap
from recd.daemon.cameras.request import FOURCC_OF_PAYLOAD, CameraRequest
from recd.daemon.cameras.source import (
    CameraFormat,
    CameraLostError,
    CameraRefusedError,
    FrameInfo,
    Idle,
    Into,
    Pixels,
    raw_frame_bytes,
)
from recd.daemon.cameras.v4l2_formats import (
    PAYLOAD_OF_PIXELFORMAT,
    Choice,
    can_capture,
    capability,
    choose,
    ioctl,
    offers,
    rate_of,
    same_rate,
)
from recd.shm.clock import NS_PER_MS, NS_PER_S, NS_PER_US, now_ns

BUFFERS = 6
"""Kernel buffers: the worker may be held up this many frames, less one, before the driver drops."""

STAMP_OLDEST_NS = 2 * NS_PER_S
"""A kernel stamp further from the arrival than this is one of the drivers' wrong ones."""

_ROW_BYTES = {"yuyv": 2, "gray8": 1, "rgb24": 3, "bgr24": 3}
"""Payloads of one plane: bytes per pixel. Only these can be freed of row padding."""


@dataclass(frozen=True, slots=True)
class _Negotiated:
    pixelformat: str
    payload: str
    width: int
    height: int
    fps: Fraction
    bytes_per_line: int
    full_range: bool


def device_path(device: str) -> str:
    """`0` means /dev/video0; paths and links stay as they are."""
    return f"/dev/video{device}" if device.isdigit() else device


class V4l2Source:
    """CameraSource of one V4L2 device."""

    def __init__(self, request: CameraRequest) -> None:
        self._request = request
        self._path = device_path(request.device)
        self._fd = -1
        self._streaming = False
        self._maps: list[mmap.mmap] = []
        self._views: list[Pixels] = []
        self._buffer = abi.Buffer(type=abi.BUF_TYPE_VIDEO_CAPTURE, memory=abi.MEMORY_MMAP)
        self._poll = select.poll()
        self._clock = ClockMap()
        self._last_sequence = -1
        self._numbers_stand_still = False
        self._broken: OSError | None = None

    def open(self, idle: Idle) -> CameraFormat:
        """Open, negotiate, set controls, start streaming. Takes no longer than the driver does."""
        del idle
        self._last_sequence, self._numbers_stand_still, self._broken = -1, False, None
        try:
            return self._open()
        except OSError as error:
            self.close()
            raise access.explain(self._request.key, self._path, error) from error
        except DeviceError:
            self.close()
            raise

    def _open(self) -> CameraFormat:
        self._fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        caps = capability(self._fd)
        if not can_capture(caps):
            raise DeviceError(
                f"{self._request.key}.device: {self._path} delivers no pictures (a metadata or "
                "multi-planar node)",
                mend="Run 'recctl devices' and take a node that lists formats.",
                code="not_a_camera",
            )
        got = self._negotiate()
        controls = v4l2_controls.apply(self._fd, self._request)
        stamp_flags = self._map_buffers()
        ioctl(self._fd, abi.STREAMON, c_int(abi.BUF_TYPE_VIDEO_CAPTURE))
        self._streaming = True
        self._poll.register(self._fd, select.POLLIN)
        monotonic = stamp_flags & abi.BUF_FLAG_TIMESTAMP_MASK == abi.BUF_FLAG_TIMESTAMP_MONOTONIC
        return CameraFormat(
            payload=got.payload,
            width=got.width,
            height=got.height,
            fps_num=got.fps.numerator,
            fps_den=got.fps.denominator,
            stamp="kernel" if monotonic else "foreign",
            frame_ids=True,
            device=self._path,
            range="full" if got.full_range else "limited",
            facts=_facts(caps, got, stamp_flags=stamp_flags, controls=controls),
        )

    def _negotiate(self) -> _Negotiated:
        choice = choose(self._request, offers(self._fd))
        fmt = abi.Format(type=abi.BUF_TYPE_VIDEO_CAPTURE)
        ioctl(self._fd, abi.G_FMT, fmt)
        fmt.pix.width, fmt.pix.height = choice.width, choice.height
        fmt.pix.pixelformat = abi.fourcc(choice.pixelformat)
        fmt.pix.field = abi.FIELD_ANY
        fmt.pix.bytesperline = 0
        ioctl(self._fd, abi.S_FMT, fmt)
        fps = self._set_rate(choice.fps)
        name = abi.fourcc_text(fmt.pix.pixelformat)
        got = _Negotiated(
            pixelformat=name,
            payload=PAYLOAD_OF_PIXELFORMAT.get(name, ""),
            width=fmt.pix.width,
            height=fmt.pix.height,
            fps=fps,
            bytes_per_line=fmt.pix.bytesperline,
            full_range=_is_full_range(fmt.pix, name),
        )
        self._check(choice, got)
        self._got = got
        return got

    def _set_rate(self, fps: Fraction) -> Fraction:
        parm = abi.StreamParm(type=abi.BUF_TYPE_VIDEO_CAPTURE)
        parm.capture.timeperframe = abi.Fract(fps.denominator, fps.numerator)
        try:
            ioctl(self._fd, abi.S_PARM, parm)
            ioctl(self._fd, abi.G_PARM, parm)
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EINVAL):
                raise
            return Fraction(0)  # a device without rates: what it delivers is measured
        return rate_of(parm.capture.timeperframe)

    def _check(self, choice: Choice, got: _Negotiated) -> None:
        """What the driver made of the choice must be what was asked, or be accepted as it is."""
        key, accept = self._request.key, self._request.accept_mismatch
        if got.payload != choice.payload:
            raise self._refused("fourcc", choice.pixelformat, got.pixelformat, code="format")
        if not accept and (got.width, got.height) != (self._request.width, self._request.height):
            asked = f"{self._request.width}x{self._request.height}"
            raise self._refused("width", asked, f"{got.width}x{got.height}", code="size")
        if not accept and got.fps and not same_rate(got.fps, self._request.fps):
            asked = f"{float(self._request.fps):g}"
            raise self._refused("fps", asked, f"{float(got.fps):g}", code="rate")
        if got.payload in ("nv12", "yuv420p") and got.bytes_per_line not in (0, got.width):
            raise DeviceError(
                f"{key}: {self._path} pads the rows of its planes ({got.bytes_per_line} bytes for "
                f"{got.width} pixels), which recd cannot take",
                mend="Set another width or fourcc, or use source: pyav.",
                code="format",
            )
        room = self._request.slot_bytes
        needed = raw_frame_bytes(got.payload, width=got.width, height=got.height)
        if room and needed > room:
            raise DeviceError(
                f"{key}: a {got.payload} frame of {got.width}x{got.height} has {needed} bytes, "
                f"its ring has room for {room}",
                mend=f"Set width: {got.width}, height: {got.height}, "
                f"fourcc: {FOURCC_OF_PAYLOAD[got.payload]}.",
                code="size",
            )

    def _refused(self, key: str, asked: str, got: str, *, code: str) -> CameraRefusedError:
        return CameraRefusedError(
            f"{self._request.key}.{key}",
            expected=f"what {self._path} sets instead ({got})",
            found=asked,
            mend=f"Set {key} to {got}, or 'accept_mismatch: true'.",
            code=code,
        )

    def _map_buffers(self) -> int:
        request = abi.RequestBuffers(
            count=BUFFERS, type=abi.BUF_TYPE_VIDEO_CAPTURE, memory=abi.MEMORY_MMAP
        )
        ioctl(self._fd, abi.REQBUFS, request)
        stamp_flags = 0
        for index in range(request.count):
            buffer = abi.Buffer(
                index=index, type=abi.BUF_TYPE_VIDEO_CAPTURE, memory=abi.MEMORY_MMAP
            )
            ioctl(self._fd, abi.QUERYBUF, buffer)
            stamp_flags = buffer.flags
            area = mmap.mmap(
                self._fd, buffer.length, mmap.MAP_SHARED, mmap.PROT_READ, offset=buffer.m.offset
            )
            self._maps.append(area)
            self._views.append(np.frombuffer(area, np.uint8))
            ioctl(self._fd, abi.QBUF, buffer)
        return stamp_flags

    def next_frame(self, into: Into, deadline_ns: int) -> FrameInfo | None:
        """Dequeue, copy, give the buffer back. See CameraSource."""
        while True:
            if self._broken is not None:
                raise self._gone(self._broken)
            wait_ns = deadline_ns - now_ns()
            events = self._poll.poll(max(0, -(-wait_ns // NS_PER_MS)))
            if not events:
                return None
            buffer = self._buffer
            try:
                ioctl(self._fd, abi.DQBUF, buffer)
            except OSError as error:
                if error.errno == errno.EAGAIN and not events[0][1] & ~select.POLLIN:
                    continue
                raise self._gone(error) from error
            info = self._take(buffer, into, now_ns())
            try:
                ioctl(self._fd, abi.QBUF, buffer)
            except OSError as error:
                self._broken = error  # this frame is whole; the next call says what happened
            if info is not None:
                return info

    def _gone(self, error: OSError) -> CameraLostError:
        reason = access.explain(self._request.key, self._path, error)
        return CameraLostError(
            reason.message, mend="It is opened again by itself.", code="unplugged"
        )

    def _take(self, buffer: abi.Buffer, into: Into, arrival_ns: int) -> FrameInfo | None:
        if buffer.bytesused == 0:
            return None  # nothing was transferred; its number shows as a gap before the next
        memory = into()
        nbytes, fits = self._copy(self._views[buffer.index][: buffer.bytesused], memory)
        flags = 0 if fits else int(FrameFlag.CORRUPT)
        if buffer.flags & abi.BUF_FLAG_ERROR:
            flags |= FrameFlag.CORRUPT
        capture, residual, stamp_flag = self._stamp(buffer, arrival_ns)
        return FrameInfo(
            nbytes=nbytes,
            t_capture_ns=capture,
            t_arrival_ns=arrival_ns,
            source_seq=self._number(buffer.sequence),
            flags=flags | stamp_flag,
            residual_ns=residual,
        )

    def _copy(self, raw: Pixels, memory: Pixels) -> tuple[int, bool]:
        """The one copy; drops row padding and swaps UYVY on the way. (bytes, all of it fitted)"""
        got = self._got
        packed = got.width * _ROW_BYTES.get(got.payload, 0)
        if packed and got.bytes_per_line > packed and raw.size >= got.bytes_per_line * got.height:
            source = raw[: got.bytes_per_line * got.height].reshape(got.height, -1)[:, :packed]
            target = memory[: packed * got.height].reshape(got.height, packed)
        else:
            source = raw[: memory.size]
            target = memory[: source.size]
        if got.pixelformat == "UYVY":
            target[..., 0::2], target[..., 1::2] = source[..., 1::2], source[..., 0::2]
        else:
            target[:] = source
        return target.size, raw.size <= memory.size

    def _stamp(self, buffer: abi.Buffer, arrival_ns: int) -> tuple[int, int, int]:
        """(capture time, residual of a foreign clock, FrameFlag bits)."""
        stamp = buffer.timestamp.tv_sec * NS_PER_S + buffer.timestamp.tv_usec * NS_PER_US
        if buffer.flags & abi.BUF_FLAG_TIMESTAMP_MASK == abi.BUF_FLAG_TIMESTAMP_MONOTONIC:
            if 0 <= arrival_ns - stamp <= STAMP_OLDEST_NS:
                return stamp, 0, 0
            return arrival_ns, 0, int(FrameFlag.STAMP_ARRIVAL)
        mapped = self._clock.map(stamp, arrival_ns)
        flag = 0 if mapped.trusted else int(FrameFlag.STAMP_ARRIVAL)
        return mapped.local_ns, mapped.residual_ns, flag

    def _number(self, sequence: int) -> int:
        """The driver's frame number; -1 for drivers that leave it at one value."""
        if sequence == self._last_sequence:
            self._numbers_stand_still = True
        self._last_sequence = sequence
        return -1 if self._numbers_stand_still else sequence

    def close(self) -> None:
        """Stop streaming and give the device back."""
        if self._fd < 0:
            return
        with suppress(OSError, KeyError):
            self._poll.unregister(self._fd)
        with suppress(OSError):  # an unplugged device refuses everything but close
            if self._streaming:
                ioctl(self._fd, abi.STREAMOFF, c_int(abi.BUF_TYPE_VIDEO_CAPTURE))
        self._streaming = False
        self._views.clear()
        for area in self._maps:
            area.close()
        self._maps.clear()
        os.close(self._fd)
        self._fd = -1


def _is_full_range(pix: abi.PixFormat, name: str) -> bool:
    """V4L2's own rule: stated, else full for JPEG and RGB, limited for other YUV."""
    if pix.quantization:
        return bool(pix.quantization == abi.QUANTIZATION_FULL)
    return pix.colorspace == abi.COLORSPACE_JPEG or name in ("MJPG", "JPEG", "RGB3", "BGR3")


def _facts(
    caps: abi.Capability, got: _Negotiated, *, stamp_flags: int, controls: dict[str, Any]
) -> dict[str, Any]:
    start = stamp_flags & abi.BUF_FLAG_TSTAMP_SRC_MASK == abi.BUF_FLAG_TSTAMP_SRC_SOE
    return {
        "driver": caps.driver.decode(errors="replace"),
        "card": caps.card.decode(errors="replace"),
        "bus": caps.bus_info.decode(errors="replace"),
        "pixelformat": got.pixelformat,
        "stamped_at": "start of exposure" if start else "end of frame",
        "controls": controls,
    }
