"""What one camera is asked to be, out of its section of the configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from recd.config.streams import PAYLOAD_OF_FOURCC
from recd.shm.clock import NS_PER_MS

FOURCC_OF_PAYLOAD = {payload: word for word, payload in PAYLOAD_OF_FOURCC.items()}

Setting = int | str | None
"""Value of a camera control: a number in the device's unit, `auto`, or None: leave it alone."""


@dataclass(frozen=True, slots=True)
class CameraRequest:
    """One camera as asked for. fps: frames per second; latency_ns: fixed delay before the stamp;
    payload: ring payload kind asked for, empty: MJPEG where the device has it; slot_bytes: room
    for one frame in the ring, 0 unlimited; last_step: (number, capture time in ns) of the last
    frame of a step source that is in the ring already, None at its start."""

    name: str
    source: str
    device: str
    width: int
    height: int
    fps: Fraction
    payload: str = ""
    latency_ns: int = 0
    exposure: Setting = None
    gain: Setting = None
    focus: Setting = None
    white_balance: Setting = None
    accept_mismatch: bool = False
    stamp_header: str = ""
    step: bool = False
    speed: float = 1.0
    slot_bytes: int = 0
    last_step: tuple[int, int] | None = None

    @property
    def key(self) -> str:
        """Key path of the camera in the configuration, for messages."""
        return f"cameras.{self.name}"

    @property
    def period_ns(self) -> int:
        """Nominal time from frame to frame."""
        return int(1_000_000_000 / self.fps)

    @classmethod
    def from_config(
        cls, name: str, config: Mapping[str, Any], *, slot_bytes: int = 0
    ) -> "CameraRequest":
        """From the plain-dict form of a camera section (see config/models.py CameraConfig)."""
        return cls(
            name=name,
            source=config["source"],
            device=str(config["device"]),
            width=config["width"],
            height=config["height"],
            fps=Fraction(config["fps"]).limit_denominator(1001),
            payload=PAYLOAD_OF_FOURCC.get(config.get("fourcc", "auto"), ""),
            latency_ns=int(config.get("latency_ms", 0.0) * NS_PER_MS),
            slot_bytes=slot_bytes,
            **{key: config[key] for key in _PASSED_ON if key in config},
        )


_PASSED_ON = (
    "exposure", "gain", "focus", "white_balance", "accept_mismatch", "stamp_header", "step",
    "speed",
)  # fmt: skip
