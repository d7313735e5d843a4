"""Which calibrations the episodes of a dataset were recorded with, and whether another may follow.

The same pose gives other numbers under another calibration, so a change is refused until somebody
accepts it. Limit: knows what recd recorded, not what lerobot did.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recd.config.errors import DatasetError
from recd.daemon.dataset.durable import replace_json
from recd.daemon.dataset.layout import Layout
from recd.shm import clock

VERSION = 1

Known = dict[str, dict[str, dict[str, Any]]]
"""arm -> sha256 of a calibration -> {values, path, since}: oldest first."""


@dataclass(frozen=True, slots=True)
class Used:
    """The calibration of one arm. bus: of the configuration, for messages; values: joint -> field
    -> servo steps, as in LeRobot's file."""

    bus: str
    sha256: str
    path: str
    values: Mapping[str, Mapping[str, int]]


def known_calibrations(layout: Layout) -> Known:
    """What earlier episodes were recorded with. DatasetError when it is not readable or newer."""
    path = layout.calibrations
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, arms = int(content["format"]), dict(content["arms"])
    except (OSError, ValueError, KeyError, TypeError) as broken:
        raise DatasetError(
            f"{path}: not readable: {broken}",
            mend="Move it away; the calibrations in use then count as the dataset's.",
        ) from broken
    if version > VERSION:
        raise DatasetError(
            f"{path}: version {version}, this recd knows up to {VERSION}",
            mend="Update recd; nothing was touched.",
        )
    return arms


def differing(known: Known, present: Mapping[str, Used]) -> list[str]:
    """In words, each arm whose calibration no earlier episode had; new arms are none of these."""
    said = []
    for arm, used in present.items():
        earlier = known.get(arm)
        if not earlier or used.sha256 in earlier:
            continue
        newest = list(earlier.values())[-1]
        said.append(
            f"arms.{used.bus}: {used.path}: {_apart(newest['values'], used.values)} "
            f"(the dataset's: {newest['path']}, since {newest['since']})"
        )
    return said


def _apart(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Every value that differs: `elbow_flex homing_offset expected -12, found 40`."""
    words = [
        f"{joint} {name} expected {expected.get(joint, {}).get(name, 'none')}, found {value}"
        for joint, fields in found.items()
        for name, value in fields.items()
        if expected.get(joint, {}).get(name) != value
    ]
    return "; ".join(words) or "other joints"


def refuse_unless_accepted(said: list[str], *, accept: bool) -> None:
    """DatasetError that names every arm, file, expected and found, unless `accept`."""
    if not said or accept:
        return
    raise DatasetError(
        "the calibration is another one than that of the dataset's episodes:\n    "
        + "\n    ".join(said),
        mend="Give the earlier file (arms.<pair>.<side>.calibration or id), record into a new "
        "folder, or accept the change once: --set dataset.accept_calibration=true",
        code="calibration_changed",
    )


def keep_calibrations(layout: Layout, known: Known, present: Mapping[str, Used]) -> Known:
    """`known` with `present` behind it, durably; writes nothing when nothing is new."""
    kept: Known = {arm: dict(each) for arm, each in known.items()}
    new = False
    for arm, used in present.items():
        if used.sha256 not in kept.setdefault(arm, {}):
            since = clock.wall_iso(clock.clock_pair().real_ns)
            values = {joint: dict(fields) for joint, fields in used.values.items()}
            kept[arm][used.sha256] = {"values": values, "path": used.path, "since": since}
            new = True
    if new:
        replace_json(layout.calibrations, {"format": VERSION, "arms": kept})
    return kept
