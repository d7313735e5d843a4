"""Which cameras of a robot are simulated, and how each differs from the others. Pure.

Needs nothing else of the simulator, so that their process can be started before the arms are made.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

SIM = "sim"
PHASE_STEP = 0.37
"""Cameras expose this share of a period after one another: real ones are never in step either."""


def simulated_cameras(
    config: Mapping[str, Any], robot: Mapping[str, Any]
) -> tuple[dict[str, Any], ...]:
    """Fields of sensor.SimCameraSpec of each camera, the rate as text.

    Explicit `cameras` of the section `config` win; without them every source that says `sim` in the
    resolved configuration `robot` is taken.
    """
    cameras = config.get("cameras")
    if cameras is None:
        cameras = _configured(config, robot)
    return tuple(_camera(name, at, dict(c)) for at, (name, c) in enumerate(cameras.items()))


def _configured(config: Mapping[str, Any], robot: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "width": camera["width"],
            "height": camera["height"],
            "fps": camera["fps"],
            "codec": "h264" if camera.get("fourcc") == "h264" else "mjpeg",
            "pattern": camera.get("pattern", "420"),
            "drift_ppm": config.get("camera_drift_ppm", 20.0),
            "delivery_jitter_ms": config.get("camera_jitter_ms", 1.0),
            "seed": config.get("seed", 0),
        }
        for name, camera in robot.get("cameras", {}).items()
        if camera.get("source") == SIM
    }


def _camera(name: str, number: int, fields: dict[str, Any]) -> dict[str, Any]:
    """Fields that travel to the cameras' process; the rate as text, exact."""
    fps = Fraction(str(fields.pop("fps", 30))).limit_denominator(1001)
    defaults = {"number": number, "phase": round(number * PHASE_STEP % 1.0, 6)}
    return {"name": name, "fps": str(fps), **defaults, **fields}
