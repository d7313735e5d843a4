"""V4L2 through libav's own reader: a fallback. Kernel stamps, but no frame numbers and no error
bits, and a camera that stands still holds a read for ever: the supervisor then restarts the worker.
"""

import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from recd.config.errors import DeviceError
from recd.config.streams import FrameFlag
from recd.daemon.cameras import access, av_common
from recd.daemon.cameras.request import CameraRequest
from recd.daemon.cameras.source import (
    CameraFormat,
    CameraLostError,
    FrameInfo,
    Idle,
    Into,
    raw_frame_bytes,
)
from recd.daemon.cameras.v4l2 import STAMP_OLDEST_NS, device_path
from recd.shm.clock import NS_PER_S, now_ns

INPUT_FORMATS = {
    "mjpeg": "mjpeg",
    "yuyv": "yuyv422",
    "nv12": "nv12",
    "gray8": "gray",
    "rgb24": "rgb24",
    "bgr24": "bgr24",
    "yuv420p": "yuv420p",
}
"""Ring payload -> libav's name of the format."""

PAYLOADS = {name: payload for payload, name in INPUT_FORMATS.items()}


class DeviceSource:
    """CameraSource of one V4L2 device, read by libav."""

    def __init__(self, request: CameraRequest) -> None:
        self._request = request
        self._path = device_path(request.device)
        self._container: Any = None
        self._packets: Iterator[Any] = iter(())
        self._time_base = Fraction(1, 1_000_000)

    def open(self, idle: Idle) -> CameraFormat:
        """Open and start. The driver's nearest size and rate are checked against the request."""
        del idle
        import av

        request = self._request
        if not os.path.exists(self._path) and request.device.startswith("/"):
            raise access.missing(request.key, self._path)
        options = {
            "video_size": f"{request.width}x{request.height}",
            "framerate": str(request.fps),
            "input_format": INPUT_FORMATS[request.payload or "mjpeg"],
        }
        try:
            self._container = av.open(self._path, format="v4l2", options=options)
            stream = av_common.first_video_stream(self._container, request.key, self._path)
            self._packets = self._container.demux(stream)
            self._time_base = Fraction(stream.time_base)
            return self._describe(stream)
        except av.error.FFmpegError as error:
            self.close()
            raise av_common.explain(request.key, self._path, error) from error
        except DeviceError:
            self.close()
            raise

    def _describe(self, stream: Any) -> CameraFormat:
        request, context = self._request, stream.codec_context
        name = "mjpeg" if context.name == "mjpeg" else context.pix_fmt
        payload = PAYLOADS.get(name, "")
        if not payload or (request.payload and payload != request.payload):
            raise DeviceError(
                f"{request.key}.fourcc: expected {request.payload or 'mjpeg'}, {self._path} "
                f"delivers {name}",
                mend="Set another fourcc; 'recctl devices' lists what the camera offers.",
                code="format",
            )
        got = (context.width, context.height)
        if not request.accept_mismatch:
            asked = (request.width, request.height)
            av_common.check_size(request.key, self._path, asked=asked, got=got)
        needed = raw_frame_bytes(payload, width=got[0], height=got[1])
        av_common.check_room(request.key, needed=needed, room=request.slot_bytes)
        rate = Fraction(stream.average_rate or stream.base_rate or 0)
        return CameraFormat(
            payload=payload,
            width=got[0],
            height=got[1],
            fps_num=rate.numerator,
            fps_den=rate.denominator,
            stamp="kernel",
            frame_ids=False,
            device=self._path,
            range="full" if payload in ("mjpeg", "rgb24", "bgr24") else "limited",
            facts={"driver": "libav v4l2", "note": "no frame ids"},
        )

    def next_frame(self, into: Into, deadline_ns: int) -> FrameInfo | None:
        """The next packet, not decoded. Waits for the device, whatever the deadline is."""
        del deadline_ns
        import av

        try:
            packet = next(self._packets)
        except (StopIteration, av.error.FFmpegError) as error:
            raise CameraLostError(
                f"{self._request.key}: {self._path} delivers no more ({error})", code="unplugged"
            ) from error
        arrival_ns = now_ns()
        raw = np.frombuffer(packet, np.uint8)
        if not raw.size:
            return None
        memory = into()
        nbytes = min(raw.size, memory.size)
        memory[:nbytes] = raw[:nbytes]
        flags = 0 if raw.size <= memory.size else int(FrameFlag.CORRUPT)
        stamp_ns = int(packet.pts * self._time_base * NS_PER_S) if packet.pts is not None else 0
        if not 0 <= arrival_ns - stamp_ns <= STAMP_OLDEST_NS:
            stamp_ns, flags = arrival_ns, flags | FrameFlag.STAMP_ARRIVAL
        return FrameInfo(nbytes, stamp_ns, arrival_ns, flags=flags)

    def close(self) -> None:
        """Give the device back."""
        self._packets = iter(())
        if self._container is not None:
            self._container.close()
            self._container = None
