"""One simulated camera without its wire: a clock of its own, a shutter, pictures, faults.

Everything is a function of the exposure slot: slot n opens at a time that the camera's drifting
clock gives, is drawn from the arm's pose at exactly that time and stamped with it.
"""

import random
import zlib
from dataclasses import dataclass
from fractions import Fraction

from recd.config.simulated import SIM_LEAST_PX
from recd.daemon.sim.camera_faults import CameraFault, FaultPlan
from recd.daemon.sim.figure import PoseSource
from recd.daemon.sim.h264 import H264Encoder
from recd.daemon.sim.jpeg import PATTERNS, JpegEncoder
from recd.daemon.sim.render import Renderer
from recd.shm.clock import NS_PER_MS, NS_PER_S

CODECS = ("mjpeg", "h264")
"""Forms in which a simulated camera sends its pictures."""

_MILLION = 1_000_000
_EPOCH_SPAN_NS = 10**18  # foreign clocks start anywhere in 31 years


@dataclass(frozen=True, slots=True)
class SimCameraSpec:
    """One simulated camera.

    number: its id in the stamp, 0..255. view: `front`, `top`, `side`, `wrist` or any name (default:
    the camera's). port: TCP port, 0 any. phase: where in its period it exposes, in periods, counted
    on CLOCK_MONOTONIC at start. drift_ppm: rate error of its clock (positive: fast, so frames come
    early). shutter_jitter_ms: exposures are off the regular time by up to this, uniformly.
    latency_ms: exposure to first byte sent; delivery_jitter_ms: standard deviation of what is added
    to it (never negative). epoch_ns: what its clock shows at its first slot; None: random.
    codec: `mjpeg`, or `h264` in a transport stream; gop: of the latter, pictures from key frame to
    key frame, 0: a second. pattern: chroma of its JPEGs, `420`, `422` or `444`. quality: libav's
    quantiser scale.
    """

    name: str
    number: int = 0
    width: int = 640
    height: int = 480
    fps: Fraction = Fraction(30)
    view: str = ""
    port: int = 0
    phase: float = 0.0
    drift_ppm: float = 0.0
    shutter_jitter_ms: float = 0.0
    latency_ms: float = 5.0
    delivery_jitter_ms: float = 0.0
    epoch_ns: int | None = None
    codec: str = "mjpeg"
    gop: int = 0
    pattern: str = "420"
    quality: int = 4
    seed: int = 0

    def problem(self) -> str | None:
        """What is impossible about this camera, in words, or None."""
        if min(self.width, self.height) < SIM_LEAST_PX:
            least, found = f"{SIM_LEAST_PX}x{SIM_LEAST_PX}", f"{self.width}x{self.height}"
            return f"camera {self.name}: size at least {least}, found {found}"
        if self.width % 2 or self.height % 2:
            return f"camera {self.name}: an even size, found {self.width}x{self.height}"
        if not 0 < self.fps <= 1000:
            return f"camera {self.name}: rate over 0 up to 1000, found {float(self.fps):g}"
        if self.pattern not in PATTERNS:
            return f"camera {self.name}: pattern one of {', '.join(PATTERNS)}, found {self.pattern}"
        if self.codec not in CODECS:
            return f"camera {self.name}: codec one of {', '.join(CODECS)}, found {self.codec}"
        if not 0 <= self.number <= 255:
            return f"camera {self.name}: number 0..255, found {self.number}"
        return None


@dataclass(frozen=True, slots=True)
class Exposure:
    """One picture as it leaves the camera.

    number: the camera's frame count; t_capture_ns: true time of exposure (CLOCK_MONOTONIC, ns);
    stamp_ns: the same moment on the camera's own clock, which is what it tells its clients; data: a
    JPEG, or an H.264 access unit.
    """

    number: int
    t_capture_ns: int
    stamp_ns: int
    data: bytes


