"""An endless pick and place, as a person would lead an arm through it. Seeded; a function of time.

Joints are in pose units: radians from the middle of the range, the gripper as open share 0..1.
Every movement is a minimum-jerk curve between two poses; no joint is ever faster than 1.4 rad/s.
"""

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")

FASTEST_RAD_S = 1.4
_PEAK_OF_MEAN = 1.875  # peak over mean speed of a minimum-jerk movement
_SHORTEST_S = 0.45
_GRIPPER_FULL_S = 1.4

Pose = tuple[float, ...]

REST: Pose = (0.0, -1.25, 1.15, 0.75, 0.0, 0.05)
"""Folded, gripper nearly shut."""

_CARRY = (-0.55, 0.45, 0.7)
_SWAY_RAD = 0.012
_SWAY_HZ = (0.31, 0.23, 0.37, 0.29, 0.41, 0.19)


@dataclass(frozen=True, slots=True)
class _Move:
    start_s: float
    length_s: float
    before: Pose
    after: Pose


def minimum_jerk(share: float) -> float:
    """Place 0..1 at `share` of the time of a movement that starts and ends at rest."""
    if share <= 0.0:
        return 0.0
    if share >= 1.0:
        return 1.0
    return share**3 * (10.0 - 15.0 * share + 6.0 * share * share)


class Demonstration:
    """The movement. `at(t)` gives the pose t seconds after its start, for any t."""

    def __init__(self, seed: int = 1, start: Sequence[float] = REST) -> None:
        self._seed = seed
        self._moves: list[_Move] = []
        self._starts: list[float] = []
        self._end_s = 0.0
        self._start: Pose = tuple(start)
        self._pose = self._start
        self._last = _Move(0.0, 0.0, self._start, self._start)
        self._cycle = 0

    def at(self, t_s: float) -> Pose:
        """Pose at `t_s` (seconds, held before 0): tuple in the order of JOINTS."""
        return tuple(self.joint_at(joint, t_s) for joint in range(len(JOINTS)))

    def joint_at(self, joint: int, t_s: float) -> float:
        """Pose of one joint at `t_s`."""
        if t_s <= 0.0:
            return self._start[joint]
        while self._end_s <= t_s:
            self._add_cycle()
        move = self._last
        if not move.start_s <= t_s < move.start_s + move.length_s:
            move = self._last = self._moves[bisect_right(self._starts, t_s) - 1]
        before, after = move.before[joint], move.after[joint]
        if before != after:
            before += (after - before) * minimum_jerk((t_s - move.start_s) / move.length_s)
        return before + min(1.0, t_s) * _sway(joint, t_s)  # starts exactly from the pose given

    def _add_cycle(self) -> None:
        chance = random.Random(self._seed * 1_000_003 + self._cycle)
        pick = _reach(chance.uniform(-0.95, -0.25), chance.uniform(0.0, 1.0))
        place = _reach(chance.uniform(0.25, 0.95), chance.uniform(0.0, 1.0))
        roll = chance.uniform(-0.9, 0.9)
        if self._cycle % 2:  # carry it back every other time
            pick, place = place, pick
        hurry = chance.uniform(1.0, 1.35)
        grip = chance.uniform(0.18, 0.32)
        for pose, pause_s in _keyframes(pick, place, roll=roll, grip=grip):
            self._move_to(pose, hurry)
            self._move_to(pose, hurry, at_least_s=pause_s + chance.uniform(0.02, 0.12))
        self._cycle += 1

    def _move_to(self, pose: Pose, hurry: float, at_least_s: float = _SHORTEST_S) -> None:
        widest = max(abs(a - b) for a, b in zip(pose[:-1], self._pose[:-1], strict=True))
        length_s = max(
            at_least_s,
            hurry * _PEAK_OF_MEAN * widest / FASTEST_RAD_S,
            _GRIPPER_FULL_S * abs(pose[-1] - self._pose[-1]),
        )
        self._moves.append(_Move(self._end_s, length_s, self._pose, pose))
        self._starts.append(self._end_s)
        self._end_s += length_s
        self._pose = pose


def _reach(pan: float, far: float) -> Pose:
    """Pan, lift, elbow, wrist with the fingers at the table; far 0..1 near to far."""
    return (pan, 0.25 + 0.45 * far, 0.35 - 0.65 * far, 0.75 + 0.2 * far)


def _keyframes(
    pick: Pose, place: Pose, *, roll: float, grip: float
) -> tuple[tuple[Pose, float], ...]:
    """(pose, pause in s) of one pick and place."""
    above_pick = (pick[0], pick[1] - 0.45, pick[2] + 0.1, pick[3] + 0.1)
    above_place = (place[0], place[1] - 0.45, place[2] + 0.1, place[3] + 0.1)
    carry = ((pick[0] + place[0]) / 2, *_CARRY)
    return (
        ((*above_pick, roll, 0.75), 0.08),
        ((*pick, roll, 0.75), 0.06),
        ((*pick, roll, grip), 0.1),
        ((*above_pick, roll, grip), 0.0),
        ((*carry, roll / 2, grip), 0.0),
        ((*above_place, 0.0, grip), 0.05),
        ((*place, 0.0, grip), 0.06),
        ((*place, 0.0, 0.7), 0.1),
        ((*above_place, 0.0, 0.7), 0.0),
        ((0.0, -0.9, 0.9, 0.75, 0.0, 0.35), 0.15),
    )


def _sway(joint: int, t_s: float) -> float:
    """A hand is never quite still: a slow sway, half as wide at the gripper."""
    wide = _SWAY_RAD if joint < len(JOINTS) - 1 else _SWAY_RAD / 2
    return wide * math.sin(2.0 * math.pi * _SWAY_HZ[joint] * t_s)
