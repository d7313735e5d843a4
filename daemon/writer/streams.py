"""What the writer reads: arm samples, telemetry and row records, drained from their rings.

Each stream keeps its newest seconds (an episode may begin in the past) and, while an episode runs,
hands every record to it. Losses are counted here and belong to the running episode.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from recd.daemon.writer.history import History
from recd.shm import RingReader

Records = npt.NDArray[np.void]


class RecordStream:
    """One ring of fixed-size records of `dtype`, drained in order.

    time_field: the int64 field by which records are ordered (ns, CLOCK_MONOTONIC). keep: how many
    of the newest records stay available for an episode that begins in the past. bulky: large
    records that no row is made of: they go to disk, compressed, and not into memory.
    """

    def __init__(
        self, name: str, reader: RingReader, *, dtype: np.dtype[np.void], time_field: str,
        keep: int, bulky: bool = False,
    ) -> None:  # fmt: skip
        self.bulky = bulky
        self.name = name
        self.dtype = dtype
        self.time_field = time_field
        self.lost = 0
        self._reader = reader
        self._keep = keep
        self._history = History(dtype, keep, time_field=time_field)
        self._lost_before = 0

    @property
    def newest_ns(self) -> int:
        """Time of the newest record seen; -1 before the first."""
        return self._history.newest_ns

    def rewind(self) -> None:
        """Go back by the newest seconds: the last reader may have taken records that it wrote
        nowhere. Records seen twice are told apart by their time."""
        oldest = max(0, self._reader.peek_head() - self._reader.spec.slots + 2)
        self._reader.seek(max(oldest, self._reader.cursor - self._keep))

    def drain(self, consume: Callable[[Records, int], None] | None = None) -> int:
        """Take all records that wait; give each to `consume` with the word `aux` of its slot.
        Returns how many there were."""
        taken = 0
        while (slot := self._reader.take()) is not None:
            record = slot.payload[: self.dtype.itemsize].copy().view(self.dtype)[0]
            if not slot.intact():
                continue  # the ring counts it as torn, and `lost` below with it
            if self._history.append(record) and consume is not None:
                consume(record, slot.aux)
            taken += 1
        self.lost = self._reader.lost + self._reader.torn
        return taken

    def since(self, from_ns: int) -> Records:
        """Copies of the records from the last one before `from_ns` on."""
        return self._history.window(from_ns, np.iinfo(np.int64).max).copy()
