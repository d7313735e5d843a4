"""Session of one recording: the state it is in and what is legal there.

Pure. TRANSITIONS is the only place that says what may happen when; what it does not list is
illegal and refused with the list of what is legal. It knows nothing of processes or files.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from recd.config.errors import StateError


class State(StrEnum):
    """Where a recording is. An episode that is being committed is a flag, not a state."""

    IDLE = "IDLE"  # something that recording needs is not there yet
    READY = "READY"  # everything required runs and encoders are open
    RECORDING = "RECORDING"
    FINALIZING = "FINALIZING"  # the streams are deciding and closing the last rows
    FAULT = "FAULT"  # given up on something required; `reset` tries again


class Event(StrEnum):
    """What can happen to a recording: commands of people first, then facts."""

    START = "start"
    STOP = "stop"
    DISCARD = "discard"
    RERECORD = "rerecord"  # of a running episode
    UNDO = "undo"  # what `rerecord` means while none runs
    UNDELETE = "undelete"
    MARK = "mark"
    RESET = "reset"
    AVAILABLE = "available"  # everything required is ready
    UNAVAILABLE = "unavailable"  # something required is not
    ABORT = "abort"  # a failure ends the episode; what was recorded is kept
    CLOSED = "closed"  # all streams of the running episode are closed
    FAULT = "fault"


COMMANDS: Final = frozenset(
    {
        Event.START,
        Event.STOP,
        Event.DISCARD,
        Event.RERECORD,
        Event.UNDO,
        Event.UNDELETE,
        Event.MARK,
        Event.RESET,
    }
)
"""The events that a person may ask for."""

SAID_AS: Final = {Event.UNDO: Event.RERECORD.value}
"""Events whose command has another name."""

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.IDLE, Event.AVAILABLE): State.READY,
    (State.IDLE, Event.UNAVAILABLE): State.IDLE,
    (State.IDLE, Event.UNDO): State.IDLE,
    (State.IDLE, Event.UNDELETE): State.IDLE,
    (State.IDLE, Event.FAULT): State.FAULT,
    (State.READY, Event.AVAILABLE): State.READY,
    (State.READY, Event.UNAVAILABLE): State.IDLE,
    (State.READY, Event.START): State.RECORDING,
    (State.READY, Event.UNDO): State.READY,
    (State.READY, Event.UNDELETE): State.READY,
    (State.READY, Event.FAULT): State.FAULT,
    (State.RECORDING, Event.AVAILABLE): State.RECORDING,
    (State.RECORDING, Event.UNAVAILABLE): State.RECORDING,
    (State.RECORDING, Event.STOP): State.FINALIZING,
    (State.RECORDING, Event.DISCARD): State.FINALIZING,
    (State.RECORDING, Event.RERECORD): State.FINALIZING,
    (State.RECORDING, Event.MARK): State.RECORDING,
    (State.RECORDING, Event.ABORT): State.FINALIZING,
    (State.RECORDING, Event.FAULT): State.FINALIZING,
    (State.FINALIZING, Event.AVAILABLE): State.FINALIZING,
    (State.FINALIZING, Event.UNAVAILABLE): State.FINALIZING,
    (State.FINALIZING, Event.MARK): State.FINALIZING,
    (State.FINALIZING, Event.DISCARD): State.FINALIZING,
    (State.FINALIZING, Event.ABORT): State.FINALIZING,
    (State.FINALIZING, Event.FAULT): State.FINALIZING,
    (State.FINALIZING, Event.CLOSED): State.READY,
    (State.FAULT, Event.AVAILABLE): State.FAULT,
    (State.FAULT, Event.UNAVAILABLE): State.FAULT,
    (State.FAULT, Event.FAULT): State.FAULT,
    (State.FAULT, Event.RESET): State.IDLE,
}
"""(state, event) -> next state. FINALIZING ends in FAULT or IDLE when one was noted meanwhile."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A word put on an episode. at_ns: int64 ns CLOCK_MONOTONIC, label: success, fail or text."""

    label: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class Take:
    """One episode from `start` on. uid: 32 hex digits; t0_ns: time of row 0, CLOCK_MONOTONIC."""

    uid: str
    t0_ns: int
    task: str = ""
    operator: str = ""
    marks: tuple[Mark, ...] = ()
    keep: bool = True
    end_reason: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """All that decides what is legal for one recording.

    take: the running or finalizing episode; committing: uids sealed and not yet durable, oldest
    first; discarding: the same for takes that go to the trash; last_saved: newest episode saved by
    this session that may still be undone; undoing: uids being undone, perhaps after their commit;
    restart: start again once the take is closed; waiting_for: processes that are not ready, why:
    the same with reasons.
    """

    recording: str = "main"
    state: State = State.IDLE
    available: bool = False
    take: Take | None = None
    committing: tuple[str, ...] = ()
    discarding: tuple[str, ...] = ()
    last_saved: str | None = None
    undoing: tuple[str, ...] = ()
    restart: bool = False
    fault: str = ""
    waiting_for: tuple[str, ...] = ()
    why: tuple[str, ...] = ()
    degraded: frozenset[str] = frozenset()
    paused: bool = False
    low_disk: bool = False

    @property
    def flags(self) -> dict[str, bool]:
        """The flags that go with the state."""
        return {
            "degraded": bool(self.degraded),
            "paused": self.paused,
            "low_disk": self.low_disk,
            "committing": bool(self.committing or self.discarding),
        }

    @property
    def legal(self) -> tuple[str, ...]:
        """Commands that the present state allows, in the order of Event."""
        return legal_in(self.state)


