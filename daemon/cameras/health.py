"""Judges each frame of one camera: numbers missing, frozen, late, cut short, wrong size or rate.

Pure: takes payload and stamps, returns flags and numbers. Looks at compressed bytes or at a sparse
sample of raw pixels only; damage inside a JPEG's scan or an H.264 slice is for the decoder to find.
"""

import zlib
from dataclasses import dataclass

from recd.config.streams import FrameFlag
from recd.daemon.cameras import jpeg
from recd.daemon.cameras.h264 import Unfit, UnitJudge
from recd.daemon.cameras.source import FrameInfo, Pixels
from recd.shm.clock import NS_PER_S

_SAMPLE_BYTES = 4096
"""A raw picture is compared by about this many of its bytes; sensor noise changes some always."""


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """What is expected of a camera.

    payload, raw_bytes: as the source said; width, height: pixels, 0 any; fps: asked rate;
    accept_mismatch: take other sizes and rates; latency_ns: taken off every capture stamp;
    step: the source has its own step clock (nothing is late or frozen); frozen_after: that many
    equal pictures in a row are a fault; late_periods: delivery later than this is late;
    rate_window_ns: rate is measured over this; rate_tolerance: as a fraction.
    """

    payload: str
    raw_bytes: int
    width: int
    height: int
    fps: float
    accept_mismatch: bool = False
    latency_ns: int = 0
    step: bool = False
    frozen_after: int = 5
    late_periods: float = 2.0
    rate_window_ns: int = 2 * NS_PER_S
    rate_tolerance: float = 0.1


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known of one frame. t_capture_ns: strictly growing from frame to frame; flags:
    FrameFlag bits; nbytes: payload without padding; lost: frames missing just before it by the
    device's numbers; fault: why it is corrupt, in words, else empty; wrong_size: of the picture."""

    t_capture_ns: int
    flags: int
    nbytes: int
    lost: int = 0
    fault: str = ""
    wrong_size: bool = False


