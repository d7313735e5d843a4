"""The way of a follower's goal, tick by tick: requested, limited, rounded to steps.

Keeps what the next goal depends on: the last one, its speed, how far the glide has come, which
turn a full-turn joint is in. No I/O; the steps it gives are meant to be sent.
"""

import numpy as np
from numpy.typing import NDArray

from recd.config.streams import JointFlag
from recd.daemon.arms.limits import CLIP_TOLERANCE, F8, GoalLimits, Unwrapper, limit_goal
from recd.daemon.arms.normalize import Normalizer
from recd.shm.clock import NS_PER_S

RELAXED_UNITS = 2.0
"""How far a relaxed gripper's goal may be from the gripper: it keeps a light grip."""

PARKED_UNITS = 6.0
"""How far from its resting pose an arm may be and yet count as resting: it sags a little."""

PARK_PATIENCE_NS = 8 * NS_PER_S
"""A joint that has not reached the resting pose by then is in the way of something."""

_ARRIVED_UNITS = 0.5


class GoalPath:
    """Goal of one follower.

    goal: limited goal, float64 units [n]; steps: what goes to the servos [n]; sent: `steps` in
    units; relative: distance from the present position that is allowed now; frozen: joints whose
    goal stays [n].
    """

    def __init__(self, limits: GoalLimits, normalizer: Normalizer, turn: F8) -> None:
        joints = normalizer.joints
        self.limits = limits
        self.goal = np.zeros(joints)
        self.steps = np.zeros(joints, dtype=np.int32)
        self.sent = np.zeros(joints)
        self.relative = limits.relative.copy()
        self.frozen = np.zeros(joints, dtype=bool)
        self._normalizer = normalizer
        self._unwrap = Unwrapper(turn)
        self._step_size = normalizer.step_size()
        self._change = np.zeros(joints)
        self._bound = np.zeros(joints)
        self._out = np.zeros(joints)
        self._work = np.zeros(joints)
        self._unwrapped = np.zeros(joints)
        self._next = np.zeros(joints, dtype=np.int32)
        self._step_bound = np.zeros(joints, dtype=np.int32)
        self._periods = 0

    def rest_at(self, steps: NDArray[np.int32]) -> None:
        """The servos' goals are `steps`, whoever set them; speed is zero."""
        np.copyto(self.steps, steps)
        self._normalizer.to_units(self.steps, self.sent)
        np.copyto(self.goal, self.sent)
        self.halt()

    def halt(self) -> None:
        """Speed zero: the next movement begins gently."""
        self._change[:] = 0.0

    def begin(self) -> None:
        """A new source takes over from where the goal is: glide in."""
        self._periods = 0
        self._unwrap.reset()
        self.halt()

    def follow(self, requested: F8, present: F8) -> int:
        """One period towards `requested`. Returns JointFlag bits (RAMPING, CLIPPED)."""
        limits = self.limits
        wanted = self._unwrap.follow(requested, self._unwrapped)
        limits.glide_bound(self._periods, self._bound)
        gliding = limits.gliding(self._periods)
        self._periods += 1
        self._step(wanted, present)
        np.subtract(self.goal, wanted, out=self._work)
        np.abs(self._work, out=self._work)
        clipped = bool(self._work.max() > CLIP_TOLERANCE)
        if gliding:
            return JointFlag.RAMPING
        return JointFlag.CLIPPED if clipped else 0

    def approach(self, pose: F8, present: F8) -> bool:
        """One period towards a resting pose, at gliding speed. True once the goal is there.

        pose: NaN for joints that stay.
        """
        np.copyto(self._bound, self.limits.glide_step)
        np.copyto(self._unwrapped, pose)
        np.copyto(self._unwrapped, self.goal, where=np.isnan(pose))
        self._step(self._unwrapped, present)
        np.subtract(self.goal, self._unwrapped, out=self._work)
        return bool(np.abs(self._work).max() < _ARRIVED_UNITS)

    def ease(self, present: F8) -> None:
        """One period of giving way: the goal stays, but no further from the arm than allowed."""
        np.copyto(self._bound, self.limits.glide_step)
        np.copyto(self._unwrapped, self.goal)
        self._step(self._unwrapped, present)

    def _step(self, wanted: F8, present: F8) -> None:
        np.copyto(self._bound, 0.0, where=self.frozen)
        limit_goal(
            self.limits, wanted, present=present, relative=self.relative, previous=self.goal,
            change=self._change, bound=self._bound, work=self._work, out=self._out,
        )  # fmt: skip
        np.copyto(self.goal, self._out)
        # An arm that rests outside its calibrated range has goals there too, which units in
        # -100..100 or 0..100 cannot say: the way back into the range is bounded in steps.
        np.divide(self._bound, self._step_size, out=self._work)
        np.copyto(self._step_bound, self._work, casting="unsafe")
        np.add(self._step_bound, 1, out=self._step_bound, where=~self.frozen)
        self._normalizer.to_steps(self.goal, self._next)
        np.subtract(self._next, self.steps, out=self._next)
        np.minimum(self._next, self._step_bound, out=self._next)
        np.negative(self._step_bound, out=self._step_bound)
        np.maximum(self._next, self._step_bound, out=self._next)
        np.add(self.steps, self._next, out=self.steps)
        self._normalizer.to_units(self.steps, self.sent)