def legal_in(state: State) -> tuple[str, ...]:
    """Commands legal in `state`, in the order of Event."""
    return tuple(
        SAID_AS.get(event, event.value)
        for event in Event
        if event in COMMANDS and (state, event) in TRANSITIONS
    )


def advance(session: Session, event: Event) -> Session:
    """The session after `event`; StateError when TRANSITIONS does not list it.

    Only the state is decided here, and the two facts that outrank a plain table entry: a fault
    noted while an episode was closing, and required processes that left meanwhile.
    """
    target = TRANSITIONS.get((session.state, event))
    if target is None:
        raise illegal(session, event)
    if event is Event.AVAILABLE or event is Event.UNAVAILABLE:
        session = replace(session, available=event is Event.AVAILABLE)
    if event is Event.RESET:
        session = replace(session, fault="")
    if event is Event.CLOSED:
        target = _after_closing(session)
        session = replace(session, take=None, paused=False)
    return replace(session, state=target)


def _after_closing(session: Session) -> State:
    if session.fault:
        return State.FAULT
    return State.READY if session.available else State.IDLE


_MENDS: Final[dict[tuple[State, Event], str]] = {
    (State.IDLE, Event.START): "wait until everything is ready: recctl status --watch",
    (State.RECORDING, Event.START): "recctl stop saves the running episode; recctl rerecord "
    "throws it away and starts again",
    (State.FINALIZING, Event.START): "the last rows are being written; try again at once",
    (State.READY, Event.MARK): "a mark belongs to the running episode: mark it before stop",
    (State.FAULT, Event.START): "recctl status names the fault; mend it, then recctl reset",
}


def illegal(session: Session, event: Event) -> StateError:
    """The refusal of `event` in the present state, with what is legal and what to do."""
    legal = session.legal
    detail = ""
    if session.state is State.IDLE and session.why:
        detail = f", waiting for {', '.join(session.why)}"
    if session.state is State.FAULT and session.fault:
        detail = f" ({session.fault})"
    mend = _MENDS.get((session.state, event), "")
    return StateError(
        f"{SAID_AS.get(event, event.value)} is not possible in {session.state.value}{detail}; "
        f"legal now: {', '.join(legal) or 'nothing'}",
        state=session.state.value,
        legal=legal,
        mend=mend,
    )


def start(session: Session, take: Take) -> Session:
    """Begin `take`. Refused when the disk is low, whatever the state."""
    after = advance(session, Event.START)
    if session.low_disk:
        raise _refused(session, "start refused: the disk is nearly full, or the dataset folder is "
                       "gone", "recctl status shows the "
                       "space left; free some, or move the dataset")  # fmt: skip
    return replace(after, take=take, restart=False)


