import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd.config.errors import ConfigError
from recd.daemon.arms.limits import GoalLimits, Unwrapper, limit_goal, relative_vector

NAMES = ("a", "b")
INF = float("inf")


def limits(**changes: float) -> GoalLimits:
    values = {"low": -90.0, "high": 90.0, "relative": INF, "step": 2.0, "step_growth": INF,
              "glide_step": 0.5} | changes  # fmt: skip
    vectors = {name: np.full(2, value) for name, value in values.items()}
    return GoalLimits(**vectors, glide_periods=10)


class Path:
    def __init__(self, rules: GoalLimits, start: float) -> None:
        self.rules = rules
        self.goal = np.full(2, start)
        self.change = np.zeros(2)
        self.out, self.work = np.empty(2), np.empty(2)

    def to(self, requested: float, present: float | None = None) -> float:
        before = self.goal if present is None else np.full(2, present)
        limit_goal(
            self.rules, np.full(2, requested), present=before, relative=self.rules.relative,
            previous=self.goal, change=self.change, bound=self.rules.step, work=self.work,
            out=self.out,
        )  # fmt: skip
        self.goal = self.out.copy()
        return float(self.out[0])


def test_a_goal_that_no_limit_touches_is_bit_for_bit_the_request() -> None:
    path = Path(limits(step=50.0), start=0.1)
    for requested in (0.1 + 0.2, 12.34567890123, -7.77):
        assert path.to(requested) == requested


@given(
    st.lists(st.floats(-500, 500), min_size=1, max_size=40),
    st.floats(-90, 90),
    st.one_of(st.floats(0.1, 40), st.just(INF)),
    st.floats(0.01, 10),
    st.floats(-200, 200),
)
def test_no_two_goals_lie_further_apart_than_a_period_allows(
    requests, start, relative, step, present
) -> None:
    path = Path(limits(relative=relative, step=step, step_growth=step / 3), start)
    before, change = start, 0.0
    for requested in requests:
        goal = path.to(requested, present)
        moved = goal - before
        assert abs(moved) <= step * (1 + 1e-9)
        assert abs(moved) <= max(change * np.sign(moved), 0.0) + step / 3 + 1e-9
        before, change = goal, moved


def test_range_clamps_the_goal() -> None:
    path = Path(limits(step=500.0), start=0.0)
    assert path.to(120.0) == 90.0
    assert path.to(-120.0) == -90.0


def test_relative_target_clamps_around_the_arm_not_the_last_goal() -> None:
    path = Path(limits(step=500.0, relative=5.0), start=0.0)
    assert path.to(50.0, present=10.0) == 15.0
    assert path.to(50.0, present=14.0) == 19.0


def test_relative_target_of_a_silent_joint_does_not_poison_its_goal() -> None:
    path = Path(limits(step=500.0, relative=5.0), start=0.0)
    assert path.to(50.0, present=float("nan")) == 50.0


def test_speed_grows_slowly_and_stops_at_once() -> None:
    path = Path(limits(step=2.0, step_growth=0.5), start=0.0)
    assert [path.to(100.0) for _ in range(5)] == [0.5, 1.5, 3.0, 5.0, 7.0]
    assert path.to(7.0) == 7.0
    assert path.to(-100.0) == 6.5


def test_glide_begins_slow_and_rises_to_full_speed() -> None:
    rules = limits()
    out = np.empty(2)
    bounds = [float(rules.glide_bound(periods, out)[0]) for periods in range(25)]
    assert bounds[:11] == [0.5] * 11
    assert bounds == sorted(bounds)
    assert bounds[20:] == [2.0] * 5
    assert rules.gliding(19)
    assert not rules.gliding(20)


def test_relative_vector_takes_lerobots_three_forms() -> None:
    assert relative_vector(None, NAMES, key="k").tolist() == [INF, INF]
    assert relative_vector(3.0, NAMES, key="k").tolist() == [3.0, 3.0]
    assert relative_vector({"b": 2.0, "a": 1.0}, NAMES, key="k").tolist() == [1.0, 2.0]
    with pytest.raises(ConfigError, match="exactly the joints a, b"):
        relative_vector({"a": 1.0}, NAMES, key="k")


def test_a_leader_over_the_seam_goes_on_and_comes_back() -> None:
    unwrap = Unwrapper(np.array([360.0, INF]))
    readings = [170.0, 179.0, -179.0, -170.0, -179.0, 179.0, 170.0]
    followed = [unwrap.follow(np.array([r, r]), np.empty(2)).tolist() for r in readings]
    assert [pair[0] for pair in followed] == [170.0, 179.0, 181.0, 190.0, 181.0, 179.0, 170.0]
    assert [pair[1] for pair in followed] == readings


def test_after_a_hand_over_the_seam_is_forgotten() -> None:
    unwrap = Unwrapper(np.array([360.0]))
    for reading in (179.0, -179.0):
        unwrap.follow(np.array([reading]), np.empty(1))
    unwrap.reset()
    assert unwrap.follow(np.array([-170.0]), np.empty(1)).tolist() == [-170.0]
