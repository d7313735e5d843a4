"""The motion machine of one follower: phases, events, and one table of what follows what.

Pure: it decides, the control loop acts. Torque comes on by the event ARM and no other; no row of
this table starts a movement from a restart, a re-plug or a recovery.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum
from typing import Any

from recd.config.errors import RecdError, StateError
from recd.config.streams import GoalSource, Motion


class Phase(Enum):
    """Finer than the published Motion: HOLD has several reasons, each with its own next steps."""

    DISARMED = "disarmed"
    ADOPTED = "adopted"  # torque on, not by an arm command of ours
    STOPPED = "stopped"  # after an e-stop
    HELD = "held"
    WAITING = "waiting"  # armed; the leader is elsewhere or silent
    TELEOP = "teleop"
    SEATED = "seated"  # a person lets a policy drive; it holds until a fresh chunk comes
    POLICY = "policy"
    REPLAY = "replay"  # as POLICY, of an episode
    PAUSED = "paused"  # a person interrupted the policy
    TAKING = "taking over"  # paused; the leader is elsewhere or silent
    CORRECTING = "correcting"  # a person drives in the middle of a policy's attempt
    PARKING = "parking"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Trait:
    """What holds in a phase. torque: servos are driven; armed: a person asked for motion."""

    motion: Motion
    source: GoalSource
    torque: bool
    armed: bool


TRAITS: dict[Phase, Trait] = {
    Phase.DISARMED: Trait(Motion.DISARMED, GoalSource.NONE, torque=False, armed=False),
    Phase.ADOPTED: Trait(Motion.HOLD, GoalSource.HOLD, torque=True, armed=False),
    Phase.STOPPED: Trait(Motion.HOLD, GoalSource.HOLD, torque=True, armed=False),
    Phase.HELD: Trait(Motion.HOLD, GoalSource.HOLD, torque=True, armed=True),
    Phase.WAITING: Trait(Motion.HOLD, GoalSource.HOLD, torque=True, armed=True),
    Phase.TELEOP: Trait(Motion.TELEOP, GoalSource.LEADER, torque=True, armed=True),
    Phase.SEATED: Trait(Motion.HOLD, GoalSource.HOLD, torque=True, armed=True),
    Phase.POLICY: Trait(Motion.POLICY, GoalSource.POLICY, torque=True, armed=True),
    Phase.REPLAY: Trait(Motion.REPLAY, GoalSource.REPLAY, torque=True, armed=True),
    Phase.PAUSED: Trait(Motion.PAUSED, GoalSource.HOLD, torque=True, armed=True),
    Phase.TAKING: Trait(Motion.PAUSED, GoalSource.HOLD, torque=True, armed=True),
    Phase.CORRECTING: Trait(Motion.CORRECTING, GoalSource.LEADER, torque=True, armed=True),
    Phase.PARKING: Trait(Motion.HOLD, GoalSource.PARK, torque=True, armed=True),
    Phase.FAULT: Trait(Motion.FAULT, GoalSource.NONE, torque=False, armed=False),
}


class Cause(IntEnum):
    """Why the machine is where it is; stored with every sample."""

    NONE = 0
    COMMAND = 1
    FOUND_WITHOUT_TORQUE = 2
    FOUND_WITH_TORQUE = 3
    FOUND_PARTLY_WITH_TORQUE = 4
    LEADER_DIFFERS = 5
    LEADER_SILENT = 6
    NO_LEADER = 7
    ESTOP = 8
    BUS_SILENT = 9
    TORQUE_LOST = 10
    OVERHEAT = 11
    OVERLOAD = 12
    IDLE = 13
    PARKED = 14
    NO_PARK_POSE = 15
    PARK_BLOCKED = 16
    ARMING_FAILED = 17
    LOOP_STALLED = 18
    WAITING_FOR_CHUNK = 19
    QUEUE_EMPTY = 20
    CHUNK_EXPIRED = 21
    OBSERVATION_OLD = 22
    HEARTBEAT_MISSED = 23
    LEASE_LOST = 24
    CHUNK_STOPPED = 25
    LEADER_MOVED = 26


class Event(StrEnum):
    """Commands of a person (the first twelve) and facts that the loop found."""

    ARM = "arm"
    TELEOP = "teleop"
    HOLD = "hold"
    RESUME = "resume"
    ESTOP = "estop"
    DISARM_HOLD = "disarm hold"
    DISARM_PARK = "disarm park"
    DISARM_RELEASE = "disarm release"
    POLICY = "policy attach"
    PAUSE = "policy pause"
    TAKE_OVER = "policy takeover"
    DETACH = "policy detach"
    ARMING_FAILED = "arming failed"
    LEADER_AGREES = "leader agrees"
    LEADER_LOST = "leader lost"
    LOOP_STALLED = "loop stalled"
    BUS_SILENT = "bus silent"
    TORQUE_LOST = "torque lost"
    TORQUE_FOUND = "torque found"
    OVERHEAT = "overheat"
    OVERLOAD = "overload"
    IDLE = "idle"
    PARKED = "parked"
    NO_PARK_POSE = "no park pose"
    PARK_BLOCKED = "park blocked"
    LET_GO = "too hot to hold"
    LEADER_MOVED = "leader moved"
    CHUNK_CAME = "chunk came"
    REPLAY_CAME = "replay came"
    QUEUE_EMPTY = "queue empty"
    CHUNK_EXPIRED = "chunk expired"
    OBSERVATION_OLD = "observation old"
    HEARTBEAT_MISSED = "heartbeat missed"
    LEASE_LOST = "lease lost"
    CHUNK_STOPPED = "chunk stopped"


COMMANDS = tuple(Event)[:12]
WANTED_FACTS = (Event.LEADER_AGREES, Event.LEADER_MOVED, Event.PARKED, Event.CHUNK_CAME,
                Event.REPLAY_CAME, Event.CHUNK_STOPPED)  # fmt: skip
"""Facts that end what a command began; all others surprise somebody."""

DISARM_BY_POLICY: dict[str, Event] = {
    "hold": Event.DISARM_HOLD,
    "park": Event.DISARM_PARK,
    "release": Event.DISARM_RELEASE,
}


_OF_POLICIES = (Event.POLICY, Event.PAUSE, Event.TAKE_OVER, Event.DETACH)


def command_event(message: Mapping[str, Any], policy: Event) -> Event:
    """Event of a message on the arm link; `policy` is what a bare `disarm` means.

    Raises RecdError for what this version does not know.
    """
    match message:
        case {"ty": "disarm", "policy": str(wanted)} if wanted in DISARM_BY_POLICY:
            return DISARM_BY_POLICY[wanted]
        case {"ty": "disarm"}:
            return policy
        case {"ty": "goal_source", "source": "leader"}:
            return Event.TELEOP
        case {"ty": "goal_source", "source": "hold"}:
            return Event.HOLD
        case {"ty": ("arm" | "teleop" | "hold" | "resume" | "estop") as command}:
            return Event(command)
        case {"ty": str(command)} if command in _OF_POLICIES:
            return Event(command)
    raise RecdError(f"{message.get('ty')}: not a motion command", code="argument")


class Effect(Enum):
    """What the loop has to do when a transition is taken."""

    NOTHING = "nothing"
    ENGAGE = "engage"  # present position as goal, read back, torque on
    FOLLOW = "follow"  # glide from the held goal to the leader's
    STOP = "stop"  # keep the goal that was sent last
    COAST = "coast"  # slow down by the acceleration limit, then keep the goal
    PARK = "park"
    RELEASE = "release"  # torque off
    POLICY = "policy"  # the configured torque policy, by a further event


@dataclass(frozen=True, slots=True)
class Row:
    """Where an event leads: next phase, effect, and the cause that is published (None: kept)."""

    to: Phase
    effect: Effect = Effect.NOTHING
    cause: Cause | None = None


def _rows(phases: tuple[Phase, ...], event: Event, row: Row) -> dict[tuple[Phase, Event], Row]:
    return {(phase, event): row for phase in phases}


def _stay(phase: Phase, *events: Event) -> dict[tuple[Phase, Event], Row]:
    return {(phase, event): Row(phase) for event in events}


_P, _E, _F, _C = Phase, Event, Effect, Cause
_ARMED_STILL = (_P.HELD, _P.WAITING)
_UNARMED_HOLD = (_P.ADOPTED, _P.STOPPED)
_PLAYING = (_P.POLICY, _P.REPLAY)
_SEATS = (_P.SEATED, *_PLAYING)
_INTERRUPTED = (_P.PAUSED, _P.TAKING)
_ATTEMPT = (*_SEATS, *_INTERRUPTED, _P.CORRECTING)
_TORQUED = (*_UNARMED_HOLD, *_ARMED_STILL, _P.TELEOP, *_ATTEMPT, _P.PARKING)
_STARVED = {
    _E.QUEUE_EMPTY: _C.QUEUE_EMPTY,
    _E.CHUNK_EXPIRED: _C.CHUNK_EXPIRED,
    _E.OBSERVATION_OLD: _C.OBSERVATION_OLD,
    _E.HEARTBEAT_MISSED: _C.HEARTBEAT_MISSED,
    _E.CHUNK_STOPPED: _C.CHUNK_STOPPED,
}
_HOLDS = {
    **dict.fromkeys((*_ARMED_STILL, _P.TELEOP, *_ATTEMPT), Row(_P.HELD, _F.STOP, _C.COMMAND)),
    _P.PARKING: Row(_P.ADOPTED, _F.STOP, _C.COMMAND),
    _P.ADOPTED: Row(_P.ADOPTED),
    _P.STOPPED: Row(_P.STOPPED),
}
_ENGAGE = Row(_P.WAITING, _F.ENGAGE, _C.COMMAND)

TRANSITIONS: dict[tuple[Phase, Event], Row] = {
    **_rows((_P.DISARMED, *_UNARMED_HOLD, _P.FAULT), _E.ARM, _ENGAGE),
    **_rows(_ARMED_STILL, _E.ARM, Row(_P.WAITING, cause=_C.COMMAND)),
    **_rows((_P.PARKING,), _E.ARM, Row(_P.WAITING, _F.STOP, _C.COMMAND)),
    **_rows((_P.WAITING,), _E.ARMING_FAILED, Row(_P.FAULT, cause=_C.ARMING_FAILED)),
    **_rows(_ARMED_STILL, _E.TELEOP, Row(_P.WAITING, cause=_C.COMMAND)),
    **_rows(_ARMED_STILL, _E.RESUME, Row(_P.WAITING, cause=_C.COMMAND)),
    **_stay(_P.TELEOP, _E.ARM, _E.TELEOP, _E.RESUME),
    **_rows((_P.WAITING,), _E.LEADER_AGREES, Row(_P.TELEOP, _F.FOLLOW, _C.COMMAND)),
    **_rows((_P.TELEOP,), _E.LEADER_LOST, Row(_P.HELD, _F.STOP, _C.LEADER_SILENT)),
    **_rows((_P.TELEOP,), _E.LOOP_STALLED, Row(_P.HELD, _F.STOP, _C.LOOP_STALLED)),
    **{(phase, _E.HOLD): row for phase, row in _HOLDS.items()},
    # The same, but its lease goes from a policy whatever the arm is at: none may be in the way.
    **{(phase, _E.DETACH): row for phase, row in _HOLDS.items()},
    **_stay(_P.DISARMED, _E.DETACH),
    **_stay(_P.FAULT, _E.DETACH),
    # A policy drives only after a person said so. Whenever a person or another holder took the arm
    # from it, a person has to say so again. What starved may go on: with a fresh chunk.
    **_rows((*_ARMED_STILL, _P.TELEOP, *_INTERRUPTED, _P.CORRECTING), _E.POLICY,
            Row(_P.SEATED, _F.STOP, _C.WAITING_FOR_CHUNK)),
    **_stay(_P.SEATED, _E.POLICY),
    **_stay(_P.POLICY, _E.POLICY),
    **_stay(_P.REPLAY, _E.POLICY),
    **_rows((_P.SEATED,), _E.CHUNK_CAME, Row(_P.POLICY, _F.FOLLOW, _C.COMMAND)),
    **_rows((_P.SEATED,), _E.REPLAY_CAME, Row(_P.REPLAY, _F.FOLLOW, _C.COMMAND)),
    **{(phase, event): Row(_P.SEATED, _F.COAST, cause)
       for event, cause in _STARVED.items() for phase in _PLAYING},
    **_rows((*_SEATS, _P.PAUSED), _E.LEASE_LOST, Row(_P.HELD, _F.COAST, _C.LEASE_LOST)),
    **_rows((*_SEATS, _P.CORRECTING), _E.PAUSE, Row(_P.PAUSED, _F.COAST, _C.COMMAND)),
    **_rows((_P.TAKING,), _E.PAUSE, Row(_P.PAUSED, cause=_C.COMMAND)),
    **_stay(_P.PAUSED, _E.PAUSE),
    **_rows((*_SEATS, _P.PAUSED), _E.TAKE_OVER, Row(_P.TAKING, _F.COAST, _C.COMMAND)),
    **_rows(_SEATS, _E.LEADER_MOVED, Row(_P.TAKING, _F.COAST, _C.LEADER_MOVED)),
    **_stay(_P.TAKING, _E.TAKE_OVER),
    **_stay(_P.CORRECTING, _E.TAKE_OVER),
    **_rows((_P.TAKING,), _E.LEADER_AGREES, Row(_P.CORRECTING, _F.FOLLOW, _C.COMMAND)),
    **_rows((_P.CORRECTING,), _E.LEADER_LOST, Row(_P.PAUSED, _F.STOP, _C.LEADER_SILENT)),
    **_rows((*_SEATS, _P.CORRECTING), _E.LOOP_STALLED,
            Row(_P.HELD, _F.STOP, _C.LOOP_STALLED)),
    **_rows(_ATTEMPT, _E.TELEOP, Row(_P.WAITING, _F.STOP, _C.COMMAND)),
    **_rows(_ATTEMPT, _E.ESTOP, Row(_P.STOPPED, _F.STOP, _C.ESTOP)),
    **_rows((_P.SEATED, *_INTERRUPTED, _P.CORRECTING), _E.IDLE,
            Row(_P.PARKING, _F.PARK, _C.IDLE)),
    **_rows(_ATTEMPT, _E.OVERHEAT, Row(_P.PARKING, _F.PARK, _C.OVERHEAT)),
    # The first e-stop holds; the next one does what the torque policy says.
    **_rows((_P.ADOPTED, *_ARMED_STILL, _P.TELEOP, _P.PARKING), _E.ESTOP,
            Row(_P.STOPPED, _F.STOP, _C.ESTOP)),
    **_rows((_P.STOPPED, _P.FAULT), _E.ESTOP, Row(_P.ADOPTED, _F.POLICY, _C.ESTOP)),
    **_stay(_P.DISARMED, _E.ESTOP, _E.DISARM_HOLD, _E.DISARM_PARK, _E.DISARM_RELEASE),
    **_rows((*_TORQUED, _P.FAULT), _E.DISARM_HOLD, Row(_P.ADOPTED, _F.STOP, _C.COMMAND)),
    **_rows(_TORQUED, _E.DISARM_PARK, Row(_P.PARKING, _F.PARK, _C.COMMAND)),
    **_rows((*_TORQUED, _P.FAULT), _E.DISARM_RELEASE, Row(_P.DISARMED, _F.RELEASE, _C.COMMAND)),
    **_rows((_P.PARKING,), _E.PARKED, Row(_P.DISARMED, _F.RELEASE, _C.PARKED)),
    **_rows((_P.PARKING,), _E.NO_PARK_POSE, Row(_P.ADOPTED, _F.STOP, _C.NO_PARK_POSE)),
    **_rows((_P.PARKING,), _E.PARK_BLOCKED, Row(_P.ADOPTED, _F.STOP, _C.PARK_BLOCKED)),
    **_rows((*_ARMED_STILL, _P.TELEOP), _E.IDLE, Row(_P.PARKING, _F.PARK, _C.IDLE)),
    **_rows(_TORQUED, _E.BUS_SILENT, Row(_P.FAULT, _F.STOP, _C.BUS_SILENT)),
    **_rows(_TORQUED, _E.TORQUE_LOST, Row(_P.FAULT, _F.STOP, _C.TORQUE_LOST)),
    **_rows(_TORQUED, _E.OVERLOAD, Row(_P.FAULT, _F.STOP, _C.OVERLOAD)),
    **_rows((_P.DISARMED,), _E.TORQUE_FOUND, Row(_P.ADOPTED, _F.STOP, _C.FOUND_WITH_TORQUE)),
    # An armed arm is brought down gently; one that nobody armed is never moved, only let go.
    **_rows((*_ARMED_STILL, _P.TELEOP), _E.OVERHEAT, Row(_P.PARKING, _F.PARK, _C.OVERHEAT)),
    **_rows((_P.PARKING,), _E.OVERHEAT, Row(_P.PARKING, cause=_C.OVERHEAT)),
    **_rows((_P.PARKING,), _E.LET_GO, Row(_P.DISARMED, _F.RELEASE, _C.OVERHEAT)),
    **_rows((*_UNARMED_HOLD, _P.FAULT), _E.OVERHEAT,
            Row(_P.DISARMED, _F.RELEASE, _C.OVERHEAT)),
}  # fmt: skip
"""(phase, event) -> row. A fact without a row changes nothing; a command without one is refused."""


FOLLOWING = (Phase.TELEOP, Phase.CORRECTING)
COMPARING = (Phase.WAITING, Phase.TAKING)
PLAYING = _PLAYING
SEATED = _SEATS
"""Phases in which the leader is followed; its pose is waited for; a plan is played; a person lets
a policy or a replay drive."""


@dataclass(frozen=True, slots=True)
class MotionState:
    """Where the machine is, why, and since when (ns); trait: what holds there."""

    phase: Phase
    cause: Cause
    since_ns: int
    trait: Trait = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Once, not at each use: an Enum's hash is Python code [eight looks a tick].
        object.__setattr__(self, "trait", TRAITS[self.phase])


def found_state(torque: tuple[bool, ...], at_ns: int, *, had_torque: bool = False) -> MotionState:
    """First state after attaching, by which servos were found with torque on: nothing changes.

    had_torque: they had it when the bus was lost.
    """
    if all(torque):
        return MotionState(Phase.ADOPTED, Cause.FOUND_WITH_TORQUE, at_ns)
    if any(torque):
        return MotionState(Phase.FAULT, Cause.FOUND_PARTLY_WITH_TORQUE, at_ns)
    cause = Cause.TORQUE_LOST if had_torque else Cause.FOUND_WITHOUT_TORQUE
    return MotionState(Phase.DISARMED, cause, at_ns)


def legal_commands(phase: Phase) -> tuple[str, ...]:
    """Commands that have a row in this phase."""
    return tuple(str(event) for event in COMMANDS if (phase, event) in TRANSITIONS)


def advance(state: MotionState, event: Event, at_ns: int) -> tuple[MotionState, Effect]:
    """Next state and what to do. Facts that have no row are ignored; commands raise StateError."""
    row = TRANSITIONS.get((state.phase, event))
    if row is None:
        if event not in COMMANDS:
            return state, Effect.NOTHING
        raise StateError(
            f"{event}: not possible while {state.trait.motion.name} ({_words(state.cause)})",
            state=state.trait.motion.name,
            legal=legal_commands(state.phase),
            mend=f"Possible now: {', '.join(legal_commands(state.phase))}.",
        )
    if row.to is state.phase and row.effect is Effect.NOTHING and row.cause is None:
        return state, Effect.NOTHING
    cause = state.cause if row.cause is None else row.cause
    return MotionState(row.to, cause, at_ns), row.effect


def _words(cause: Cause) -> str:
    return cause.name.lower().replace("_", " ")
