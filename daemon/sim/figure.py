"""The simulated arm as a figure: joint angles in, tapered limbs in metres out. Pure arithmetic.

Proportions are those of an SO-101. It looks right and moves right; it is no kinematic model to
calibrate against.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Point = tuple[float, float, float]
Colour = tuple[int, int, int]
"""Y, U, V, full range."""

_YELLOW: Colour = (186, 62, 166)
_GREY: Colour = (74, 130, 126)
_BLACK: Colour = (44, 130, 128)
_WHITE: Colour = (206, 126, 130)
_ORANGE: Colour = (160, 66, 196)

_SHOULDER_HEIGHT_M = 0.115
_UPPER_M, _FORE_M, _HAND_M, _JAW_M = 0.116, 0.135, 0.065, 0.085
_JAW_GAP_M = 0.012
_WIDEST_RAD = 2.3  # the gripper servo's whole calibrated range
_BALL_ORBIT_M, _BALL_RADIUS_M, _BALL_PERIOD_NS = 0.11, 0.022, 7_000_000_000


class PoseSource(Protocol):
    """Where the simulated arm was, at any time of the recent past."""

    def pose_at(self, t_ns: int) -> Sequence[float]:
        """Angles at `t_ns` (CLOCK_MONOTONIC) in radians from mid range, in the order

        pan, lift, elbow, wrist flex, wrist roll, gripper (0 closed, opening positive).
        """


class IdlePose:
    """A slow smooth demonstration of its own, for cameras that run without a simulated bus."""

    def pose_at(self, t_ns: int) -> Sequence[float]:
        """Sinusoids of different periods, a pure function of time."""
        t = t_ns * 1e-9
        return (
            0.7 * math.sin(t * 0.9),
            0.35 + 0.35 * math.sin(t * 0.7),
            0.1 + 0.4 * math.sin(t * 0.8 + 1.0),
            0.4 + 0.3 * math.sin(t * 1.1),
            0.6 * math.sin(t * 0.5),
            0.35 + 0.35 * math.sin(t * 1.3),
        )


@dataclass(frozen=True, slots=True)
class Limb:
    """A tapered rod: end points and radii in metres, its colour, and whether it casts a shadow."""

    start: Point
    end: Point
    start_radius_m: float
    end_radius_m: float
    colour: Colour
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Hand:
    """Where the tool is and looks: what a wrist camera is screwed to."""

    wrist: Point
    tip: Point
    pan_rad: float
    roll_rad: float
    gap_rad: float


def arm_limbs(pose: Sequence[float]) -> tuple[list[Limb], Hand]:
    """Limbs of the arm, base first, standing at the origin of the table and facing +x."""
    pan, lift, elbow, flex, roll, gap = pose
    reach = (math.cos(pan), math.sin(pan))
    upper_pitch = math.pi / 2 - lift
    fore_pitch = upper_pitch - math.pi / 2 - elbow
    hand_pitch = fore_pitch - flex
    shoulder: Point = (0.0, 0.0, _SHOULDER_HEIGHT_M)
    elbow_at = _along(shoulder, reach, upper_pitch, _UPPER_M)
    wrist = _along(elbow_at, reach, fore_pitch, _FORE_M)
    palm = _along(wrist, reach, hand_pitch, _HAND_M)
    tip = _along(palm, reach, hand_pitch, _JAW_M)
    limbs = [
        Limb((0.0, 0.0, 0.0), (0.0, 0.0, 0.05), 0.046, 0.040, _BLACK),
        Limb((0.0, 0.0, 0.05), shoulder, 0.034, 0.028, _YELLOW),
        Limb(shoulder, elbow_at, 0.024, 0.019, _YELLOW, shadow=True),
        Limb(elbow_at, elbow_at, 0.025, 0.025, _GREY),
        Limb(elbow_at, wrist, 0.019, 0.015, _YELLOW, shadow=True),
        Limb(wrist, wrist, 0.020, 0.020, _GREY),
        Limb(wrist, palm, 0.016, 0.018, _YELLOW, shadow=True),
        *_jaws(palm, tip, reach, hand_pitch, roll, gap),
    ]
    return limbs, Hand(wrist, tip, pan, roll, gap)


def ball(t_ns: int) -> Limb:
    """A ball that rolls around on the table: content that moves even when the arm rests."""
    turn = 2 * math.pi * (t_ns % _BALL_PERIOD_NS) / _BALL_PERIOD_NS
    x = 0.2 + _BALL_ORBIT_M * 0.6 * math.cos(turn)
    at: Point = (x, _BALL_ORBIT_M * 1.6 * math.sin(turn), _BALL_RADIUS_M)
    return Limb(at, at, _BALL_RADIUS_M, _BALL_RADIUS_M, _ORANGE, shadow=True)


def _along(start: Point, reach: tuple[float, float], pitch: float, length_m: float) -> Point:
    flat = math.cos(pitch) * length_m
    return (
        start[0] + flat * reach[0],
        start[1] + flat * reach[1],
        start[2] + math.sin(pitch) * length_m,
    )


def _jaws(
    palm: Point, tip: Point, reach: tuple[float, float], pitch: float, roll: float, gap: float
) -> list[Limb]:
    """The fixed jaw and the one the gripper servo swings, in the plane that the roll has turned."""
    side = (-reach[1], reach[0], 0.0)
    up = (-math.sin(pitch) * reach[0], -math.sin(pitch) * reach[1], math.cos(pitch))
    c, s = math.cos(roll), math.sin(roll)
    across = tuple(c * a + s * b for a, b in zip(side, up, strict=True))

    def shifted(point: Point, by_m: float) -> Point:
        x, y, z = (p + by_m * a for p, a in zip(point, across, strict=True))
        return x, y, z

    swing = _JAW_GAP_M + _JAW_M * math.sin(max(0.0, min(gap, _WIDEST_RAD)) * 0.5)
    fixed = Limb(
        shifted(palm, -_JAW_GAP_M), shifted(tip, -_JAW_GAP_M), 0.011, 0.006, _WHITE, shadow=True
    )
    moving = Limb(shifted(palm, _JAW_GAP_M), shifted(tip, swing), 0.011, 0.006, _GREY, shadow=True)
    return [fixed, moving]
