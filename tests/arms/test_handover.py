import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd.config.streams import JointFlag, meeting_dtype
from recd.daemon.arms.handover import (
    LET_GO_NS,
    MET_UNITS,
    WISH_KEPT_NS,
    Grasp,
    HandOver,
    Led,
    wish_of,
)
from recd.daemon.arms.motion import Cause, MotionState, Phase
from recd.shm import CellReader, CellWriter, create_cell
from recd.shm.clock import NS_PER_MS, NS_PER_S

MOVED = 6.0
PERIOD_NS = 10 * NS_PER_MS


def led(grasp: Grasp, way: list[float]) -> list[int]:
    """Ticks at which the grasp was told, of one joint that takes this way."""
    return [k for k, at in enumerate(way) if grasp.look([at, float("nan")], (k + 1) * PERIOD_NS)]


def rest(value: float = 0.0, ticks: int = 60) -> list[float]:
    return [value] * ticks


def test_a_leader_that_lay_still_and_is_moved_takes_over_once() -> None:
    way = rest() + [0.5 * k for k in range(40)] + rest(20.0, 10)
    told = led(Grasp(MOVED, NS_PER_S // 2), way)
    assert len(told) == 1
    assert way[told[0]] > MOVED


def test_a_leader_that_never_lay_still_does_not_take_over() -> None:
    assert led(Grasp(MOVED, NS_PER_S // 2), [10 * np.sin(k / 5) for k in range(400)]) == []


def test_a_leader_that_sinks_or_trembles_does_not_take_over() -> None:
    sinking = [-0.02 * k for k in range(1000)]
    trembling = [1.9 * (k % 2) for k in range(400)]
    assert led(Grasp(MOVED, NS_PER_S // 2), sinking) == []
    assert led(Grasp(MOVED, NS_PER_S // 2), trembling) == []


def test_after_a_take_over_it_has_to_lie_still_again() -> None:
    pushes = [*rest(), 8.0, 16.0, 24.0, 32.0, *rest(32.0), 40.0]
    told = led(Grasp(MOVED, NS_PER_S // 2), pushes)
    assert told == [60, len(pushes) - 1]


def test_a_threshold_of_zero_never_takes_over() -> None:
    assert led(Grasp(0.0, NS_PER_S // 2), rest() + [90.0] * 10) == []


@given(st.lists(st.floats(-MOVED / 2, MOVED / 2), min_size=1, max_size=200))
def test_whatever_stays_within_half_the_threshold_never_takes_over(noise: list[float]) -> None:
    assert led(Grasp(MOVED, NS_PER_S // 2), rest() + noise) == []


def hand_over(driven: bool = False) -> tuple[HandOver, CellReader]:
    segment = create_cell("meeting.main", meeting_dtype(2))
    writer = CellWriter(segment) if driven else None
    return HandOver({"moved": MOVED, "rest_s": 0.5}, writer), CellReader(segment)


@pytest.mark.parametrize(
    ("phase", "gliding"),
    [(Phase.CORRECTING, True), (Phase.POLICY, True), (Phase.REPLAY, True), (Phase.TELEOP, False)],
)
def test_a_hand_over_lasts_until_the_arm_has_come_to_what_is_asked(
    phase: Phase, gliding: bool
) -> None:
    change, _ = hand_over()
    change.follow(phase)
    change.went(JointFlag.RAMPING, 20.0)
    assert change.gliding is gliding
    change.went(JointFlag.RAMPING, MET_UNITS)
    change.went(JointFlag.RAMPING, 20.0)
    assert not change.gliding


def at(phase: Phase, cause: Cause = Cause.COMMAND) -> MotionState:
    return MotionState(phase, cause, 0)


def test_a_driven_leader_is_brought_while_paused_and_let_go_where_the_arms_met() -> None:
    change, cell = hand_over(driven=True)
    sent, far, near = [10.0, 20.0], [0.0, 0.0], [9.0, 21.0]
    change.wish(at(Phase.POLICY), sent, far, 1)
    assert wish_of(cell, 1).position == ()
    for phase in (Phase.PAUSED, Phase.TAKING):
        change.wish(at(phase), sent, far, 2)
        assert wish_of(cell, 2).position == (10.0, 20.0)
    change.wish(at(Phase.TAKING), sent, near, 3)
    assert wish_of(cell, 3).position == ()
    change.wish(at(Phase.TAKING), sent, far, 4)
    assert wish_of(cell, 4).position == (), "it sank after it was let go: a person brings it"


def test_nobody_leads_while_the_leader_is_brought_or_may_still_take_torque() -> None:
    change, cell = hand_over(driven=True)
    sent, far, near = [10.0, 20.0], [0.0, 0.0], [9.0, 21.0]
    assert not change.bringing(0)
    change.wish(at(Phase.TAKING), sent, far, 1)
    change.wish(at(Phase.TAKING), sent, near, 2)
    assert wish_of(cell, 2).position == ()
    assert change.bringing(1 + LET_GO_NS)
    assert not change.bringing(2 + LET_GO_NS)


def test_a_leader_whose_servos_refuse_is_asked_once_and_led_from_where_it_is() -> None:
    change, cell = hand_over(driven=True)
    sent, far = [10.0, 20.0], [0.0, 0.0]
    change.wish(at(Phase.TAKING), sent, far, 1)
    change.wish(at(Phase.TAKING), sent, far, 2, refused=True)
    change.wish(at(Phase.TAKING), sent, far, 3, refused=False)
    assert wish_of(cell, 3).position == ()
    change.wish(at(Phase.POLICY), sent, far, 4)
    change.wish(at(Phase.TAKING), sent, far, 5)
    assert wish_of(cell, 5).position == (10.0, 20.0), "the next take-over asks again"


def test_a_leader_in_a_persons_hand_is_not_driven() -> None:
    change, cell = hand_over(driven=True)
    for k in range(60):
        assert not change.grasped(at(Phase.POLICY), [0.0, 0.0], k * PERIOD_NS)
    assert change.grasped(at(Phase.POLICY), [10.0, 0.0], 60 * PERIOD_NS)
    change.grasped(at(Phase.TAKING), [10.0, 0.0], 61 * PERIOD_NS)
    change.wish(at(Phase.TAKING), [30.0, 0.0], [10.0, 0.0], 61 * PERIOD_NS)
    assert wish_of(cell, 61 * PERIOD_NS).position == ()


def test_a_leader_that_fell_silent_in_a_hand_is_not_driven_when_it_is_back() -> None:
    change, cell = hand_over(driven=True)
    change.wish(at(Phase.PAUSED, Cause.LEADER_SILENT), [1.0, 2.0], [0.0, 0.0], 1)
    assert wish_of(cell, 1).position == ()


def test_the_wish_of_a_dead_follower_ends_by_itself() -> None:
    change, cell = hand_over(driven=True)
    change.wish(at(Phase.PAUSED), [1.0, 2.0], [0.0, 0.0], 5)
    assert wish_of(cell, 5 + WISH_KEPT_NS).position
    assert wish_of(cell, 6 + WISH_KEPT_NS).position == ()


def test_what_nobody_led_is_told_as_gaps_the_last_of_them_open() -> None:
    led = Led()
    told = [led.note(now, at) for at, now in enumerate([False, True, True, False, True, False], 1)]
    assert told == [False, True, False, True, True, True]
    assert (led.since_ns, list(led.gaps)) == (0, [[4, 5], [6, 0]])
