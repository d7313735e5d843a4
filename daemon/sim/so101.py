"""The SO-101 as it is built: joints, servo ids, ranges, weights; and its LeRobot calibration file.

Pose units, used wherever a joint is meant and not a servo: radians from the middle of the range,
for the gripper the open share 0..1.
"""

import json
import math
import random
from dataclasses import asdict, dataclass
from pathlib import Path

from recd.config.errors import DeviceError
from recd.daemon.sim.demonstration import REST
from recd.daemon.sim.motion import Mechanics
from recd.daemon.sim.registers import STEPS_PER_TURN

STEPS_PER_RADIAN = STEPS_PER_TURN / (2.0 * math.pi)


@dataclass(frozen=True, slots=True)
class JointPlan:
    """One joint of the arm. low, high: usual calibrated range in reported steps.

    weight: duty (0.1 %) that holds it against its own weight; free: turns without a stop.
    """

    name: str
    ident: int
    low: int
    high: int
    weight: float = 0.0
    free: bool = False
    opens: bool = False


PLAN: tuple[JointPlan, ...] = (
    JointPlan("shoulder_pan", 1, 745, 3370),
    JointPlan("shoulder_lift", 2, 870, 3215, weight=60.0),
    JointPlan("elbow_flex", 3, 880, 3090, weight=45.0),
    JointPlan("wrist_flex", 4, 850, 3195, weight=25.0),
    JointPlan("wrist_roll", 5, 0, 4095, free=True),
    JointPlan("gripper", 6, 2025, 3480, opens=True),
)


@dataclass(frozen=True, slots=True)
class JointCalibration:
    """One entry of a LeRobot calibration file, under the joint's name."""

    id: int
    drive_mode: int
    homing_offset: int
    range_min: int
    range_max: int


@dataclass(frozen=True, slots=True)
class Scale:
    """Between mechanical angle (steps) and pose units of one joint."""

    zero: float
    unit_steps: float
    low: float
    high: float

    def pose(self, angle: float) -> float:
        return (angle - self.zero) / self.unit_steps

    def angle(self, pose: float) -> float:
        """Angle of a pose, held inside the range."""
        return max(self.low, min(self.high, self.zero + pose * self.unit_steps))


def make_calibration(arm: str) -> dict[str, JointCalibration]:
    """Calibration as a person might have made it for the arm of this name; always the same."""
    chance = random.Random(f"calibration of {arm}")
    made = {}
    for plan in PLAN:
        low, high = (
            (plan.low, plan.high)
            if plan.free
            else (plan.low + chance.randint(-25, 25), plan.high + chance.randint(-25, 25))
        )
        made[plan.name] = JointCalibration(plan.ident, 0, chance.randint(-1400, 1400), low, high)
    return made


def write_calibration(path: Path, calibration: dict[str, JointCalibration]) -> None:
    """Write a LeRobot calibration file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(json.dumps({k: asdict(v) for k, v in calibration.items()}, indent=4))
    fresh.replace(path)


def read_calibration(path: Path) -> dict[str, JointCalibration]:
    """Read a LeRobot calibration file of an SO-101. DeviceError when it is not one."""
    try:
        raw = json.loads(path.read_text())
        found = {name: JointCalibration(**fields) for name, fields in raw.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DeviceError(
            f"{path}: expected a LeRobot calibration file, found: {error}",
            mend=f"Remove {path}; the simulated robot writes a new one.",
        ) from error
    missing = [plan.name for plan in PLAN if plan.name not in found]
    if missing:
        raise DeviceError(
            f"{path}: expected the six joints of an SO-101, {', '.join(missing)} missing",
            mend=f"Remove {path}; the simulated robot writes a new one.",
        )
    return found


def scale_of(plan: JointPlan, calibration: JointCalibration) -> Scale:
    """How this joint's angle and pose relate, given its calibration when the arm was built."""
    low = float(calibration.homing_offset + calibration.range_min)
    high = float(calibration.homing_offset + calibration.range_max)
    if plan.opens:
        return Scale(low, high - low, low, high)
    zero = (low + high) / 2.0
    if plan.free:
        low, high = -math.inf, math.inf
    return Scale(zero, STEPS_PER_RADIAN, low, high)


def mechanics_of(plan: JointPlan, scale: Scale) -> Mechanics:
    """Stops and weight: it falls towards the folded pose, and stops a little beyond the range."""
    at = [p.name for p in PLAN].index(plan.name)
    stops = None if plan.free else (scale.low - 12.0, scale.high + 12.0)
    return Mechanics(stops, rest=scale.angle(REST[at]), weight=plan.weight)
