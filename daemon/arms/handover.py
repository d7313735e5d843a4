"""Hand-over between a policy and a person: who has taken hold, where the arms meet, when it ends.

Decides from positions and time; the follower acts. A leader is driven only by its own process, and
only while the follower's wish is fresh.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from recd.config.streams import JointFlag
from recd.daemon.arms.motion import PLAYING, SEATED, Cause, MotionState, Phase
from recd.shm import CellReader, CellWriter
from recd.shm.clock import NS_PER_MS, NS_PER_S

STILL_SHARE = 1 / 3
"""A leader lies still while it stays within this share of the threshold: the two differ, so that a
leader near the threshold does not take over again and again."""

MET_UNITS = 3.0
"""Leader and follower have met when every joint is this near; what is left is glided."""

WISH_KEPT_NS = 200 * NS_PER_MS
"""A wish of the follower counts for so long: a leader whose follower died is let go."""

LET_GO_NS = 100 * NS_PER_MS
"""How long after a wish its leader may still be about to take torque: a period of each arm, and the
registers that it reads before. A person who leads meanwhile would feel the servos for a moment."""

KEPT_GAPS = 16

_RAMPING = int(JointFlag.RAMPING)


class Grasp:
    """Tells that a leader that lay still was moved: faster than it sinks by its own weight.

    moved: threshold in units, 0 never; rest_ns: how long it has to lie still first.
    """

    def __init__(self, moved: float, rest_ns: int) -> None:
        self._moved, self._still, self._rest_ns = moved, moved * STILL_SHARE, rest_ns
        self.forget()

    def forget(self) -> None:
        """Whatever it did so far does not count: it has to lie still again."""
        self._rested: tuple[float, ...] | None = None
        self._here: tuple[float, ...] = ()
        self._since_ns = 0

    def look(self, position: Sequence[float], at_ns: int) -> bool:
        """One reading (units; NaN: not known). True once when the leader was taken hold of."""
        if not self._moved:
            return False
        if not self._here or furthest(position, self._here) > self._still:
            self._here, self._since_ns = tuple(position), at_ns
        elif at_ns - self._since_ns >= self._rest_ns:
            self._rested = self._here
        if self._rested is None or furthest(position, self._rested) <= self._moved:
            return False
        self.forget()
        return True


def furthest(a: Sequence[float], b: Sequence[float]) -> float:
    """Largest distance of a joint; joints that are not known on one side do not count."""
    return max((abs(x - y) for x, y in zip(a, b, strict=True) if not isnan(x - y)), default=0.0)


class HandOver:
    """What one follower knows of the change between policy and person.

    gliding: the arm is on its way from one source to the next; taken: a person has hold of the
    leader, so that it is not driven.
    """

    def __init__(self, config: Mapping[str, Any], meeting: CellWriter | None) -> None:
        """config: the section `hand_over`; meeting: cell for the leader, None: it is only led."""
        self._grasp = Grasp(float(config["moved"]), round(config["rest_s"] * NS_PER_S))
        self._meeting = meeting
        self.gliding = self.taken = self._met = self._given_up = False
        self._wished_ns = -2 * LET_GO_NS

    def follow(self, phase: Phase) -> None:
        """A source begins to be followed: in a policy's attempt that is a hand-over."""
        self.gliding = phase in PLAYING or phase is Phase.CORRECTING

    def went(self, flags: int, behind: float) -> None:
        """One period of following. behind: distance (units) from the goal to what was asked."""
        if not flags & _RAMPING or behind <= MET_UNITS:
            self.gliding = False

    def grasped(self, state: MotionState, position: Sequence[float], at_ns: int) -> bool:
        """True once when a person moved the leader while a policy or a replay drives."""
        if state.phase not in SEATED:
            self._grasp.forget()
            self.taken &= state.phase is Phase.TAKING
            return False
        self.taken = self._grasp.look(position, at_ns)
        return self.taken

    def wish(
        self, state: MotionState, sent: Sequence[float], leader: Sequence[float], at_ns: int, *,
        refused: bool = False,
    ) -> None:  # fmt: skip
        """Tell the leader where to be, if it can be driven: near the follower while the policy is
        paused, let go as soon as they met and a person wants to take over. refused: it cannot."""
        if self._meeting is None:
            return
        taking = state.phase is Phase.TAKING
        near = not any(isnan(x) for x in leader) and furthest(sent, leader) <= MET_UNITS
        self._met = taking and (self._met or near)
        # Not a leader that fell silent in a person's hand: that pause was no command.
        paused = state.phase is Phase.PAUSED and state.cause is Cause.COMMAND
        self._given_up = taking and (self._given_up or refused)
        drive = paused or (taking and not (self._met or self.taken or self._given_up))
        if drive:
            self._wished_ns = at_ns
        record = self._meeting.record[0]
        record["at_ns"], record["drive"] = at_ns, drive
        record["position"] = sent
        self._meeting.publish()

    def minds(self, state: MotionState) -> bool:
        """Whether each reading of the leader matters in this state, or the first one was enough."""
        return self._meeting is not None or state.phase in SEATED

    def bringing(self, at_ns: int) -> bool:
        """Whether the leader is brought, or may not have let go yet: nobody leads before."""
        return at_ns - self._wished_ns <= LET_GO_NS


class Led:
    """Since when a person alone leads an arm in the middle of an attempt, and when nobody did.

    since_ns: 0 while nobody does; gaps: the last ones, [from, to] ns, `to` 0 while it lasts; no
    tick within was led.
    """

    def __init__(self) -> None:
        self.since_ns = 0
        self.gaps: deque[list[int]] = deque(maxlen=KEPT_GAPS)

    def note(self, led: bool, at_ns: int) -> bool:
        """One period. True when something changed."""
        if led == bool(self.since_ns):
            return False
        if led and self.gaps:
            self.gaps[-1][1] = at_ns
        elif not led:
            self.gaps.append([at_ns, 0])
        self.since_ns = at_ns if led else 0
        return True


@dataclass(frozen=True, slots=True)
class Wish:
    """What a follower wishes of its leader now. position: in units, empty: to be let go."""

    position: tuple[float, ...] = ()


def wish_of(cell: CellReader, at_ns: int) -> Wish:
    """The wish in a cell `meeting.<pair>`, none when it is old."""
    if cell.refresh() == 0:
        return Wish()
    record = cell.record[0]
    if not record["drive"] or at_ns - int(record["at_ns"]) > WISH_KEPT_NS:
        return Wish()
    return Wish(tuple(record["position"].tolist()))
