"""The simulated camera's other form: H.264 in an MPEG transport stream, as network cameras send it.

One access unit a picture, no B-frames, a key frame with its parameter sets every so many pictures.
Full range, tagged so. One thread.
"""

from fractions import Fraction
from typing import Any

import numpy as np

from recd.daemon.sim.render import Plane

PACKET_BYTES = 188
_PAT_PID, _PMT_PID, _VIDEO_PID = 0, 0x1000, 0x100
_H264_STREAM = 0x1B
_PROGRAM = 1
_MOST_TOLD = 0xFFFF
"""A longer picture has no length in its head, as the standard allows for video."""


class H264Encoder:
    """One picture size. Draw into `planes`, then call `encode`.

    gop: pictures from key frame to key frame; quality: x264's constant quality.
    """

    subsampling = (2, 2)

    def __init__(self, width: int, height: int, *, gop: int, quality: int = 23) -> None:
        import av

        context: Any = av.CodecContext.create("libx264", "w")
        context.width, context.height, context.pix_fmt = width, height, "yuvj420p"
        context.color_range, context.colorspace = 2, 6
        context.time_base = Fraction(1, 1000)
        context.thread_count = 1
        context.gop_size = gop
        context.options = {
            "preset": "ultrafast", "tune": "zerolatency", "crf": str(quality), "bf": "0",
            "sc_threshold": "0", "x264-params": "aud=1",
        }  # fmt: skip
        self._context = context
        self._frame = av.VideoFrame(width, height, "yuvj420p")
        self._pts = 0
        sizes = ((width, height), (width // 2, height // 2), (width // 2, height // 2))
        self.planes: tuple[Plane, ...] = tuple(
            np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:rows, :columns]
            for plane, (columns, rows) in zip(self._frame.planes, sizes, strict=True)
        )
        """Y, U, V of the next picture: uint8, full range, views into the encoder's own frame."""

    def encode(self) -> bytes:
        """The present content of `planes` as one access unit (Annex B)."""
        self._frame.pts = self._pts
        self._pts += 1
        return b"".join(bytes(packet) for packet in self._context.encode(self._frame))


class TransportStream:
    """Packs access units into transport stream packets, tables before each."""

    def __init__(self) -> None:
        self._counters: dict[int, int] = {}

    def pack(self, unit: bytes, stamp_ns: int) -> bytes:
        """Packets of one access unit shown at `stamp_ns` of the camera's own clock."""
        ticks = stamp_ns * 9 // 100_000 % (1 << 33)
        length = len(unit) + 8
        told = length if length <= _MOST_TOLD else 0
        head = b"\x00\x00\x01\xe0" + told.to_bytes(2) + b"\x80\x80\x05" + _stamp(ticks)
        tables = self._table(_PAT_PID, _pat()) + self._table(_PMT_PID, _pmt())
        return tables + self._spread(head + unit, ticks)

    def _spread(self, data: bytes, ticks: int) -> bytes:
        clock = b"\x10" + (ticks << 15 | 0x7E00).to_bytes(6)
        packets, at = [], 0
        while at < len(data):
            extra = clock if at == 0 else b""
            room = PACKET_BYTES - 4 - (len(extra) + 1 if extra else 0)
            piece = data[at : at + room]
            at += len(piece)
            missing = room - len(piece)
            if missing and not extra:
                missing -= 1
            if extra or len(piece) < room:
                extra = extra or (b"\x00" if missing else b"")
                fill = b"\xff" * (missing - (extra == b"\x00"))
                field = bytes([len(extra) + len(fill)]) + extra + fill
            else:
                field = b""
            packets.append(self._head(_VIDEO_PID, starts=at == len(piece), field=field) + piece)
        return b"".join(packets)

    def _head(self, pid: int, *, starts: bool, field: bytes = b"") -> bytes:
        counter = self._counters.get(pid, 0)
        self._counters[pid] = (counter + 1) % 16
        kind = 0x30 if field else 0x10
        return (
            b"\x47"
            + ((0x4000 if starts else 0) | pid).to_bytes(2)
            + bytes([kind | counter])
            + field
        )

    def _table(self, pid: int, section: bytes) -> bytes:
        packet = self._head(pid, starts=True) + b"\x00" + section
        return packet + b"\xff" * (PACKET_BYTES - len(packet))


def _pat() -> bytes:
    return _section(0, 1, _PROGRAM.to_bytes(2) + (0xE000 | _PMT_PID).to_bytes(2))


def _pmt() -> bytes:
    clock = (0xE000 | _VIDEO_PID).to_bytes(2)
    stream = bytes([_H264_STREAM]) + (0xE000 | _VIDEO_PID).to_bytes(2) + b"\xf0\x00"
    return _section(2, _PROGRAM, clock + b"\xf0\x00" + stream)


def _section(table: int, number: int, body: bytes) -> bytes:
    length = len(body) + 9
    section = bytes([table]) + (0xB000 | length).to_bytes(2) + number.to_bytes(2) + b"\xc1\x00\x00"
    return section + body + _crc(section + body).to_bytes(4)


def _crc(data: bytes) -> int:
    """CRC-32/MPEG-2."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


def _stamp(ticks: int) -> bytes:
    """A presentation time stamp, five bytes with marker bits."""
    high, middle, low = ticks >> 30 & 7, ticks >> 15 & 0x7FFF, ticks & 0x7FFF
    return bytes([0x21 | high << 1]) + (middle << 1 | 1).to_bytes(2) + (low << 1 | 1).to_bytes(2)
