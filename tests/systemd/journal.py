"""The committed log of a run under a real systemd: its tests, and what systemd said meanwhile.

Markdown, written where RECD_SYSTEMD_REPORT says. Limit: what systemd and the stop hook say of
recd's units; the whole journal is gone with the booted system.
"""

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OF_THE_HOOK = ("recd died:", "policy ")
"""Beginnings of what the stop hook tells, as an operator reads it in the journal."""
PRIVATE = re.compile(r"(?<![\w.])/(?:work|home|root|tmp)/[^\s,:;'\"]*")
"""Paths of the computer on which it ran: they say nothing of recd."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One test: its name is the promise."""

    name: str
    outcome: str
    seconds: float

    @property
    def row(self) -> str:
        words = self.name.partition("[")[0].removeprefix("test_").replace("_", " ")
        return f"| {words} | {self.outcome} | {self.seconds:.0f} |"


def told_of_recd(journal: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Lines of the journal (`-o json`) by systemd itself about recd's units, and by the hook."""
    for entry in journal:
        message = entry.get("MESSAGE")
        if not isinstance(message, str):
            continue
        unit = str(entry.get("UNIT", entry.get("_SYSTEMD_UNIT", "")))
        by_hook = any(word in message for word in OF_THE_HOOK)
        if unit.startswith("recd") and (entry.get("_PID") == "1" or by_hook):
            yield message


def systemd_version() -> str:
    """`systemd 252 (252.39-1~deb12u2)`."""
    return subprocess.run(
        ["systemctl", "--version"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]


def report(outcomes: Sequence[Outcome], said: Sequence[str]) -> str:
    """The whole log. said: lines of the journal, oldest first."""
    from recd import __version__

    passed = sum(outcome.outcome == "passed" for outcome in outcomes)
    python, linux = platform.python_version(), platform.release()
    lines = [
        "# recd under a real systemd", "", "Written by `tests/systemd/run`.", "",
        f"recd {__version__}, {systemd_version()}, Python {python}, Linux {linux}, "
        f"{os.cpu_count()} cores.", "",
        "| promise | outcome | s |", "|---|---|--:|",
        *(outcome.row for outcome in outcomes), "",
        f"Tests: {passed} passed, {len(outcomes) - passed} not.", "",
        "## What systemd said", "",
        "Of recd's units, in order; folders of the computer are left out.", "", "```",
        *(PRIVATE.sub("...", line) for line in said), "```", "",
    ]  # fmt: skip
    return "\n".join(lines)
