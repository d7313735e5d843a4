"""H.264 from the network as it comes: RTSP, MPEG-TS and whatever else libav opens by address.

Access units go into the ring undecoded, the sender's time stamps are a foreign clock.

A read waits up to a second whatever the deadline is. By RTSP a unit is known to be whole when the
next one begins: one period later than it came, which is what `latency_ms` is for.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from recd.config.errors import DeviceError
from recd.config.streams import FrameFlag
from recd.daemon.cameras import av_common
from recd.daemon.cameras.av_stream import OPEN_TIMEOUT_S, OPTIONS, READ_TIMEOUT_S
from recd.daemon.cameras.clockmap import ClockMap
from recd.daemon.cameras.h264 import MOST_KEY_APART_NS, Unfit, UnitJudge, with_parameter_sets
from recd.daemon.cameras.request import CameraRequest
from recd.daemon.cameras.source import (
    CameraFormat,
    CameraLostError,
    CameraRefusedError,
    FrameInfo,
    Idle,
    Into,
)
from recd.shm.clock import now_ns

_PROBE = {"analyzeduration": "300000", "fpsprobesize": "2"}
"""Little is looked at ahead: the stream itself says what is needed."""

_UNPARSED = {"fflags": "noparse"}
"""A container's packet is one access unit, complete when it is; libav's parser would wait for the
next one to begin. RTP has no such packets."""


class UnitSource:
    """CameraSource of one network stream in H.264."""

    def __init__(self, request: CameraRequest) -> None:
        self._request = request
        self._container: Any = None
        self._units: Iterator[tuple[bytes, int | None, int]] = iter(())
        self._pending: tuple[bytes, int | None, int] | None = None
        self._time_base = Fraction(1, 90_000)
        self._clock = ClockMap()

    def open(self, idle: Idle) -> CameraFormat:
        """Connect and wait for the first key frame."""
        import av

        request = self._request
        live = request.device.startswith("rtsp")
        try:
            self._container = av.open(
                request.device,
                options=OPTIONS if live else _PROBE | _UNPARSED,
                timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S),
            )
            stream = av_common.first_video_stream(self._container, request.key, request.device)
            if stream.codec_context.name != "h264":
                raise self.refused(
                    Unfit("H.264", stream.codec_context.name, "Set fourcc: yuv420p: decoded here."),
                )
            self._time_base = Fraction(stream.time_base)
            self._units = self._whole(stream)
            return self._first_key(idle)
        except (av.error.FFmpegError, StopIteration) as error:
            self.close()
            raise av_common.explain(request.key, request.device, error) from error
        except DeviceError:
            self.close()
            raise

    def _first_key(self, idle: Idle) -> CameraFormat:
        judge, began_ns = UnitJudge(), now_ns()
        while True:
            self._pending = data, pts, arrival_ns = next(self._units)
            facts = judge.examine(data, t_capture_ns=arrival_ns)
            if judge.unfit is None and arrival_ns - began_ns > MOST_KEY_APART_NS:
                judge.examine(b"", t_capture_ns=arrival_ns + MOST_KEY_APART_NS)
            if judge.unfit is not None:
                raise self.refused(judge.unfit)
            if facts.key and not facts.fault:
                break
            if not idle():
                raise CameraLostError(f"{self._request.key}: asked to end", code="ended")
        sequence = judge.sequence
        assert sequence is not None
        request, got = self._request, (sequence.width, sequence.height)
        av_common.check_size(
            request.key, request.device, asked=(request.width, request.height), got=got
        )
        return CameraFormat(
            payload="h264",
            width=got[0],
            height=got[1],
            fps_num=0,
            fps_den=1,
            stamp="foreign" if pts is not None else "arrival",
            frame_ids=False,
            device=request.device,
            range="full" if sequence.full_range else "limited",
            facts={"codec": "h264", "profile": sequence.profile, "note": "no frame ids"},
        )

    def refused(self, unfit: Unfit) -> CameraRefusedError:
        """The sentence for a stream that cannot be recorded as it comes."""
        return CameraRefusedError(
            f"{self._request.key}.device", expected=unfit.expected,
            found=f"{unfit.found} from {self._request.device}", mend=unfit.mend, code="h264",
        )  # fmt: skip

    def _whole(self, stream: Any) -> Iterator[tuple[bytes, int | None, int]]:
        """(access unit in Annex B, key frames with parameter sets; stamp; arrival)."""
        import av
        from av.bitstream import BitStreamFilterContext

        sets = bytes(stream.codec_context.extradata or b"")
        boxed = BitStreamFilterContext("h264_mp4toannexb", stream) if sets[:1] == b"\x01" else None
        for packet in self._container.demux(stream):
            arrival_ns = now_ns()
            if not packet.size:
                continue
            pts = packet.pts
            for part in boxed.filter(packet) if boxed is not None else (packet,):
                yield with_parameter_sets(bytes(part), b"" if boxed else sets), pts, arrival_ns
        raise av.error.EOFError(0, "the stream ended")

    def next_frame(self, into: Into, deadline_ns: int) -> FrameInfo | None:
        """The next access unit. CameraLostError when the stream is silent for a second."""
        del deadline_ns
        import av

        key, device = self._request.key, self._request.device
        try:
            data, pts, arrival_ns = self._pending or next(self._units)
        except (StopIteration, av.error.EOFError):
            raise CameraLostError(f"{key}: {device} ended", code="closed") from None
        except av.error.FFmpegError as error:
            raise CameraLostError(f"{key}: {device}: {error}", code="silent") from error
        self._pending = None
        memory = into()
        nbytes = min(len(data), memory.size)
        memory[:nbytes] = np.frombuffer(data, np.uint8)[:nbytes]
        flags = FrameFlag(0) if nbytes == len(data) else FrameFlag.CORRUPT
        return av_common.foreign_frame(
            self._clock, pts, self._time_base, nbytes=nbytes, arrival_ns=arrival_ns, flags=flags
        )

    def close(self) -> None:
        """Disconnect."""
        self._pending, self._units = None, iter(())
        if self._container is not None:
            self._container.close()
            self._container = None
