import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd.daemon.arms.motion import SEATED, Phase
from recd.daemon.session.rollout import (
    ATTEMPT,
    Corrections,
    Do,
    RolloutSpec,
    Seen,
    Strategy,
    next_act,
    seen_of,
    unled_ns,
)

LONG = 10


def spec(strategy: Strategy, corrections: Corrections = Corrections.OWN) -> RolloutSpec:
    return RolloutSpec(strategy, LONG, corrections)


def act(wanted: RolloutSpec, now: int = 1, **seen: bool | int) -> Do:
    return next_act(wanted, Seen(**{"ready": True, "running": False, **seen}), now)


@pytest.mark.parametrize("strategy", [Strategy.BASE, Strategy.HIGHLIGHT])
@given(st.builds(Seen, *[st.booleans()] * 2, st.just(0), *[st.booleans()] * 3))
def test_base_and_highlight_never_do_anything_by_themselves(strategy, seen: Seen) -> None:
    assert next_act(spec(strategy), seen, 10**12) is Do.NOTHING


@given(
    st.sampled_from(Strategy), st.sampled_from(Corrections),
    st.builds(Seen, *[st.booleans()] * 2, st.just(0), *[st.booleans()] * 3), st.integers(0, 100),
)  # fmt: skip
def test_only_a_ready_session_is_started_and_only_a_running_episode_ended(
    strategy, corrections, seen: Seen, now: int
) -> None:
    wanted = next_act(spec(strategy, corrections), seen, now)
    if wanted is Do.START:
        assert seen.ready
        assert not seen.running
    elif wanted is not Do.NOTHING:
        assert seen.running


def test_a_sentry_cuts_at_its_length_and_begins_anew() -> None:
    sentry = spec(Strategy.SENTRY)
    assert act(sentry) is Do.START
    assert act(sentry, LONG - 1, running=True) is Do.NOTHING
    assert act(sentry, LONG, running=True) is Do.STOP


def test_a_correction_of_its_own_lasts_as_long_as_a_person_leads() -> None:
    dagger = spec(Strategy.DAGGER)
    assert act(dagger, driving=True, attempt=True) is Do.NOTHING
    assert act(dagger, led=True, attempt=True) is Do.START
    assert act(dagger, 99, running=True, led=True, attempt=True) is Do.NOTHING
    assert act(dagger, running=True, attempt=True) is Do.CUT


def test_an_attempt_goes_on_through_hold_and_correction_and_ends_with_a_persons_word() -> None:
    inside = spec(Strategy.DAGGER, Corrections.INSIDE)
    assert act(inside, attempt=True) is Do.NOTHING, "seated, and nothing moved yet"
    assert act(inside, attempt=True, driving=True) is Do.START
    assert act(inside, 99, running=True, attempt=True) is Do.NOTHING
    assert act(inside, running=True) is Do.STOP


def test_an_episodic_attempt_that_lasts_too_long_is_paused() -> None:
    episodic = spec(Strategy.EPISODIC)
    assert act(episodic, LONG, running=True, attempt=True) is Do.STOP_AND_PAUSE
    assert act(episodic, LONG, attempt=True) is Do.NOTHING, "paused: a person has to resume"


def test_phases_of_an_attempt_are_those_of_the_motion_machine() -> None:
    assert set(ATTEMPT) == {
        phase.value
        for phase in (*SEATED, Phase.PAUSED, Phase.TAKING, Phase.CORRECTING)
        if phase is not Phase.REPLAY
    }


def test_one_arm_that_is_not_led_makes_it_no_correction() -> None:
    led, driven = {"phase": "correcting", "led_ns": 5}, {"phase": "policy", "led_ns": 0}
    assert seen_of({"left": led, "right": led})["led"]
    assert seen_of({"left": led, "right": driven}) == {
        "led": False, "driving": True, "attempt": True
    }  # fmt: skip
    assert not any(seen_of({}).values())


ROW = 1_000_000_000
LED = {"phase": "correcting", "led_ns": 1}


@pytest.mark.parametrize(
    ("gaps", "since"),
    [
        ([], None),
        ([[100, 200]], None),  # before the episode
        ([[10 * ROW + 1, 11 * ROW - 1]], None),  # between two rows
        ([[10 * ROW + 1, 11 * ROW + 1]], 10 * ROW + 1),
        ([[10 * ROW, 10 * ROW + 1]], 10 * ROW),
        ([[100, 7 * ROW + 1]], 100),  # its first row
        ([[10 * ROW + 1, 0]], None),  # open, and no row yet
        ([[8 * ROW + 1, 8 * ROW + 2], [9 * ROW - 1, 0]], 9 * ROW - 1),
    ],
)
def test_a_correction_ends_before_the_first_row_that_nobody_led(gaps, since) -> None:
    said = {"main": {**LED, "led_gaps": gaps}}
    assert unled_ns(said, 7 * ROW, (1, 1), 10 * ROW + 2) == since


def test_a_correction_ends_with_the_first_arm_that_is_not_led() -> None:
    both = {
        "left": {**LED, "led_gaps": [[9 * ROW, 0]]},
        "right": {**LED, "led_gaps": [[8 * ROW, 0]]},
    }
    assert unled_ns(both, 7 * ROW, (1, 1), 10 * ROW) == 8 * ROW


def test_an_arm_that_began_anew_leads_nothing_any_more() -> None:
    assert unled_ns({"main": {}}, 7 * ROW, (1, 1), 10 * ROW) == 10 * ROW
