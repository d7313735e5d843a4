"""The way of a follower's goal, tick by tick: requested, limited, rounded to steps.

Keeps what the next goal depends on: the last one, its speed, how far the glide has come, which
turn a full-turn joint is in. No I/O; the steps it gives are meant to be sent.
"""

from collections.abc import Sequence
from math import copysign, inf, isnan

from recd.config.streams import JointFlag
from recd.daemon.arms.limits import (
    CLIP_TOLERANCE,
    JointLimits,
    Seam,
    glide_share,
    limit_goal,
    speed_bound,
)
from recd.daemon.arms.normalize import Scales, units_of
from recd.shm.clock import NS_PER_S

RELAXED_UNITS = 2.0
"""How far a relaxed gripper's goal may be from the gripper: it keeps a light grip."""

PARKED_UNITS = 6.0
"""How far from its resting pose an arm may be and yet count as resting: it sags a little."""

PARK_PATIENCE_NS = 8 * NS_PER_S
"""A joint that has not reached the resting pose by then is in the way of something."""

_ARRIVED_UNITS = 0.5

_RAMPING, _CLIPPED = int(JointFlag.RAMPING), int(JointFlag.CLIPPED)


class GoalPath:
    """Goal of one follower, per joint.

    goal: limited goal (units); steps: what goes to the servos; sent: `steps` in units; relative:
    distance from the present position that is allowed now; frozen: joints whose goal stays;
    behind: largest distance from `goal` to what was asked last; turns: units per turn of joints
    with a seam, inf of others.
    """

    def __init__(
        self, limits: Sequence[JointLimits], scales: Scales, *, glide_periods: int
    ) -> None:
        joints = len(scales)
        self.limits = tuple(limits)
        self.goal = [0.0] * joints
        self.steps = [0] * joints
        self.sent = [0.0] * joints
        self.relative = [limit.relative for limit in limits]
        self.frozen = [False] * joints
        self.behind = 0.0
        self._scales = scales
        self._step_units = [scale.step for scale in scales]
        self._share = float("nan")
        self._bounds: list[float] = []
        self._most: list[int] = []
        self.turns = tuple(scale.turn for scale in scales)
        self._seams = [Seam(turn) for turn in self.turns]
        self._change = [0.0] * joints
        self._glide_periods = glide_periods
        self._periods = 0

    def rest_at(self, steps: Sequence[int]) -> None:
        """The servos' goals are `steps`, whoever set them; speed is zero."""
        self.steps = list(steps)
        self.sent = units_of(self._scales, self.steps)
        self.goal = list(self.sent)
        self.halt()

    def halt(self) -> None:
        """Speed zero: the next movement begins gently."""
        self._change = [0.0] * len(self._change)

    def begin(self) -> None:
        """A new source takes over from where the goal is: glide in, counting turns anew."""
        for seam in self._seams:
            seam.reset()
        self.glide()

    def glide(self) -> None:
        """The same source goes on after a pause: glide in. Turns are not forgotten, or a joint
        that waits beyond its seam would turn back by a whole one.
        """
        self._periods = 0
        self.halt()

    def follow(self, requested: Sequence[float], present: Sequence[float]) -> int:
        """One period towards `requested`. Returns JointFlag bits (RAMPING, CLIPPED)."""
        share = glide_share(self._periods, self._glide_periods)
        gliding = self._periods < 2 * self._glide_periods
        self._periods += 1
        self._bound_speed(share)
        behind = 0.0
        for joint, reading in enumerate(requested):
            if isnan(reading):  # min and max take it for the lowest place there is
                wanted = self.goal[joint]
            else:
                wanted = self._seams[joint].follow(reading)
            self._step(joint, wanted, present[joint])
            behind = max(behind, abs(self.goal[joint] - wanted))
        self.behind = behind
        if gliding:
            return _RAMPING
        return _CLIPPED if behind > CLIP_TOLERANCE else 0

    def approach(self, pose: Sequence[float], present: Sequence[float]) -> bool:
        """One period towards a resting pose, at gliding speed. True once the goal is there.

        pose: NaN for joints that stay.
        """
        arrived = True
        self._bound_speed(0.0)
        for joint, place in enumerate(pose):
            wanted = self.goal[joint] if isnan(place) else place
            self._step(joint, wanted, present[joint])
            arrived &= abs(self.goal[joint] - wanted) < _ARRIVED_UNITS
        return arrived

    def coast(self, present: Sequence[float]) -> bool:
        """One period of slowing down, each joint by its acceleration limit. True once all stand."""
        still = True
        self._bound_speed(1.0)
        for joint, change in enumerate(self._change):
            slower = max(0.0, abs(change) - self.limits[joint].step_growth)
            still &= slower == 0.0
            self._step(joint, self.goal[joint] + copysign(slower, change), present[joint])
        return still

    def ease(self, present: Sequence[float]) -> None:
        """One period of giving way: the goal stays, but no further from the arm than allowed."""
        self._bound_speed(0.0)
        for joint, wanted in enumerate(self.goal):
            self._step(joint, wanted, present[joint])

    def _bound_speed(self, share: float) -> None:
        """Bounds of this period per joint, in units and steps; most have the last one's."""
        if share == self._share:
            return
        self._share = share
        self._bounds = [speed_bound(limits, share) for limits in self.limits]
        pairs = zip(self._bounds, self._step_units, strict=True)
        self._most = [int(bound / step) + 1 for bound, step in pairs]

    def _step(self, joint: int, wanted: float, present: float) -> None:
        if self.frozen[joint]:
            self._change[joint] = 0.0
            return
        limits, previous = self.limits[joint], self.goal[joint]
        turn, scale = self.turns[joint], self._scales[joint]
        if turn != inf and not isnan(present):
            # Beside its seam an arm may read as a turn away from its goal, and is right there.
            present += turn * round((previous - present) / turn)
        goal = limit_goal(
            limits, wanted, present=present, relative=self.relative[joint], previous=previous,
            change=self._change[joint], bound=self._bounds[joint],
        )  # fmt: skip
        self.goal[joint] = goal
        self._change[joint] = goal - previous
        # An arm that rests outside its calibrated range has goals there too, which units in
        # -100..100 or 0..100 cannot say: the way back into the range is bounded in steps.
        most, before = self._most[joint], self.steps[joint]
        steps = min(before + most, max(before - most, scale.to_steps(goal)))
        if steps != before:
            self.steps[joint] = steps
            self.sent[joint] = scale.to_units(steps)


def off_rest(position: Sequence[float], pose: Sequence[float]) -> bool:
    """True while a joint of the resting pose is visibly elsewhere. Unknown positions do not count.

    pose: NaN for joints that stay.
    """
    return any(abs(at - place) > PARKED_UNITS for at, place in zip(position, pose, strict=True))
