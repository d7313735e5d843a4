"""A video file as a camera: paced in real time (times `speed`), or as a lossless step source.

Frames are decoded to yuv420p here. With `step` every frame of the file comes exactly once, however
often it is opened, and keeps the file's own time; who may take the next one is decided by the
worker's credit.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from recd.config.errors import DeviceError
from recd.daemon.cameras import av_common
from recd.daemon.cameras.request import CameraRequest
from recd.daemon.cameras.source import (
    CameraEndedError,
    CameraFormat,
    FrameInfo,
    Idle,
    Into,
    raw_frame_bytes,
)
from recd.daemon.cameras.v4l2_formats import same_rate
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns


class FileSource:
    """CameraSource of one video file."""

    def __init__(self, request: CameraRequest) -> None:
        self._request = request
        self._container: Any = None
        self._size = (0, 0)
        self._frames: Iterator[Any] = iter(())
        self._pending: Any = None
        self._media_ns = 0
        self._first_pts: int | None = None
        self._time_base = Fraction(1, 1000)
        self._start_ns = 0
        self._held_ns = 0
        self._number = 0
        self._last_step = request.last_step
        """Number and capture time of the newest step given away."""

    def open(self, idle: Idle) -> CameraFormat:
        """Open the file and decode the first frame that has not been given away."""
        import av

        request = self._request
        try:
            self._container = av.open(request.device)
            stream = av_common.first_video_stream(self._container, request.key, request.device)
            stream.codec_context.thread_count = 1
            self._frames = self._container.decode(stream)
            self._first_pts, self._number, self._media_ns = None, 0, 0
            self._time_base = Fraction(stream.time_base)
            rate = Fraction(stream.average_rate or 0)
            got = self._check(rate)
            self._go_on(idle)
        except (av.error.FFmpegError, StopIteration) as error:
            self.close()
            raise av_common.explain(request.key, request.device, error) from error
        except DeviceError:
            self.close()
            raise
        return got

    def _check(self, rate: Fraction) -> CameraFormat:
        request = self._request
        self._pending = first = next(self._frames)
        self._take_pts(first)
        self._size = size = (first.width, first.height)
        if not request.accept_mismatch:
            asked = (request.width, request.height)
            av_common.check_size(request.key, request.device, asked=asked, got=size)
            self._check_rate(rate)
        needed = raw_frame_bytes("yuv420p", width=first.width, height=first.height)
        av_common.check_room(request.key, needed=needed, room=request.slot_bytes)
        return CameraFormat(
            payload="yuv420p",
            width=first.width,
            height=first.height,
            fps_num=rate.numerator,
            fps_den=rate.denominator,
            stamp="device",
            frame_ids=True,
            device=request.device,
            range="full" if av_common.is_full_range(first) else "limited",
            step=request.step,
            facts={"codec": self._container.streams.video[0].codec_context.name},
        )

    def _go_on(self, idle: Idle) -> None:
        """A step source that was open before goes on after its last step, in the same time."""
        if self._last_step is None or not self._request.step:
            return
        number, capture_ns = self._last_step
        for _ in range(number):
            self._take_pts(next(self._frames))
            idle()
        self._start_ns = capture_ns - self._media_ns
        self._held_ns = now_ns() - self._due_ns()
        self._number, self._pending = number + 1, None

    def _check_rate(self, rate: Fraction) -> None:
        """A paced file must come at the rate asked for; a step source has no rate."""
        request = self._request
        paced = rate * Fraction(request.speed).limit_denominator(1000)
        if request.step or not rate or same_rate(paced, request.fps):
            return
        raise DeviceError(
            f"{request.key}.fps: expected {float(request.fps):g}, {request.device} has "
            f"{float(rate):g} fps at speed {request.speed:g}",
            mend=f"Set fps: {float(paced):g}, or 'accept_mismatch: true'.",
            code="rate",
        )

    def _take_pts(self, frame: Any) -> None:
        if frame.pts is not None:
            if self._first_pts is None:
                self._first_pts = frame.pts
            self._media_ns = int((frame.pts - self._first_pts) * self._time_base * NS_PER_S)

    def next_frame(self, into: Into, deadline_ns: int) -> FrameInfo | None:
        """The next frame when it is due. CameraEndedError after the last one."""
        if self._pending is None:
            self._pending = self._decode()
            before_ns = self._media_ns
            self._take_pts(self._pending)
            self._let_wait(self._media_ns - before_ns)
        if not self._start_ns:
            self._start_ns = now_ns()
        due_ns = self._due_ns()
        if due_ns > deadline_ns:
            sleep_until_ns(deadline_ns)
            return None
        sleep_until_ns(due_ns)
        frame, self._pending = self._pending, None
        av_common.check_same_size(self._request.key, self._request.device, frame, size=self._size)
        nbytes = av_common.copy_yuv420p(frame, into())
        number, self._number = self._number, self._number + 1
        # A step source keeps the file's own time; a paced one claims when the frame was due.
        capture_ns = self._start_ns + self._media_ns if self._request.step else due_ns
        self._last_step = (number, capture_ns)
        return FrameInfo(
            nbytes=nbytes, t_capture_ns=capture_ns, t_arrival_ns=now_ns(), source_seq=number
        )

    def _due_ns(self) -> int:
        return self._start_ns + self._held_ns + int(self._media_ns / self._request.speed)

    def _let_wait(self, step_ns: int) -> None:
        """A step source that was held back does not make up for it: `speed` is the most it has."""
        late_ns = now_ns() - self._due_ns()
        if self._request.step and late_ns > step_ns / self._request.speed:
            self._held_ns += late_ns

    def _decode(self) -> Any:
        import av

        try:
            return next(self._frames)
        except StopIteration:
            raise CameraEndedError from None
        except av.error.FFmpegError as error:
            raise av_common.explain(self._request.key, self._request.device, error) from error

    def close(self) -> None:
        """Close the file; the next `open` begins at its start, or after the last step."""
        self._pending, self._frames, self._start_ns, self._held_ns = None, iter(()), 0, 0
        if self._container is not None:
            self._container.close()
            self._container = None
