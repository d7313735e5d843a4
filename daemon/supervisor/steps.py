"""How far a take has come by its encoders' own records, and when the steps of a source are used up.

An observer of rings: takes no part in their accounts and delays nobody.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from recd.config.streams import TICK_DTYPE, take_number
from recd.shm import RingReader

SOURCE_ENDED = "source ended"
"""Reason for the end of an episode that has every step its source had: no fault."""


class Progress:
    """Newest row record of every camera. rows, frames: camera -> its ring of either kind."""

    def __init__(self, rows: Mapping[str, RingReader], frames: Mapping[str, RingReader]) -> None:
        self._rows = rows
        self._frames = frames

    def decided(self, uid: str) -> dict[str, int]:
        """camera -> rows of take `uid` that its encoder has decided."""
        return {camera: self._rows_of(take_number(uid), camera) for camera in self._rows}

    def _rows_of(self, owner: int, camera: str) -> int:
        told = [int(record["k"]) + 1 for of, record in self._newest(camera) if of == owner]
        return max(told, default=0)

    def rows_at_end(self, spent: Collection[str], uid: str) -> int | None:
        """Rows of take `uid` once its sources can make no further one; None while they can.

        spent: cameras whose every step was taken. The shortest source decides, and the others come
        up to it first.
        """
        rows = self.decided(uid)
        ended = [rows[camera] for camera in spent if self._all_shown(camera)]
        if not ended or min(rows.values()) < min(ended):
            return None
        return min(ended)

    def _all_shown(self, camera: str) -> bool:
        """True when the newest frame of `camera` is a row: what was taken was encoded, too."""
        index = max((int(record["source_index"]) for _, record in self._newest(camera)), default=-1)
        return index >= self._frames[camera].peek_head() - 1

    def _newest(self, camera: str) -> list[tuple[int, Any]]:
        """The newest records as (owner, TICK_DTYPE): an encoder that died may have left one undone
        and the one before is then the newest."""
        reader, found = self._rows[camera], []
        reader.seek(reader.peek_head() - 2)
        while (slot := reader.take()) is not None:
            payload = np.array(slot.payload[: TICK_DTYPE.itemsize])
            if slot.intact():
                found.append((slot.aux, payload.view(TICK_DTYPE)[0]))
        return found
