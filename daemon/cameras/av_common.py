"""What the PyAV sources share: errors in words, and the one copy of decoded planes into a slot."""

from fractions import Fraction
from typing import Any

import numpy as np

from recd.config.errors import DeviceError
from recd.config.streams import FrameFlag
from recd.daemon.cameras import access
from recd.daemon.cameras.clockmap import ClockMap
from recd.daemon.cameras.source import CameraLostError, FrameInfo, Pixels
from recd.shm.clock import NS_PER_S

FULL_RANGE_FORMATS = frozenset({"yuvj420p", "yuvj422p", "yuvj444p", "yuvj440p"})
_JPEG_RANGE = 2  # AVCOL_RANGE_JPEG


def is_full_range(frame: Any) -> bool:
    """True when the luma of a decoded frame goes from 0 to 255."""
    return frame.format.name in FULL_RANGE_FORMATS or int(frame.color_range) == _JPEG_RANGE


def copy_yuv420p(frame: Any, memory: Pixels) -> int:
    """Copy an av.VideoFrame as packed yuv420p into `memory`; returns the bytes.

    Other pixel formats are converted first, within their own range. ValueError when it does not
    fit.
    """
    if frame.format.name not in ("yuv420p", "yuvj420p"):
        full = is_full_range(frame)
        frame = frame.reformat(format="yuvj420p" if full else "yuv420p")
    width, height = frame.width, frame.height
    needed = width * height * 3 // 2
    if needed > memory.size:
        raise ValueError(f"{width}x{height}: {needed} bytes, room for {memory.size}")
    at = 0
    sizes = ((width, height), (width // 2, height // 2), (width // 2, height // 2))
    for plane, (columns, rows) in zip(frame.planes, sizes, strict=True):
        lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        memory[at : at + columns * rows].reshape(rows, columns)[:] = lines[:rows, :columns]
        at += columns * rows
    return at


def check_same_size(key: str, device: str, frame: Any, *, size: tuple[int, int]) -> None:
    """CameraLostError when a stream changed its picture size: it has to be opened anew."""
    if (frame.width, frame.height) != size:
        raise CameraLostError(
            f"{key}: {device} changed from {size[0]}x{size[1]} to {frame.width}x{frame.height}",
            code="size",
        )


def explain(key: str, device: str, error: Exception) -> DeviceError:
    """The sentence for an error that PyAV raised while opening or reading `device`."""
    if isinstance(error, OSError) and error.errno and device.startswith("/dev/"):
        return access.explain(key, device, error)
    if isinstance(error, FileNotFoundError):
        return DeviceError(
            f"{key}.device: no file {device}", mend="Correct the path.", code="missing"
        )
    if isinstance(error, PermissionError):
        return DeviceError(
            f"{key}.device: {device} may not be read", mend=f"Run 'chmod a+r {device}'.",
            code="permission",
        )  # fmt: skip
    if isinstance(error, ValueError):
        return DeviceError(
            f"{key}.device: {device} holds no video that can be decoded ({error})",
            mend="Try it with ffprobe or another player.",
            code="format",
        )
    return CameraLostError(
        f"{key}.device: {device}: {error}",
        mend="It is opened again by itself; check address, cable and power if this repeats.",
        code="unreachable",
    )


def first_video_stream(container: Any, key: str, device: str) -> Any:
    """The video stream to read. DeviceError when there is none."""
    if not container.streams.video:
        raise DeviceError(
            f"{key}.device: {device} has no picture, only "
            f"{', '.join(stream.type for stream in container.streams) or 'nothing'}",
            mend="Choose a file or stream with video.",
            code="format",
        )
    return container.streams.video[0]


def check_size(key: str, device: str, *, asked: tuple[int, int], got: tuple[int, int]) -> None:
    """DeviceError unless `got` is the size that was asked for."""
    if got != asked:
        raise DeviceError(
            f"{key}.width/height: expected {asked[0]}x{asked[1]}, {device} has {got[0]}x{got[1]}",
            mend=f"Set width: {got[0]}, height: {got[1]}, or 'accept_mismatch: true'.",
            code="size",
        )


def check_room(key: str, *, needed: int, room: int) -> None:
    """DeviceError when a raw frame does not fit into the ring's slots (room 0: unlimited)."""
    if room and needed > room:
        raise DeviceError(
            f"{key}: a decoded frame has {needed} bytes, its ring has room for {room}",
            mend="Set width and height to the size of the source, and fourcc: yuv420p.",
            code="size",
        )


def foreign_frame(
    clock: ClockMap, pts: int | None, time_base: Fraction, *, nbytes: int, arrival_ns: int,
    flags: FrameFlag = FrameFlag(0),  # noqa: B008
) -> FrameInfo:  # fmt: skip
    """Facts of a frame stamped by the sender's clock; without a stamp, its arrival counts."""
    if pts is None:
        flags |= FrameFlag.STAMP_ARRIVAL
        return FrameInfo(nbytes, arrival_ns, arrival_ns, flags=int(flags))
    mapped = clock.map(int(pts * time_base * NS_PER_S), arrival_ns)
    if not mapped.trusted:
        flags |= FrameFlag.STAMP_ARRIVAL
    return FrameInfo(
        nbytes=nbytes,
        t_capture_ns=mapped.local_ns,
        t_arrival_ns=arrival_ns,
        flags=int(flags),
        residual_ns=mapped.residual_ns,
    )