class Health:
    """Memory of one open camera; a new one for each time it is opened.

    rate_hz: last measured rate (0.0 unknown yet). wrong_sizes: frames of another size in a row.
    """

    def __init__(self, settings: HealthSettings, *, last_capture_ns: int = 0) -> None:
        self._settings = settings
        self._late_ns = int(settings.late_periods * NS_PER_S / settings.fps)
        self._last_capture_ns = last_capture_ns
        self._reopened = last_capture_ns > 0
        self._last_seq = -1
        self._last_print = -1
        self._equal = 0
        self._rate_from: tuple[int, int] | None = None
        self._frames = 0
        self.rate_hz = 0.0
        self._rate_before_hz = 0.0
        self.wrong_sizes = 0
        self._units = UnitJudge() if settings.payload == "h264" else None

    @property
    def unfit(self) -> Unfit | None:
        """Why an H.264 stream cannot be recorded as it comes; None while it can."""
        return None if self._units is None else self._units.unfit

    @property
    def last_capture_ns(self) -> int:
        """Capture time of the newest frame judged; carry it over when opening again."""
        return self._last_capture_ns

    def judge(self, payload: Pixels, info: FrameInfo) -> Judgement:
        """Judge the frame in `payload` (uint8[info.nbytes])."""
        flags = info.flags
        lost = self._count_lost(info.source_seq)
        # What a camera took while it was away has no numbers: the gap is told, not counted.
        if lost or (self._reopened and not self._frames):
            flags |= FrameFlag.GAP_BEFORE
        if self._units is not None:
            fault, wrong_size, key = self._examine_unit(payload, info, lost=lost)
            nbytes, flags = payload.size, flags | (FrameFlag.KEY if key else 0)
        else:
            fault, wrong_size, nbytes = self._examine(payload)
        if info.flags & FrameFlag.CORRUPT:
            fault = fault or "the device marked it as damaged"
        if fault:
            flags |= FrameFlag.CORRUPT
        if not self._settings.step:
            if self._is_frozen(payload):
                flags |= FrameFlag.FROZEN
            if max(info.residual_ns, info.t_arrival_ns - info.t_capture_ns) > self._late_ns:
                flags |= FrameFlag.LATE
        capture, flags = self._capture(info, flags)
        self._measure_rate(capture, info.source_seq)
        return Judgement(capture, flags, nbytes, lost, fault, wrong_size)

    def wrong_rate(self) -> bool:
        """True when two windows in a row agree on a rate that is not the one asked for.

        A busy computer makes an unnumbered camera look slow for once, not the same twice.
        """
        asked, tolerance = self._settings.fps, self._settings.rate_tolerance
        if min(self.rate_hz, self._rate_before_hz) <= 0:
            return False
        agree = abs(self.rate_hz - self._rate_before_hz) <= tolerance / 2 * self.rate_hz
        return agree and abs(self.rate_hz - asked) > tolerance * asked

    def _count_lost(self, seq: int) -> int:
        last, self._last_seq = self._last_seq, seq
        return seq - last - 1 if 0 <= last < seq else 0

    def _examine(self, payload: Pixels) -> tuple[str, bool, int]:
        settings = self._settings
        if settings.payload != "mjpeg":
            short = payload.size != settings.raw_bytes
            fault = f"{payload.size} bytes instead of {settings.raw_bytes}" if short else ""
            return fault, False, payload.size
        facts = jpeg.examine(payload)
        if facts.fault:
            return facts.fault, False, payload.size
        asked = (settings.width, settings.height)
        if settings.accept_mismatch or 0 in asked or (facts.width, facts.height) == asked:
            self.wrong_sizes = 0
            return "", False, facts.nbytes
        self.wrong_sizes += 1
        fault = f"picture of {facts.width}x{facts.height} instead of {asked[0]}x{asked[1]}"
        return fault, True, facts.nbytes

    def _examine_unit(
        self, payload: Pixels, info: FrameInfo, *, lost: int
    ) -> tuple[str, bool, bool]:
        """(fault, of a wrong size, key frame) of an access unit."""
        assert self._units is not None
        facts = self._units.examine(
            payload.tobytes(), t_capture_ns=info.t_capture_ns, lost=lost > 0,
            damaged=bool(info.flags & FrameFlag.CORRUPT),
        )  # fmt: skip
        sequence, asked = self._units.sequence, (self._settings.width, self._settings.height)
        if sequence is None or (got := (sequence.width, sequence.height)) == asked:
            self.wrong_sizes = 0
            return facts.fault, False, facts.key
        self.wrong_sizes += 1
        return f"picture of {got[0]}x{got[1]} instead of {asked[0]}x{asked[1]}", True, facts.key

    def _is_frozen(self, payload: Pixels) -> bool:
        if self._settings.payload == "h264":
            return False  # a picture that stands still is coded anew each time
        if self._settings.payload == "mjpeg":
            seen = zlib.crc32(payload.data)
        else:
            stride = max(1, payload.size // _SAMPLE_BYTES) | 1
            seen = zlib.crc32(payload[::stride].tobytes())
        self._equal = self._equal + 1 if seen == self._last_print else 0
        self._last_print = seen
        return self._equal >= self._settings.frozen_after

    def _capture(self, info: FrameInfo, flags: int) -> tuple[int, int]:
        capture = info.t_capture_ns - self._settings.latency_ns
        if capture <= self._last_capture_ns:
            # A stamp that stands still or runs backwards would break every reader's search.
            capture = max(info.t_arrival_ns - self._settings.latency_ns, self._last_capture_ns + 1)
            flags |= FrameFlag.STAMP_ARRIVAL
        self._last_capture_ns = capture
        return capture, flags

    def _measure_rate(self, capture_ns: int, seq: int) -> None:
        self._frames += 1
        count = seq if seq >= 0 else self._frames
        if self._rate_from is None or count <= self._rate_from[1]:
            self._rate_from = (capture_ns, count)
            return
        from_ns, from_count = self._rate_from
        if capture_ns - from_ns >= self._settings.rate_window_ns:
            self._rate_before_hz = self.rate_hz
            self.rate_hz = (count - from_count) * NS_PER_S / (capture_ns - from_ns)
            self._rate_from = (capture_ns, count)
