"""LeRobot's calibration files: read as they are, compared with what the servos hold.

Nothing here writes to a servo or asks anybody; a mismatch is an error that says whose it is.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recd.config.errors import DeviceError
from recd.daemon.arms.models import STS3215_STEPS_PER_TURN, Joint, Unit
from recd.daemon.arms.normalize import Scales, joint_scale

ROLE_FOLDERS: dict[str, str] = {
    "follower": "robots/so_follower",
    "leader": "teleoperators/so_leader",
}
"""LeRobot names the folder after its class, so SO-100 and SO-101 share one."""

_FIELDS = ("id", "drive_mode", "homing_offset", "range_min", "range_max")


@dataclass(frozen=True, slots=True)
class JointCalibration:
    """One joint. homing_offset, range_min, range_max: servo steps; drive_mode: 1 is inverted."""

    id: int
    drive_mode: int
    homing_offset: int
    range_min: int
    range_max: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """All joints of one arm in configured order, and the file they came from."""

    path: Path
    names: tuple[str, ...]
    joints: tuple[JointCalibration, ...]

    def scales(self, units: tuple[Unit, ...]) -> Scales:
        """Steps <-> units of each joint of this arm."""
        return tuple(
            joint_scale(
                joint.range_min, joint.range_max, unit=unit, inverted=bool(joint.drive_mode)
            )
            for joint, unit in zip(self.joints, units, strict=True)
        )

    def as_dict(self) -> dict[str, dict[str, int]]:
        """The content of the file, for manifests and hashes."""
        return {
            name: {field: int(getattr(joint, field)) for field in _FIELDS}
            for name, joint in zip(self.names, self.joints, strict=True)
        }

    @property
    def sha256(self) -> str:
        """Digest of the content, however the file is laid out."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()


def calibration_home(environ: Mapping[str, str] | None = None) -> Path:
    """LeRobot's calibration folder, by its own rules for environment variables."""
    env = os.environ if environ is None else environ
    cache = env.get("XDG_CACHE_HOME", "~/.cache")
    hub = env.get("HF_HOME", os.path.join(cache, "huggingface"))
    home = env.get("HF_LEROBOT_HOME", os.path.join(hub, "lerobot"))
    chosen = env.get("HF_LEROBOT_CALIBRATION", os.path.join(home, "calibration"))
    return Path(os.path.expandvars(chosen)).expanduser()


def calibration_path(
    role: str, arm_id: str, *, override: str | None = None, environ: Mapping[str, str] | None = None
) -> Path:
    """Where the calibration of this arm is: `override`, or LeRobot's place for role and id."""
    if override:
        return Path(override).expanduser()
    return calibration_home(environ) / ROLE_FOLDERS[role] / f"{arm_id or 'None'}.json"


def load_calibration(path: Path, joints: tuple[Joint, ...], *, bus: str) -> Calibration:
    """Read LeRobot's JSON. DeviceError names the bus, the file, what is wrong and the mend."""
    key = f"arms.{bus}.calibration"
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise DeviceError(_missing(path, bus), mend=_calibrate_command(bus, path)) from None
    except (OSError, ValueError) as error:
        raise DeviceError(
            f"{key}: {path} cannot be read as a calibration file: {error}",
            mend=_calibrate_command(bus, path),
        ) from None
    wanted = {joint.name for joint in joints}
    if not isinstance(content, dict) or set(content) != wanted:
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise DeviceError(
            f"{key}: {path} is not of this kind of arm: expected joints {sorted(wanted)}, "
            f"found {found}",
            mend="Give the file of this arm, or calibrate it with lerobot-calibrate.",
        )
    parsed = tuple(_joint(content[joint.name], joint, key=key, path=path) for joint in joints)
    return Calibration(path, tuple(joint.name for joint in joints), parsed)


def _joint(entry: Any, joint: Joint, *, key: str, path: Path) -> JointCalibration:
    mend = "Calibrate this arm again with lerobot-calibrate."
    if not isinstance(entry, dict) or any(not isinstance(entry.get(f), int) for f in _FIELDS):
        raise DeviceError(
            f"{key}: {path}: {joint.name}: expected whole numbers {', '.join(_FIELDS)}, "
            f"found {entry!r}",
            mend=mend,
        )
    found = JointCalibration(**{field: entry[field] for field in _FIELDS})
    if found.id != joint.servo_id:
        raise DeviceError(
            f"{key}: {path}: {joint.name}: expected servo id {joint.servo_id}, found {found.id}",
            mend=mend,
        )
    if not 0 <= found.range_min < found.range_max < STS3215_STEPS_PER_TURN:
        raise DeviceError(
            f"{key}: {path}: {joint.name}: expected 0 <= range_min < range_max <= "
            f"{STS3215_STEPS_PER_TURN - 1}, found {found.range_min}..{found.range_max}",
            mend=mend,
        )
    return found


