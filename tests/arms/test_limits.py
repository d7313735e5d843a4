from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd.config.errors import ConfigError
from recd.daemon.arms.limits import (
    JointLimits,
    glide_share,
    relative_limits,
    speed_bound,
)
from recd.daemon.arms.passes import HALF_TURN, PATH_COLUMNS, READ, TURN, doubles, limited, over_seam

NAMES = ("a", "b")


def limits(**changes: float) -> JointLimits:
    values = {"low": -90.0, "high": 90.0, "relative": inf, "step": 2.0, "step_growth": inf,
              "glide_step": 0.5} | changes  # fmt: skip
    return JointLimits(**values)


class Walk:
    def __init__(self, rules: JointLimits, start: float) -> None:
        self.rules = rules
        self.goal = start
        self.change = 0.0

    def to(self, requested: float, present: float | None = None) -> float:
        rules = self.rules
        goal = limited(
            rules.low, rules.high, rules.relative, rules.step, rules.step_growth, requested,
            self.goal if present is None else present, self.goal, self.change,
        )  # fmt: skip
        self.change, self.goal = goal - self.goal, goal
        return goal


def test_a_goal_that_no_limit_touches_is_bit_for_bit_the_request() -> None:
    walk = Walk(limits(step=50.0), start=0.1)
    for requested in (0.1 + 0.2, 12.34567890123, -7.77):
        assert walk.to(requested) == requested


@given(
    st.lists(st.floats(-500, 500), min_size=1, max_size=40),
    st.floats(-90, 90),
    st.one_of(st.floats(0.1, 40), st.just(inf)),
    st.floats(0.01, 10),
    st.floats(-200, 200),
)
def test_no_two_goals_lie_further_apart_than_a_period_allows(
    requests, start, relative, step, present
) -> None:
    walk = Walk(limits(relative=relative, step=step, step_growth=step / 3), start)
    before, change = start, 0.0
    for requested in requests:
        goal = walk.to(requested, present)
        moved = goal - before
        along = max(change if moved > 0 else -change, 0.0)
        assert abs(moved) <= step * (1 + 1e-9) + 1e-9
        assert abs(moved) <= along + step / 3 + 1e-9
        before, change = goal, moved


def test_range_clamps_the_goal() -> None:
    walk = Walk(limits(step=500.0), start=0.0)
    assert walk.to(120.0) == 90.0
    assert walk.to(-120.0) == -90.0


def test_relative_target_clamps_around_the_arm_not_the_last_goal() -> None:
    walk = Walk(limits(step=500.0, relative=5.0), start=0.0)
    assert walk.to(50.0, present=10.0) == 15.0
    assert walk.to(50.0, present=14.0) == 19.0


def test_relative_target_of_a_silent_joint_does_not_poison_its_goal() -> None:
    walk = Walk(limits(step=500.0, relative=5.0), start=0.0)
    assert walk.to(50.0, present=nan) == 50.0


def test_speed_grows_slowly_and_stops_at_once() -> None:
    walk = Walk(limits(step=2.0, step_growth=0.5), start=0.0)
    assert [walk.to(100.0) for _ in range(5)] == [0.5, 1.5, 3.0, 5.0, 7.0]
    assert walk.to(7.0) == 7.0
    assert walk.to(-100.0) == 6.5


def test_glide_begins_slow_and_rises_to_full_speed() -> None:
    rules = limits()
    bounds = [speed_bound(rules, glide_share(periods, 10)) for periods in range(25)]
    assert bounds[:11] == [0.5] * 11
    assert bounds == sorted(bounds)
    assert bounds[20:] == [2.0] * 5


def test_relative_limits_take_lerobots_three_forms() -> None:
    assert relative_limits(None, NAMES, key="k") == (inf, inf)
    assert relative_limits(3.0, NAMES, key="k") == (3.0, 3.0)
    assert relative_limits({"b": 2.0, "a": 1.0}, NAMES, key="k") == (1.0, 2.0)
    with pytest.raises(ConfigError, match="exactly the joints a, b"):
        relative_limits({"a": 1.0}, NAMES, key="k")


def seam(turn: float):
    table = doubles([0.0] * PATH_COLUMNS)
    table[TURN], table[HALF_TURN], table[READ] = turn, turn / 2, nan
    return table


def test_a_leader_over_the_seam_goes_on_and_comes_back() -> None:
    full, plain = seam(360.0), seam(0.0)
    readings = [170.0, 179.0, -179.0, -170.0, -179.0, 179.0, 170.0]
    followed = [over_seam(full, 1, 0, reading) for reading in readings]
    assert followed == [170.0, 179.0, 181.0, 190.0, 181.0, 179.0, 170.0]
    assert [over_seam(plain, 1, 0, reading) for reading in readings] == readings
