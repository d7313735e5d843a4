"""What the arms of an episode were: calibration, configuration, device. For manifest and dataset.

What the arm processes attached with decides; the files are read once, before anything is recorded.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from recd.config.errors import DeviceError
from recd.config.models import RobotConfig
from recd.daemon.arms.calibration import load_calibration
from recd.daemon.arms.side import arm_side
from recd.daemon.dataset import CalibrationUsed

DEVICE_FACTS = ("port", "usb_serial", "firmware", "calibration")
"""Of an arm's `attached` message: what the manifest keeps of the device."""


def sha256_of_config(section: Any) -> str:
    """Digest of a resolved section of the configuration."""
    plain = section.model_dump(mode="json")
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def calibration_key(robot: RobotConfig, bus: str) -> str:
    """Name of an arm in the dataset: `follower`, `left_leader`. A single pair's own name is free,
    and no part of the dataset."""
    pair, _, side = bus.partition(".")
    return f"{robot.joint_prefix(pair)}{side}"


def calibrations_of_files(robot: RobotConfig, runtime_dir: str) -> dict[str, CalibrationUsed]:
    """Calibration of every arm as its file is now.

    A file that cannot be read is left out: its arm process refuses to start and says why.
    """
    found = {}
    for bus in robot.buses():
        pair, _, role = bus.partition(".")
        side = arm_side(
            pair, role, robot.arms[pair].model_dump(mode="json"), runtime_dir=runtime_dir
        )
        try:
            read = load_calibration(side.calibration, side.joints, bus=bus)
        except DeviceError:
            continue
        found[calibration_key(robot, bus)] = CalibrationUsed(
            bus, read.sha256, str(read.path), read.as_dict()
        )
    return found


def calibrations_in_use(
    robot: RobotConfig, attached: Mapping[str, Mapping[str, Any]]
) -> dict[str, CalibrationUsed]:
    """The same as the arm processes tell it. attached: bus -> its newest `attached` message."""
    return {
        calibration_key(robot, bus): CalibrationUsed(
            bus, facts["calibration_sha256"], facts["calibration"], facts["calibration_values"]
        )
        for bus, facts in attached.items()
    }


def calibration_digests(attached: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """For the manifest: bus -> digest of the calibration it attached with."""
    return {bus: facts["calibration_sha256"] for bus, facts in sorted(attached.items())}


def arm_devices(attached: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """For the manifest: bus -> port, USB serial number, firmware, calibration file."""
    return {
        bus: {name: facts[name] for name in DEVICE_FACTS if facts.get(name)}
        for bus, facts in sorted(attached.items())
    }