class Sensor:
    """Takes pictures slot by slot. Slots are passed in increasing order; no clock is read here."""

    def __init__(self, spec: SimCameraSpec, pose: PoseSource, *, start_ns: int) -> None:
        self.spec = spec
        self.faults = FaultPlan()
        self._pose = pose
        self._rate_ppm = _MILLION + round(spec.drift_ppm)
        period_ns = NS_PER_S * spec.fps.denominator // spec.fps.numerator
        phase_ns = int(spec.phase * period_ns) % period_ns
        self.start_ns = (start_ns // period_ns + 1) * period_ns + phase_ns
        random_epoch = random.SystemRandom().randrange(_EPOCH_SPAN_NS)
        self._epoch_ns = random_epoch if spec.epoch_ns is None else spec.epoch_ns
        self._not_taken = 0
        self._data = b""
        self._easel = self._new_easel(spec.width, spec.height)
        self._small_easel: tuple[Renderer, JpegEncoder | H264Encoder] | None = None

    def opens_ns(self, slot: int) -> int:
        """True time of exposure of `slot`, CLOCK_MONOTONIC ns. Increases strictly with `slot`."""
        fps = self.spec.fps
        regular = slot * NS_PER_S * fps.denominator * _MILLION // (fps.numerator * self._rate_ppm)
        reach_ns = int(self.spec.shutter_jitter_ms * NS_PER_MS)
        period_ns = NS_PER_S * fps.denominator // fps.numerator
        reach_ns = min(reach_ns, period_ns // 2 - 1)
        jitter = self._dice(slot).randint(-reach_ns, reach_ns) if reach_ns > 0 else 0
        return self.start_ns + regular + jitter

    def delivery_ns(self, slot: int) -> int:
        """When the first byte of `slot` leaves, CLOCK_MONOTONIC ns, without regard to order."""
        spread = abs(self._dice(~slot).gauss(0.0, self.spec.delivery_jitter_ms))
        late_ms = self.spec.latency_ms + spread + self.faults.value(CameraFault.DELAY, slot)
        return self.opens_ns(slot) + int(late_ms * NS_PER_MS)

    def slot_after(self, t_ns: int) -> int:
        """The first slot that opens after `t_ns`, never below 0."""
        fps = self.spec.fps
        passed = max(0, t_ns - self.start_ns)
        slot = passed * fps.numerator * self._rate_ppm // (NS_PER_S * fps.denominator * _MILLION)
        while slot > 0 and self.opens_ns(slot - 1) > t_ns:
            slot -= 1
        while self.opens_ns(slot) <= t_ns:
            slot += 1
        return slot

    def step_clock(self, by_ms: float) -> None:
        """Let the camera's own clock jump."""
        self._epoch_ns += int(by_ms * NS_PER_MS)

    def pass_over(self, first: int, end: int) -> None:
        """Slots `first` to `end - 1` go by without anybody watching: count them, draw nothing."""
        if self.faults.planned:
            self._not_taken += sum(not self.faults.exposes(slot) for slot in range(first, end))

    def expose(self, slot: int) -> Exposure | None:
        """The picture of `slot`, or None when none is taken or none is sent."""
        if not self.faults.exposes(slot):
            self._not_taken += 1
            return None
        if self.faults.acts(CameraFault.SKIP, slot):
            return None
        number = slot - self._not_taken
        t_ns = self.opens_ns(slot)
        frozen = self.faults.acts(CameraFault.FREEZE, slot) and self._data
        if not frozen:
            self._data = self._take(slot, number, t_ns)
        elif self.spec.codec == "h264":  # the same picture is another access unit
            self._data = self._easel[1].encode()
        data = self._damaged(self._data, slot)
        return Exposure(number, t_ns, self._foreign_ns(t_ns), data)

    def _take(self, slot: int, number: int, t_ns: int) -> bytes:
        renderer, encoder = self._easel
        if self.faults.acts(CameraFault.WRONG_SIZE, slot):
            if self._small_easel is None:
                half = max(160, self.spec.width // 4 * 2), max(160, self.spec.height // 4 * 2)
                self._small_easel = self._new_easel(*half)
            renderer, encoder = self._small_easel
        if self.faults.acts(CameraFault.BLACK, slot):
            renderer.draw_black(encoder.planes, frame=number)
        else:
            renderer.draw(encoder.planes, self._pose, frame=number, t_capture_ns=t_ns)
        return encoder.encode()

    def _damaged(self, data: bytes, slot: int) -> bytes:
        if self.faults.acts(CameraFault.CORRUPT, slot):
            return data[: len(data) * 2 // 3]
        if self.faults.acts(CameraFault.GARBLE, slot):
            middle = len(data) // 2
            return data[:middle] + b"\xff\xd4" * 16 + data[middle + 32 :]
        return data

    def _foreign_ns(self, t_ns: int) -> int:
        return self._epoch_ns + (t_ns - self.start_ns) * self._rate_ppm // _MILLION

    def _dice(self, slot: int) -> random.Random:
        """Chance that depends on camera, seed and slot alone: a slot asked twice says the same."""
        name = zlib.crc32(self.spec.name.encode())
        return random.Random((self.spec.seed << 32 ^ name) * 2_000_003 + slot)

    def _new_easel(self, width: int, height: int) -> tuple[Renderer, JpegEncoder | H264Encoder]:
        spec = self.spec
        encoder: JpegEncoder | H264Encoder
        if spec.codec == "h264":
            encoder = H264Encoder(width, height, gop=spec.gop or max(1, round(spec.fps)))
        else:
            encoder = JpegEncoder(width, height, pattern=spec.pattern, quality=spec.quality)
        renderer = Renderer(
            width,
            height,
            view=spec.view or spec.name,
            camera=spec.number,
            subsampling=encoder.subsampling,
        )
        return renderer, encoder
