"""How one geared joint moves: driven by its servo, sagging without torque, or led by a hand.

Integrated on a fixed 2 ms grid of absolute time, only when somebody asks: the path does not
depend on who asks how often. Steps are encoder steps (4096 a turn), duty is in 0.1 %.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from recd.daemon.sim.registers import STEPS_PER_TURN

GRID_NS = 2_000_000
_DT = GRID_NS / 1e9

FASTEST_STEPS_S = 3400.0
"""No-load speed, about 50 rpm."""

HARDEST_STEPS_S2 = 40_000.0
"""What motor and gears can do when the acceleration register sets no limit (0)."""

SPEED_PER_DUTY = 5.0
"""Steps a second per 0.1 % of duty. With P 16 a goal is followed with a lag of 20 ms."""

DUTY_PER_STEP = 0.625
"""Duty (0.1 %) per step of error and unit of the P register."""

SAG_SHARE = 0.5
"""Gears resist: without torque a joint falls at half the speed that its weight alone would give."""

_SAG_TAU_S = 0.15
_SAG_TAPER_STEPS = 60.0
_STILL = 0.5

Led = Callable[[int], float]
"""Mechanical angle (steps, unwrapped) that a hand gives a joint without torque, by time in ns."""


@dataclass(slots=True)
class Drive:
    """What the registers make of the motor; rebuilt at each write, read at each step.

    goal, low, high: reported steps; goal is bounded by low..high unless both are 0.
    limit: largest duty; top: speed bound; ramp: acceleration bound; damping: 1 free, less is stiff.
    """

    torque: bool = False
    mode: int = 0
    goal: float = 0.0
    low: float = 0.0
    high: float = 4095.0
    offset: int = 0
    wraps: bool = True
    gain: float = 10.0
    dead_zone: float = 1.0
    limit: float = 1000.0
    top: float = FASTEST_STEPS_S
    ramp: float = HARDEST_STEPS_S2
    speed: float = 0.0
    damping: float = 1.0


@dataclass(frozen=True, slots=True)
class Mechanics:
    """The joint around the servo. stops: lowest and highest angle or None for a free turn.

    rest: angle to which its weight pulls; weight: duty needed to hold it against that.
    """

    stops: tuple[float, float] | None = None
    rest: float = 2048.0
    weight: float = 0.0


class Joint:
    """Angle (unwrapped mechanical steps) and velocity (steps/s) of one joint over time."""

    __slots__ = (
        "angle", "at_ns", "blocked", "demand", "drive", "duty", "hand", "mechanics", "velocity",
    )  # fmt: skip

    def __init__(self, mechanics: Mechanics, angle: float, at_ns: int) -> None:
        self.mechanics = mechanics
        self.drive = Drive()
        self.angle = angle
        self.velocity = 0.0
        self.duty = 0.0
        self.demand = 0.0
        self.at_ns = at_ns - at_ns % GRID_NS
        self.hand: Led | None = None
        self.blocked = False

    def reported(self, angle: float) -> float:
        """What the servo's position register would say for `angle`, not yet rounded."""
        value = angle - self.drive.offset
        return value % STEPS_PER_TURN if self.drive.wraps else value

    def angle_at(self, at_ns: int) -> float:
        """Angle at `at_ns`, integrating up to there."""
        if self.hand is not None and not self.drive.torque:
            self.advance(at_ns)
            return self.angle if self.blocked else self.hand(at_ns)
        self.advance(at_ns)
        return self.angle + self.velocity * ((at_ns - self.at_ns) / 1e9)

    def advance(self, to_ns: int) -> None:
        """Integrate whole grid steps up to `to_ns`; going back in time does nothing."""
        steps = (to_ns - self.at_ns) // GRID_NS
        if steps <= 0:
            return
        if self.blocked:
            self._stall(steps)
        elif self.drive.torque:
            self._driven(steps)
        elif self.hand is not None:
            self._led(steps, self.hand)
        else:
            self._sag(steps)

    def _led(self, steps: int, hand: Led) -> None:
        self.at_ns += steps * GRID_NS
        angle = hand(self.at_ns)
        self.velocity = (angle - self.angle) / (steps * _DT)
        self.angle = angle
        self.duty = self.demand = 0.0

    def _stall(self, steps: int) -> None:
        self.at_ns += steps * GRID_NS
        self.velocity = 0.0
        self.duty = self._wanted_duty() if self.drive.torque else 0.0

    def _weight(self) -> float:
        mechanics = self.mechanics
        if not mechanics.weight:
            return 0.0
        off_rest = (self.angle - mechanics.rest) / _SAG_TAPER_STEPS
        return mechanics.weight * max(-1.0, min(1.0, off_rest))

    def error(self) -> float:
        """Goal within its limits minus reported position, 0 inside the dead zone."""
        drive = self.drive
        goal = drive.goal
        if drive.low or drive.high:
            goal = max(drive.low, min(drive.high, goal))
        error = goal - self.reported(self.angle)
        return 0.0 if abs(error) < drive.dead_zone else error

    def _wanted_duty(self) -> float:
        drive = self.drive
        if drive.mode == 1:
            self.demand = drive.speed / SPEED_PER_DUTY + self._weight()
        elif drive.mode == 2:
            self.demand = drive.goal
        else:
            self.demand = self.error() * drive.gain
        return max(-drive.limit, min(drive.limit, self.demand))

    def _driven(self, steps: int) -> None:
        drive = self.drive
        most = drive.ramp * _DT
        for done in range(steps):
            self.duty = self._wanted_duty()
            wanted = (self.duty - self._weight()) * SPEED_PER_DUTY
            top = drive.top
            if drive.mode == 0:  # brake in time: v**2 = 2 a s
                top = min(top, math.sqrt(2.0 * drive.ramp * (abs(self.error()) + 1.0)))
            wanted = max(-top, min(top, wanted))
            if abs(wanted) < _STILL and abs(self.velocity) < _STILL:
                self.velocity = 0.0
                self.at_ns += (steps - done) * GRID_NS
                return
            self.velocity += max(-most, min(most, wanted - self.velocity))
            self._move()

    def _sag(self, steps: int) -> None:
        self.duty = self.demand = 0.0
        for done in range(steps):
            wanted = -self._weight() * SPEED_PER_DUTY * SAG_SHARE * self.drive.damping
            if abs(wanted) < _STILL and abs(self.velocity) < _STILL:
                self.velocity = 0.0
                self.at_ns += (steps - done) * GRID_NS
                return
            self.velocity += (wanted - self.velocity) * (_DT / _SAG_TAU_S)
            self._move()

    def _move(self) -> None:
        self.angle += self.velocity * _DT
        self.at_ns += GRID_NS
        stops = self.mechanics.stops
        if stops is not None and not stops[0] <= self.angle <= stops[1]:
            self.angle = max(stops[0], min(stops[1], self.angle))
            self.velocity = 0.0