def stop(session: Session, reason: str = "stop") -> Session:
    """End the running episode and keep it."""
    after = advance(session, Event.STOP)
    return replace(after, take=_ended(after, reason, keep=True))


def abort(session: Session, reason: str) -> Session:
    """A failure ends the running episode; what was recorded is kept. No change when closing."""
    after = advance(session, Event.ABORT)
    if session.state is State.FINALIZING:
        return after
    return replace(after, take=_ended(after, reason, keep=True))


def discard(session: Session, *, restart: bool = False) -> Session:
    """End the running episode and do not keep it; `restart` begins anew once it is closed."""
    event = Event.RERECORD if restart else Event.DISCARD
    after = advance(session, event)
    reason = "rerecord" if restart else "discard"
    return replace(after, take=_ended(after, reason, keep=False), restart=restart)


def fault(session: Session, reason: str) -> Session:
    """Something required is lost for good. A running episode is ended and kept first."""
    after = advance(session, Event.FAULT)
    take = after.take
    if session.state is State.RECORDING:
        take = _ended(after, f"fault: {reason}", keep=True)
    return replace(after, take=take, fault=session.fault or reason)


def _ended(session: Session, reason: str, *, keep: bool) -> Take:
    assert session.take is not None, "RECORDING and FINALIZING always have a take"
    return replace(session.take, keep=keep, end_reason=reason)


def mark(session: Session, label: str, at_ns: int) -> Session:
    """Put `label` on the running episode. Refused when none runs."""
    after = advance(session, Event.MARK)
    assert after.take is not None, "RECORDING and FINALIZING always have a take"
    return replace(after, take=replace(after.take, marks=(*after.take.marks, Mark(label, at_ns))))


def closed(session: Session) -> Session:
    """All streams of the take are closed: it is committed (or thrown away) in the background."""
    take = session.take
    after = advance(session, Event.CLOSED)
    assert take is not None, "FINALIZING always has a take"
    if take.keep:
        return replace(after, committing=(*after.committing, take.uid))
    return replace(after, discarding=(*after.discarding, take.uid))


def durable(session: Session, uid: str) -> Session:
    """Episode `uid` is in the dataset and on the disk: the one that can be undone from now on."""
    last = None if uid in session.undoing else uid
    return replace(_settled(session, uid), last_saved=last)


def settled(session: Session, uid: str) -> Session:
    """The end of `uid` without a new episode: in the trash, or failed and kept aside."""
    return replace(_settled(session, uid), undoing=_without(session.undoing, uid))


def _settled(session: Session, uid: str) -> Session:
    return replace(
        session,
        committing=_without(session.committing, uid),
        discarding=_without(session.discarding, uid),
    )


def undo(session: Session, uid: str | None = None) -> tuple[Session, str]:
    """Take back the last episode that this session saved, once. Returns its uid.

    While that episode is still being committed it is noted in `undoing`; the caller undoes it when
    it is durable. uid: the episode that the caller means; refused when it is no longer the latest.
    """
    after = advance(session, Event.UNDO)
    latest = session.committing[-1] if session.committing else session.last_saved
    if latest is None or latest in session.undoing:
        raise _refused(
            session,
            "rerecord: this session has saved no episode that could still be undone",
            "recctl episodes lists them",
        )
    if uid is not None and uid != latest:
        raise _refused(
            session,
            f"rerecord: {uid} is no longer the latest episode, {latest} is",
            "leave the uid out to undo the latest",
        )
    return replace(after, last_saved=None, undoing=(*session.undoing, latest)), latest


def undone(session: Session, uid: str) -> Session:
    """`uid` has left the dataset (or could not be undone: the writer said why)."""
    return replace(session, undoing=_without(session.undoing, uid))


def undeleted(session: Session) -> Session:
    """An older take came back as the newest: nothing is left that this session may undo."""
    return replace(advance(session, Event.UNDELETE), last_saved=None)


def _without(uids: tuple[str, ...], uid: str) -> tuple[str, ...]:
    return tuple(other for other in uids if other != uid)


def _refused(session: Session, message: str, mend: str) -> StateError:
    return StateError(message, state=session.state.value, legal=session.legal, mend=mend)
