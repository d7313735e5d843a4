"""The way of a follower's goal, tick by tick: requested, limited, rounded to steps.

Keeps what the next goal depends on: the last one, its speed, how far the glide has come, which
turn a full-turn joint is in. No I/O; the steps it gives are meant to be sent.
"""

from collections.abc import MutableSequence, Sequence
from math import copysign, inf, nan

from recd.config.streams import JointFlag
from recd.daemon.arms import passes
from recd.daemon.arms.limits import CLIP_TOLERANCE, JointLimits, glide_share, speed_bound
from recd.daemon.arms.normalize import Scales, scale_table, units_of
from recd.daemon.arms.tickcode import PLAIN, Code
from recd.shm.clock import NS_PER_S

RELAXED_UNITS = 2.0
"""How far a relaxed gripper's goal may be from the gripper: it keeps a light grip."""

PARKED_UNITS = 6.0
"""How far from its resting pose an arm may be and yet count as resting: it sags a little."""

PARK_PATIENCE_NS = 8 * NS_PER_S
"""A joint that has not reached the resting pose by then is in the way of something."""

_ARRIVED_UNITS = 0.5

_WANTED, _PRESENT, _SEAMS = 3, 4, 6
"""Places of what changes among the arguments of passes.follow."""

_RAMPING, _CLIPPED = int(JointFlag.RAMPING), int(JointFlag.CLIPPED)


class GoalPath:
    """Goal of one follower, per joint, in memory that the passes work on.

    goal: limited goal (units); steps: what goes to the servos; sent: `steps` in units; relative:
    distance from the present position that is allowed now; frozen: joints whose goal stays (not 0);
    behind: largest distance from `goal` to what was asked last; turns: units per turn of joints
    with a seam, inf of others.
    """

    goal: MutableSequence[float]
    sent: MutableSequence[float]
    relative: MutableSequence[float]
    steps: MutableSequence[int]
    frozen: MutableSequence[int]

    def __init__(
        self, limits: Sequence[JointLimits], scales: Scales, *, glide_periods: int,
        code: Code = PLAIN,
    ) -> None:  # fmt: skip
        """code: the passes, as Python or as machine code."""
        self.limits = tuple(limits)
        self.behind = 0.0
        self.turns = tuple(scale.turn for scale in scales)
        self._joints = joints = len(scales)
        self._scales = scales
        self._path = passes.doubles([0.0] * (passes.PATH_COLUMNS * joints))
        self._whole = passes.integers([0] * (passes.PATH_INTEGERS * joints))
        floats, whole = (passes.columns(table, joints) for table in (self._path, self._whole))
        self.goal, self.sent = floats[passes.GOAL], floats[passes.SENT]
        self.relative = floats[passes.RELATIVE]
        self.steps, self.frozen = whole[passes.STEPS], whole[passes.FROZEN]
        self._bounds, self._most = floats[passes.BOUND], whole[passes.MOST]
        self._change = floats[passes.CHANGE]
        self._read, self._offset = floats[passes.READ], floats[passes.OFFSET]
        for joint, limit in enumerate(limits):
            floats[passes.LOW][joint], floats[passes.HIGH][joint] = limit.low, limit.high
            floats[passes.GROWTH][joint], self.relative[joint] = limit.step_growth, limit.relative
            seam = 0.0 if self.turns[joint] == inf else self.turns[joint]
            floats[passes.TURN][joint], floats[passes.HALF_TURN][joint] = seam, seam / 2
        self._wanted = passes.doubles([0.0] * joints)
        self._present = passes.doubles([0.0] * joints)
        self._kind = type(self._present)
        self._pointed = self._wanted, self._present
        self._follow = code.prepare(
            "follow", scale_table(scales), self._path, self._whole, *self._pointed, joints, 0
        )
        self._share = nan
        self._glide_periods = glide_periods
        self._left = 2 * glide_periods  # periods of gliding
        self._forget_turns()

    def rest_at(self, steps: Sequence[int]) -> None:
        """The servos' goals are `steps`, whoever set them; speed is zero."""
        self.steps[:] = list(steps)
        self.sent[:] = units_of(self._scales, steps)
        self.goal[:] = list(self.sent)
        self.halt()

    def halt(self) -> None:
        """Speed zero: the next movement begins gently."""
        self._change[:] = [0.0] * self._joints

    def begin(self) -> None:
        """A new source takes over from where the goal is: glide in, counting turns anew."""
        self._forget_turns()
        self.glide()

    def _forget_turns(self) -> None:
        self._read[:] = [nan] * self._joints
        self._offset[:] = [0.0] * self._joints

    def glide(self) -> None:
        """The same source goes on after a pause: glide in. Turns are not forgotten, or a joint
        that waits beyond its seam would turn back by a whole one.
        """
        self._left = 2 * self._glide_periods
        self.halt()

    def follow(self, requested: Sequence[float], present: Sequence[float]) -> int:
        """One period towards `requested`. Returns JointFlag bits (RAMPING, CLIPPED)."""
        if self._left or self._share != 1.0:
            done = 2 * self._glide_periods - self._left
            self._bound_speed(glide_share(done, self._glide_periods))
        self.behind = behind = self._go(requested, present, 1)
        if self._left:
            self._left -= 1
            return _RAMPING
        return _CLIPPED if behind > CLIP_TOLERANCE else 0

    def approach(self, pose: Sequence[float], present: Sequence[float]) -> bool:
        """One period towards a resting pose, at gliding speed. True once the goal is there.

        pose: NaN for joints that stay.
        """
        self._bound_speed(0.0)
        return self._go(pose, present) < _ARRIVED_UNITS

    def coast(self, present: Sequence[float]) -> bool:
        """One period of slowing down, each joint by its acceleration limit. True once all stand."""
        self._bound_speed(1.0)
        slower = [
            copysign(max(0.0, abs(change) - limits.step_growth), change)
            for change, limits in zip(self._change, self.limits, strict=True)
        ]
        self._go([goal + rest for goal, rest in zip(self.goal, slower, strict=True)], present)
        return not any(slower)

    def ease(self, present: Sequence[float]) -> None:
        """One period of giving way: the goal stays, but no further from the arm than allowed."""
        self._bound_speed(0.0)
        self._go(self.goal, present)

    def _go(self, wanted: Sequence[float], present: Sequence[float], seams: int = 0) -> float:
        # Memory that the passes can work on is taken as it is, the rest copied.
        if type(wanted) is not self._kind:
            self._wanted[:] = wanted
            wanted = self._wanted
        if type(present) is not self._kind:
            self._present[:] = present
            present = self._present
        if wanted is not self._pointed[0] or present is not self._pointed[1]:
            self._pointed = wanted, present
            self._follow.point(_WANTED, wanted)
            self._follow.point(_PRESENT, present)
        self._follow.args[_SEAMS] = seams
        behind: float = self._follow.run()
        return behind

    def _bound_speed(self, share: float) -> None:
        """Bounds of this period per joint, in units and steps; most have the last one's."""
        if share == self._share:
            return
        self._share = share
        self._bounds[:] = bounds = [speed_bound(limits, share) for limits in self.limits]
        pairs = zip(bounds, self._scales, strict=True)
        self._most[:] = [int(bound / scale.step) + 1 for bound, scale in pairs]


def off_rest(position: Sequence[float], pose: Sequence[float]) -> bool:
    """True while a joint of the resting pose is visibly elsewhere. Unknown positions do not count.

    pose: NaN for joints that stay.
    """
    return any(abs(at - place) > PARKED_UNITS for at, place in zip(position, pose, strict=True))
