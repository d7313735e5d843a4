import json
from pathlib import Path

import pytest

from recd.daemon.arms.models import SO_JOINTS, Unit, joint_units
from recd.daemon.arms.normalize import Scale, joint_scale

GOLDEN = json.loads((Path(__file__).parent / "normalize_golden.json").read_text())


def scales(joints: list[dict]) -> list[Scale]:
    return [
        joint_scale(
            joint["min"], joint["max"], unit=Unit(joint["unit"]), inverted=bool(joint["drive"])
        )
        for joint in joints
    ]


@pytest.mark.parametrize("case", GOLDEN, ids=range(len(GOLDEN)))
def test_every_bit_agrees_with_what_lerobot_answered(case: dict) -> None:
    ours = scales(case["joints"])
    units = [scale.to_units(raw) for scale, raw in zip(ours, case["raw"], strict=True)]
    assert units == [float.fromhex(value) for value in case["normalized"]]
    asked = [float.fromhex(value) for value in case["units"]]
    steps = [scale.to_steps(value) for scale, value in zip(ours, asked, strict=True)]
    assert steps == case["steps"]
    again = [scale.to_steps(value) for scale, value in zip(ours, units, strict=True)]
    assert again == case["round_trip"]


def test_known_values_of_a_full_turn_and_a_gripper() -> None:
    assert joint_scale(0, 4095, unit=Unit.DEGREES, inverted=False).to_steps(10.0) == 2161
    assert joint_scale(0, 4095, unit=Unit.RANGE_0_100, inverted=False).to_steps(10.0) == 409


@pytest.mark.parametrize("unit", [Unit.RANGE_M100_100, Unit.RANGE_0_100])
def test_position_limits_are_ordered_also_for_inverted_joints(unit: Unit) -> None:
    inverted = joint_scale(1000, 3000, unit=unit, inverted=True)
    assert inverted.low < inverted.high
    ends = {inverted.to_units(1000), inverted.to_units(3000)}
    assert ends == {inverted.low, inverted.high}


def test_only_a_whole_turn_has_a_seam_and_a_gripper_never() -> None:
    assert joint_scale(0, 4095, unit=Unit.DEGREES, inverted=False).turn == pytest.approx(360, 1e-3)
    assert joint_scale(0, 4094, unit=Unit.DEGREES, inverted=False).turn == float("inf")
    assert joint_scale(0, 4095, unit=Unit.RANGE_0_100, inverted=False).turn == float("inf")
    whole = joint_scale(0, 4095, unit=Unit.RANGE_M100_100, inverted=False)
    assert whole.turn == pytest.approx(200, 1e-3)


def test_the_gripper_is_in_percent_whatever_the_body_is_in() -> None:
    for use_degrees, body in ((True, Unit.DEGREES), (False, Unit.RANGE_M100_100)):
        units = joint_units(SO_JOINTS, use_degrees=use_degrees)
        assert units == (body,) * 5 + (Unit.RANGE_0_100,)
