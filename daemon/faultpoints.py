"""Named places where a test may kill, stop or fail a process.

`RECD_FAULT=commit.prepared:kill` (several separated by commas; `name:action:n` acts on the n-th
pass). Without that variable `fault_point` is an empty function: no lookup, no branch.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

ENVIRONMENT_KEY = "RECD_FAULT"
ACTIONS = ("kill", "error", "pause")
"""kill: SIGKILL to oneself; error: OSError(EIO); pause: SIGSTOP until the test sends SIGCONT."""


class InjectedFaultError(OSError):
    """Stands for an input/output error at a fault point (`error`)."""


@dataclass(slots=True)
class _Armed:
    action: str
    passes_left: int


def parse_faults(text: str) -> dict[str, tuple[str, int]]:
    """`name:action[:n],...` as {name: (action, n)}; ValueError names what it could not read."""
    faults: dict[str, tuple[str, int]] = {}
    for entry in filter(None, text.split(",")):
        name, _, rest = entry.partition(":")
        action, _, nth = rest.partition(":")
        if not name or action not in ACTIONS or (nth and not nth.isdigit()):
            raise ValueError(f"{ENVIRONMENT_KEY}: {entry!r} is not name:{'|'.join(ACTIONS)}[:n]")
        faults[name] = (action, int(nth or 1))
    return faults


def _pass_by(name: str) -> None:
    """Nothing is armed: the promise of no cost."""


def watching(text: str) -> Callable[[str], None]:
    """A `fault_point` armed with `text`, for processes that tests make of themselves."""
    armed = {name: _Armed(action, nth) for name, (action, nth) in parse_faults(text).items()}

    def act(name: str) -> None:
        fault = armed.get(name)
        if fault is None:
            return
        fault.passes_left -= 1
        if fault.passes_left:
            return
        if fault.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.action == "pause":
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            raise InjectedFaultError(5, f"injected at fault point {name}")

    return act


fault_point: Callable[[str], None] = (
    watching(os.environ[ENVIRONMENT_KEY]) if os.environ.get(ENVIRONMENT_KEY) else _pass_by
)
"""Pass a named place; acts only when `RECD_FAULT` names it."""
