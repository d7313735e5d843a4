"""What is to be simulated, read from a worker's section or from the robot's whole configuration.

Explicit `pairs` and `cameras` win; without them every port and source that says `sim` is taken.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recd.daemon.sim.arm import ArmSettings
from recd.daemon.sim.cameras import SIM, simulated_cameras
from recd.daemon.sim.robot import arms_of_pairs

_SERVO_US = 20.0
_SERVOS = 6


@dataclass(frozen=True, slots=True)
class Scene:
    """Arms by settings, cameras as fields of sensor.SimCameraSpec, and where their files go."""

    directory: Path
    arms: tuple[ArmSettings, ...]
    cameras: tuple[dict[str, Any], ...] = ()
    log_path: Path | None = None
    watched: str = field(default="")
    """Bus of the arm that the cameras look at."""


def read_scene(
    config: Mapping[str, Any], robot: Mapping[str, Any], runtime_dir: str | Path
) -> Scene:
    """Scene of a worker with section `config`, of a robot with the resolved configuration `robot`.

    ConfigError for keys or values that an arm does not have.
    """
    directory = Path(config.get("dir") or Path(runtime_dir) / "sim")
    pairs = config.get("pairs")
    if pairs is None:
        pairs = _simulated_pairs(config, robot, directory)
    arms = arms_of_pairs(pairs)
    log_path = config.get("log")
    return Scene(
        directory=directory,
        arms=tuple(arms),
        cameras=simulated_cameras(config, robot),
        log_path=Path(log_path) if log_path else None,
        watched=next((a.bus for a in arms if a.role == "follower"), arms[0].bus if arms else ""),
    )


def _simulated_pairs(
    config: Mapping[str, Any], robot: Mapping[str, Any], directory: Path
) -> dict[str, dict[str, Any]]:
    seed = int(config.get("seed", 0))
    through_us = max(0.0, float(config.get("reply_delay_us", 400)) - _SERVOS * _SERVO_US) / 2
    pairs: dict[str, dict[str, Any]] = {}
    for number, (pair, arm) in enumerate(robot.get("arms", {}).items()):
        sides = {side: arm.get(side) or {} for side in ("leader", "follower")}
        simulated = {side: f for side, f in sides.items() if f.get("port") == SIM}
        for side, fields in simulated.items():
            settings: dict[str, Any] = {
                "seed": seed + number,
                "out_us": through_us,
                "in_us": through_us,
                "servo_us": _SERVO_US,
            }
            if side == "leader":
                settings["hand"] = _leader_hand(config, attended="follower" in simulated)
            if fields.get("calibration"):
                settings["calibration"] = str(Path(fields["calibration"]).expanduser())
            elif fields.get("id"):
                settings["calibration"] = str(directory / "calibration" / f"{fields['id']}.json")
            pairs.setdefault(pair, {})[side] = settings
    return pairs


def _leader_hand(config: Mapping[str, Any], *, attended: bool) -> str:
    """Arming must find both arms alike: a person waits for the follower before beginning."""
    if not config.get("demonstration", True):
        return "still"
    return "attend" if attended else "demo"
