"""Ring of frames or records. One writer, many readers, newest wins.

The writer never waits and never looks at a reader. A reader may lose indices and always knows how
many. docs/shm.md numbers the steps; kernels.py takes them. Handles are not for several threads.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.errors import RecdError
from recd.shm import layout
from recd.shm.claim import WRITER, Claim
from recd.shm.clock import now_ns
from recd.shm.doorbell import Doorbell
from recd.shm.handle import Control, data_offset, describe, header_word, read_description, round_up
from recd.shm.segment import Bytes, Segment

SLOT_BYTES_MAX = 2**32 - 1

_FACTS = struct.Struct(layout.FACTS_FORMAT)


@dataclass(frozen=True, slots=True)
class RingSpec:
    """What a ring is. kind: "frame" or "record"; slot_bytes: payload capacity of one slot;
    readers: number of reader lines; meta: plain values about the payload, at most 3 KiB packed.
    """

    name: str
    kind: str
    slots: int
    slot_bytes: int
    readers: int = 8
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.slots < 1 or not 1 <= self.slot_bytes <= SLOT_BYTES_MAX or self.readers < 0:
            raise ValueError(
                f"ring {self.name}: expected slots >= 1, slot_bytes 1..{SLOT_BYTES_MAX}, "
                f"readers >= 0; got {self.slots}, {self.slot_bytes}, {self.readers}"
            )


def ring_nbytes(spec: RingSpec) -> int:
    """Shared memory that this ring takes, in bytes."""
    return round_up(data_offset(spec.readers) + spec.slots * _stride(spec), layout.PAGE)


def _stride(spec: RingSpec) -> int:
    return round_up(layout.PAYLOAD + spec.slot_bytes, layout.LINE)


def create_ring(spec: RingSpec) -> Segment:
    """New empty ring, epoch 0. Raises RecdError when there is no memory for it."""
    return describe(
        Segment.create(f"recd:{spec.name}", ring_nbytes(spec)),
        layout.RING_MAGIC,
        slots=spec.slots,
        stride=_stride(spec),
        slot_bytes=spec.slot_bytes,
        readers=spec.readers,
        facts={"name": spec.name, "kind": spec.kind, "meta": spec.meta},
    )


def read_spec(segment: Segment) -> RingSpec:
    """Specification of the ring in `segment`. Raises RecdError when it holds none of ours."""
    facts = read_description(segment, layout.RING_MAGIC, "ring")
    return RingSpec(
        slots=header_word(segment, layout.SLOTS),
        slot_bytes=header_word(segment, layout.SLOT_BYTES),
        readers=header_word(segment, layout.READERS),
        **facts,
    )


def payload_views(segment: Segment, *, writeable: bool) -> list[Bytes]:
    """uint8[slot_bytes] view of every slot's payload, made once so that none is made per slot."""
    slot_bytes = header_word(segment, layout.SLOT_BYTES)
    stride = header_word(segment, layout.STRIDE)
    first = header_word(segment, layout.DATA) + layout.PAYLOAD
    shared = segment.bytes.view()
    shared.flags.writeable = writeable and not segment.readonly
    slots = range(header_word(segment, layout.SLOTS))
    return [shared[first + i * stride :][:slot_bytes] for i in slots]


