"""The reading side of a ring: slots taken in order or the newest one, every loss counted.

Payloads are views into shared memory: use them, then ask `intact()`. What was derived from a slot
that is not intact must be thrown away.
"""

import enum
import os
import struct

import numpy as np

from recd.config.errors import RecdError
from recd.shm import layout
from recd.shm.claim import Claim, reader_role
from recd.shm.doorbell import Doorbell
from recd.shm.handle import Control
from recd.shm.ring import RingSpec, payload_views, read_spec
from recd.shm.segment import Bytes, Segment

OBSERVER = -1
"""Reader number of somebody who only looks: no line, no counts in shared memory, no policy."""

_FACTS = struct.Struct(layout.FACTS_FORMAT)
_TALLY = struct.Struct("<qqqq")


class ReaderPolicy(enum.Enum):
    """What a loss means to this reader.

    MUST_KEEP: it marks the episode. BEST_EFFORT: it is counted. LATEST: indices passed over are
    not losses; only slots torn in use are.
    """

    MUST_KEEP = 0
    LATEST = 1
    BEST_EFFORT = 2


class Slot:
    """One index of a ring, as it was taken.

    index: absolute; nbytes, payload: uint8[nbytes] read-only view into shared memory;
    t_capture_ns, t_arrival_ns, t_publish_ns: CLOCK_MONOTONIC; source_seq: the device's number or
    -1; flags, aux: by kind of stream; epoch: which life of the writer it came from.
    """

    __slots__ = (
        "_reader", "_torn", "aux", "epoch", "flags", "index", "nbytes", "payload", "source_seq",
        "t_arrival_ns", "t_capture_ns", "t_publish_ns",
    )  # fmt: skip

    def __init__(self, reader: "RingReader", index: int, facts: tuple[int, ...]) -> None:
        self._reader = reader
        self._torn = False
        self.index = index
        (
            self.nbytes, self.epoch, self.t_capture_ns, self.t_arrival_ns, self.t_publish_ns,
            self.source_seq, self.flags, self.aux,
        ) = facts  # fmt: skip
        self.payload: Bytes = reader.payload_of(index)[: self.nbytes]

    def overtaken(self) -> bool:
        """True when the writer has come round to the slot or may be about to. Counts nothing: for
        readers who have another copy; `intact` is the verdict on this one.
        """
        return self._reader.peek_head() - self.index >= self._reader.spec.slots

    def intact(self) -> bool:
        """True while nothing of the slot was overwritten; ask after the last use of the payload.

        The first False moves this index from kept to `lost` and `torn`.
        """
        if self._torn:
            return False
        if self._reader.verify(self.index):
            return True
        self._torn = True
        return False


