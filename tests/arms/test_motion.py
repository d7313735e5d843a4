import itertools

import pytest

from recd.config.errors import StateError
from recd.config.streams import Motion
from recd.daemon.arms.motion import (
    COMMANDS,
    PLAYING,
    SEATED,
    TRAITS,
    TRANSITIONS,
    Cause,
    Effect,
    Event,
    MotionState,
    Phase,
    Row,
    advance,
    found_state,
    legal_commands,
)


def walk(start: Phase, *events: Event) -> tuple[MotionState, list[Effect]]:
    state, effects = MotionState(start, Cause.NONE, 0), []
    for at, event in enumerate(events, 1):
        state, effect = advance(state, event, at)
        effects.append(effect)
    return state, effects


def test_torque_comes_on_by_an_arm_command_and_by_nothing_else() -> None:
    engaging = {event for (_, event), row in TRANSITIONS.items() if row.effect is Effect.ENGAGE}
    assert engaging == {Event.ARM}


def test_every_step_from_no_torque_to_torque_is_an_arm_command_or_an_adoption() -> None:
    for (phase, event), row in TRANSITIONS.items():
        if phase is Phase.DISARMED and TRAITS[row.to].torque:
            assert event in (Event.ARM, Event.TORQUE_FOUND)
            assert event is Event.ARM or TRAITS[row.to].armed is False


def test_movement_begins_only_while_armed_or_by_a_command() -> None:
    moving = (Effect.FOLLOW, Effect.PARK)
    for (phase, event), row in TRANSITIONS.items():
        if row.effect in moving and not TRAITS[phase].armed:
            assert event in COMMANDS


def test_found_torque_is_adopted_and_nothing_is_done() -> None:
    assert found_state((True,) * 6, 5) == MotionState(Phase.ADOPTED, Cause.FOUND_WITH_TORQUE, 5)
    assert found_state((False,) * 6, 5).phase is Phase.DISARMED
    partly = found_state((True, False, True), 5)
    assert partly.trait.motion is Motion.FAULT
    assert partly.cause is Cause.FOUND_PARTLY_WITH_TORQUE


def test_arm_waits_for_the_leader_and_then_follows() -> None:
    state, effects = walk(Phase.DISARMED, Event.ARM, Event.LEADER_AGREES)
    assert state.phase is Phase.TELEOP
    assert effects == [Effect.ENGAGE, Effect.FOLLOW]


def test_first_estop_holds_and_the_second_applies_the_torque_policy() -> None:
    state, effects = walk(Phase.TELEOP, Event.ESTOP, Event.ESTOP)
    assert effects == [Effect.STOP, Effect.POLICY]
    assert state.trait.motion is Motion.HOLD
    assert not state.trait.armed


def test_after_an_estop_only_arm_moves_again() -> None:
    state, _ = walk(Phase.TELEOP, Event.ESTOP)
    for command in (Event.TELEOP, Event.RESUME):
        with pytest.raises(StateError) as caught:
            advance(state, command, 9)
        assert "arm" in caught.value.legal
    assert advance(state, Event.ARM, 9)[0].phase is Phase.WAITING


@pytest.mark.parametrize("fact", [Event.BUS_SILENT, Event.TORQUE_LOST, Event.OVERLOAD])
def test_a_fault_is_left_only_by_commands(fact: Event) -> None:
    state, _ = walk(Phase.TELEOP, fact)
    assert state.trait.motion is Motion.FAULT
    for other in set(Event) - set(COMMANDS) - {Event.OVERHEAT}:
        assert advance(state, other, 9)[0].phase is Phase.FAULT


def test_lost_leader_holds_until_a_person_resumes() -> None:
    state, effects = walk(Phase.TELEOP, Event.LEADER_LOST, Event.LEADER_AGREES)
    assert state == MotionState(Phase.HELD, Cause.LEADER_SILENT, 1)
    assert effects == [Effect.STOP, Effect.NOTHING]
    assert advance(state, Event.RESUME, 3)[0].phase is Phase.WAITING


def test_a_loop_that_stood_still_holds_until_a_person_resumes() -> None:
    state, effects = walk(Phase.TELEOP, Event.LOOP_STALLED, Event.LEADER_AGREES)
    assert state == MotionState(Phase.HELD, Cause.LOOP_STALLED, 1)
    assert effects == [Effect.STOP, Effect.NOTHING]
    assert advance(state, Event.RESUME, 3)[0].phase is Phase.WAITING


def test_parking_ends_released_and_without_a_pose_it_holds() -> None:
    state, effects = walk(Phase.HELD, Event.DISARM_PARK, Event.PARKED)
    assert (state.phase, effects) == (Phase.DISARMED, [Effect.PARK, Effect.RELEASE])
    state, _ = walk(Phase.HELD, Event.DISARM_PARK, Event.NO_PARK_POSE)
    assert (state.phase, state.cause) == (Phase.ADOPTED, Cause.NO_PARK_POSE)


def test_an_overheated_arm_is_brought_to_rest_and_let_go_only_when_that_fails() -> None:
    state, effects = walk(Phase.TELEOP, Event.OVERHEAT)
    assert (state.phase, effects) == (Phase.PARKING, [Effect.PARK])
    state, effects = walk(Phase.TELEOP, Event.OVERHEAT, Event.LET_GO)
    assert (state.phase, effects[-1]) == (Phase.DISARMED, Effect.RELEASE)


def test_heat_does_not_interrupt_an_arm_on_its_way_to_rest() -> None:
    state, effects = walk(Phase.HELD, Event.DISARM_PARK, Event.OVERHEAT)
    assert (state.phase, state.cause) == (Phase.PARKING, Cause.OVERHEAT)
    assert effects == [Effect.PARK, Effect.NOTHING]