class RingWriter:
    """The one writer of a ring. A new one takes the next epoch and never reuses an index.

    An index that a dead predecessor had begun is published as abandoned: readers count it as one
    loss. Raises RecdError while the predecessor lives.

    pointer: the handle, for kernels.
    """

    def __init__(self, segment: Segment, doorbells: Sequence[Doorbell] = ()) -> None:
        self.spec = read_spec(segment)
        self._claim = Claim(segment, WRITER, holder="writer")
        self._doorbells = tuple(doorbells)
        self._bells = np.array([bell.fd for bell in doorbells], np.int64)
        self._staged = np.empty(0, np.int64)
        self._views = payload_views(segment, writeable=True)
        self._control = control = Control(segment)
        self._memory = control.memory
        self.pointer = control.pointer
        self._begin = control.kernel("ring_begin")
        self._commit = control.kernel("ring_commit")
        self._leave = control.kernel("writer_leave")
        self._add_dropped = control.kernel("ring_add_dropped")
        self._slot_bytes = self.spec.slot_bytes
        control[layout.CTL_ARGUMENT] = os.getpid()
        control.kernel("ring_adopt")(control.pointer)
        self.epoch = control[layout.CTL_EPOCH]
        control[layout.CTL_BELLS] = int(self._bells.ctypes.data)
        control[layout.CTL_BELL_COUNT] = len(self._bells)

    @property
    def head(self) -> int:
        """Next index to be published."""
        return self._control[layout.CTL_NEXT]

    def views(self, dtype: npt.DTypeLike) -> list[npt.NDArray[Any]]:
        """Payload of every slot as an array [1] of `dtype`, for `views[writer.begin()]`.

        Raises ValueError when a slot is too small for one item.
        """
        item = np.dtype(dtype)
        if item.itemsize > self._slot_bytes:
            raise ValueError(f"{item.itemsize} bytes an item, slots of {self._slot_bytes}")
        return [view[: item.itemsize].view(item) for view in self._views]

    def buffers(self, nbytes: int) -> list[memoryview]:
        """First `nbytes` of every slot, for `Struct.pack_into(buffers[writer.begin()], 0, ...)`.

        Raises ValueError when a slot is too small.
        """
        if nbytes > self._slot_bytes:
            raise ValueError(f"{nbytes} bytes an item, slots of {self._slot_bytes}")
        return [view[:nbytes].data for view in self._views]

    def begin(self) -> int:
        """Open the next index (steps W4, W5). Returns the number of its slot.

        Repeating it before `commit` opens the same index again. Raises RecdError when a newer
        writer has taken over.
        """
        slot = self._begin(self.pointer)
        if slot < 0:
            raise self.refused(slot)
        return slot

    def reserve(self) -> Bytes:
        """uint8[slot_bytes] view of the next slot, to be filled and committed."""
        return self._views[self.begin()]

    def commit(
        self,
        nbytes: int,
        *,
        t_capture_ns: int,
        t_arrival_ns: int,
        source_seq: int = -1,
        flags: int = 0,
        aux: int = 0,
    ) -> int:
        """Publish the reserved slot (steps W7 to W11). Returns its absolute index.

        nbytes: used part of the payload; stamps in CLOCK_MONOTONIC ns, the publish stamp is taken
        here; source_seq: the device's own number, -1 unknown; flags, aux: see the stream's kind.
        Raises ValueError without a reserve or for nbytes above the slot.
        """
        if nbytes > self._slot_bytes:
            raise ValueError(f"{nbytes} bytes committed to slots of {self._slot_bytes}")
        _FACTS.pack_into(
            self._memory, layout.CTL_FACTS,
            nbytes, self.epoch, t_capture_ns, t_arrival_ns, now_ns(), source_seq, flags, aux,
        )  # fmt: skip
        index = self._commit(self.pointer)
        if index < 0:
            raise self.refused(index)
        for doorbell in self._doorbells:
            doorbell.ring()
        return index

    def write(
        self,
        payload: npt.NDArray[Any] | bytes | bytearray | memoryview,
        *,
        t_capture_ns: int,
        t_arrival_ns: int,
        source_seq: int = -1,
        flags: int = 0,
        aux: int = 0,
    ) -> int:
        """reserve, copy, commit. ValueError, and nothing begun, when the payload is too large."""
        flat = _flat(payload)
        if flat.size > self._slot_bytes:
            raise ValueError(f"payload of {flat.size} bytes, slots of {self._slot_bytes}")
        self.reserve()[: flat.size] = flat
        return self.commit(
            flat.size,
            t_capture_ns=t_capture_ns,
            t_arrival_ns=t_arrival_ns,
            source_seq=source_seq,
            flags=flags,
            aux=aux,
        )

    def stage(self, nbytes: int) -> memoryview:
        """Memory for a record of `nbytes`, zeros, which a kernel with put.ring_put publishes when
        it is handed `pointer`; one per writer. Raises ValueError when a slot is too small."""
        if nbytes > self._slot_bytes:
            raise ValueError(f"{nbytes} bytes an item, slots of {self._slot_bytes}")
        words = round_up(nbytes, layout.WORD) // layout.WORD
        self._staged = np.zeros(words, np.int64)
        self._control[layout.CTL_STAGE] = int(self._staged.ctypes.data)
        self._control[layout.CTL_STAGE_WORDS] = words
        self._control[layout.CTL_STAGED] = nbytes | self.epoch << 32
        return self._staged.view(np.uint8)[:nbytes].data

    def add_dropped(self, count: int) -> int:
        """Add losses that happened before the ring (gaps in device numbers). Returns the total."""
        self._control[layout.CTL_ARGUMENT] = count
        return self._add_dropped(self.pointer)

    def close(self) -> None:
        """Give up the writer's role. Harmless when repeated."""
        if self._claim.release.alive:
            self._leave(self.pointer)
            self._claim.release()

    def refused(self, code: int) -> Exception:
        """Why a kernel returned `code` instead of an index."""
        if code == layout.NOT_RESERVED:
            return ValueError(f"ring {self.spec.name}: commit without reserve")
        return RecdError(
            f"ring {self.spec.name}: a newer writer has taken over from epoch {self.epoch}",
            mend="this process is a leftover; end it",
        )


def _flat(payload: Any) -> Bytes:
    if isinstance(payload, np.ndarray):
        return np.ascontiguousarray(payload).reshape(-1).view(np.uint8)
    return np.frombuffer(payload, np.uint8)
