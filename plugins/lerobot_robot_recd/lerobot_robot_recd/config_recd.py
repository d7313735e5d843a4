"""What `--robot.type=recd` may be told. Joints, limits and cameras are the daemon's to say."""

from dataclasses import dataclass
from pathlib import Path

from lerobot.robots.config import RobotConfig

FPS = (1.0, 500.0)
HOLD_S = (0.05, 5.0)


@RobotConfig.register_subclass("recd")
@dataclass(kw_only=True)
class RecdRobotConfig(RobotConfig):
    """Keys of `--robot.*`. ValueError, with what was found, for a value that cannot be."""

    endpoint: str | None = None
    """The daemon's policy address (tcp://ROBOT:5595); none: the daemon on this computer."""
    instance: str | None = None
    """Which daemon on this computer, when several run."""
    key: Path | None = None
    """This client's key, for another computer; none: RECD_KEY or recd's default place."""
    fps: float = 30.0
    """How often lerobot sends actions: an action is reached after one such step."""
    hold_s: float = 0.3
    """How long an action stands when no other follows; then the arm holds (queue_empty)."""
    attach_s: float = 120.0
    """How long `connect` waits for a person's `recctl policy attach`; 0: go on without."""
    busy_s: float = 120.0
    """How long lerobot may do something else (save an episode) and keep the lease. The arm holds
    meanwhile."""
    frames_s: float = 2.0
    """How long a picture or joint in trouble is waited for, before it ends the program."""
    new_frames: bool = True
    """Wait for pictures that were not given yet; false where the loop is faster than they are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within = {"fps": FPS, "hold_s": HOLD_S, "attach_s": (0, 86_400), "busy_s": (0, 86_400),
                  "frames_s": (0, 3_600)}  # fmt: skip
        for name, (least, most) in within.items():
            found = getattr(self, name)
            if not least <= found <= most:  # NaN is not within
                raise ValueError(f"robot.{name}: expected {least:g}..{most:g}, found {found!r}")
        if self.endpoint is not None and self.instance is not None:
            raise ValueError("robot.endpoint and robot.instance: expected one of them, found both")
