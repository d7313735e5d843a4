"""recd as a robot of LeRobot: `--robot.type=recd`. lerobot imports this package by its name."""

try:
    import recd.clients.policy  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"lerobot_robot_recd: expected recd's client in this environment, found: {error}. "
        "Mend: pip install --no-deps RECD_CHECKOUT; pip install pyzmq msgpack"
    ) from error

from .config_recd import RecdRobotConfig
from .robot import RecdRobot

__all__ = ["RecdRobot", "RecdRobotConfig"]
