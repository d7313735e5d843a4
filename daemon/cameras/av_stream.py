"""RTSP and whatever else libav opens by address: decoded to yuv420p, the sender's time stamps as a
foreign clock. No frame numbers. A read waits up to a second whatever the deadline is.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from recd.config.errors import DeviceError
from recd.daemon.cameras import av_common
from recd.daemon.cameras.clockmap import ClockMap
from recd.daemon.cameras.request import CameraRequest
from recd.daemon.cameras.source import (
    CameraFormat,
    CameraLostError,
    FrameInfo,
    Idle,
    Into,
    raw_frame_bytes,
)
from recd.shm.clock import now_ns

OPEN_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 1.0

OPTIONS = {
    "rtsp_transport": "tcp",
    "fflags": "nobuffer",
    "flags": "low_delay",
    "analyzeduration": "300000",
    "fpsprobesize": "2",
}
"""TCP: a lost UDP packet would damage pictures up to the next key frame. nobuffer: what was read to
find out about the stream (0.3 s) is old by then and thrown away."""


class StreamSource:
    """CameraSource of one network stream."""

    def __init__(self, request: CameraRequest) -> None:
        self._request = request
        self._container: Any = None
        self._size = (0, 0)
        self._frames: Iterator[tuple[Any, int]] = iter(())
        self._pending: tuple[Any, int] | None = None
        self._time_base = Fraction(1, 90_000)
        self._clock = ClockMap()

    def open(self, idle: Idle) -> CameraFormat:
        """Connect and decode the first frame."""
        del idle
        import av

        request = self._request
        try:
            self._container = av.open(
                request.device,
                options=OPTIONS if request.device.startswith("rtsp") else {},
                timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S),
            )
            stream = av_common.first_video_stream(self._container, request.key, request.device)
            stream.codec_context.thread_count = 1
            self._time_base = Fraction(stream.time_base)
            self._frames = self._decoded(stream)
            self._pending = next(self._frames)
            return self._describe(stream, self._pending[0])
        except (av.error.FFmpegError, StopIteration) as error:
            self.close()
            raise av_common.explain(request.key, request.device, error) from error
        except DeviceError:
            self.close()
            raise

    def _describe(self, stream: Any, first: Any) -> CameraFormat:
        request = self._request
        self._size = (first.width, first.height)
        if not request.accept_mismatch:
            av_common.check_size(
                request.key,
                request.device,
                asked=(request.width, request.height),
                got=(first.width, first.height),
            )
        needed = raw_frame_bytes("yuv420p", width=first.width, height=first.height)
        av_common.check_room(request.key, needed=needed, room=request.slot_bytes)
        rate = Fraction(stream.average_rate or 0)
        return CameraFormat(
            payload="yuv420p",
            width=first.width,
            height=first.height,
            fps_num=rate.numerator,
            fps_den=rate.denominator,
            stamp="foreign" if first.pts is not None else "arrival",
            frame_ids=False,
            device=request.device,
            range="full" if av_common.is_full_range(first) else "limited",
            facts={"codec": stream.codec_context.name, "note": "no frame ids"},
        )

    def _decoded(self, stream: Any) -> Iterator[tuple[Any, int]]:
        """Frames with the arrival of the packet that completed them."""
        for packet in self._container.demux(stream):
            arrival_ns = now_ns()
            for frame in packet.decode():
                yield frame, arrival_ns

    def next_frame(self, into: Into, deadline_ns: int) -> FrameInfo | None:
        """The next decoded frame. CameraLostError when the stream is silent for a second."""
        del deadline_ns
        import av

        try:
            frame, arrival_ns = self._pending or next(self._frames)
        except StopIteration:
            raise CameraLostError(
                f"{self._request.key}: {self._request.device} ended", code="closed"
            ) from None
        except av.error.FFmpegError as error:
            raise CameraLostError(
                f"{self._request.key}: {self._request.device}: {error}", code="silent"
            ) from error
        self._pending = None
        av_common.check_same_size(self._request.key, self._request.device, frame, size=self._size)
        nbytes = av_common.copy_yuv420p(frame, into())
        return av_common.foreign_frame(
            self._clock, frame.pts, self._time_base, nbytes=nbytes, arrival_ns=arrival_ns
        )

    def close(self) -> None:
        """Disconnect."""
        self._pending, self._frames = None, iter(())
        if self._container is not None:
            self._container.close()
            self._container = None
