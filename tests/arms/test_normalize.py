import json
from pathlib import Path

import numpy as np
import pytest

from recd.daemon.arms.models import SO_JOINTS, Unit, joint_units
from recd.daemon.arms.normalize import Normalizer

GOLDEN = json.loads((Path(__file__).parent / "normalize_golden.json").read_text())


def normalizer(joints: list[dict]) -> Normalizer:
    return Normalizer(
        tuple(joint["min"] for joint in joints),
        tuple(joint["max"] for joint in joints),
        inverted=tuple(bool(joint["drive"]) for joint in joints),
        units=tuple(Unit(joint["unit"]) for joint in joints),
    )


@pytest.mark.parametrize("case", GOLDEN, ids=range(len(GOLDEN)))
def test_every_bit_agrees_with_what_lerobot_answered(case: dict) -> None:
    ours = normalizer(case["joints"])
    units = ours.to_units(np.array(case["raw"], dtype=np.int32), np.empty(6))
    assert [float(value) + 0.0 for value in units] == [
        float.fromhex(value) for value in case["normalized"]
    ]
    asked = np.array([float.fromhex(value) for value in case["units"]])
    assert ours.to_steps(asked, np.empty(6, dtype=np.int32)).tolist() == case["steps"]
    again = ours.to_steps(units, np.empty(6, dtype=np.int32))
    assert again.tolist() == case["round_trip"]


def test_known_values_of_a_full_turn_and_a_gripper() -> None:
    turn = Normalizer(
        (0, 0), (4095, 4095), inverted=(False, False), units=(Unit.DEGREES, Unit.RANGE_0_100)
    )
    steps = turn.to_steps(np.array([10.0, 10.0]), np.empty(2, dtype=np.int32))
    assert steps.tolist() == [2161, 409]


def test_position_limits_are_ordered_also_for_inverted_joints() -> None:
    inverted = Normalizer(
        (1000, 1000), (3000, 3000), inverted=(True, True),
        units=(Unit.RANGE_M100_100, Unit.RANGE_0_100),
    )  # fmt: skip
    low, high = inverted.position_limits()
    assert low.tolist() == [-100.0, 0.0]
    assert high.tolist() == [100.0, 100.0]


def test_the_gripper_is_in_percent_whatever_the_body_is_in() -> None:
    for use_degrees, body in ((True, Unit.DEGREES), (False, Unit.RANGE_M100_100)):
        units = joint_units(SO_JOINTS, use_degrees=use_degrees)
        assert units == (body,) * 5 + (Unit.RANGE_0_100,)
