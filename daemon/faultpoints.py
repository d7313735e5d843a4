"""Named places where a test may kill, stop or fail a process.

`RECD_FAULT=commit.prepared:kill` (several separated by commas; `name:action:n` acts on the n-th
pass). `RECD_FAULT_FOLDER=DIR` arms a running daemon: a file in DIR, named after a point and holding
the action, acts once, on the first process that passes. Without them `fault_point` is an empty
function: no lookup, no branch.
"""

import errno
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT_KEY = "RECD_FAULT"
FOLDER_KEY = "RECD_FAULT_FOLDER"
ACTIONS = ("kill", "error", "pause")
"""kill: SIGKILL to oneself; error: OSError(EIO); pause: SIGSTOP until the test sends SIGCONT."""


NOT_ARMED = frozenset({errno.ENOENT, errno.EMFILE, errno.ENFILE})
"""No file of this name; or none can be opened by this process, so that none can arm it."""


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
        if not fault.passes_left:
            _do(fault.action, name)

    return act


def looking_into(folder: Path) -> Callable[[str], None]:
    """A `fault_point` that does what a file in `folder` says, once: whoever removes it acts."""

    def act(name: str) -> None:
        armed = folder / name
        try:
            action = armed.read_text()
            armed.unlink()
        except OSError as error:
            if error.errno not in NOT_ARMED:
                raise
            return
        _do(action, name)

    return act


def arm(folder: Path, name: str, action: str) -> None:
    """Let the next process that passes `name` do `action`, once. ValueError for another action."""
    if action not in ACTIONS:
        raise ValueError(f"expected {', '.join(ACTIONS)}, got {action!r}")
    hidden = folder / f".{name}"
    hidden.write_text(action)
    hidden.replace(folder / name)


def _do(action: str, name: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "pause":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        raise InjectedFaultError(5, f"injected at fault point {name}")


def _chosen(environment: Mapping[str, str]) -> Callable[[str], None]:
    if named := environment.get(ENVIRONMENT_KEY):
        return watching(named)
    if folder := environment.get(FOLDER_KEY):
        return looking_into(Path(folder))
    return _pass_by


fault_point: Callable[[str], None] = _chosen(os.environ)
"""Pass a named place; acts only when one of the two variables names it."""
