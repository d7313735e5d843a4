"""What can go wrong with a policy server, as a table, and the faults that are set now.

A fault happens to the next `count` requests. Setting one replaces the one before.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from recd.config.errors import RecdError

FAULTS: Final[Mapping[str, str]] = {
    "stall": "no answer for s=45 seconds; nobody else is served meanwhile",
    "late": "the answer comes s=3 seconds late, after the client gave up",
    "nan": "one number of the chunk is NaN",
    "inf": "one number of the chunk is infinite",
    "width": "the chunk has a column less than agreed",
    "horizon": "the chunk has half the steps agreed",
    "far": "positions thousands of units away",
    "names": "from the next connection on, the columns are in another order",
    "object": "the array says that it holds Python objects",
    "huge": "the array says that its shape is 2^63",
    "truncated": "the message ends in the middle",
    "error": "the server says that it failed",
    "hangup": "the connection is dropped instead of an answer",
    "restart": "the policy begins anew without telling anybody",
}
"""Fault -> what happens."""

SECONDS: Final[Mapping[str, float]] = {"stall": 45.0, "late": 3.0}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. count: requests that it happens to; seconds: for those that last."""

    kind: str
    count: int = 1
    seconds: float = 0.0


def parse_fault(text: str) -> Fault:
    """`stall`, `nan count=3`, `late s=1.5`. RecdError for anything else."""
    kind, *given = text.replace(",", " ").split()
    if kind not in FAULTS:
        raise RecdError(f"fault: expected one of {', '.join(FAULTS)}, found {kind!r}",
                        code="usage")  # fmt: skip
    count, seconds = 1, SECONDS.get(kind, 0.0)
    for argument in given:
        name, _, value = argument.partition("=")
        try:
            if name == "count":
                count = int(value)
            elif name == "s" and kind in SECONDS:
                seconds = float(value)
            else:
                raise ValueError(name)
            if count < 1 or not 0 <= seconds <= 3600:
                raise ValueError(value)
        except ValueError:
            raise RecdError(f"fault {kind}: expected count=N" + " or s=SECONDS" * (kind in SECONDS)
                            + f", found {argument!r}", code="usage") from None  # fmt: skip
    return Fault(kind, count, seconds)


class Faults:
    """The fault that is set now. For several threads. happened: kind -> times; cleared: how often
    there was to be none any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._left = 0
        self._calm = threading.Condition(self._lock)
        self.cleared = 0
        self.happened: dict[str, int] = {}

    def set(self, fault: Fault) -> None:
        """From the next request on."""
        with self._lock:
            self._fault, self._left = fault, fault.count

    def clear(self) -> None:
        """None any more; what stalls goes on."""
        with self._lock:
            self._fault, self.cleared = None, self.cleared + 1
            self._calm.notify_all()

    def outlast(self, fault: Fault, cleared: int) -> None:
        """Wait as long as a fault lasts, or until it is cleared: more than `cleared` times."""
        with self._lock:
            self._calm.wait_for(lambda: self.cleared != cleared, fault.seconds)

    def take(self) -> Fault | None:
        """The fault of this request."""
        with self._lock:
            fault = self._fault
            if fault is None:
                return None
            self._left -= 1
            if self._left <= 0:
                self._fault = None
            self.happened[fault.kind] = self.happened.get(fault.kind, 0) + 1
            return fault

    def is_set(self, kind: str) -> bool:
        """Whether this one waits for a request."""
        with self._lock:
            return self._fault is not None and self._fault.kind == kind
