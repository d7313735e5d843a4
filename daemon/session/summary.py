"""What was counted while one episode was recorded: the figures that verdicts and people read.

Plain data. The writer fills it from rows, side records and the encoders' counts; what was not
measured stays None.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class CameraSummary:
    """One camera over one episode. Counts are rows unless named otherwise; `_s` is seconds.

    fresh: rows with a picture of their own; repeated: rows that repeat one without excuse;
    expected: repeats that the camera's lower rate explains; missing: rows without a true picture;
    lost: frames the device or the ring lost; repeat_run: longest run of unexcused repeats;
    error_p99_periods: 99th percentile of |capture - row| of every picture shown, old ones too, in
    periods of the slower of camera and dataset. `..._at_s` is the first or worst place, seconds
    from the episode's start.
    """

    rows: int = 0
    fresh: int = 0
    repeated: int = 0
    expected: int = 0
    missing: int = 0
    late: int = 0
    lost: int = 0
    corrupt: int = 0
    repeat_run: int = 0
    repeat_run_at_s: float | None = None
    missing_at_s: float | None = None
    lost_at_s: float | None = None
    corrupt_at_s: float | None = None
    frozen_s: float | None = None
    frozen_at_s: float | None = None
    black_s: float | None = None
    black_at_s: float | None = None
    error_p99_periods: float | None = None
    error_at_s: float | None = None
    nominal_fps: float = 0.0
    measured_fps: float | None = None


@dataclass(frozen=True, slots=True)
class BusSummary:
    """One arm bus over one episode. Positions in dataset units (degrees, gripper 0..100).

    rows: dataset rows; invalid_rows: rows where at least one joint has no true reading;
    invalid_run: longest run of them; ticks, overruns: control ticks done and skipped;
    tracking_p95: 95th percentile of |leader - follower| of the worst joint (follower buses only);
    motion_range: largest range (max - min) of any joint; None on a bus that is not recorded.
    """

    rows: int = 0
    invalid_rows: int = 0
    invalid_run: int = 0
    invalid_at_s: float | None = None
    invalid_joint: str = ""
    ticks: int = 0
    overruns: int = 0
    late_replies: int = 0
    late_reply_at_s: float | None = None
    clipped_rows: int = 0
    clipped_at_s: float | None = None
    clipped_joint: str = ""
    tracking_p95: float | None = None
    tracking_at_s: float | None = None
    tracking_joint: str = ""
    motion_range: float | None = None
    measured_hz: float | None = None


@dataclass(frozen=True, slots=True)
class EpisodeSummary:
    """One episode. fault: why it was ended, when a fault did; restarts: process -> how often."""

    duration_s: float
    rows: int = 0
    fps: float = 30.0
    cameras: Mapping[str, CameraSummary] = field(default_factory=dict)
    buses: Mapping[str, BusSummary] = field(default_factory=dict)
    restarts: Mapping[str, int] = field(default_factory=dict)
    fault: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "EpisodeSummary":
        """From plain data. Unknown keys are ignored: a newer writer may count more."""
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        known["cameras"] = {
            name: _known(CameraSummary, values) for name, values in data.get("cameras", {}).items()
        }
        known["buses"] = {
            name: _known(BusSummary, values) for name, values in data.get("buses", {}).items()
        }
        return cls(**known)


def _known(kind: Any, values: Mapping[str, Any]) -> Any:
    return kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values})
