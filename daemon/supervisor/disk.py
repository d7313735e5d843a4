"""Space left for the dataset: what is free, how long it lasts, and when to stop. Pure but one call.

The rate is measured from what episodes really took: those of the dataset, then each new one. Before
the first one there is no estimate.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recd.config.errors import RecdError

SMOOTHING = 0.5
"""Weight of the newest episode in the measured rate."""


@dataclass(frozen=True, slots=True)
class Disk:
    """free_bytes: what this user may still write; reserve_bytes: what is never used; there: the
    dataset folder has been seen."""

    free_bytes: int = 0
    reserve_bytes: int = 0
    bytes_per_s: float = 0.0
    error: str = ""
    there: bool = False

    @property
    def low(self) -> bool:
        """True when no episode may start."""
        return bool(self.error) or self.full

    @property
    def full(self) -> bool:
        """True when the running episode has to end. A folder that is gone ends nothing: what is
        open is still written, and the folder may come back before the episode is saved."""
        return self.free_bytes < self.reserve_bytes

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


def check_room(disk: Disk, *, episodes: int, episode_s: float) -> None:
    """RecdError, with the number of episodes that still fit, where so many do not."""
    left_s = disk.seconds_left
    if left_s is None or episodes * episode_s <= left_s:
        return
    fit = int(left_s / episode_s)
    free = max(0, disk.free_bytes - disk.reserve_bytes)
    mend = f"record -n {fit}, or free some space" if fit else "free some space"
    raise RecdError(
        f"{episodes} episodes of {episode_s:g} s need about "
        f"{episodes * episode_s * disk.bytes_per_s / 1e6:.0f} MB (measured), {free / 1e6:.0f} MB "
        f"are free beyond the reserve: {fit} still fit",
        mend=f"{mend}; recctl dataset trash ROOT shows what the trash holds",
        code="disk",
    )


def look(root: Path, before: Disk) -> Disk:
    """Free space of the file system that holds `root`, or its nearest existing parent."""
    there = root.is_dir()
    gone = "" if there or not before.there else f"{root}: the dataset folder is gone"
    folder = root
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        facts = os.statvfs(folder)
    except OSError as error:
        reason = f"{folder}: {error.strerror}"
        return Disk(0, before.reserve_bytes, before.bytes_per_s, reason, before.there)
    free = facts.f_bavail * facts.f_frsize
    return Disk(free, before.reserve_bytes, before.bytes_per_s, gone, there or before.there)


def learn(disk: Disk, *, nbytes: int, seconds: float) -> Disk:
    """The measured rate after an episode of `nbytes` that lasted `seconds`."""
    if seconds <= 0 or nbytes <= 0:
        return disk
    rate = nbytes / seconds
    if disk.bytes_per_s > 0:
        rate = SMOOTHING * rate + (1 - SMOOTHING) * disk.bytes_per_s
    return replace(disk, bytes_per_s=rate)
