"""Ring slots to dataset pictures: decoded when a row wants them, once, and validated afterwards."""

from enum import Enum
from typing import Any, Protocol

from recd.config.streams import FrameFlag
from recd.daemon.encode.colour import Converter, PictureError, is_black
from recd.daemon.spill import SpilledSlot, SpillReader
from recd.shm import Slot

_KEPT = 4
"""Converted pictures kept for other episodes that want the same frame."""


class Fate(Enum):
    """What became of a slot's payload."""

    GOOD = "good"
    CORRUPT = "corrupt"  # the device said so, or it does not decode
    LOST = "lost"  # the writer came round while it was being read


class PictureSource(Protocol):
    """What a take asks for pictures. size: (width, height) in the dataset; lenient: damage in what
    the camera sends can no longer be told."""

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def lenient(self) -> bool: ...

    def of(self, slot: Slot | SpilledSlot, spill: SpillReader) -> tuple[Any, Fate]:
        """(what the sink takes for this slot, or None; fate)."""
        ...

    def seen(self, shown: Any) -> Any:
        """What `of` gave as a yuv420p VideoFrame of limited range, or None: not looked at."""
        ...

    def black(self, shown: Any) -> bool:
        """True when it is nearly black all over."""
        ...


class Pictures:
    """Pictures of one frame ring."""

    def __init__(self, converter: Converter) -> None:
        self._converter = converter
        self._seen: dict[int, tuple[Any, Fate]] = {}

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in the dataset."""
        return self._converter.picture.size

    @property
    def lenient(self) -> bool:
        """True once most JPEGs of this camera end early."""
        return self._converter.lenient

    def seen(self, shown: Any) -> Any:
        """Every picture is decoded: itself."""
        return shown

    def black(self, shown: Any) -> bool:
        """True when it is nearly black all over."""
        return is_black(shown)

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
            frame = self._converter.convert(slot.payload)
        except PictureError:
            frame = None
        if slot.overtaken() and (kept := spill.take(slot.index)) is not None:
            return self._read(kept, spill)
        if not slot.intact():
            return None, Fate.LOST
        return frame, Fate.CORRUPT if frame is None else Fate.GOOD
