"""Frames of a ring kept in a file while their encoder does not come after them.

The writer puts them there before the ring overwrites them; the encoder takes them back by their
index. A bridge over a stall, not over a crash: nothing here is synced. Raw frames are many bytes:
they have two limits, what may lie in the file and a disk that takes them too slowly.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recd.shm import Credit, RingReader, Slot
from recd.shm.clock import NEVER_NS, NS_PER_S, now_ns
from recd.shm.segment import Bytes

FOLDER = "spill"
_FACTS = (
    "index", "nbytes", "epoch", "t_capture_ns", "t_arrival_ns", "t_publish_ns", "source_seq",
    "flags", "aux",
)  # fmt: skip
_HEAD = struct.Struct(f"<{len(_FACTS)}q")
"""Before each payload in the file."""

BEGIN_AT, TAKE_BACK_AT = 0.5, 0.25
"""Shares of the ring waiting for the encoder: above the first, frames are spilled; down to the
second, the encoder looks for them in the file before it looks into the ring."""

HELD = 8
"""Frames before the encoder's place in the ring that it may still hold, undecided or half decoded,
when it stops; a camera at twice the dataset's rate has up to five. They are spilled too."""

FRAMES_A_TURN = 64
BYTES_A_TURN = 32 << 20
"""So many are spilled before the writer looks after its other streams again."""

RAW_BYTES = 4 << 30
"""Of raw frames in one file: nearly four minutes of 640x480@30."""

SLOW_NS, SLOW_TURNS = NS_PER_S // 4, 3
"""A turn that takes the disk so long is slow; after so many of them raw frames of this episode are
no longer kept: the writer has rows to write, and a picture is worth less than they are."""


def spill_path(staging: Path, camera: str) -> Path:
    """Where the spilled frames of a camera lie while an episode runs."""
    return staging / FOLDER / f"{camera}.frames"


@dataclass(frozen=True, slots=True)
class SpilledSlot:
    """What a `Slot` of the ring was, from the file. It is never overwritten."""

    index: int
    nbytes: int
    epoch: int
    t_capture_ns: int
    t_arrival_ns: int
    t_publish_ns: int
    source_seq: int
    flags: int
    aux: int
    payload: Bytes

    def overtaken(self) -> bool:
        """False: nobody writes into what was spilled."""
        return False

    def intact(self) -> bool:
        """True, for the same reason."""
        return True


class SpillWriter:
    """The writer's end for one camera. reader: a line of its own; credit: where the encoder is."""

    def __init__(
        self, camera: str, reader: RingReader, credit: Credit, *, raw: bool = False
    ) -> None:
        self.camera = camera
        self.spilled = 0
        self.refused = ""
        """Why no more frames of this episode are kept; empty while they are."""
        self._raw = raw
        self._slow = 0
        self._ended = False
        self._reader = reader
        self._credit = credit
        self._staging = Path()
        self._next = 0

    def keep(self, staging: Path, *, until_ns: int = NEVER_NS) -> int:
        """Spill what the encoder has not taken, if that is much; frames written. OSError from the
        disk. until_ns: capture time; the first frame after it is the last one that is kept.
        """
        slots = self._reader.spec.slots
        waiting = slots - self._credit.free()
        if waiting <= slots * BEGIN_AT:
            return 0
        if staging != self._staging:
            self._staging, self._next = staging, 0
            self._slow, self.refused, self._ended = 0, "", False
        if self.refused or self._ended:
            return 0
        head = self._reader.peek_head()
        oldest = head - min(waiting + HELD, slots - 1)
        self._reader.seek(max(self._next, oldest))
        path = spill_path(staging, self.camera)
        path.parent.mkdir(exist_ok=True)
        count = nbytes = 0
        began_ns = now_ns()
        with path.open("ab") as file:
            while count < FRAMES_A_TURN and nbytes < BYTES_A_TURN and not self._ended:
                if (slot := self._reader.take()) is None:
                    break
                payload = slot.payload.tobytes()
                if slot.intact():
                    file.write(_record(slot, payload))
                    count += 1
                    nbytes += len(payload)
                self._next = slot.index + 1
                self._ended = slot.t_capture_ns > until_ns
            size = file.tell()
        self.spilled += count
        if self._raw:
            self._judge(size, nbytes, now_ns() - began_ns)
        return count

    def _judge(self, size: int, nbytes: int, took_ns: int) -> None:
        """Whether the next raw frames may be kept, too. size: of the file; nbytes: of this turn."""
        self._slow += took_ns > SLOW_NS
        if size >= RAW_BYTES:
            self.refused = f"{size / 1e9:.1f} GB of them are kept already"
        elif self._slow >= SLOW_TURNS:
            self.refused = f"the disk took {took_ns / NS_PER_S:.1f} s for {nbytes / 1e6:.0f} MB"


def _record(slot: Slot, payload: bytes) -> bytes:
    return _HEAD.pack(*(getattr(slot, name) for name in _FACTS)) + payload


class SpillReader:
    """The encoder's end for one camera of one episode."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at: dict[int, int] = {}
        self._seen_bytes = 0

    def take(self, index: int) -> SpilledSlot | None:
        """The frame of ring index `index`; None when it was not spilled (yet)."""
        if index not in self._at:
            self._look()
        place = self._at.get(index)
        if place is None:
            return None
        with self._path.open("rb") as file:
            file.seek(place)
            facts = _HEAD.unpack(file.read(_HEAD.size))
            told: dict[str, int] = dict(zip(_FACTS, facts, strict=True))
            payload = np.frombuffer(file.read(told["nbytes"]), np.uint8)
            return SpilledSlot(**told, payload=payload)

    def next_from(self, index: int) -> int | None:
        """The first index from `index` on that was spilled. They are spilled in order: what is
        before it will not come."""
        self._look()
        return min((at for at in self._at if at >= index), default=None)

    def reaching_back(self, index: int) -> int:
        """First index of the frames that were spilled without a gap up to `index`; `index` when
        the one before it was not."""
        self._look()
        while index - 1 in self._at:
            index -= 1
        return index

    def _look(self) -> None:
        """Find what was added; a record that is not whole yet is found the next time."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return
        with self._path.open("rb") as file:
            while self._seen_bytes + _HEAD.size <= size:
                file.seek(self._seen_bytes)
                index, nbytes, *_ = _HEAD.unpack(file.read(_HEAD.size))
                if self._seen_bytes + _HEAD.size + nbytes > size:
                    return
                self._at[index] = self._seen_bytes
                self._seen_bytes += _HEAD.size + nbytes


def take_back(reader: RingReader, spills: Sequence[SpillReader]) -> SpilledSlot | None:
    """The next frame of an encoder that is behind, from the files where the writer put it; None
    when it shall look into the ring.

    Where the writer, too, came too late for it, the next one in a file follows, and the line of
    `reader` has lost those between.
    """
    if not spills:
        return None
    index, slots = reader.cursor, reader.spec.slots
    behind = reader.peek_head() - index
    if behind <= slots * TAKE_BACK_AT:
        return None
    slot = _taken(index, spills)
    if slot is None and behind > slots:
        # Maybe the very one: the writer may have put it there since.
        found = [at for spill in spills if (at := spill.next_from(index)) is not None]
        if found and min(found) < reader.after_overrun():
            slot = _taken(reader.forgo(min(found)), spills)
    if slot is not None:
        reader.seek(slot.index + 1)
    return slot


def _taken(index: int, spills: Sequence[SpillReader]) -> SpilledSlot | None:
    return next((slot for spill in spills if (slot := spill.take(index))), None)
