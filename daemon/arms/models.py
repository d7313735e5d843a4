"""What an arm is made of: its joints, their servo ids and units. One table per model.

Limit: models whose joints all are STS3215 servos on one Feetech bus.
"""

from dataclasses import dataclass
from enum import Enum

STS3215_MODEL_NUMBER = 777
STS3215_STEPS_PER_TURN = 4096


class Unit(Enum):
    """How a joint's servo steps become dataset units (LeRobot's MotorNormMode)."""

    DEGREES = "degrees"
    RANGE_M100_100 = "range_m100_100"
    RANGE_0_100 = "range_0_100"


@dataclass(frozen=True, slots=True)
class Joint:
    """One joint: LeRobot's name, servo id, and whether it is a gripper (unit 0..100)."""

    name: str
    servo_id: int
    gripper: bool = False


SO_JOINTS = (
    Joint("shoulder_pan", 1),
    Joint("shoulder_lift", 2),
    Joint("elbow_flex", 3),
    Joint("wrist_flex", 4),
    Joint("wrist_roll", 5),
    Joint("gripper", 6, gripper=True),
)

ARM_MODELS: dict[str, tuple[Joint, ...]] = {"so100": SO_JOINTS, "so101": SO_JOINTS}
"""Joints by configured `type`, in the order of every joint vector."""


def joint_units(joints: tuple[Joint, ...], *, use_degrees: bool) -> tuple[Unit, ...]:
    """Unit of each joint, as LeRobot's SO classes choose them."""
    body = Unit.DEGREES if use_degrees else Unit.RANGE_M100_100
    return tuple(Unit.RANGE_0_100 if joint.gripper else body for joint in joints)
