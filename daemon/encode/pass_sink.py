"""An mp4 whose packets are the camera's own access units where rows allow it: no decode, no encode.

A unit is stored as it came when it is a key frame or follows the one stored in the row before.
Any other row (the first in the middle of a group, a repeat, a picture passed over) is encoded from
the decoded picture, beginning with a key frame, until the camera's next key frame.
"""

import contextlib
import io
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av

from recd.daemon.cameras.h264 import parameter_sets
from recd.daemon.encode.codecs import CodecSettings, info_block
from recd.daemon.encode.colour import PictureError
from recd.daemon.encode.gops import Unit
from recd.daemon.encode.mp4 import LEADS, container_options
from recd.daemon.encode.sinks import FileSink, SinkError, SinkFacts
from recd.daemon.encode.stream_file import StreamFile

_INTRA, _ANY = 1, 0  # AVPictureType


class PassSink(FileSink):
    """PictureSink of one take of an H.264 camera. The file's head is made with the first row, for
    only then the camera's parameter sets are known."""

    suffix = ".mp4"

    def __init__(
        self,
        settings: CodecSettings,
        *,
        size: tuple[int, int],
        rate: Fraction,
        decode: Callable[[Unit], Any],
        sync: bool = True,
    ) -> None:
        """settings: of the bridging encoder. decode: picture of a unit, damage concealed."""
        self.settings = settings
        self._size = size
        self._rate = rate
        self._tick = 1 / rate
        self._lead = settings.decode_lead if LEADS else 0
        self._decode = decode
        self._rows = 0
        self._as_sent = bytearray()
        self._stored: Unit | None = None
        self._bridging = False
        self._file = StreamFile(sync=sync)
        self._container: Any = None
        self._stream: Any = None
        self._bridge: _Bridge | None = None

    def stores(self, unit: Unit) -> bool:
        """Whether the next row would hold this unit as it came, undecoded."""
        return self._container is not None and self._fits(unit)

    def _fits(self, unit: Unit) -> bool:
        return unit.key or unit.follows(self._stored)

    def encode(self, frame: Any, k: int) -> int:
        """frame: a Unit, or a yuv420p VideoFrame where no unit ever came."""
        if k != self._rows:
            raise ValueError(f"row {self._rows} is next, got {k}")
        try:
            if self._container is None:
                self._open(frame)
            if isinstance(frame, Unit) and self._fits(frame):
                data, key, self._stored = frame.data, frame.key, frame
                self._bridging = False
            else:
                data, key = self._bridged(frame)
            self._mux(data, key=key)
            self._as_sent.append(not self._bridging)
        except (av.FFmpegError, OSError, PictureError) as error:
            raise SinkError(f"row {self._rows}: {error}") from error
        self._rows += 1
        return len(data)

    def _bridged(self, frame: Any) -> tuple[bytes, bool]:
        assert self._bridge is not None
        picture = self._decode(frame) if isinstance(frame, Unit) else frame
        begins, self._bridging, self._stored = not self._bridging, True, None
        return self._bridge.encode(picture, key=begins)

    def _mux(self, data: bytes, *, key: bool) -> None:
        packet: Any = av.Packet(data)
        packet.stream = self._stream
        packet.time_base = self._tick
        packet.pts, packet.dts, packet.duration = self._rows, self._rows - self._lead, 1
        packet.is_keyframe = key
        self._container.mux(packet)

    def _open(self, frame: Any) -> None:
        """Make the head of the file: parameter sets of the camera and of the bridging encoder."""
        first = self._decode(frame) if isinstance(frame, Unit) else frame
        self._bridge = bridge = _Bridge(self.settings, first)
        own, example = bridge.encode(first, key=True)[0], b""
        if isinstance(frame, Unit):
            example = frame.gop.units[0]
        head = parameter_sets(example) + parameter_sets(own) + (example or own)
        with av.open(io.BytesIO(head), format="h264") as template:
            container: Any = av.open(
                self._file, "w", format="mp4", options=container_options(self._lead)
            )
            stream = container.add_stream_from_template(template.streams.video[0], opaque=True)
            stream.time_base = self._tick
        self._container, self._stream = container, stream

    def as_sent(self, rows: int) -> int:
        """How many of the first `rows` rows hold the camera's own coding."""
        return sum(self._as_sent[:rows])

    def finish(self) -> None:
        try:
            if self._container is not None:
                self._container.close()
        except (av.FFmpegError, OSError) as error:
            raise SinkError(f"index of the mp4: {error}") from error
        self._file.complete()

    def settle(self) -> SinkFacts:
        path = self._file.path
        digest = self._file.settle(durable=False)
        info = info_block(self.settings, self._size, int(self._rate))
        if self._bridge is not None:
            info["video.pix_fmt"] = self._bridge.pix_fmt
        return SinkFacts(path, self._rows, self._file.size, digest, info)

    def _shut(self) -> None:
        container, self._container = self._container, None
        # What the disk says to the rest of this file is of no interest any more.
        with contextlib.suppress(av.FFmpegError, OSError):
            if container is not None:
                container.close()


class _Bridge:
    """libx264 with the tags of the camera's own pictures, so that both look alike."""

    def __init__(self, settings: CodecSettings, first: Any) -> None:
        context: Any = av.CodecContext.create(settings.row.encoder, "w")
        context.width, context.height = first.width, first.height
        context.time_base = Fraction(1, 1000)
        self.pix_fmt = context.pix_fmt = first.format.name
        context.color_range = first.color_range
        context.colorspace = first.colorspace
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
        context.options = settings.options() | {"forced-idr": "1"}
        context.open()
        self._context = context
        self._count = 0

    def encode(self, picture: Any, *, key: bool) -> tuple[bytes, bool]:
        """(access unit, whether it is a key frame). key: begin a group of pictures here."""
        if picture.format.name != self.pix_fmt:
            picture = picture.reformat(format=self.pix_fmt)
        picture.pts, self._count = self._count, self._count + 1
        picture.pict_type = _INTRA if key else _ANY
        packets = self._context.encode(picture)
        return b"".join(bytes(packet) for packet in packets), any(p.is_keyframe for p in packets)
