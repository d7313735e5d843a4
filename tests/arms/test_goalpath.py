from itertools import pairwise
from math import inf, isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd.config.streams import JointFlag
from recd.daemon.arms.goalpath import GoalPath, off_rest
from recd.daemon.arms.limits import JointLimits, speed_bound
from recd.daemon.arms.models import Unit
from recd.daemon.arms.normalize import joint_scale
from recd.daemon.arms.passes import doubles
from recd.daemon.arms.tickcode import PLAIN, machine_code

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
    assert list(way.goal) == [3.0]
    assert list(way.steps) == [
        joint_scale(1000, 3000, unit=Unit.DEGREES, inverted=False).to_steps(3.0)
    ]


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
    assert max(abs(b - a) for a, b in pairwise(steps)) <= STEP / way._scales[0].step + 1


def test_a_frozen_joint_keeps_its_goal_and_goes_on_gently() -> None:
    way = path()
    way.rest_at([2000])
    way.frozen[:] = [1]
    assert set(walked(way, 90.0, 10)) == {2000}
    way.frozen[:] = [0]
    assert max(abs(b - a) for a, b in pairwise(walked(way, 90.0, 10))) <= 13


def test_a_short_leash_brings_the_goal_to_the_arm() -> None:
    way = path()
    way.rest_at([2500])
    way.relative[:] = [2.0]
    for _ in range(400):
        way.ease([0.0])
    assert abs(way.goal[0]) <= 2.0


def test_parking_moves_only_the_joints_of_the_pose() -> None:
    way = path()
    way.rest_at([2000])
    assert way.approach([nan], [0.0])
    assert list(way.steps) == [2000]
    arrivals = [way.approach([2.0], [0.0]) for _ in range(12)]
    assert arrivals[-1]
    assert not arrivals[0]
    assert off_rest([9.0], [2.0])
    assert not off_rest([3.0], [2.0])
    assert not off_rest([90.0], [nan])


def full_turn(*, relative: float = inf) -> GoalPath:
    scale = joint_scale(0, 4095, unit=Unit.DEGREES, inverted=False)
    rules = JointLimits(scale.low, scale.high, relative, STEP, inf, 0.25)
    return GoalPath([rules], (scale,), glide_periods=4)


def test_a_pause_does_not_turn_a_joint_back_that_waits_beyond_its_seam() -> None:
    way = full_turn()
    way.rest_at([4080])
    way.begin()
    for reading in (178.0, 179.5, -179.5, -178.0):
        way.follow([reading], [nan])
    for _ in range(20):
        way.follow([-178.0], [nan])
    waiting = way.steps[0]
    assert waiting >= 4090
    way.glide()
    for _ in range(200):
        way.follow([-178.0], [nan])
        assert way.steps[0] == waiting
    assert max(abs(b - a) for a, b in pairwise(walked(way, 170.0, 40))) <= 13


def test_after_a_hand_over_the_seam_is_forgotten() -> None:
    way = full_turn()
    way.rest_at([4080])
    way.begin()
    for reading in (179.0, -179.0):
        way.follow([reading], [nan])
    way.begin()
    assert walked(way, -170.0, 60)[-1] < 4080 - 60


def test_an_arm_that_reads_beyond_its_seam_is_not_leashed_to_the_other_end() -> None:
    way = full_turn(relative=5.0)
    way.rest_at([4094])
    for _ in range(50):
        way.follow([179.9], [-179.9])
        assert way.steps[0] > 4000


def test_a_request_that_is_no_number_leaves_the_goal_where_it_is() -> None:
    way = path()
    way.rest_at([2000])
    assert set(walked(way, nan, 10)) == {2000}


@given(
    wanted=st.lists(st.floats(-250, 250) | st.just(nan), min_size=1, max_size=40),
    ends=st.tuples(st.integers(0, 4094), st.integers(1, 4095)).filter(lambda e: e[0] < e[1]),
    rest=st.integers(-400, 4500),
    unit=st.sampled_from(list(Unit)),
    inverted=st.booleans(),
    pauses=st.sets(st.integers(0, 40)),
)
def test_no_calibration_request_or_pause_makes_a_goal_jump(
    wanted, ends, rest, unit, inverted, pauses
) -> None:
    scale = joint_scale(*ends, unit=unit, inverted=inverted)
    rules = JointLimits(scale.low, scale.high, inf, STEP, inf, 0.25)
    way = GoalPath([rules], (scale,), glide_periods=4)
    way.rest_at([rest])
    way.begin()
    steps = [way.steps[0]]
    for at, request in enumerate(wanted):
        if at in pauses:
            way.glide()
        way.follow([request], [nan])
        steps.append(way.steps[0])
    assert max(abs(b - a) for a, b in pairwise(steps)) <= STEP / scale.step + 1