class RingReader:
    """One reader of a ring, on reader line `reader` (or OBSERVER).

    A line remembers: a restarted MUST_KEEP or BEST_EFFORT reader goes on where the line's last one
    was and counts what is gone; a first one, an observer and LATEST begin with what comes next.
    Always: cursor = origin + kept + lost + skipped. Raises RecdError while the line's last reader
    lives. A reader of a read-only segment is an observer.
    """

    def __init__(
        self,
        segment: Segment,
        reader: int = OBSERVER,
        *,
        policy: ReaderPolicy,
        doorbell: Doorbell | None = None,
    ) -> None:
        self.spec: RingSpec = read_spec(segment)
        if not OBSERVER <= reader < self.spec.readers:
            raise ValueError(f"ring {self.spec.name}: no reader line {reader}")
        self.policy = policy
        self.doorbell = doorbell
        self._slots = self.spec.slots
        self._views = payload_views(segment, writeable=False)
        self._control = control = Control(segment)
        self._pointer = control.pointer
        self._claim: Claim | None = None
        self._own_line = np.zeros(layout.READER_STRIDE // layout.WORD, np.int64)
        line = int(self._own_line.ctypes.data)
        if reader != OBSERVER and not segment.readonly:
            self._claim = Claim(segment, reader_role(reader), holder=f"reader {reader}")
            line = segment.address + layout.READER_0 + reader * layout.READER_STRIDE
        control[layout.CTL_LINE] = line
        control[layout.CTL_FORGIVE] = policy is ReaderPolicy.LATEST
        self._take = control.kernel("ring_take")
        self._latest = control.kernel("ring_latest")
        self._head = control.kernel("ring_head")
        self._verify = control.kernel("ring_verify")
        self._seek = control.kernel("ring_seek")
        self._forgo = control.kernel("ring_forgo")
        self._tally = control.kernel("ring_tally")
        self._leave = control.kernel("ring_leave")
        self._join()

    def _join(self) -> None:
        self._control[layout.CTL_ARGUMENT] = os.getpid()
        self._control[layout.CTL_FACTS] = self.policy.value
        self._control.kernel("ring_join")(self._pointer)
        if self.policy is ReaderPolicy.LATEST:
            self.seek_newest()

    def take(self) -> Slot | None:
        """Next unread index, None when there is none. Jumps over what is gone and counts it."""
        index = self._take(self._pointer)
        return self._slot(index)

    def latest(self) -> Slot | None:
        """Newest index if it is unread, passing over the ones before it."""
        index = self._latest(self._pointer)
        return self._slot(index)

    def _slot(self, index: int) -> Slot | None:
        if index < 0:
            if index == layout.DAMAGED:
                raise self._damaged()
            return None
        return Slot(self, index, _FACTS.unpack_from(self._control.memory, layout.CTL_FACTS))

    def _damaged(self) -> RecdError:
        return RecdError(
            f"ring {self.spec.name}: a sequence word that no writer can have written",
            mend="some program wrote into this memory; restart the daemon",
        )

    def payload_of(self, index: int) -> Bytes:
        """uint8[slot_bytes] read-only view of the slot that `index` falls into."""
        return self._views[index % self._slots]

    def verify(self, index: int) -> bool:
        """True when the slot still holds `index`; False counts it as torn. See Slot.intact."""
        self._control[layout.CTL_ARGUMENT] = index
        return self._verify(self._pointer) == 1

    def peek_head(self) -> int:
        """Next index to be published: how many were begun and finished or abandoned so far."""
        return self._head(self._pointer)

    def after_overrun(self) -> int:
        """Index with which `take` would go on now, had the writer come round (docs/shm.md, R6)."""
        return self.peek_head() - self._slots + (self._slots >> layout.ROOM_SHIFT)

    def seek(self, index: int) -> int:
        """Go to `index` (clamped to 0..head). The way is `skipped`, negative when backwards."""
        self._control[layout.CTL_ARGUMENT] = index
        return self._seek(self._pointer)

    def forgo(self, index: int) -> int:
        """Go on to `index`, never back and at most to the head. What lies between could not be had,
        and counts like what `take` jumps over."""
        self._control[layout.CTL_ARGUMENT] = index
        return self._forgo(self._pointer)

    def seek_newest(self) -> int:
        """Go past everything published so far."""
        return self.seek(self.peek_head())

    def tally(self) -> tuple[int, int, int, int]:
        """(cursor, lost, torn, skipped) of one moment."""
        self._tally(self._pointer)
        return _TALLY.unpack_from(self._control.memory, layout.CTL_FACTS)

    @property
    def cursor(self) -> int:
        """Next index to take."""
        return self.tally()[0]

    @property
    def lost(self) -> int:
        """Indices that this line could not read whole, the torn ones included."""
        return self.tally()[1]

    @property
    def torn(self) -> int:
        """Indices found overwritten after use (part of `lost`)."""
        return self.tally()[2]

    @property
    def skipped(self) -> int:
        """Indices passed over on purpose: by LATEST and by seek."""
        return self.tally()[3]

    def wait(self, timeout_ns: int) -> bool:
        """Wait for the doorbell. True when something may be there to take.

        Rounded up to milliseconds. ValueError without a doorbell.
        """
        if self.doorbell is None:
            raise ValueError(f"ring {self.spec.name}: this reader has no doorbell")
        return self.peek_head() > self.cursor or self.doorbell.wait(timeout_ns)

    def close(self) -> None:
        """Give up the reader line; its counts stay for the next one. Harmless when repeated."""
        if self._claim is not None and self._claim.release.alive:
            self._leave(self._pointer)
            self._claim.release()


class Credit:
    """How far a lossless source may write before it would overrun a MUST_KEEP reader.

    Only for sources that can wait (files, simulators); devices never ask. slack: slots kept free
    for payloads that readers still use after taking them.
    """

    def __init__(self, segment: Segment, *, slack: int = 2) -> None:
        spec = read_spec(segment)
        self._room = spec.slots - slack
        self._control = Control(segment)
        self._control[layout.CTL_ARGUMENT] = spec.readers
        self._control[layout.CTL_FACTS] = ReaderPolicy.MUST_KEEP.value
        self._slowest = self._control.kernel("ring_slowest")
        self._head = self._control.kernel("ring_head")

    def free(self) -> int:
        """Indices that may be written now; zero or less means wait."""
        return self._room - self.waiting()

    def waiting(self) -> int:
        """Indices that the slowest MUST_KEEP reader has not taken yet."""
        slowest = self._slowest(self._control.pointer)
        return self._head(self._control.pointer) - slowest
