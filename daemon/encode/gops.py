"""Access units of an H.264 camera, by group of pictures: kept as they came, decoded on demand.

A unit can be used when its whole group up to it is here. The newest groups are held, compressed;
pictures are decoded for rows that cannot show a unit as it is, and about twice a second to be
looked at.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import av

from recd.config.streams import FrameFlag
from recd.daemon.cameras.h264 import parameter_sets
from recd.daemon.encode.colour import BT601, LIMITED, PictureError, is_black
from recd.daemon.encode.pictures import Fate
from recd.daemon.spill import SpilledSlot, SpillReader
from recd.shm import Slot
from recd.shm.clock import NS_PER_S

UNITS_KEPT = 256
"""Units that stay beyond the group they belong to: more than rows ever wait for their picture."""

_DECODED = 3
"""Decoded pictures that are remembered: asked for by the row, by its look and by the sink."""

LOOK_EVERY_NS = NS_PER_S // 2
"""How often a key frame is decoded only to be looked at (statistics, thumbnails, darkness). In a
file of any length so few looks are all kept by the statistics."""


_PLAIN_RANGES, _PLAIN_MATRICES = (0, LIMITED), (2, 5, BT601)
"""Tags (AVColorRange, AVColorSpace) of what needs no conversion; not said counts as that."""


def dataset_picture(picture: Any) -> Any:
    """A camera's decoded picture in limited range and BT.601, as statistics read them."""
    plain = picture.color_range in _PLAIN_RANGES and picture.colorspace in _PLAIN_MATRICES
    if plain and picture.format.name == "yuv420p":
        return picture
    return picture.reformat(format="yuv420p", dst_color_range=LIMITED, dst_colorspace=BT601)


@dataclass(slots=True, eq=False)
class Gop:
    """One closed group of pictures, from its key frame on. sets: parameter sets, Annex B."""

    sets: bytes
    units: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """One access unit: number `at` of its group."""

    gop: Gop
    at: int
    t_capture_ns: int

    @property
    def data(self) -> bytes:
        """The unit, Annex B; a key frame with its parameter sets."""
        return self.gop.units[self.at]

    @property
    def key(self) -> bool:
        """True for the first of a group."""
        return self.at == 0

    def follows(self, other: "Unit | None") -> bool:
        """True when `other` is the unit that this one builds on, directly."""
        return other is not None and other.gop is self.gop and other.at + 1 == self.at


class Gops:
    """The newest groups of one frame ring. Shown every slot of it, in order."""

    def __init__(self) -> None:
        self._units: dict[int, Unit] = {}
        self._order: deque[int] = deque()
        self._open: Gop | None = None
        self._last = -1
        self._sets = b""
        self._decoder = _Decoder()
        self._decoded: deque[tuple[Unit, Any]] = deque(maxlen=_DECODED)

    def follow(self, slot: Slot | SpilledSlot) -> None:
        """The next slot of the ring. Its payload is copied: a few kilobytes."""
        data = bytes(slot.payload)
        before, self._last = self._last, slot.index
        if slot.flags & FrameFlag.CORRUPT or not slot.intact():
            self._open = None
            return
        if slot.flags & FrameFlag.KEY:
            own = parameter_sets(data)
            self._sets = own or self._sets
            self._open = Gop(self._sets)
            data = data if own else self._sets + data
        elif before + 1 != slot.index:
            self._open = None
        if self._open is None:
            return
        unit = Unit(self._open, len(self._open.units), slot.t_capture_ns)
        self._open.units.append(data)
        self._units[slot.index] = unit
        self._order.append(slot.index)
        while len(self._order) > UNITS_KEPT:
            del self._units[self._order.popleft()]

    def unit(self, index: int) -> Unit | None:
        """The unit of a slot; None when it, or one that it builds on, is not here."""
        return self._units.get(index)

    def decode(self, unit: Unit, *, exact: bool = True) -> Any:
        """The picture of a unit, in the camera's range. PictureError when it does not decode.

        exact: damage is an error; else it is concealed, as readers of a file do.
        """
        for known, picture in self._decoded:
            if known is unit:
                return picture
        picture = (self._decoder if exact else _Decoder(exact=False)).picture(unit)
        self._decoded.append((unit, picture))
        return picture


class _Decoder:
    """Decodes units of a group forwards; one that goes back begins its group again."""

    def __init__(self, *, exact: bool = True) -> None:
        self._exact = exact
        self._context: Any = None
        self._gop: Gop | None = None
        self._next = 0

    def picture(self, unit: Unit) -> Any:
        if self._gop is not unit.gop or self._next > unit.at:
            self._context, self._gop, self._next = self._new_context(), unit.gop, 0
        frame = None
        try:
            while self._next <= unit.at:
                packet = av.Packet(unit.gop.units[self._next])
                self._next += 1
                frame = next(iter(self._context.decode(packet)), None)
        except av.FFmpegError as error:
            self._gop = None
            raise PictureError(str(error)) from error
        if frame is None:
            self._gop = None
            raise PictureError("no picture in the access unit")
        return frame

    def _new_context(self) -> Any:
        context: Any = av.CodecContext.create("h264", "r")
        context.thread_count = 1
        context.flags |= av.codec.context.Flags.low_delay  # one unit in, one picture out
        context.options = {"err_detect": "explode"} if self._exact else {}
        return context


class GopPictures:
    """Pictures of one take: units of `gops`, stored as they are where their sink can.

    It answers as Pictures does. A unit whose turn it is to be encoded is decoded here, so that one
    that does not decode is told as damaged.
    """

    lenient = False

    def __init__(
        self, gops: Gops, stored: Callable[[Unit], bool], *, size: tuple[int, int]
    ) -> None:
        """stored: whether the sink would store a unit as it is, were it the next row's."""
        self.size = size
        self._gops = gops
        self._stored = stored
        self._looked_ns = 0
        self._look: tuple[Unit, Any] | None = None
        self._black = False

    def of(self, slot: Slot | SpilledSlot, spill: SpillReader) -> tuple[Unit | None, Fate]:
        """(unit or None, fate) of a slot."""
        del spill
        unit = self._gops.unit(slot.index)
        if unit is None:
            return None, Fate.CORRUPT if slot.flags & FrameFlag.CORRUPT else Fate.LOST
        stored = self._stored(unit)
        if not stored:
            try:
                self._gops.decode(unit)
            except PictureError:
                return None, Fate.CORRUPT
        self._look = (unit, None if stored and not self._time_to_look(unit) else self._see(unit))
        return unit, Fate.GOOD

    def _see(self, unit: Unit) -> Any:
        try:
            picture = self._gops.decode(unit, exact=False)
        except PictureError:  # stored as it came: verification will name it
            return None
        self._looked_ns = unit.t_capture_ns
        return dataset_picture(picture)

    def seen(self, shown: Any) -> Any:
        """The dataset picture (yuv420p, limited range) of what a row shows; None when it is stored
        undecoded and was not looked at."""
        if not isinstance(shown, Unit):
            return shown
        return self._look[1] if self._look is not None and self._look[0] is shown else None

    def black(self, shown: Any) -> bool:
        """True when it, or the last one that was looked at, is nearly black all over."""
        if (seen := self.seen(shown)) is not None:
            self._black = is_black(seen)
        return self._black

    def _time_to_look(self, unit: Unit) -> bool:
        return unit.key and unit.t_capture_ns - self._looked_ns >= LOOK_EVERY_NS
