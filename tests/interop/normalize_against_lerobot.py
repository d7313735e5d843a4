"""Compare our normalisation with the real lerobot, bit by bit; `--golden FILE` writes its answers.

Runs in lerobot's own environment: python tests/interop/normalize_against_lerobot.py [--golden FILE]
"""

import argparse
import json
import random
import struct
import sys
from pathlib import Path
from typing import Any

from lerobot.motors import Motor, MotorCalibration, MotorNormMode
from lerobot.motors.feetech import FeetechMotorsBus

from recd.daemon.arms.models import SO_JOINTS, Unit
from recd.daemon.arms.normalize import joint_scale

MODES = {
    Unit.DEGREES: MotorNormMode.DEGREES,
    Unit.RANGE_M100_100: MotorNormMode.RANGE_M100_100,
    Unit.RANGE_0_100: MotorNormMode.RANGE_0_100,
}


def arm(rng: random.Random) -> list[dict[str, Any]]:
    """Six joints with random ranges, modes and directions; some span the whole turn."""
    joints = []
    for joint in SO_JOINTS:
        low, high = sorted(rng.sample(range(4096), 2))
        if rng.random() < 0.2:
            low, high = 0, 4095
        unit = Unit.RANGE_0_100 if joint.gripper else rng.choice(list(Unit))
        joints.append({"min": low, "max": high, "drive": rng.randrange(2), "unit": unit.value})
    return joints


def lerobot_bus(joints: list[dict[str, Any]]) -> FeetechMotorsBus:
    """The real bus class of lerobot, never connected."""
    motors, calibration = {}, {}
    for joint, spec in zip(SO_JOINTS, joints, strict=True):
        motors[joint.name] = Motor(joint.servo_id, "sts3215", MODES[Unit(spec["unit"])])
        calibration[joint.name] = MotorCalibration(
            joint.servo_id, spec["drive"], 0, spec["min"], spec["max"]
        )
    return FeetechMotorsBus("/dev/null", motors, calibration)


def case(rng: random.Random) -> dict[str, Any]:
    """One arm, one vector of steps, one of units, and lerobot's answers."""
    joints = arm(rng)
    bus = lerobot_bus(joints)
    ids = [joint.servo_id for joint in SO_JOINTS]
    raw = [rng.randrange(-200, 4296) for _ in ids]
    units = [rng.choice((rng.uniform(-220, 220), float(rng.randrange(-100, 101)))) for _ in ids]
    there = bus._normalize(dict(zip(ids, raw, strict=True)))
    back = bus._unnormalize(dict(zip(ids, units, strict=True)))
    again = bus._unnormalize(there)
    return {
        "joints": joints,
        "raw": raw,
        "normalized": [float(there[i]).hex() for i in ids],
        "units": [value.hex() for value in units],
        "steps": [back[i] for i in ids],
        "round_trip": [again[i] for i in ids],
    }


def ours(one: dict[str, Any]) -> tuple[list[str], list[int], list[int]]:
    """Our answers to the same questions."""
    scales = [
        joint_scale(
            joint["min"], joint["max"], unit=Unit(joint["unit"]), inverted=bool(joint["drive"])
        )
        for joint in one["joints"]
    ]
    units = [scale.to_units(raw) for scale, raw in zip(scales, one["raw"], strict=True)]
    again = [scale.to_steps(value) for scale, value in zip(scales, units, strict=True)]
    asked = [float.fromhex(value) for value in one["units"]]
    back = [scale.to_steps(value) for scale, value in zip(scales, asked, strict=True)]
    return [float(value).hex() for value in units], back, again


def same(one: dict[str, Any]) -> bool:
    """True when every bit agrees (-0.0 counts as 0.0)."""
    units, back, again = ours(one)
    bits = [struct.pack("<d", float.fromhex(value) + 0.0) for value in units]
    wanted = [struct.pack("<d", float.fromhex(value) + 0.0) for value in one["normalized"]]
    return bits == wanted and back == one["steps"] and again == one["round_trip"]


def main() -> int:
    """Exit 0 when all cases agree, 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--golden", type=Path)
    arguments = parser.parse_args()
    rng = random.Random(7)
    if arguments.golden:
        cases = [case(rng) for _ in range(60)]
        arguments.golden.write_text(json.dumps(cases, separators=(",", ":")) + "\n")
        return 0
    wrong = sum(not same(case(rng)) for _ in range(arguments.cases))
    print(f"{arguments.cases} arms compared with lerobot, {wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
