from itertools import pairwise
from math import inf, nan

from recd.config.streams import JointFlag
from recd.daemon.arms.goalpath import GoalPath, off_rest
from recd.daemon.arms.limits import JointLimits
from recd.daemon.arms.models import Unit
from recd.daemon.arms.normalize import joint_scale

STEP = 1.0


def path(unit: Unit = Unit.DEGREES, *, relative: float = inf) -> GoalPath:
    scale = joint_scale(1000, 3000, unit=unit, inverted=False)
    rules = JointLimits(scale.low, scale.high, relative, STEP, inf, 0.25)
    return GoalPath([rules], (scale,), glide_periods=4)


def walked(way: GoalPath, requested: float, count: int) -> list[int]:
    steps = [way.steps[0]]
    for _ in range(count):
        way.follow([requested], [nan])
        steps.append(way.steps[0])
    return steps


def test_a_hand_over_glides_and_then_follows_bit_for_bit() -> None:
    way = path()
    way.rest_at([2000])
    way.begin()
    flags = [way.follow([3.0], [0.0]) for _ in range(12)]
    assert flags[:8] == [JointFlag.RAMPING] * 8
    assert flags[8:] == [0] * 4
    assert way.goal == [3.0]
    assert way.steps == [joint_scale(1000, 3000, unit=Unit.DEGREES, inverted=False).to_steps(3.0)]


def test_a_request_beyond_the_range_is_flagged_as_clipped() -> None:
    way = path()
    way.rest_at([2990])
    for _ in range(20):
        flags = way.follow([150.0], [nan])
    assert flags == JointFlag.CLIPPED
    assert way.steps[0] <= 3000


def test_an_arm_outside_its_range_comes_back_in_bounded_steps() -> None:
    way = path(Unit.RANGE_0_100)
    way.rest_at([700])
    steps = walked(way, 50.0, 200)
    assert steps[0] == 700
    assert steps[-1] == 2000
    assert max(abs(b - a) for a, b in pairwise(steps)) <= STEP / way._step_units[0] + 1


def test_a_frozen_joint_keeps_its_goal_and_goes_on_gently() -> None:
    way = path()
    way.rest_at([2000])
    way.frozen = [True]
    assert set(walked(way, 90.0, 10)) == {2000}
    way.frozen = [False]
    assert max(abs(b - a) for a, b in pairwise(walked(way, 90.0, 10))) <= 13


def test_a_short_leash_brings_the_goal_to_the_arm() -> None:
    way = path()
    way.rest_at([2500])
    way.relative = [2.0]
    for _ in range(400):
        way.ease([0.0])
    assert abs(way.goal[0]) <= 2.0


def test_parking_moves_only_the_joints_of_the_pose() -> None:
    way = path()
    way.rest_at([2000])
    assert way.approach([nan], [0.0])
    assert way.steps == [2000]
    arrivals = [way.approach([2.0], [0.0]) for _ in range(12)]
    assert arrivals[-1]
    assert not arrivals[0]
    assert off_rest([9.0], [2.0])
    assert not off_rest([3.0], [2.0])
    assert not off_rest([90.0], [nan])
