"""The movement that the scripted policy knows: every joint swings, each at a rate of its own. Pure.

It begins at rest where the arm is, so that a chunk of it can be played at once. As a function of
time it says where a goal should be at any moment, however late the chunk was that asked for it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from recd.shm.clock import NS_PER_S

Floats = npt.NDArray[np.float64]

REACH_UNITS = 15.0
"""Less than `policy.seam`: the arm may come back to it from anywhere on its way."""

FIRST_HZ, NEXT_HZ = 0.2, 0.03
"""Rate of the first joint, and how much quicker each further one is: at most 17 units a second."""


@dataclass(frozen=True, slots=True)
class Reference:
    """base: position [J] at begin_ns, in dataset units; reach: how far each joint goes from there,
    signed; rates_hz: swings a second; begin_ns: CLOCK_MONOTONIC.
    """

    base: tuple[float, ...]
    reach: tuple[float, ...]
    rates_hz: tuple[float, ...]
    begin_ns: int

    def at(self, times_ns: npt.ArrayLike) -> Floats:
        """Positions float64 [N, J] at int64 times [N]."""
        seconds = (np.asarray(times_ns, np.int64) - self.begin_ns) / NS_PER_S
        turns = 2 * np.pi * seconds[:, None] * np.asarray(self.rates_hz)
        swung = (1 - np.cos(turns)) / 2
        return np.asarray(self.base + swung * np.asarray(self.reach), np.float64)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        told = asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in told.items()}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Self:
        """The same from JSON."""
        vectors = {name: tuple(plain[name]) for name in ("base", "reach", "rates_hz")}
        return cls(**vectors, begin_ns=int(plain["begin_ns"]))


def reference_from(
    state: Sequence[float], low: Sequence[float], high: Sequence[float], begin_ns: int
) -> Reference:
    """One that begins at `state` and swings towards the middle of each joint's range."""
    reach = [
        REACH_UNITS if position < (least + most) / 2 else -REACH_UNITS
        for position, least, most in zip(state, low, high, strict=True)
    ]
    rates = tuple(FIRST_HZ + NEXT_HZ * joint for joint in range(len(reach)))
    return Reference(tuple(float(at) for at in state), tuple(reach), rates, begin_ns)
