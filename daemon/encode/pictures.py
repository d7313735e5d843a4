"""Ring slots to dataset pictures: decoded when a row wants them, once, and validated afterwards."""

from enum import Enum
from typing import Any

from recd.config.streams import FrameFlag
from recd.daemon.encode.colour import Converter, PictureError
from recd.daemon.spill import SpilledSlot, SpillReader
from recd.shm import Slot

_KEPT = 4
"""Converted pictures kept for other episodes that want the same frame."""


class Fate(Enum):
    """What became of a slot's payload."""

    GOOD = "good"
    CORRUPT = "corrupt"  # the device said so, or it does not decode
    LOST = "lost"  # the writer came round while it was being read


class Pictures:
    """Pictures of one frame ring."""

    def __init__(self, converter: Converter) -> None:
        self.converter = converter
        self._seen: dict[int, tuple[Any, Fate]] = {}

    def of(self, slot: Slot | SpilledSlot, spill: SpillReader) -> tuple[Any, Fate]:
        """(VideoFrame or None, fate) of a slot. Asked again, it answers the same.

        spill: where the frame is looked for when the writer has come round to its slot.
        """
        if (known := self._seen.get(slot.index)) is not None:
            return known
        while len(self._seen) >= _KEPT:
            del self._seen[next(iter(self._seen))]
        self._seen[slot.index] = result = self._read(slot, spill)
        return result

    def _read(self, slot: Slot | SpilledSlot, spill: SpillReader) -> tuple[Any, Fate]:
        if slot.flags & FrameFlag.CORRUPT:
            return None, Fate.CORRUPT
        try:
            frame = self.converter.convert(slot.payload)
        except PictureError:
            frame = None
        if slot.overtaken() and (kept := spill.take(slot.index)) is not None:
            return self._read(kept, spill)
        if not slot.intact():
            return None, Fate.LOST
        return frame, Fate.CORRUPT if frame is None else Fate.GOOD
