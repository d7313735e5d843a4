"""What the numbers of an action mean: names, units, limits, in one order, with one fingerprint.

A policy echoes the fingerprint with every chunk; a robot that is calibrated or configured otherwise
has another one, and refuses.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recd.config.models import RobotConfig
from recd.daemon.arms.models import ARM_MODELS, joint_units

_DECIMALS = 3


@dataclass(frozen=True, slots=True)
class ActionLayout:
    """All dimensions of a robot's action, pair after pair.

    names: as the dataset's `action`; groups: pair -> slice of the dimensions that it drives.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    groups: Mapping[str, slice]

    @property
    def width(self) -> int:
        return len(self.names)

    @property
    def layout_id(self) -> str:
        """16 hex digits of names, units and limits in their order."""
        rounded = [[round(v, _DECIMALS) for v in limit] for limit in (self.low, self.high)]
        said = json.dumps([self.names, self.units, *rounded])
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """For `describe`: what a client has to know to build a chunk."""
        return {
            "layout": self.layout_id,
            "names": list(self.names),
            "units": list(self.units),
            "low": list(self.low),
            "high": list(self.high),
            "groups": {pair: [part.start, part.stop] for pair, part in self.groups.items()},
        }


def layout_of(
    robot: RobotConfig, limits: Mapping[str, tuple[Sequence[float], Sequence[float]]]
) -> ActionLayout:
    """Layout of a robot. limits: pair -> (low, high) per joint, as its follower goes by them."""
    units: list[str] = []
    low: list[float] = []
    high: list[float] = []
    groups: dict[str, slice] = {}
    for pair, arm in robot.arms.items():
        joints = ARM_MODELS[arm.type]
        groups[pair] = slice(len(units), len(units) + len(joints))
        units += [str(unit.value) for unit in joint_units(joints, use_degrees=arm.use_degrees)]
        low += [float(value) for value in limits[pair][0]]
        high += [float(value) for value in limits[pair][1]]
    return ActionLayout(robot.feature_joints(), tuple(units), tuple(low), tuple(high), groups)
