"""What temperature, load and voltage make an arm do: one table, walked with the newest telemetry.

Pure: readings in, findings out. A row acts only after it has held for `for_ns`, so that a peak of
one reading does nothing; it ends only `hysteresis` below its threshold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from recd.shm.clock import NS_PER_MS, NS_PER_S


class Quantity(IntEnum):
    """A column of telemetry. Load counts in 0.1 % without sign; voltage in 0.1 V, low is bad."""

    TEMPERATURE = 0
    LOAD = 1
    VOLTAGE = 2
    OVERLOAD_BIT = 3


class Action(IntEnum):
    """What is done, mildest first."""

    WARN = 1
    RELAX = 2
    FAULT = 3
    PARK = 4


@dataclass(frozen=True, slots=True)
class Guard:
    """One row. joints: "all", "gripper" or "body"."""

    quantity: Quantity
    threshold: int
    action: Action
    joints: str
    for_ns: int
    hysteresis: int

    @property
    def below(self) -> bool:
        """True when low readings are the bad ones."""
        return self.quantity is Quantity.VOLTAGE


def guards(
    *, temperature_warn_c: int, temperature_release_c: int, load_warn: int, voltage_min: float
) -> tuple[Guard, ...]:
    """The table, with the configured thresholds.

    A gripper is relaxed halfway between the two temperatures: it heats by squeezing, and
    squeezing less costs little. LeRobot caps the gripper at half torque, so its load threshold is
    half as high. A servo that reports overload has already let go by itself.
    """
    relax_c = (temperature_warn_c + temperature_release_c) // 2
    second = NS_PER_S
    return (
        Guard(Quantity.TEMPERATURE, temperature_warn_c, Action.WARN, "all", 0, 3),
        Guard(Quantity.TEMPERATURE, relax_c, Action.RELAX, "gripper", 0, 3),
        Guard(Quantity.TEMPERATURE, temperature_release_c, Action.PARK, "all", second, 3),
        Guard(Quantity.LOAD, load_warn, Action.WARN, "body", second, 50),
        Guard(Quantity.LOAD, load_warn // 2, Action.RELAX, "gripper", second, 100),
        Guard(Quantity.VOLTAGE, round(voltage_min * 10), Action.WARN, "all", second // 2, 2),
        Guard(Quantity.OVERLOAD_BIT, 1, Action.FAULT, "body", 300 * NS_PER_MS, 0),
        Guard(Quantity.OVERLOAD_BIT, 1, Action.RELAX, "gripper", 0, 0),
    )


@dataclass(frozen=True, slots=True)
class Finding:
    """A row that began or ended to hold for one joint. value: the reading, in its own unit."""

    guard: Guard
    joint: int
    value: int
    began: bool


@dataclass(slots=True)
class Watch:
    """Since when each row has been exceeded per joint (ns, 0 not), and whether it acts. busy: some
    row is: the next reading has to be walked whatever it is."""

    rows: tuple[Guard, ...]
    gripper: tuple[bool, ...]
    busy: bool = field(init=False, default=False)
    since: list[list[int]] = field(init=False)
    acting: list[list[bool]] = field(init=False)

    def __post_init__(self) -> None:
        joints = range(len(self.gripper))
        self.since = [[0 for _ in joints] for _ in self.rows]
        self.acting = [[False for _ in joints] for _ in self.rows]

    def concerns(self, guard: Guard, joint: int) -> bool:
        """Whether a row is about a joint."""
        return guard.joints == "all" or (guard.joints == "gripper") == self.gripper[joint]

    def assess(
        self, readings: Mapping[Quantity, Sequence[int]], valid: int, at_ns: int
    ) -> list[Finding]:
        """Findings of one telemetry sample.

        readings: of each quantity per joint; valid: bit per joint. Joints without a reading keep
        what was known of them.
        """
        found = []
        for row, guard in enumerate(self.rows):
            if self._idle(row, readings[guard.quantity]):
                continue
            for joint in range(len(self.gripper)):
                if not valid >> joint & 1 or not self.concerns(guard, joint):
                    continue
                value = readings[guard.quantity][joint]
                change = self._step(row, joint, value, at_ns)
                if change is not None:
                    found.append(Finding(guard, joint, value, change))
        self.busy = any(map(any, self.since)) or any(map(any, self.acting))
        return found

    def _idle(self, row: int, values: Sequence[int]) -> bool:
        """Nothing to walk: no joint exceeds the row, nor did before."""
        guard = self.rows[row]
        good = min(values) > guard.threshold if guard.below else max(values) < guard.threshold
        return good and not any(self.since[row]) and not any(self.acting[row])

    def _step(self, row: int, joint: int, value: int, at_ns: int) -> bool | None:
        guard = self.rows[row]
        excess = guard.threshold - value if guard.below else value - guard.threshold
        if self.acting[row][joint]:
            if excess < -guard.hysteresis or (guard.hysteresis == 0 and excess < 0):
                self.acting[row][joint] = False
                self.since[row][joint] = 0
                return False
            return None
        if excess < 0:
            self.since[row][joint] = 0
            return None
        if not self.since[row][joint]:
            self.since[row][joint] = at_ns
        if at_ns - self.since[row][joint] < guard.for_ns:
            return None
        self.acting[row][joint] = True
        return True

    def acts(self, action: Action, joint: int) -> bool:
        """True while any row with `action` holds for `joint`."""
        return any(
            self.acting[row][joint] for row, guard in enumerate(self.rows) if guard.action is action
        )
