"""The table of the session: every pair of state and event, and the promises of undo."""

from dataclasses import replace

import pytest

from recd.config.errors import StateError
from recd.daemon.session import machine
from recd.daemon.session.machine import COMMANDS, TRANSITIONS, Event, Session, State, Take

UID = "a" * 32
OTHER = "b" * 32


def said_as(event: Event) -> str:
    return machine.SAID_AS.get(event, event.value)


def ready() -> Session:
    return machine.advance(Session(), Event.AVAILABLE)


def recording(uid: str = UID) -> Session:
    return machine.start(ready(), Take(uid, t0_ns=1))


def saved(session: Session, uid: str = UID) -> Session:
    running = machine.start(session, Take(uid, t0_ns=1))
    return machine.durable(machine.closed(machine.stop(running)), uid)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_pair_of_state_and_event_is_either_in_the_table_or_refused(
    state: State, event: Event
) -> None:
    session = Session(state=state, take=Take(UID, 1), available=True)
    if (state, event) in TRANSITIONS:
        assert machine.advance(session, event).state == TRANSITIONS[state, event]
        return
    with pytest.raises(StateError) as refused:
        machine.advance(session, event)
    assert refused.value.state == state
    assert said_as(event) not in refused.value.legal or said_as(event) == "rerecord"
    assert state.value in refused.value.message
    for name in refused.value.legal:
        assert any((state, event) in TRANSITIONS for event in Event if said_as(event) == name)


@pytest.mark.parametrize("state", State)
def test_facts_are_never_illegal_where_they_can_happen(state: State) -> None:
    for event in (Event.AVAILABLE, Event.UNAVAILABLE, Event.FAULT):
        assert (state, event) in TRANSITIONS
    assert COMMANDS.isdisjoint({Event.AVAILABLE, Event.UNAVAILABLE, Event.FAULT, Event.CLOSED})


def test_idle_refusal_names_what_is_waited_for() -> None:
    session = replace(Session(), waiting_for=("camera:wrist",), why=("camera:wrist (unplugged)",))
    with pytest.raises(StateError, match=r"camera:wrist \(unplugged\)"):
        machine.start(session, Take(UID, 1))


def test_start_is_legal_while_an_earlier_episode_commits() -> None:
    session = machine.closed(machine.stop(recording()))
    assert session.flags["committing"]
    again = machine.start(session, Take(OTHER, 2))
    assert again.state is State.RECORDING
    assert again.committing == (UID,)


def test_low_disk_refuses_start_and_changes_nothing() -> None:
    session = replace(ready(), low_disk=True)
    with pytest.raises(StateError, match="disk"):
        machine.start(session, Take(UID, 1))


def test_rerecord_while_recording_throws_away_and_asks_for_a_restart() -> None:
    session = machine.discard(recording(), restart=True)
    assert session.take is not None
    assert not session.take.keep
    after = machine.closed(session)
    assert (after.state, after.restart) == (State.READY, True)
    assert after.committing == ()
    assert after.discarding == (UID,)


def test_undo_takes_back_only_the_last_saved_episode_and_only_once() -> None:
    session = saved(saved(ready()), OTHER)
    session, uid = machine.undo(session)
    assert uid == OTHER
    session = machine.undone(session, uid)
    with pytest.raises(StateError, match="no episode"):
        machine.undo(session)


def test_undo_refuses_a_uid_that_is_no_longer_the_latest() -> None:
    session = saved(saved(ready()), OTHER)
    with pytest.raises(StateError, match="no longer the latest"):
        machine.undo(session, UID)


def test_undo_during_the_commit_waits_and_is_not_offered_again() -> None:
    session = machine.closed(machine.stop(recording()))
    session, uid = machine.undo(session)
    assert (uid, session.undoing) == (UID, (UID,))
    with pytest.raises(StateError):
        machine.undo(session)
    session = machine.durable(session, UID)
    assert session.last_saved is None
    assert machine.undone(session, UID).undoing == ()


def test_nothing_saved_by_this_session_means_nothing_to_undo() -> None:
    with pytest.raises(StateError, match="saved no episode"):
        machine.undo(ready())


def test_an_undeleted_episode_makes_older_ones_safe_from_undo() -> None:
    session = machine.undeleted(saved(ready()))
    with pytest.raises(StateError):
        machine.undo(session)


def test_a_discarded_take_is_never_the_one_to_undo() -> None:
    session = machine.closed(machine.discard(machine.start(saved(ready()), Take(OTHER, 2))))
    session = machine.settled(session, OTHER)
    _, uid = machine.undo(session)
    assert uid == UID


def test_a_fault_while_recording_keeps_the_episode_and_ends_in_fault() -> None:
    session = machine.fault(recording(), "writer gave up")
    assert session.state is State.FINALIZING
    assert session.take is not None
    assert session.take.keep
    session = machine.closed(session)
    assert (session.state, session.committing) == (State.FAULT, (UID,))
    with pytest.raises(StateError, match="writer gave up"):
        machine.start(session, Take(OTHER, 2))
    assert machine.advance(session, Event.RESET).state is State.IDLE


def test_required_processes_lost_while_closing_lead_to_idle() -> None:
    session = machine.advance(machine.stop(recording()), Event.UNAVAILABLE)
    assert machine.closed(session).state is State.IDLE


def test_marks_go_to_the_running_episode_and_nowhere_else() -> None:
    session = machine.mark(recording(), "success", 7)
    assert session.take is not None
    assert [mark.label for mark in session.take.marks] == ["success"]
    with pytest.raises(StateError, match="not possible in READY"):
        machine.mark(ready(), "success", 7)


def test_discard_while_closing_still_throws_the_take_away() -> None:
    session = machine.closed(machine.discard(machine.stop(recording())))
    assert (session.committing, session.discarding) == ((), (UID,))
