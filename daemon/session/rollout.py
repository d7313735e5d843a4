"""What is recorded while a policy drives: when an episode begins and ends, by strategy. Pure.

Level-triggered: it compares what is with what the strategy wants and names one thing to do. Arms,
files and processes are not its matter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from recd.shm.clock import tick_at_or_before, tick_ns


class Strategy(StrEnum):
    """As in lerobot-rollout."""

    BASE = "base"  # nothing by itself
    SENTRY = "sentry"  # everything, cut into episodes
    HIGHLIGHT = "highlight"  # the last seconds, when somebody says so
    DAGGER = "dagger"  # corrections
    EPISODIC = "episodic"  # one episode per attempt, so long at most


class Corrections(StrEnum):
    """What `dagger` makes of a correction."""

    OWN = "own"  # an episode of its own: nothing but a person's leading
    INSIDE = "inside"  # part of the attempt's episode, marked


class Do(StrEnum):
    """What to do now."""

    NOTHING = "nothing"
    START = "start"
    STOP = "stop"
    CUT = "cut"  # end with the last row that is still led
    STOP_AND_PAUSE = "stop and pause"  # the policy waits until a person has set up the scene


@dataclass(frozen=True, slots=True)
class RolloutSpec:
    """What was asked for. episode_ns: length at which an episode is cut (sentry, episodic)."""

    strategy: Strategy
    episode_ns: int
    corrections: Corrections = Corrections.OWN

    @property
    def own_corrections(self) -> bool:
        return self.strategy is Strategy.DAGGER and self.corrections is Corrections.OWN


@dataclass(frozen=True, slots=True)
class Seen:
    """How things are. ready: an episode could begin; running: one of this rollout's runs, since
    t0_ns; led: every arm is led by a person in an attempt, and is where the leader is (of a running
    correction: so far in every row);
    driving: some arm is driven by a policy; attempt: every arm is in an attempt, held or not.
    """

    ready: bool
    running: bool
    t0_ns: int = 0
    led: bool = False
    driving: bool = False
    attempt: bool = False


ATTEMPT = ("seated", "policy", "paused", "taking over", "correcting")
"""Phases of a follower in which a policy's attempt is not over (daemon/arms/motion.py)."""


def seen_of(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
    """The part of `Seen` that the arms tell. arms: pair -> what its follower last said."""
    said: Sequence[Mapping[str, Any]] = list(arms.values())
    return {
        "led": bool(said) and all(one.get("led_ns") for one in said),
        "driving": any(one.get("phase") == "policy" for one in said),
        "attempt": bool(said) and all(one.get("phase") in ATTEMPT for one in said),
    }


def unled_ns(
    arms: Mapping[str, Mapping[str, Any]], t0_ns: int, rate: tuple[int, int], now_ns: int
) -> int | None:
    """Since when an episode with row 0 at `t0_ns` and `rate` (num, den) rows a second has a row in
    which an arm was not led; None: no such row. A gap between two rows costs nothing."""
    found = []
    for said in arms.values():
        if not said.get("led_ns") and not said.get("led_gaps"):
            found.append(now_ns)  # it began anew and knows of nothing
        for from_ns, to_ns in said.get("led_gaps", ()):
            row = max(0, tick_at_or_before(t0_ns, from_ns - 1, *rate) + 1)
            if tick_ns(t0_ns, row, *rate) < (to_ns or now_ns):
                found.append(from_ns)
                break
    return min(found, default=None)


def next_act(spec: RolloutSpec, seen: Seen, now_ns: int) -> Do:
    """The one thing to do now."""
    over = seen.running and now_ns - seen.t0_ns >= spec.episode_ns
    match spec.strategy:
        case Strategy.SENTRY:
            return _ends(seen, wanted=True, over=over, act=Do.STOP)
        case Strategy.DAGGER if spec.own_corrections:
            return _ends(seen, wanted=seen.led, over=False, act=Do.CUT)
        case Strategy.DAGGER:
            wanted = seen.driving or (seen.running and seen.attempt)
            return _ends(seen, wanted=wanted, over=False, act=Do.STOP)
        case Strategy.EPISODIC:
            if over and seen.attempt:
                return Do.STOP_AND_PAUSE
            wanted = seen.driving or (seen.running and seen.attempt)
            return _ends(seen, wanted=wanted, over=over, act=Do.STOP)
    return Do.NOTHING


def _ends(seen: Seen, *, wanted: bool, over: bool, act: Do) -> Do:
    if seen.running:
        return Do.NOTHING if wanted and not over else act
    return Do.START if wanted and seen.ready else Do.NOTHING
