"""What an episode keeps in memory of a policy's chunks: the task of each, and figures of all.

The chunks themselves go to disk only. A chunk's number comes again with another lease; the one that
was received last before a row is the one that acted in it.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.policy_streams import STATUSES
from recd.config.policy_wire import Status
from recd.shm.clock import NS_PER_MS

APPLIED = STATUSES.index(Status.APPLIED)
"""Only such a chunk can act."""


class ChunkNotes:
    """Filled with chunk_dtype records, in order."""

    def __init__(self) -> None:
        self._tasks: dict[int, tuple[list[int], list[str], list[int]]] = {}
        self._figures: list[tuple[int, int, int, int]] = []  # received, age, margin, status

    def add(self, record: Any) -> None:
        """One chunk."""
        received_ns, status = int(record["received_ns"]), int(record["status"])
        age_ns = received_ns - int(record["obs_ns"]) if record["obs_ns"] else 0
        self._figures.append((received_ns, age_ns, int(record["margin_ns"]), status))
        if status == APPLIED:
            times, tasks, masks = self._tasks.setdefault(int(record["chunk"]), ([], [], []))
            times.append(received_ns)
            tasks.append(bytes(record["task"]).decode("utf-8", "replace"))
            masks.append(int(record["mask"]))

    def tasks(
        self, chunks: npt.NDArray[np.int64], at_ns: npt.NDArray[np.int64], default: str, *,
        among: int | None = None,
    ) -> list[str]:  # fmt: skip
        """Task of the chunk that acted in each row, `default` where none did or said one.

        among: bits of the dimensions of one pair: only chunks that move it. Two holders may number
        theirs alike.
        """
        return [
            self._task(chunk, tick_ns, among) or default
            for chunk, tick_ns in zip(chunks.tolist(), at_ns.tolist(), strict=True)
        ]

    def _task(self, chunk: int, tick_ns: int, among: int | None) -> str:
        if chunk < 0 or chunk not in self._tasks:
            return ""
        times, tasks, masks = self._tasks[chunk]
        for at in range(bisect_right(times, tick_ns) - 1, -1, -1):
            if among is None or masks[at] & among:
                return tasks[at]
        return ""

    def describe(self, from_ns: int, to_ns: int) -> Mapping[str, Any] | None:
        """For the manifest: chunks by what became of them, time from observation to chunk and how
        long the plan before would have lasted (ms); None when there was no chunk in that time."""
        rows = [row for row in self._figures if from_ns <= row[0] <= to_ns]
        if not rows:
            return None
        counts = Counter(str(STATUSES[status]) for *_, status in rows)
        good = [STATUSES.index(s) for s in STATUSES if str(s) in ("applied", "shadow")]
        ages = [age for _, age, _, status in rows if age and status in good]
        margins = [margin for _, _, margin, status in rows if margin and status in good]
        return {
            "chunks": dict(counts),
            "latency_ms": percentiles(ages),
            "margin_ms": percentiles(margins),
        }


def percentiles(values_ns: list[int]) -> dict[str, float | int | None]:
    """count, p1, p50, p99 in milliseconds; None of nothing."""
    if not values_ns:
        return {"count": 0, "p1": None, "p50": None, "p99": None}
    p1, p50, p99 = (float(v) / NS_PER_MS for v in np.percentile(values_ns, [1, 50, 99]))
    return {"count": len(values_ns), "p1": p1, "p50": p50, "p99": p99}
