"""One side of a pair as its process needs it: joints, units, files, limits, from plain config.

Takes the dictionaries that workers get (RobotConfig.model_dump), never the models themselves: an
arm process does not pay for pydantic.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recd.config.errors import ConfigError, ConfigProblem
from recd.daemon.arms.calibration import calibration_path
from recd.daemon.arms.goalpath import GoalPath
from recd.daemon.arms.limits import JointLimits, relative_limits
from recd.daemon.arms.models import ARM_MODELS, Joint, Unit, joint_units
from recd.daemon.arms.normalize import Scales
from recd.daemon.arms.protection import Guard, guards
from recd.daemon.arms.registers import Gains, Setting, follower_settings, leader_settings
from recd.daemon.arms.tickcode import PLAIN, Code
from recd.shm.clock import NS_PER_S

SIMULATED = "sim"
SIM_FOLDER = "sim"
"""Folder below the runtime directory in which the simulated robot has its ports and files."""


@dataclass(frozen=True, slots=True)
class ArmSide:
    """One bus. bus: `<pair>.<role>`; port: path to open; settings: registers per joint; names: of
    the joints."""

    bus: str
    role: str
    port: str
    baud: int
    calibration: Path
    joints: tuple[Joint, ...]
    units: tuple[Unit, ...]
    settings: tuple[tuple[Setting, ...], ...]
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        # Once, not at each use: a tuple made from a generator changes its size, and CPython then
        # keeps each one in a free list that nobody takes from [5 a second, up to 2,000].
        object.__setattr__(self, "names", tuple(joint.name for joint in self.joints))

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(joint.servo_id for joint in self.joints)


def arm_side(pair: str, role: str, config: Mapping[str, Any], *, runtime_dir: str) -> ArmSide:
    """The `role` side of a pair's configuration. A port called `sim` is the simulated robot's."""
    side = config[role]
    bus = f"{pair}.{role}"
    joints = ARM_MODELS[config["type"]]
    port, override = side["port"], side["calibration"]
    if port == SIMULATED:
        folder = Path(runtime_dir) / SIM_FOLDER
        port = str(folder / bus)
        override = override or str(folder / "calibration" / f"{side['id'] or bus}.json")
    if role == "follower":
        gains = Gains(side["p_coefficient"], side["i_coefficient"], side["d_coefficient"])
        settings = tuple(follower_settings(joint, gains) for joint in joints)
    else:
        settings = tuple(leader_settings(joint) for joint in joints)
    return ArmSide(
        bus=bus,
        role=role,
        port=port,
        baud=side["baud"],
        calibration=calibration_path(role, side["id"], override=override),
        joints=joints,
        units=joint_units(joints, use_degrees=config["use_degrees"]),
        settings=settings,
    )


def goal_path(
    pair: str, config: Mapping[str, Any], scales: Scales, names: tuple[str, ...],
    code: Code = PLAIN,
) -> GoalPath:  # fmt: skip
    """Goal path of a pair's follower with its configured limits, at the pair's control rate.

    code: the passes, as Python or as machine code."""
    limits, rate_hz = config["limits"], config["rate_hz"]
    step = limits["velocity_per_s"] / rate_hz
    relative = relative_limits(
        config["follower"]["max_relative_target"],
        names,
        key=f"arms.{pair}.follower.max_relative_target",
    )
    joints = tuple(
        JointLimits(
            low=scale.low,
            high=scale.high,
            relative=apart,
            step=step,
            step_growth=limits["acceleration_per_s2"] / rate_hz**2,
            glide_step=min(step, limits["ramp_velocity_per_s"] / rate_hz),
        )
        for scale, apart in zip(scales, relative, strict=True)
    )
    glide_periods = max(1, round(limits["ramp_s"] * rate_hz))
    return GoalPath(joints, scales, glide_periods=glide_periods, code=code)


def protection_guards(config: Mapping[str, Any]) -> tuple[Guard, ...]:
    """The protection table with the configured thresholds."""
    limits = config["limits"]
    return guards(
        temperature_warn_c=limits["temperature_warn_c"],
        temperature_release_c=limits["temperature_release_c"],
        load_warn=limits["load_warn"],
        voltage_min=limits["voltage_min"],
    )


def park_pose(pair: str, config: Mapping[str, Any], names: tuple[str, ...]) -> list[float] | None:
    """Resting pose in units per joint, NaN for joints that stay; None when there is none."""
    pose = config["park"]
    if not pose:
        return None
    if not set(pose) <= set(names):
        unknown = ", ".join(sorted(set(pose) - set(names)))
        raise ConfigError(
            [ConfigProblem(f"arms.{pair}.park", "", f"joints of {', '.join(names)}", unknown)]
        )
    return [float(pose.get(name, "nan")) for name in names]


def period_ns(config: Mapping[str, Any]) -> int:
    """Control period of the pair."""
    return NS_PER_S // int(config["rate_hz"])
