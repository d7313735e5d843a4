"""What rings and cells have in common: a described segment, a control block, bound kernels.

A handle keeps the memory that its kernels touch; it stays safe to use after its segment was closed.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from recd.config.errors import RecdError
from recd.shm import aot, layout
from recd.shm.segment import Segment

KERNELS = "recd.shm.kernels"

Words = npt.NDArray[np.int64]


def warm() -> aot.Kernels:
    """The ring and cell kernels, compiled and cached when they were not yet (seconds, once)."""
    return aot.load(KERNELS)


def round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def data_offset(readers: int) -> int:
    """Where slot 0 begins: after the reader lines and the room for the description."""
    return round_up(
        layout.READER_0 + readers * layout.READER_STRIDE + layout.META_MAX_BYTES, layout.PAGE
    )


def describe(
    segment: Segment,
    magic: int,
    *,
    slots: int,
    stride: int,
    slot_bytes: int,
    readers: int,
    facts: dict[str, Any],
) -> Segment:
    """Write line 0 and the description into a fresh segment, before anyone else has it."""
    packed = msgpack.packb(facts)
    if len(packed) > layout.META_MAX_BYTES:
        raise ValueError(
            f"{facts['name']}: description of {len(packed)} bytes, at most {layout.META_MAX_BYTES}"
        )
    words = segment.bytes.view(np.int64)
    meta = layout.READER_0 + readers * layout.READER_STRIDE
    segment.bytes[meta : meta + len(packed)] = np.frombuffer(packed, np.uint8)
    for offset, value in (
        (layout.VERSION, layout.LAYOUT_VERSION),
        (layout.DATA, data_offset(readers)),
        (layout.SLOTS, slots),
        (layout.STRIDE, stride),
        (layout.SLOT_BYTES, slot_bytes),
        (layout.READERS, readers),
        (layout.META_BYTES, len(packed)),
        (layout.MAGIC, magic),
    ):
        words[offset // layout.WORD] = value
    return segment


def read_description(segment: Segment, magic: int, kind: str) -> dict[str, Any]:
    """The description written by `describe`. Raises RecdError for anything else."""
    words = segment.bytes[: layout.LINE].view(np.int64)
    if int(words[layout.MAGIC // layout.WORD]) != magic:
        raise RecdError(f"shared memory {segment.name} is no {kind}")
    version = int(words[layout.VERSION // layout.WORD])
    if version != layout.LAYOUT_VERSION:
        raise RecdError(
            f"shared memory {segment.name}: layout {version}, this program knows "
            f"{layout.LAYOUT_VERSION}",
            mend="restart the daemon and its clients from one installation",
        )
    meta = layout.READER_0 + header_word(segment, layout.READERS) * layout.READER_STRIDE
    length = header_word(segment, layout.META_BYTES)
    facts: dict[str, Any] = msgpack.unpackb(
        segment.bytes[meta : meta + length].tobytes(), strict_map_key=False
    )
    return facts


def header_word(segment: Segment, offset: int) -> int:
    """A word that is never changed after creation (line 0)."""
    return int(segment.bytes[offset : offset + layout.WORD].view(np.int64)[0])


class Control:
    """The private control block of one handle, and the kernels that take its address."""

    def __init__(self, segment: Segment) -> None:
        self.words: Words = np.zeros(layout.CTL_WORDS, np.int64)
        self.view = self.words.data
        self.memory = self.view.cast("B")
        self.pointer = ctypes.c_void_p(int(self.words.ctypes.data))
        self._shared = segment.bytes  # keeps the mapping alive for the kernels
        self._kernels = warm()
        base = segment.address
        self[layout.CTL_BASE] = base
        self[layout.CTL_SLOTS] = header_word(segment, layout.SLOTS)
        self[layout.CTL_STRIDE] = header_word(segment, layout.STRIDE)
        self[layout.CTL_DATA] = base + header_word(segment, layout.DATA)

    def __setitem__(self, offset: int, value: int) -> None:
        self.view[offset // layout.WORD] = value

    def __getitem__(self, offset: int) -> int:
        return int(self.view[offset // layout.WORD])

    def kernel(self, name: str) -> Callable[[ctypes.c_void_p], int]:
        """The kernel `name`; call it with `pointer`."""
        return self._kernels[name]
