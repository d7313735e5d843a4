from dataclasses import replace
from itertools import pairwise
from math import inf, isnan, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recd.config.policy_wire import MOST_QUEUED, Mode, Status
from recd.daemon.arms.goalpath import GoalPath
from recd.daemon.arms.limits import JointLimits
from recd.daemon.arms.motion import Event
from recd.daemon.arms.normalize import DegreesScale
from recd.daemon.policy.playback import Plan, Playback, Rules
from recd.shm.clock import NS_PER_MS, NS_PER_S

JOINTS = 2
TICK_NS = 4 * NS_PER_MS
DT_NS = 33 * NS_PER_MS
RULES = Rules(
    lead_ns=TICK_NS, seam=20.0, start_gap=30.0, latency_ns=0, observation_ns=3 * NS_PER_S,
    low=(-90.0, 0.0), high=(90.0, 100.0), speed=(360.0, 360.0), stepwise=(False, True),
)  # fmt: skip
NOW = 1_000 * NS_PER_S
HERE = [0.0, 50.0]


def plan(
    chunk: int = 1,
    rows: list[list[float]] | None = None,
    *,
    obs_ns: int = NOW - 20 * NS_PER_MS,
    **changes: object,
) -> Plan:
    chosen = [[float(k), 50.0] for k in range(1, 11)] if rows is None else rows
    targets = [obs_ns + (k + 1) * DT_NS for k in range(len(chosen))]
    whole = Plan(
        chunk=chunk, epoch=1, obs_ns=obs_ns, dt_ns=DT_NS, valid_until_ns=2**62,
        age_limit_ns=NS_PER_S, mode=Mode.REPLACE, blend=0, targets_ns=targets, rows=chosen,
    )  # fmt: skip
    return replace(whole, **changes)


def test_rows_that_are_due_already_are_dropped_and_counted() -> None:
    play = Playback(RULES)
    late = play.offer(plan(obs_ns=NOW - 3 * DT_NS - 1), NOW, HERE)
    assert (late.status, late.first_applied, late.late) == (Status.APPLIED, 3, 3)
    assert late.first_goal_ns >= NOW + RULES.lead_ns
    none = play.offer(plan(2, obs_ns=NOW - 11 * DT_NS), NOW, HERE)
    assert none.status is Status.ALL_LATE
    assert play.queued == 7, "the plan that was there goes on"