class Rules(GoalPath):
    """The same way by the rules as they are told, one joint after another."""

    def _go(self, wanted, present, seams=0):
        behind = 0.0
        for joint, asked in enumerate(wanted):
            previous = self.goal[joint]
            aim = previous if isnan(asked) else asked
            if seams and not isnan(asked):
                aim = self._over_the_seam(joint, asked)
            if not self.frozen[joint]:
                self._step(joint, aim, present[joint])
            self._change[joint] = self.goal[joint] - previous
            behind = max(behind, abs(self.goal[joint] - aim))
        return behind

    def _over_the_seam(self, joint, reading):
        turn, last = self.turns[joint], self._read[joint]
        self._read[joint] = reading
        if abs(reading - last) > turn / 2:
            self._offset[joint] += turn if reading < last else -turn
        return reading + self._offset[joint]

    def _step(self, joint, wanted, present):
        limits, previous, scale = self.limits[joint], self.goal[joint], self._scales[joint]
        bound = speed_bound(limits, self._share)
        if scale.turn != inf and not isnan(present):
            present += scale.turn * round((previous - present) / scale.turn)
        goal = min(limits.high, max(limits.low, wanted))
        if self.relative[joint] != inf and not isnan(present):
            goal = min(present + self.relative[joint], max(present - self.relative[joint], goal))
        along = self._change[joint] if goal > previous else -self._change[joint]
        most = min(bound, max(0.0, along) + limits.step_growth)
        self.goal[joint] = min(previous + most, max(previous - most, goal))
        most, before = int(bound / scale.step) + 1, self.steps[joint]
        steps = scale.to_steps(self.goal[joint])
        self.steps[joint] = min(before + most, max(before - most, steps))
        self.sent[joint] = scale.to_units(self.steps[joint])


CODES = {"Python": PLAIN, "machine code": machine_code()}


units = st.one_of(st.floats(-400.0, 400.0), st.just(nan))
periods = st.lists(
    st.tuples(
        st.sampled_from(["follow"] * 6 + ["approach", "coast", "ease", "glide", "begin", "freeze"]),
        st.tuples(units, units, units), st.tuples(units, units, units),
    ),
    max_size=60,
)  # fmt: skip


@pytest.mark.parametrize("code", CODES)
@given(periods, st.sampled_from([inf, 5.0]), st.lists(st.integers(0, 4095), min_size=3, max_size=3))
def test_every_goal_is_bit_for_bit_what_the_rules_say(code, program, relative, start) -> None:
    scales = (
        joint_scale(0, 4095, unit=Unit.DEGREES, inverted=False),
        joint_scale(900, 3100, unit=Unit.RANGE_M100_100, inverted=True),
        joint_scale(1000, 3000, unit=Unit.RANGE_0_100, inverted=False),
    )
    rules = [JointLimits(s.low, s.high, relative, 2.4, 0.7, 0.3) for s in scales]
    ways = [
        GoalPath(rules, scales, glide_periods=3, code=CODES[code]),
        Rules(rules, scales, glide_periods=3),
    ]
    for way in ways:
        way.rest_at(start)
        way.begin()
    for what, asked, present in program:
        told = []
        for way in ways:
            if way is ways[0] and present[0] > asked[0]:  # as a tick has them, new memory each time
                asked, present = doubles(asked), doubles(present)
            match what:
                case "follow":
                    told.append(way.follow(asked, present))
                case "approach":
                    told.append(way.approach(asked, present))
                case "coast" | "ease":
                    told.append(getattr(way, what)(present))
                case "freeze":
                    way.frozen[:] = [x > 0 for x in asked]
                case _:
                    getattr(way, what)()
        one, other = ways
        assert told[:1] == told[1:]
        for name in ("goal", "steps", "sent"):
            assert list(getattr(one, name)) == list(getattr(other, name)), name
