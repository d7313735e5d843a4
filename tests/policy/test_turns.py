from dataclasses import replace
from math import inf, isnan, nan

import pytest

from recd.config.policy_wire import Mode
from recd.daemon.policy.playback import Plan
from recd.daemon.policy.turns import continued, within

STEP_NS = 33_000_000
TURNS = (inf, 360.0)


def plan(*wrist: float) -> Plan:
    return Plan(
        chunk=1, epoch=1, obs_ns=0, dt_ns=STEP_NS, valid_until_ns=2**62, age_limit_ns=10**9,
        mode=Mode.REPLACE, blend=0, targets_ns=[(k + 1) * STEP_NS for k in range(len(wrist))],
        rows=[[170.0 * (-1) ** k, place] for k, place in enumerate(wrist)],
    )  # fmt: skip


def wrist_of(plan: Plan) -> list[float]:
    return [row[1] for row in plan.rows]


@pytest.mark.parametrize(
    ("rows", "near", "continued_to"),
    [
        ((178, 179, -180, -179), 177.5, [178, 179, 180, 181]),
        ((-178, -179, 180, 179), -177.5, [-178, -179, -180, -181]),
        ((-179, -178), 180.0, [181, 182]),  # the arm stands at its limit: the leader went beyond
        ((179, 178), -180.0, [-181, -182]),
        ((0.1, 0.2), 0.0, [0.1, 0.2]),
    ],
)
def test_a_joint_goes_on_over_its_seam_and_not_a_turn_back(rows, near, continued_to) -> None:
    assert wrist_of(continued(plan(*rows), TURNS, [0.0, near], 0)) == continued_to


def test_the_row_that_is_due_is_the_one_nearest_to_the_arm() -> None:
    long_way = plan(100, 150, -160, -110, -60)  # 100 to 300, and the arm is half way there
    assert wrist_of(continued(long_way, TURNS, [0.0, -158.0], 3 * STEP_NS)) == [
        -260, -210, -160, -110, -60
    ]  # fmt: skip


def test_other_joints_velocities_and_what_is_left_out_stay_as_they_are() -> None:
    crossing = plan(179, -179)
    assert [row[0] for row in continued(crossing, TURNS, [0.0, 179.0], 0).rows] == [170.0, -170.0]
    assert continued(crossing, (inf, inf), [0.0, 179.0], 0) is crossing
    fast = replace(crossing, velocity=True)
    assert continued(fast, TURNS, [0.0, 179.0], 0) is fast
    masked = continued(plan(nan, nan), TURNS, [0.0, 179.0], 0)
    assert all(isnan(place) for place in wrist_of(masked))


@pytest.mark.parametrize(
    ("place", "read"), [(181.0, -179.0), (-181.0, 179.0), (17.3, 17.3), (541.0, -179.0)]
)
def test_a_place_beyond_the_seam_is_told_as_the_joint_would_be_read(place, read) -> None:
    assert within(place, -180.0, 360.0) == pytest.approx(read)
    assert within(place, -180.0, inf) == place
