"""One camera, one episode, one mp4: a fragmented file that survives a kill and closes in place.

While recording, each finished group of pictures is a fragment handed to the kernel at once; at the
end an index is appended and the head patched, which makes the same file an ordinary mp4 (FFmpeg's
hybrid_fragmented). Row k has pts k exactly, from 0; pictures are stored in the order of rows.
"""

import contextlib
from fractions import Fraction
from typing import Any

import av

from recd.config.errors import RecdError
from recd.daemon.encode.codecs import CodecSettings, info_block
from recd.daemon.encode.colour import BT601, LIMITED
from recd.daemon.encode.sinks import FileSink, SinkError, SinkFacts
from recd.daemon.encode.stream_file import StreamFile
from recd.daemon.realtime import keep_class

_FRAGMENT_US = 500_000
"""Longest fragment where groups of pictures are longer: what a kill may cost."""

_LIVE = "hybrid_fragmented+frag_keyframe"

LEADS = av.library_versions["libavformat"] >= (62, 12)
"""FFmpeg before 8.1 closes a hybrid file with a lead without its head and with an empty edit list;
there files have no lead, and join with LeRobot's h264 in one order only."""


def container_options(lead: int) -> dict[str, str]:
    """Options of the mp4 muxer for a live file. lead: rows by which decode stamps run ahead."""
    # With a lead the first decode stamp is negative; the head must wait for it to have the edit
    # list that puts row 0 at time 0. Without one it is written at once.
    head = "delay_moov" if lead else "empty_moov"
    return {
        "movflags": f"{_LIVE}+{head}",
        "frag_duration": str(_FRAGMENT_US),
        "flush_packets": "1",
    }


def _reason(error: Exception) -> str:
    """What the codec itself said last, without FFmpeg's call and all its options."""
    log = getattr(error, "log", None)
    return str(log[2]) if log else str(getattr(error, "strerror", "") or error)


class Mp4Sink(FileSink):
    """PictureSink that writes video. Opening costs tens of milliseconds: do it ahead."""

    suffix = ".mp4"

    def __init__(
        self,
        settings: CodecSettings,
        *,
        size: tuple[int, int],
        rate: Fraction,
        sync: bool = True,
    ) -> None:
        """size: (width, height). Raises RecdError when the encoder does not open."""
        self.settings = settings
        self._size = size
        self._rate = rate
        self._tick = 1 / rate
        self._lead = settings.decode_lead if LEADS else 0
        self._rows = self._packets = 0
        self._file = StreamFile(sync=sync)
        try:
            self._container = av.open(
                self._file, "w", format="mp4", options=container_options(self._lead)
            )
            self._stream = self._add_stream()
            with keep_class():
                self._container.start_encoding()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise RecdError(
                f"encoder {settings.vcodec} does not open at {size[0]}x{size[1]}: {_reason(error)}",
                mend="set dataset.encoder.vcodec to h264, or check preset and extra_options",
                code="codec",
            ) from error

    def _add_stream(self) -> Any:
        settings = self.settings
        stream = self._container.add_stream(
            settings.row.encoder, rate=self._rate, options=settings.options()
        )
        stream.width, stream.height = self._size
        stream.pix_fmt = settings.row.frame_format
        context = stream.codec_context
        context.color_range = LIMITED
        context.colorspace = BT601
        return stream

    @property
    def held_back(self) -> int:
        """Pictures that are still inside the encoder; 0 for every codec that a probe accepts."""
        return self._rows - self._packets

    def encode(self, frame: Any, k: int) -> int:
        if k != self._rows:
            raise ValueError(f"row {self._rows} is next, got {k}")
        if self.settings.row.frame_format != "yuv420p":
            frame = frame.reformat(format=self.settings.row.frame_format)
        frame.pts = k
        frame.time_base = self._tick
        self._rows += 1
        return self._mux(frame)

    def _mux(self, frame: Any) -> int:
        nbytes = 0
        try:
            for packet in self._stream.encode(frame):
                packet.time_base = self._tick
                packet.duration = 1
                packet.dts = packet.pts - self._lead
                nbytes += packet.size
                self._packets += 1
                self._container.mux(packet)
        except (av.FFmpegError, OSError) as error:
            raise SinkError(f"{self.settings.vcodec}, row {self._rows - 1}: {error}") from error
        return nbytes

    def finish(self) -> None:
        self._mux(None)
        if self._packets != self._rows:
            raise SinkError(f"{self._rows} pictures gave {self._packets} packets")
        try:
            self._container.close()
        except (av.FFmpegError, OSError) as error:
            raise SinkError(f"index of the mp4: {error}") from error
        self._file.complete()

    def settle(self) -> SinkFacts:
        path = self._file.path
        fps = int(self._rate)
        digest = self._file.settle(durable=False)
        return SinkFacts(
            path, self._packets, self._file.size, digest, info_block(self.settings, self._size, fps)
        )

    def _shut(self) -> None:
        # SVT-AV1 crashes the process when it is freed before it was told the end of its stream.
        # What the disk says to the rest of this file is of no interest any more.
        with contextlib.suppress(av.FFmpegError, OSError):
            self._stream.encode(None)
            self._container.close()
