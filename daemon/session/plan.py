"""The session plan: so many episodes, so long, with so much time to reset in between.

Pure: `advance(plan, input, now_ns)` gives the next plan and what to do. The keys mean what they
mean in lerobot-record. It trusts its caller to feed it: facts of the session, keys and the clock.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    """What the operator sees the plan doing."""

    WAITING = "waiting"  # for the session to be READY
    RECORDING = "recording"
    ENDING = "ending"  # the last rows of the episode are being closed
    RESET = "reset"
    SAVING = "saving"  # all recorded; the last commits are under way
    DONE = "done"


class Key(StrEnum):
    """What an operator may press (LeRobot's keys, and hold)."""

    NEXT = "next"
    RERECORD = "rerecord"
    STOP = "stop"
    HOLD = "hold"


class OnClientLost(StrEnum):
    """What the plan does when the last attached client vanishes without a word."""

    FINISH = "finish"  # let the running episode run its time, then end
    STOP = "stop"  # save what there is of the episode and end
    CONTINUE = "continue"


class Fact(StrEnum):
    """What can happen to a plan besides keys."""

    TIME = "time"
    AVAILABLE = "available"  # the session is READY
    STARTED = "started"
    ENDED = "ended"  # the episode is closed; it is saved (or thrown away) in the background
    CLIENT_LOST = "client_lost"


class Act(StrEnum):
    """What the caller has to do, in order."""

    START = "start"
    STOP = "stop"
    DISCARD = "discard"
    UNDO = "undo"  # the last episode, once it is durable
    HOLD = "hold"
    RESUME = "resume"
    RESET = "reset"  # announce the reset phase
    FINISH = "finish"  # announce the end of the plan


@dataclass(frozen=True, slots=True)
class PlanSpec:
    """What was asked for. resume: the dataset may already hold episodes.

    early_ns: how long before its end an episode is told to stop, so that its last row, still to
    come then, is the planned one.
    """

    episodes: int
    episode_ns: int
    reset_ns: int
    task: str = ""
    on_client_lost: OnClientLost = OnClientLost.FINISH
    resume: bool = False
    early_ns: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A running plan. done: episodes kept so far; unsaved: how many of them are not durable yet.

    since_ns: when the phase began, held time left out; held_ns: when the hold began, 0 not held.
    last_of: which episodes of this plan may still be undone (0 or 1); outcome: why it ended.
    """

    spec: PlanSpec
    phase: Phase = Phase.WAITING
    since_ns: int = 0
    held_ns: int = 0
    done: int = 0
    rerecorded: int = 0
    throw_away: bool = False
    last: bool = False
    undoable: bool = False
    undo_at_end: bool = False
    unsaved: int = 0
    outcome: str = ""

    @property
    def held(self) -> bool:
        """True while the operator has stopped the plan's clock."""
        return self.held_ns != 0

    @property
    def episode(self) -> int:
        """Number, from 1, of the episode that runs or comes next."""
        return min(self.done + 1, self.spec.episodes)

    def phase_ns(self) -> int:
        """Planned length of the present phase; 0 for those without one."""
        return {Phase.RECORDING: self.spec.episode_ns, Phase.RESET: self.spec.reset_ns}.get(
            self.phase, 0
        )

    def elapsed_ns(self, now_ns: int) -> int:
        """Time in the present phase, hold left out."""
        return max(0, (self.held_ns or now_ns) - self.since_ns)

    def left_ns(self, now_ns: int) -> int:
        """Time to the end of the present phase; 0 for phases without a length."""
        return max(0, self.phase_ns() - self.elapsed_ns(now_ns))

    def due_ns(self, now_ns: int) -> int:
        """When time alone ends the present phase, if nothing is held."""
        early_ns = self.spec.early_ns if self.phase is Phase.RECORDING else 0
        return now_ns + self.left_ns(now_ns) - min(early_ns, self.phase_ns() // 2)


@dataclass(frozen=True, slots=True)
class Step:
    """Result of one input: the plan after it and what the caller has to do, in order."""

    plan: Plan
    acts: tuple[Act, ...] = field(default=())


def begin(spec: PlanSpec, now_ns: int) -> Plan:
    """A plan that waits for the session to be READY. ValueError for numbers that mean nothing."""
    if spec.episodes < 1:
        raise ValueError(f"episodes: expected at least 1, found {spec.episodes}")
    if spec.episode_ns <= 0:
        raise ValueError(f"episode_s: expected more than 0, found {spec.episode_ns / 1e9:g}")
    if spec.reset_ns < 0:
        raise ValueError(f"reset_s: expected 0 or more, found {spec.reset_ns / 1e9:g}")
    return Plan(spec, since_ns=now_ns)


def advance(plan: Plan, happened: Key | Fact, now_ns: int) -> Step:
    """The plan after `happened`; inputs that mean nothing in the phase change nothing."""
    if happened is Key.HOLD:
        return _toggle_hold(plan, now_ns)
    if plan.held and happened is Fact.TIME:
        return Step(plan)
    rule = _RULES.get((plan.phase, happened))
    return rule(plan, now_ns) if rule else Step(plan)


def saved(plan: Plan) -> Step:
    """One more of the plan's episodes is durable."""
    return _finish_when_saved(replace(plan, unsaved=max(0, plan.unsaved - 1)))


def failed(plan: Plan) -> Step:
    """One of the plan's episodes could not be committed: it is recorded again if there is time."""
    lost = replace(plan, unsaved=max(0, plan.unsaved - 1), done=max(0, plan.done - 1))
    return _finish_when_saved(lost)


def _toggle_hold(plan: Plan, now_ns: int) -> Step:
    if plan.held:
        return Step(_released(plan, now_ns), (Act.RESUME,))
    if plan.phase not in (Phase.RECORDING, Phase.RESET):
        return Step(plan)
    return Step(replace(plan, held_ns=now_ns), (Act.HOLD,))


def _released(plan: Plan, now_ns: int) -> Plan:
    return replace(plan, since_ns=plan.since_ns + now_ns - plan.held_ns, held_ns=0)


def _moving_on(plan: Plan, now_ns: int, *acts: Act) -> Step:
    """Leave a hold with the step: the operator asked for the next phase, so the arms go on."""
    if plan.held:
        return Step(_released(plan, now_ns), (Act.RESUME, *acts))
    return Step(plan, acts)


def _start(plan: Plan, now_ns: int) -> Step:
    del now_ns
    return Step(plan, (Act.START,))


def _started(plan: Plan, now_ns: int) -> Step:
    clean = replace(plan, throw_away=False, undoable=False, undo_at_end=False)
    return Step(replace(clean, phase=Phase.RECORDING, since_ns=now_ns, held_ns=0))


def _end_on_time(plan: Plan, now_ns: int) -> Step:
    return _end_episode(plan, now_ns) if plan.due_ns(now_ns) <= now_ns else Step(plan)


def _end_episode(plan: Plan, now_ns: int) -> Step:
    step = _moving_on(plan, now_ns, Act.STOP)
    return Step(replace(step.plan, phase=Phase.ENDING), step.acts)


def _redo_episode(plan: Plan, now_ns: int) -> Step:
    step = _moving_on(plan, now_ns, Act.DISCARD)
    return Step(replace(step.plan, phase=Phase.ENDING, throw_away=True), step.acts)


def _stop_episode(plan: Plan, now_ns: int) -> Step:
    ending = replace(plan, phase=Phase.ENDING, last=True, outcome="stopped")
    return Step(_released(ending, now_ns) if plan.held else ending, (Act.STOP,))


def _last_one(plan: Plan, now_ns: int) -> Step:
    del now_ns
    return Step(replace(plan, last=True, outcome=plan.outcome or "stopped"))


def _redo_after_closing(plan: Plan, now_ns: int) -> Step:
    del now_ns
    return Step(plan if plan.throw_away else replace(plan, undo_at_end=True))


def _ended(plan: Plan, now_ns: int) -> Step:
    acts: list[Act] = []
    if plan.throw_away:
        plan = replace(plan, rerecorded=plan.rerecorded + 1)
    elif plan.undo_at_end:
        plan = replace(plan, rerecorded=plan.rerecorded + 1, unsaved=plan.unsaved + 1)
        acts.append(Act.UNDO)
    else:
        plan = replace(plan, done=plan.done + 1, unsaved=plan.unsaved + 1, undoable=True)
    plan = replace(plan, throw_away=False, undo_at_end=False)
    if plan.last or plan.done >= plan.spec.episodes:
        step = _finish_when_saved(
            replace(plan, phase=Phase.SAVING, outcome=plan.outcome or "complete", since_ns=now_ns)
        )
        return Step(step.plan, (*acts, *step.acts))
    plan = replace(plan, phase=Phase.RESET, since_ns=now_ns)
    return Step(plan, (*acts, Act.RESET))


def _ended_by_itself(plan: Plan, now_ns: int) -> Step:
    """A fault ended the episode. What there is of it counts, and the operator has to say go on."""
    step = _ended(replace(plan, phase=Phase.ENDING), now_ns)
    if step.plan.phase is not Phase.RESET:
        return step
    return Step(replace(step.plan, held_ns=now_ns), step.acts)


def _reset_over(plan: Plan, now_ns: int) -> Step:
    return _go_on(plan, now_ns) if plan.due_ns(now_ns) <= now_ns else Step(plan)


def _go_on(plan: Plan, now_ns: int) -> Step:
    step = _moving_on(plan, now_ns, Act.START)
    return Step(replace(step.plan, phase=Phase.WAITING, since_ns=now_ns), step.acts)


def _redo_last(plan: Plan, now_ns: int) -> Step:
    """LeRobot's left arrow in the reset phase: the episode just recorded is recorded again."""
    if not plan.undoable:
        return _go_on(plan, now_ns)
    undone = replace(plan, done=plan.done - 1, rerecorded=plan.rerecorded + 1, undoable=False)
    step = _go_on(undone, now_ns)
    return Step(step.plan, (Act.UNDO, *step.acts))


def _end_plan(plan: Plan, now_ns: int) -> Step:
    ended = replace(plan, phase=Phase.SAVING, since_ns=now_ns, held_ns=0, last=True)
    return _finish_when_saved(replace(ended, outcome=plan.outcome or "stopped"))


def _finish_when_saved(plan: Plan) -> Step:
    if plan.phase is Phase.SAVING and plan.unsaved == 0:
        return Step(replace(plan, phase=Phase.DONE), (Act.FINISH,))
    return Step(plan)


def _client_lost(plan: Plan, now_ns: int) -> Step:
    policy = plan.spec.on_client_lost
    if policy is OnClientLost.CONTINUE:
        return Step(plan)
    plan = replace(plan, outcome=plan.outcome or "client lost")
    match plan.phase:
        case Phase.RECORDING if policy is OnClientLost.FINISH and not plan.held:
            return Step(replace(plan, last=True))
        case Phase.RECORDING:
            step = _stop_episode(plan, now_ns)
            return Step(replace(step.plan, outcome=plan.outcome), step.acts)
        case Phase.ENDING:
            return Step(replace(plan, last=True))
        case _:
            return _end_plan(plan, now_ns)


_Rule = Callable[[Plan, int], Step]

_RULES: Final[dict[tuple[Phase, Key | Fact], _Rule]] = {
    (Phase.WAITING, Fact.AVAILABLE): _start,
    (Phase.WAITING, Fact.STARTED): _started,
    (Phase.WAITING, Key.STOP): _end_plan,
    (Phase.WAITING, Fact.CLIENT_LOST): _client_lost,
    (Phase.RECORDING, Fact.TIME): _end_on_time,
    (Phase.RECORDING, Fact.ENDED): _ended_by_itself,
    (Phase.RECORDING, Key.NEXT): _end_episode,
    (Phase.RECORDING, Key.RERECORD): _redo_episode,
    (Phase.RECORDING, Key.STOP): _stop_episode,
    (Phase.RECORDING, Fact.CLIENT_LOST): _client_lost,
    (Phase.ENDING, Fact.ENDED): _ended,
    (Phase.ENDING, Key.RERECORD): _redo_after_closing,
    (Phase.ENDING, Key.STOP): _last_one,
    (Phase.ENDING, Fact.CLIENT_LOST): _client_lost,
    (Phase.RESET, Fact.TIME): _reset_over,
    (Phase.RESET, Key.NEXT): _go_on,
    (Phase.RESET, Key.RERECORD): _redo_last,
    (Phase.RESET, Key.STOP): _end_plan,
    (Phase.RESET, Fact.CLIENT_LOST): _client_lost,
}
"""(phase, input) -> rule. Pairs that are not listed change nothing."""