def test_an_illegal_command_says_state_and_what_is_legal() -> None:
    with pytest.raises(StateError) as caught:
        walk(Phase.DISARMED, Event.TELEOP)
    assert caught.value.state == "DISARMED"
    assert caught.value.legal == legal_commands(Phase.DISARMED)
    assert "arm" in caught.value.mend


def test_every_command_has_an_answer_in_every_phase() -> None:
    for phase, command in itertools.product(Phase, COMMANDS):
        state = MotionState(phase, Cause.NONE, 0)
        if (phase, command) in TRANSITIONS:
            advance(state, command, 1)
        else:
            with pytest.raises(StateError):
                advance(state, command, 1)
        assert str(Event.DISARM_RELEASE) in legal_commands(phase)
        assert str(Event.ESTOP) in legal_commands(phase)


def test_a_policy_is_detached_whatever_the_arm_is_at_and_where_it_moves_it_holds() -> None:
    for phase in Phase:
        row = TRANSITIONS[phase, Event.DETACH]
        assert row == TRANSITIONS.get((phase, Event.HOLD), Row(phase))
        assert not (TRAITS[row.to].torque and not TRAITS[phase].torque)


ATTEMPT = (
    Phase.SEATED, Phase.POLICY, Phase.REPLAY, Phase.PAUSED, Phase.TAKING, Phase.CORRECTING
)  # fmt: skip


def test_a_policy_is_seated_by_a_person_and_comes_back_by_itself_only_after_starving() -> None:
    for (phase, event), row in TRANSITIONS.items():
        if row.to is Phase.SEATED and event not in COMMANDS:
            assert phase in PLAYING
            assert row.effect is Effect.COAST
        if row.to is Phase.POLICY and phase is not Phase.POLICY:
            assert (phase, event) == (Phase.SEATED, Event.CHUNK_CAME)
        if row.to is Phase.REPLAY and phase is not Phase.REPLAY:
            assert (phase, event) == (Phase.SEATED, Event.REPLAY_CAME)


def test_a_policy_is_seated_only_on_an_arm_that_a_person_armed() -> None:
    for phase in Phase:
        if not TRAITS[phase].armed or phase is Phase.PARKING:
            with pytest.raises(StateError):
                walk(phase, Event.POLICY)


@pytest.mark.parametrize("phase", ATTEMPT)
@pytest.mark.parametrize(
    ("command", "motion"),
    [(Event.HOLD, Motion.HOLD), (Event.ESTOP, Motion.HOLD), (Event.TELEOP, Motion.HOLD)],
)
def test_a_person_takes_the_arm_at_once_and_the_policy_has_to_be_attached_again(
    phase: Phase, command: Event, motion: Motion
) -> None:
    state, effects = walk(phase, command)
    assert (state.trait.motion, effects) == (motion, [Effect.STOP])
    facts = set(Event) - set(COMMANDS)
    reached = {advance(state, fact, 2)[0].phase for fact in facts}
    assert not reached & set(ATTEMPT)


@pytest.mark.parametrize("phase", [Phase.SEATED, Phase.POLICY, Phase.PAUSED])
def test_a_lost_lease_slows_down_and_holds_until_a_person_attaches(phase: Phase) -> None:
    state, effects = walk(phase, Event.LEASE_LOST, Event.CHUNK_CAME)
    assert (state.phase, state.cause) == (Phase.HELD, Cause.LEASE_LOST)
    assert effects[0] is Effect.COAST


def test_every_way_of_starving_slows_down_and_says_why() -> None:
    for fact in (
        Event.QUEUE_EMPTY, Event.CHUNK_EXPIRED, Event.OBSERVATION_OLD, Event.HEARTBEAT_MISSED,
        Event.CHUNK_STOPPED,
    ):  # fmt: skip
        state, effects = walk(Phase.POLICY, fact, Event.CHUNK_CAME)
        assert state.phase is Phase.POLICY
        assert effects == [Effect.COAST, Effect.FOLLOW]
        held, _ = walk(Phase.POLICY, fact)
        assert held.trait.motion is Motion.HOLD
        assert held.cause.name == fact.name


def test_a_correction_is_paused_taken_and_given_back() -> None:
    state, effects = walk(
        Phase.POLICY, Event.TAKE_OVER, Event.LEADER_AGREES, Event.POLICY, Event.CHUNK_CAME
    )
    assert state.phase is Phase.POLICY
    assert effects == [Effect.COAST, Effect.FOLLOW, Effect.STOP, Effect.FOLLOW]
    assert walk(Phase.CORRECTING, Event.LEADER_LOST)[0].trait.motion is Motion.PAUSED


@pytest.mark.parametrize("phase", SEATED)
def test_a_moved_leader_interrupts_at_once_and_follows_once_the_arms_agree(phase: Phase) -> None:
    state, effects = walk(phase, Event.LEADER_MOVED)
    assert (state.trait.motion, state.cause) == (Motion.PAUSED, Cause.LEADER_MOVED)
    assert effects == [Effect.COAST]
    assert advance(state, Event.LEADER_AGREES, 2)[0].phase is Phase.CORRECTING


def test_a_moved_leader_takes_over_from_nobody_but_a_policy_or_a_replay() -> None:
    heard = {phase for phase, event in TRANSITIONS if event is Event.LEADER_MOVED}
    assert heard == set(SEATED)


def test_policies_switch_no_torque() -> None:
    for (phase, event), row in TRANSITIONS.items():
        if event in (Event.POLICY, Event.PAUSE, Event.TAKE_OVER) or row.to in ATTEMPT:
            assert TRAITS[row.to].torque == TRAITS[phase].torque
