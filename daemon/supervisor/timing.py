"""How every process kept its time during an episode: what its status cell counted between the
episode's start and its end, for the manifest. Limit: a process that began anew counts from there.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.streams import BUCKETS_PER_OCTAVE
from recd.daemon.supervisor.fleet import Fleet

HISTOGRAMS = ("lateness", "work", "lag")

Counts = npt.NDArray[np.int64]


class EpisodeTimes:
    """Histograms of all workers, from `began` to `ended`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._before: dict[str, tuple[int, dict[str, Counts]]] = {}

    def began(self) -> None:
        """An episode begins now."""
        self._before = self._read()

    def ended(self) -> dict[str, dict[str, list[int]]]:
        """process -> histogram -> counts since `began`, by half octaves of ns from bucket 0 on
        (config/streams.py), without the empty ones at its end; empty histograms are left out."""
        told: dict[str, dict[str, list[int]]] = {}
        for name, (started_ns, counts) in self._read().items():
            was_ns, before = self._before.get(name, (0, {}))
            kept = {
                what: np.trim_zeros(
                    _halves(now - (before[what] if was_ns == started_ns else 0)), "b"
                )
                for what, now in counts.items()
            }
            if found := {what: left.tolist() for what, left in kept.items() if len(left)}:
                told[name] = found
        return told

    def _read(self) -> dict[str, tuple[int, dict[str, Counts]]]:
        found: dict[str, tuple[int, dict[str, Counts]]] = {}
        for name in self._fleet.seats:
            record: Any = self._fleet.status_record(name)
            if record is not None:
                counts = {what: record[what].astype(np.int64) for what in HISTOGRAMS}
                found[name] = (int(record["started_ns"]), counts)
        return found


def _halves(counts: Counts) -> Counts:
    """By half octaves, as a manifest has them."""
    return counts.reshape(-1, BUCKETS_PER_OCTAVE // 2).sum(axis=1)
