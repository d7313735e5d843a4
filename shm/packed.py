"""A record dtype as one struct: all fields, vectors item by item, packed or unpacked in one call.

For control ticks: setting a numpy record field by field costs ten times as much, most of it in code
that is out of the caches by the next tick. Limit: little-endian numbers and vectors, no nesting.
"""

import struct
from typing import Any

import numpy as np

_LETTERS = {
    "i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q",
    "f4": "f", "f8": "d",
}  # fmt: skip


def record_struct(dtype: np.dtype[Any]) -> struct.Struct:
    """Struct of `dtype.itemsize` bytes whose values are the fields in the order of `dtype.names`,
    a vector as so many values. Raises ValueError for a dtype that it cannot say.
    """
    layout, at = "<", 0
    fields: Any = dtype.fields or {}
    for name in dtype.names or ():
        kind, offset = fields[name][:2]
        base, shape = kind.subdtype or (kind, ())
        letter = _LETTERS.get(base.str.lstrip("<|"))
        if letter is None or len(shape) > 1 or offset < at:
            raise ValueError(f"field {name} ({kind}) cannot be packed in order")
        layout += f"{offset - at}x" if offset > at else ""
        layout += f"{shape[0] if shape else 1}{letter}"
        at = offset + kind.itemsize
    layout += f"{dtype.itemsize - at}x" if dtype.itemsize > at else ""
    return struct.Struct(layout)