def _missing(path: Path, bus: str) -> str:
    siblings = sorted(file.stem for file in path.parent.glob("*.json"))
    there = f"that folder has {', '.join(siblings)}" if siblings else "that folder has none"
    return f"arms.{bus}: no calibration file {path} ({there})"


def _calibrate_command(bus: str, path: Path) -> str:
    role = bus.rpartition(".")[2]
    option = "robot" if role == "follower" else "teleop"
    return (
        f"Set arms.{bus}.id or .calibration, or make one: lerobot-calibrate "
        f"--{option}.type=so101_{role} --{option}.port=PORT --{option}.id={path.stem}"
    )


@dataclass(frozen=True, slots=True)
class ServoCalibration:
    """What one servo's EEPROM holds, in steps."""

    homing_offset: int
    range_min: int
    range_max: int


_RESET = ServoCalibration(0, 0, STS3215_STEPS_PER_TURN - 1)


def differences(
    calibration: Calibration, servos: tuple[ServoCalibration, ...]
) -> tuple[tuple[str, str], ...]:
    """(joint, what differs) for each joint whose servo does not hold the file's values."""
    found = []
    for name, wanted, servo in zip(calibration.names, calibration.joints, servos, strict=True):
        words = [
            f"{field} file {getattr(wanted, field)}, servo {getattr(servo, field)}"
            for field in ("homing_offset", "range_min", "range_max")
            if getattr(wanted, field) != getattr(servo, field)
        ]
        if words:
            found.append((name, "; ".join(words)))
    return tuple(found)


def check_calibration(
    calibration: Calibration,
    servos: tuple[ServoCalibration, ...],
    *,
    joints: tuple[Joint, ...],
    bus: str,
) -> None:
    """Raise DeviceError unless every servo holds the file's offsets and limits.

    The text tells the usual cases apart: servos that were never calibrated or were replaced, the
    file of another arm (and which file would fit), a few joints that differ.
    """
    wrong = differences(calibration, servos)
    if not wrong:
        return
    listing = "".join(f"\n    {name}: {words}" for name, words in wrong)
    head = f"arms.{bus}: {calibration.path} does not belong to the servos on this bus"
    blank = [n for n, s in zip(calibration.names, servos, strict=True) if s == _RESET]
    blank = [name for name in blank if name in {joint for joint, _ in wrong}]
    owner = _matching_file(calibration, servos, joints=joints, bus=bus)
    if owner is not None:
        raise DeviceError(
            f"{head}: calibration of another arm{listing}",
            mend=f"The servos hold {owner}. Set arms.{bus}.id: {owner.stem}, or swap the ports "
            "of the two arms.",
            code="calibration",
        )
    if blank:
        raise DeviceError(
            f"{head}: not calibrated or replaced: {', '.join(blank)}{listing}",
            mend=_write_back(bus, calibration.path),
            code="calibration",
        )
    cause = "calibration of another arm" if len(wrong) > 1 else "one joint differs"
    raise DeviceError(
        f"{head}: {cause}{listing}", mend=_write_back(bus, calibration.path), code="calibration"
    )


def _write_back(bus: str, path: Path) -> str:
    return (
        f"Set arms.{bus}.id to this arm's. If the file is right, lerobot-calibrate with its id "
        f"({path.stem}) and ENTER writes it to the servos; 'c' calibrates again."
    )


def _matching_file(
    calibration: Calibration,
    servos: tuple[ServoCalibration, ...],
    *,
    joints: tuple[Joint, ...],
    bus: str,
) -> Path | None:
    for path in sorted(calibration.path.parent.glob("*.json")):
        if path == calibration.path:
            continue
        try:
            other = load_calibration(path, joints, bus=bus)
        except DeviceError:
            continue  # a stranger's or damaged file beside ours is not this arm's concern
        if not differences(other, servos):
            return path
    return None
