"""Records of a stream in one array: its last seconds (oldest give way), or all of an episode.

As arrays, so that many records are looked at without being gathered first.
"""

from typing import Any

import numpy as np
import numpy.typing as npt


class History:
    """Fixed number of newest records of a structured dtype.

    `time_field` names the int64 field (ns, CLOCK_MONOTONIC) that never decreases; records that
    would break that order are refused, since windows are found by bisection.
    """

    def __init__(self, dtype: np.dtype[np.void], capacity: int, *, time_field: str) -> None:
        # Twice the capacity: the newest `capacity` records are always contiguous somewhere.
        self._data = np.zeros(2 * capacity, dtype)
        self._times = self._data[time_field]
        self._capacity = capacity
        self._start = 0
        self._end = 0
        self.out_of_order = 0

    def __len__(self) -> int:
        return self._end - self._start

    def append(self, record: np.void | npt.NDArray[np.void]) -> bool:
        """Copy one record in; False (and counted) when its time lies before the newest one's."""
        if self._end == len(self._data):
            kept = self._data[self._end - self._capacity : self._end]
            self._data[: self._capacity] = kept
            self._start, self._end = 0, self._capacity
        self._data[self._end] = record
        if self._end > self._start and self._times[self._end] < self._times[self._end - 1]:
            self.out_of_order += 1
            return False
        self._end += 1
        self._start = max(self._start, self._end - self._capacity)
        return True

    @property
    def newest_ns(self) -> int:
        """Time of the newest record; -1 when there is none."""
        return int(self._times[self._end - 1]) if len(self) else -1

    def records(self) -> npt.NDArray[np.void]:
        """All records held, oldest first (a view; it changes with the next append)."""
        return self._data[self._start : self._end]

    def window(self, from_ns: int, to_ns: int) -> npt.NDArray[np.void]:
        """Records in [from, to] and, where held, the one before and the one after (a view)."""
        times = self._times[self._start : self._end]
        first = max(0, int(np.searchsorted(times, from_ns, side="left")) - 1)
        last = min(len(times), int(np.searchsorted(times, to_ns, side="right")) + 1)
        return self.records()[first:last]


class Recorded:
    """All records of a structured dtype so far, oldest first. Grows; what it gave stays as it was.

    Behaves as a sequence; a slice is a view [N].
    """

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self._data = np.zeros(256, dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: Any) -> Any:
        return self._data[: self._count][at]

    def append(self, record: np.void) -> None:
        """Copy one record in."""
        self._make_room(1)
        self._data[self._count] = record
        self._count += 1

    def extend(self, records: npt.NDArray[np.void]) -> None:
        """Copy many in."""
        self._make_room(len(records))
        self._data[self._count : self._count + len(records)] = records
        self._count += len(records)

    def _make_room(self, count: int) -> None:
        if self._count + count > len(self._data):
            larger = np.zeros(max(2 * len(self._data), self._count + count), self._data.dtype)
            larger[: self._count] = self._data[: self._count]
            self._data = larger
