"""What a run has shown, counted: printed at its end, and written as the committed report."""

import os
import platform
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

OURS = ("av", "numpy", "pyarrow", "numba", "pyzmq", "opencv-python")

COUNTED = {
    "datasets_read": "datasets read whole by lerobot (every row, every picture)",
    "pictures_decoded": "pictures decoded by lerobot, each once per decoder",
    "datasets_verified": "datasets verified by recctl verify (every picture decoded)",
    "stamps_compared": "picture stamps compared with their rows (camera, number, time)",
    "stamps_wrong": "... of which disagree",
    "stamps_admitted": "pictures without a stamp, whose rows are flagged so",
    "lerobot_sessions": "sessions of the unmodified lerobot-record",
    "recd_sessions": "sessions of recd on the simulated robot",
    "continued": "datasets continued by the other program",
    "edits": "edits by lerobot and by recd, each result read and verified",
    "stale_merges": "... merges that show lerobot's stale numbers of episodes files",
    "training_steps": "training steps of ACT",
    "bus_steps": "control steps of the real lerobot on the simulated bus",
    "plugin_actions": "actions of lerobot programs that the arm of recd played",
    "sidecar_chunks": "chunks of lerobot's PolicyServer that the arm of recd played",
    "scripted_chunks": "chunks of the scripted server that it played, through the sidecar",
    "arms_normalised": "arms normalised by both, bit by bit",
    "arms_differ": "... of which differ",
    "verdicts_compared": "good and broken datasets judged by recd's checker and by lerobot",
    "verdicts_differ": "... of which differ",
}
"""Everything that is counted, in the order of the report."""


@dataclass
class Tally:
    """counts: by name of COUNTED; lerobot: versions of the other side; notes: lines of detail."""

    counts: Counter[str] = field(default_factory=Counter)
    lerobot: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, number: int = 1) -> None:
        """Count; KeyError for a name that is not in the table."""
        COUNTED[name]
        self.counts[name] += number

    def lines(self, outcomes: dict[str, int]) -> list[str]:
        """The report as Markdown. outcomes: tests by outcome."""
        told = [f"{number} {outcome}" for outcome, number in outcomes.items()]
        lines = ["## Versions", "", *_versions(self.lerobot), "", "## Counts", ""]
        lines += ["| what | number |", "|---|---:|"]
        lines += [f"| {text} | {self.counts[name]} |" for name, text in COUNTED.items()]
        lines += ["", *(f"- {note}" for note in self.notes)]
        return [*lines, "", f"Tests: {', '.join(told)}."]


def _versions(lerobot: dict[str, Any]) -> list[str]:
    ours = ", ".join(f"{name} {version(name)}" for name in OURS)
    theirs = ", ".join(f"{name} {number}" for name, number in lerobot.get("packages", {}).items())
    return [
        "| side | versions |",
        "|---|---|",
        f"| recd | recd {_recd()}, Python {platform.python_version()}, {ours} |",
        f"| lerobot | Python {lerobot.get('python', 'not asked')}, {theirs} |",
        f"| decoders of lerobot | {', '.join(lerobot.get('decoders', []))} |",
        f"| computer | {platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()} |",
    ]


def _recd() -> str:
    from recd import __version__

    return __version__
