"""Space left for the dataset: what is free, how long it lasts, and when to stop. Pure but one call.

The rate is measured from what episodes really took; before the first one there is no estimate.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SMOOTHING = 0.5
"""Weight of the newest episode in the measured rate."""


@dataclass(frozen=True, slots=True)
class Disk:
    """free_bytes: what this user may still write; reserve_bytes: what is never used."""

    free_bytes: int = 0
    reserve_bytes: int = 0
    bytes_per_s: float = 0.0
    error: str = ""

    @property
    def low(self) -> bool:
        """True when recording has to stop."""
        return bool(self.error) or self.free_bytes < self.reserve_bytes

    @property
    def seconds_left(self) -> float | None:
        """Recording time until the reserve is reached; None while the rate is unknown."""
        if self.bytes_per_s <= 0:
            return None
        return max(0, self.free_bytes - self.reserve_bytes) / self.bytes_per_s

    def describe(self) -> dict[str, Any]:
        """For `status`."""
        return {
            "free_bytes": self.free_bytes,
            "reserve_bytes": self.reserve_bytes,
            "bytes_per_s": self.bytes_per_s,
            "seconds_left": self.seconds_left,
            "low": self.low,
            "error": self.error,
        }


def look(root: Path, before: Disk) -> Disk:
    """Free space of the file system that holds `root`, or its nearest existing parent."""
    folder = root
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        facts = os.statvfs(folder)
    except OSError as error:
        return Disk(0, before.reserve_bytes, before.bytes_per_s, f"{folder}: {error.strerror}")
    free = facts.f_bavail * facts.f_frsize
    return Disk(free, before.reserve_bytes, before.bytes_per_s)


def learn(disk: Disk, *, nbytes: int, seconds: float) -> Disk:
    """The measured rate after an episode of `nbytes` that lasted `seconds`."""
    if seconds <= 0 or nbytes <= 0:
        return disk
    rate = nbytes / seconds
    if disk.bytes_per_s > 0:
        rate = SMOOTHING * rate + (1 - SMOOTHING) * disk.bytes_per_s
    return Disk(disk.free_bytes, disk.reserve_bytes, rate, disk.error)