def test_between_rows_the_goal_moves_linearly_from_what_was_commanded() -> None:
    play = Playback(RULES)
    first = plan(rows=[[8.0, 50.0], [10.0, 50.0]], obs_ns=NOW)
    play.offer(first, NOW, [4.0, 50.0])
    assert play.goal(NOW, HERE)[0] == 4.0
    assert play.goal(NOW + DT_NS // 2, HERE)[0] == pytest.approx(6.0)
    assert (play.chunk, play.index) == (1, 0)
    assert play.goal(NOW + DT_NS + DT_NS // 2, HERE)[0] == pytest.approx(9.0)
    assert (play.chunk, play.index) == (1, 1)


def test_an_empty_queue_ends_one_step_after_the_last_row() -> None:
    play = Playback(RULES)
    play.offer(plan(obs_ns=NOW), NOW, HERE)
    end_ns = NOW + 11 * DT_NS
    assert play.goal(end_ns, HERE)[0] == 10.0
    assert play.goal(end_ns + 1, HERE) is None
    assert play.ended is Event.QUEUE_EMPTY
    assert play.goal(end_ns + 2, HERE) is None


def test_a_plan_past_its_validity_or_on_an_old_observation_is_not_played() -> None:
    play = Playback(RULES)
    play.offer(plan(obs_ns=NOW, valid_until_ns=NOW + 2 * DT_NS), NOW, HERE)
    assert play.goal(NOW + 2 * DT_NS, HERE) is not None
    assert play.goal(NOW + 2 * DT_NS + 1, HERE) is None
    assert play.ended is Event.CHUNK_EXPIRED
    aged = Playback(replace(RULES, observation_ns=50 * NS_PER_MS))
    aged.offer(plan(obs_ns=NOW), NOW, HERE)
    assert aged.goal(NOW + 51 * NS_PER_MS, HERE) is None
    assert aged.ended is Event.OBSERVATION_OLD


def test_an_observation_from_before_the_hold_is_refused_and_a_later_one_taken() -> None:
    play = Playback(RULES)
    held_ns = NOW - 10 * NS_PER_MS
    before = play.offer(plan(1, obs_ns=held_ns), NOW, HERE, held_ns=held_ns)
    after = play.offer(plan(2, obs_ns=held_ns + 1), NOW, HERE, held_ns=held_ns)
    assert (before.status, after.status) == (Status.BEFORE_HOLD, Status.APPLIED)


def test_numbers_that_do_not_grow_are_refused_and_change_nothing() -> None:
    play = Playback(RULES)
    play.offer(plan(5), NOW, HERE)
    before = play.goal(NOW + DT_NS, HERE)
    before = list(before)
    assert play.offer(plan(5, rows=[[9.0, 50.0]] * 9), NOW, HERE).status is Status.DUPLICATE
    assert play.offer(plan(4, rows=[[9.0, 50.0]] * 9), NOW, HERE).status is Status.OUT_OF_ORDER
    assert play.goal(NOW + DT_NS, HERE) == before
    play.forget()
    assert play.offer(plan(1), NOW, HERE).status is Status.APPLIED


def test_a_plan_that_begins_far_from_the_arm_is_refused_and_after_a_hold_farther() -> None:
    for after_hold, most in ((False, RULES.seam), (True, RULES.start_gap)):
        for gap, status in ((most - 1, Status.APPLIED), (most + 1, Status.SEAM)):
            play = Playback(RULES)
            told = play.offer(plan(rows=[[gap, 50.0]] * 9), NOW, HERE, after_hold=after_hold)
            assert told.status is status
            assert told.splice_gap == pytest.approx(gap)


def test_a_refused_seam_keeps_the_plan_that_was_there() -> None:
    play = Playback(RULES)
    play.offer(plan(1, obs_ns=NOW), NOW, HERE)
    play.offer(plan(2, rows=[[80.0, 50.0]] * 9, obs_ns=NOW), NOW, HERE)
    assert play.goal(NOW + DT_NS, HERE) == [1.0, 50.0]


def test_a_chunk_of_no_steps_empties_the_queue() -> None:
    play = Playback(RULES)
    play.offer(plan(1), NOW, HERE)
    assert play.offer(plan(2, rows=[]), NOW, HERE).status is Status.STOPPED
    assert play.goal(NOW + DT_NS, HERE) is None


def test_a_dry_run_is_judged_and_leaves_nothing() -> None:
    play = Playback(RULES)
    assert play.offer(plan(1), NOW, HERE, dry=True).status is Status.SHADOW
    assert play.goal(NOW + DT_NS, HERE) is None


def test_blending_leads_from_the_old_plan_to_the_new_and_leaves_the_gripper_alone() -> None:
    play = Playback(RULES)
    play.offer(plan(1, rows=[[0.0, 50.0]] * 10, obs_ns=NOW), NOW, HERE)
    new = plan(2, rows=[[8.0, 70.0]] * 10, obs_ns=NOW, mode=Mode.BLEND, blend=3)
    assert play.offer(new, NOW, [0.0, 50.0]).status is Status.APPLIED
    values = [list(play.goal(NOW + k * DT_NS, HERE)) for k in range(1, 6)]
    assert [v[0] for v in values] == pytest.approx([2.0, 4.0, 6.0, 8.0, 8.0])
    assert all(v[1] == 70.0 for v in values)


def test_appending_keeps_what_is_queued_and_adds_what_lies_behind_it() -> None:
    play = Playback(RULES)
    play.offer(plan(1, rows=[[1.0, 50.0]] * 3, obs_ns=NOW), NOW, HERE)
    told = play.offer(
        plan(2, rows=[[5.0, 50.0]] * 6, obs_ns=NOW, mode=Mode.APPEND), NOW, [1.0, 50.0]
    )
    assert (told.first_applied, told.late) == (3, 3)
    assert play.goal(NOW + 3 * DT_NS, HERE)[0] == 1.0
    assert play.goal(NOW + 6 * DT_NS, HERE)[0] == 5.0


def test_a_joint_that_is_left_out_holds() -> None:
    play = Playback(RULES)
    play.offer(plan(rows=[[3.0, nan]] * 9), NOW, HERE)
    assert isnan(play.goal(NOW + DT_NS, HERE)[1])


def test_latency_makes_goals_come_earlier() -> None:
    latency_ns = 20 * NS_PER_MS
    plain, early = Playback(RULES), Playback(replace(RULES, latency_ns=latency_ns))
    rows = [[0.0, 50.0], [10.0, 50.0], [10.0, 50.0]]
    for play in (plain, early):
        play.offer(plan(rows=rows, obs_ns=NOW), NOW, HERE)
    at_ns = NOW + DT_NS + 5 * NS_PER_MS
    assert early.goal(at_ns, HERE)[0] == pytest.approx(plain.goal(at_ns + latency_ns, HERE)[0])


def test_values_beyond_the_range_are_counted() -> None:
    rows = [[95.0, 50.0], [80.0, 101.0], [80.0, 50.0]]
    told = Playback(replace(RULES, seam=500.0)).offer(plan(rows=rows, obs_ns=NOW), NOW, HERE)
    assert told.clipped == 2


def follow(play: Playback, upto_ns: int, *, start: list[float] = HERE) -> list[list[float]]:
    """Every goal of an arm that can do all that it is asked, tick by tick from NOW."""
    goals = [list(start)]
    for now in range(NOW, upto_ns, TICK_NS):
        goal = play.goal(now, goals[-1])
        if goal is None:
            break
        goals.append([own if isnan(v) else v for v, own in zip(goal, goals[-1], strict=True)])
    return goals


def test_velocities_add_up_at_the_control_rate_from_what_was_commanded() -> None:
    play = Playback(RULES)
    rows = [[30.0, 0.0], [60.0, 0.0], [0.0, 0.0]]
    told = play.offer(plan(rows=rows, obs_ns=NOW, velocity=True), NOW, [4.0, 50.0])
    assert (told.status, told.splice_gap) == (Status.APPLIED, 0.0)
    goals = follow(play, NOW + 3 * DT_NS, start=[4.0, 50.0])
    assert goals[-1][0] == pytest.approx(4.0 + (30.0 + 60.0) * DT_NS / NS_PER_S)
    first = [b[0] - a[0] for a, b in pairwise(goals)][1 : DT_NS // TICK_NS]
    assert first == pytest.approx([30.0 * TICK_NS / NS_PER_S] * len(first))
    assert all(goal[1] == 50.0 for goal in goals)


def test_late_velocities_are_not_caught_up_with() -> None:
    play = Playback(RULES)
    rows = [[300.0, 0.0]] * 3 + [[30.0, 0.0]] * 3
    told = play.offer(plan(rows=rows, obs_ns=NOW - 3 * DT_NS, velocity=True), NOW, HERE)
    assert (told.first_applied, told.late) == (3, 3)
    assert max(g[0] for g in follow(play, NOW + 3 * DT_NS)) <= 30.0 * 3 * DT_NS / NS_PER_S + 1e-9


def test_an_arm_held_back_by_a_limit_does_not_catch_up_with_a_velocity() -> None:
    play = Playback(RULES)
    play.offer(plan(rows=[[100.0, 0.0]] * 9, obs_ns=NOW, velocity=True), NOW, HERE)
    for now in range(NOW, NOW + 5 * DT_NS, TICK_NS):
        goal = play.goal(now, HERE)
        assert goal[0] <= 100.0 * TICK_NS / NS_PER_S + 1e-9


def test_a_velocity_falls_to_zero_by_the_end_of_its_validity() -> None:
    play = Playback(RULES)
    play.offer(plan(rows=[[60.0, 0.0]] * 2, obs_ns=NOW, velocity=True), NOW, HERE)
    goals = follow(play, NOW + 9 * DT_NS)
    steps = [b[0] - a[0] for a, b in pairwise(goals)]
    tail = steps[2 * DT_NS // TICK_NS + 1 :]
    assert all(a > b for a, b in pairwise(tail))
    assert tail[-1] < 0.2 * steps[5]
    assert goals[-1][0] == pytest.approx(60.0 * 2.5 * DT_NS / NS_PER_S, abs=0.01)
    assert play.ended is Event.QUEUE_EMPTY
    assert play.goal(NOW + 3 * DT_NS + TICK_NS, HERE) is None


def test_a_joint_without_velocity_holds_and_one_too_fast_is_counted() -> None:
    play = Playback(RULES)
    rows = [[361.0, nan], [359.0, nan], [-361.0, nan]]
    told = play.offer(plan(rows=rows, obs_ns=NOW, velocity=True), NOW, HERE)
    assert told.clipped == 2
    assert isnan(play.goal(NOW + TICK_NS, HERE)[1])
    assert isnan(play.goal(NOW + 3 * DT_NS, HERE)[1])


def test_velocities_blend_and_append_among_themselves() -> None:
    play = Playback(RULES)
    play.offer(plan(1, rows=[[0.0, 0.0]] * 9, obs_ns=NOW, velocity=True), NOW, HERE)
    new = plan(2, rows=[[80.0, 80.0]] * 9, obs_ns=NOW, mode=Mode.BLEND, blend=3, velocity=True)
    play.offer(new, NOW, HERE)
    goals = follow(play, NOW + 4 * DT_NS)
    assert goals[-1][0] == pytest.approx((20 + 40 + 60 + 80) * DT_NS / NS_PER_S, abs=0.4)
    assert goals[-1][1] == pytest.approx(50 + 4 * 80 * DT_NS / NS_PER_S, abs=0.4)
    told = play.offer(
        plan(3, rows=[[1.0, 0.0]] * 12, obs_ns=NOW, mode=Mode.APPEND, velocity=True),
        NOW + 4 * DT_NS, goals[-1],
    )  # fmt: skip
    assert (told.first_applied, play.queued) == (9, 6 + 3)


def test_positions_behind_velocities_begin_where_those_have_led() -> None:
    play = Playback(RULES)
    play.offer(plan(1, rows=[[60.0, 0.0]] * 2, obs_ns=NOW, velocity=True), NOW, HERE)
    behind = plan(2, rows=[[9.0, 50.0]] * 4, obs_ns=NOW, mode=Mode.APPEND)
    assert play.offer(behind, NOW, HERE).first_applied == 2
    goals = follow(play, NOW + 4 * DT_NS)
    assert max(abs(b[0] - a[0]) for a, b in pairwise(goals)) < 2 * 60.0 * TICK_NS / NS_PER_S + 0.5
    assert goals[-1][0] == pytest.approx(9.0)


SCALES = (DegreesScale(1024, 3072), DegreesScale(1024, 3072))
LIMIT = JointLimits(
    low=-90.0, high=90.0, relative=inf, step=1.44, step_growth=0.064, glide_step=0.24
)
HOSTILE = st.floats(-1e9, 1e9) | st.sampled_from([nan, 0.0, 89.9, -89.9])

OFFERS = st.lists(
    st.tuples(
        st.integers(0, 40),  # ticks until it comes
        st.integers(-3, 12),  # by how much its number grows
        st.lists(st.tuples(HOSTILE, HOSTILE), max_size=12),
        st.integers(-500, 100),  # age of its observation, ms
        st.sampled_from(list(Mode)),
        st.booleans(),  # velocities
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(offers=OFFERS, seam=st.sampled_from([5.0, 1e12]))
def test_whatever_comes_no_goal_step_exceeds_the_limits(offers: list, seam: float) -> None:
    play = Playback(replace(RULES, seam=seam, start_gap=seam))
    path = GoalPath((LIMIT, LIMIT), SCALES, glide_periods=10)
    path.rest_at([2048, 2048])
    now, number, goals = NOW, 0, [list(path.goal)]
    for wait, grow, rows, age_ms, mode, velocity in offers:
        for _ in range(wait + 1):
            now += TICK_NS
            goal = play.goal(now, path.goal)
            if goal is None:
                path.coast([nan, nan])
            else:
                path.follow(goal, [nan, nan])
            goals.append(list(path.goal))
        number = max(1, number + grow)
        offered = plan(
            number, [list(row) for row in rows], obs_ns=now + age_ms * NS_PER_MS, mode=mode,
            blend=4, velocity=velocity,
        )  # fmt: skip
        play.offer(offered, now, path.goal)
        assert play.queued <= MOST_QUEUED
    for before, after in pairwise(goals):
        for a, b in zip(before, after, strict=True):
            assert abs(b - a) <= LIMIT.step + 1e-9
            assert -90.0 - 1e-6 <= b <= 90.0 + 1e-6


@settings(max_examples=100, deadline=None)
@given(steps=st.integers(1, 60))
def test_a_hold_decelerates_and_then_stands(steps: int) -> None:
    path = GoalPath((LIMIT, LIMIT), SCALES, glide_periods=1)
    path.rest_at([2048, 2048])
    for _ in range(steps):
        path.follow([60.0, 60.0], [nan, nan])
    still = False
    before = list(path.goal)
    changes = []
    for _ in range(60):
        still = path.coast([nan, nan])
        changes.append(path.goal[0] - before[0])
        before = list(path.goal)
    assert still
    assert changes[-1] == 0.0
    assert all(abs(a) - abs(b) <= LIMIT.step_growth + 1e-9 for a, b in pairwise(changes))
