"""What a fault is: how it is made and mended, what it may cost, what the operator reads of it.

One `Fault` is one scenario: setup (an episode runs and the arms follow, or nothing is recorded),
fault (`strike`, then `heal` after `lasts_s`), outcome, allowed loss. The invariants are the same
for all of them (invariants.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any, Final

from recd.perf.storm.subject import StormSubject

Made = dict[str, Any]
"""What was done, for the record and for `heal`. uids: episodes that it began itself; dies: the
daemon has to end by it."""

Strike = Callable[[StormSubject, Random], Made]
Heal = Callable[[StormSubject, Made], None]

SECOND_MS: Final = 1000.0


class Outcome(StrEnum):
    """What becomes of the running episode and of the daemon."""

    GOES_ON = "the episode goes on"
    ENDS = "the episode ends and is saved"
    EITHER = "the episode goes on, or ends and is saved"
    DAEMON_DIES = "the next start publishes the episode"
    DAEMON_ENDS = "the episode is saved and the daemon ends"
    SAVED_LATER = "the episode ends; it is saved now, or by the next start once the fault is over"
    AT_STOP = "strikes while the episode is saved"
    BETWEEN = "nothing is recorded: every saved episode stays"


@dataclass(frozen=True, slots=True)
class Fault:
    """One row. section: of the matrix in docs/reliability.md; loss_ms: allowed loss of the running
    episode, None when its own outage is what is lost; reads: words of which the operator must read
    one; until_end: it is healed only when the episode has ended; weight: how often in one deck;
    setting: the only one that it fits, "" all of them (settings.py)."""

    name: str
    section: int
    strike: Strike
    outcome: Outcome
    loss_ms: float | None = 0.0
    lasts_s: tuple[float, float] = (0.0, 0.0)
    heal: Heal | None = None
    reads: tuple[str, ...] = ()
    rearms: bool = False
    until_end: bool = False
    weight: int = 1
    setting: str = ""

    @property
    def ends_bout(self) -> bool:
        """True when no other fault can follow in the same episode."""
        return self.until_end or self.outcome not in (Outcome.GOES_ON, Outcome.EITHER)


def drawn(fields: dict[str, Any], draw: Random) -> dict[str, Any]:
    """The fields of a fault, with a tuple of two numbers drawn between them."""
    return {
        key: draw.randint(*value) if isinstance(value, tuple) else value
        for key, value in fields.items()
    }
