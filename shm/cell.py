"""Latest value of one record, for readers that want only that: goals, heartbeats, counters.

One writer, any number of readers, nobody waits: a writer stopped in the middle of a write leaves
the previous value readable. Limit: values between two reads are gone, uncounted on purpose.
"""

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.errors import RecdError
from recd.shm import layout
from recd.shm.claim import WRITER, Claim
from recd.shm.handle import Control, data_offset, describe, header_word, read_description, round_up
from recd.shm.segment import Segment

SLOTS = 4
"""A reader is disturbed only by a writer that writes three times during one copy."""


def create_cell(name: str, dtype: np.dtype[Any], meta: dict[str, Any] | None = None) -> Segment:
    """New cell for records of `dtype` (structured or plain, no objects), without a value yet."""
    if dtype.hasobject:
        raise ValueError(f"cell {name}: {dtype} holds objects")
    stride = round_up(layout.PAYLOAD + dtype.itemsize, layout.LINE)
    return describe(
        Segment.create(f"recd:{name}", data_offset(0) + SLOTS * stride),
        layout.CELL_MAGIC,
        slots=SLOTS,
        stride=stride,
        slot_bytes=dtype.itemsize,
        readers=0,
        facts={"name": name, "dtype": _plain(dtype), "meta": meta or {}},
    )


def _plain(dtype: np.dtype[Any]) -> Any:
    """`dtype` in plain values, offsets and padding included."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": _plain(base), "shape": list(shape)}
    if dtype.names is None:
        return dtype.str
    fields = [dtype.fields[name] for name in dtype.names] if dtype.fields else []
    return {
        "names": list(dtype.names),
        "formats": [_plain(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "itemsize": dtype.itemsize,
    }


def cell_facts(segment: Segment) -> tuple[str, np.dtype[Any], dict[str, Any]]:
    """(name, dtype, meta) of a cell. Raises RecdError when the segment holds none."""
    facts = read_description(segment, layout.CELL_MAGIC, "cell")
    return facts["name"], _dtype(facts["dtype"]), facts["meta"]


def _dtype(plain: Any) -> np.dtype[Any]:
    if isinstance(plain, str):
        return np.dtype(plain)
    if "base" in plain:
        return np.dtype((_dtype(plain["base"]), tuple(plain["shape"])))
    fields: Any = {**plain, "formats": [_dtype(kind) for kind in plain["formats"]]}
    return np.dtype(fields)


class _Staged:
    """A private copy of the record, whole words long, that the kernels copy to and from."""

    def __init__(self, segment: Segment) -> None:
        self.name, self.dtype, self.meta = cell_facts(segment)
        words = round_up(header_word(segment, layout.SLOT_BYTES), layout.WORD) // layout.WORD
        self.words = np.zeros(words, np.int64)
        staged = self.words.view(np.uint8)[: self.dtype.itemsize]
        self.array = staged.view(self.dtype)
        self.memory = staged.data
        self.control = Control(segment)
        self.control[layout.CTL_STAGE] = int(self.words.ctypes.data)
        self.control[layout.CTL_STAGE_WORDS] = words


class CellWriter:
    """The one writer of a cell. Raises RecdError while another one lives."""

    def __init__(self, segment: Segment) -> None:
        self._claim = Claim(segment, WRITER, holder="writer")
        self._staged = staged = _Staged(segment)
        self.name, self.dtype, self.meta = staged.name, staged.dtype, staged.meta
        self.record: npt.NDArray[Any] = staged.array
        """Array [1] of the cell's dtype: change it in place, then `publish()`; no allocation."""
        self.memory = staged.memory
        """The bytes of `record`, for `Struct.pack_into`."""
        self._checked = staged.dtype
        self._pointer = staged.control.pointer
        self._write = staged.control.kernel("cell_write")
        self._leave = staged.control.kernel("writer_leave")
        staged.control[layout.CTL_ARGUMENT] = os.getpid()
        staged.control.kernel("cell_adopt")(self._pointer)

    def publish(self) -> int:
        """Make `record` the cell's value. Returns its version, 1 for the first ever."""
        version = self._write(self._pointer)
        if version < 0:
            raise RecdError(
                f"cell {self.name}: a newer writer has taken over",
                mend="this process is a leftover; end it",
            )
        return version

    def write(self, record: Any) -> int:
        """Copy `record` (np.void, or array of one item, of the cell's dtype) and publish it."""
        if record.dtype is not self._checked:
            if record.dtype != self.dtype:
                raise ValueError(f"cell {self.name}: expected {self.dtype}, got {record.dtype}")
            self._checked = record.dtype  # comparing dtypes costs more than the write
        # item to item copies the bytes; array to array would go field by field, ten times slower
        self.record[0] = record.reshape(-1)[0] if isinstance(record, np.ndarray) else record
        return self.publish()

    def close(self) -> None:
        """Give up the writer's role. Harmless when repeated."""
        if self._claim.release.alive:
            self._leave(self._pointer)
            self._claim.release()


class CellReader:
    """One reader of a cell; any number may exist, read-only segments included."""

    def __init__(self, segment: Segment) -> None:
        self._staged = staged = _Staged(segment)
        self.name, self.dtype, self.meta = staged.name, staged.dtype, staged.meta
        self.record: npt.NDArray[Any] = staged.array
        """Array [1] of the cell's dtype: the value of the last `refresh()`, changed in place."""
        self.memory = staged.memory
        """The bytes of `record`, for `Struct.unpack_from`."""
        self._pointer = staged.control.pointer
        self._read = staged.control.kernel("cell_read")

    def refresh(self) -> int:
        """Bring `record` up to date without allocation. Returns its version, 0 before the first."""
        return self._read(self._pointer)

    def read(self, out: npt.NDArray[Any] | None = None) -> tuple[int, Any] | None:
        """(version, record), None before the first write. The record is a fresh copy (np.void for
        structured dtypes), or `out` (array of one item) filled.
        """
        version = self._read(self._pointer)
        if version == 0:
            return None
        if out is None:
            return version, np.frombuffer(bytearray(self.memory), self.dtype)[0]
        out[0 if out.ndim else ...] = self.record[0]
        return version, out
