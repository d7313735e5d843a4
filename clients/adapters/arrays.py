"""Arrays in messages of foreign servers: numbers only, and never longer than what came.

Type, shape and length are claims; all three are checked before a view is made. There is no object
type, and nothing is unpickled.
"""

from collections.abc import Callable
from typing import Any, Final

import msgpack
import numpy as np
import numpy.typing as npt

from recd.config.errors import RecdError

DTYPES: Final = frozenset(
    {"|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8"}
)
"""Element types that are taken: bool, integers, floats, little endian."""

MOST_BYTES: Final = 64 * 1024 * 1024
"""Longest message: three raw 4K pictures would be longer, an answer never is."""

MOST_AXES: Final = 6
MOST_ITEMS: Final = 65_536


class CodecError(RecdError):
    """Bytes that are not a message of the protocol, or hold what may not travel."""

    code = "policy_server"


def array_of(dtype: object, shape: object, data: object, *, fortran: bool = False) -> Any:
    """The array that a message describes, read-only. CodecError when the claims do not fit."""
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CodecError(
            f"array: expected a type of {', '.join(sorted(DTYPES))}, found {said(dtype)}"
        )
    if not isinstance(shape, list | tuple) or len(shape) > MOST_AXES:
        raise CodecError(
            f"array: expected a shape of at most {MOST_AXES} sizes, found {said(shape)}"
        )
    if not isinstance(data, bytes):
        raise CodecError(f"array: expected bytes, found {type(data).__name__}")
    kind = np.dtype(dtype)
    nbytes = kind.itemsize
    for size in shape:
        if type(size) is not int or not 0 <= size <= MOST_BYTES:
            raise CodecError(f"array: expected sizes of 0..{MOST_BYTES}, found {said(shape)}")
        nbytes *= size
        if nbytes > MOST_BYTES:
            raise CodecError(f"array: expected at most {MOST_BYTES} bytes, found {said(shape)}")
    if nbytes != len(data):
        raise CodecError(f"array: {dtype} {said(shape)} is {nbytes} bytes, found {len(data)}")
    flat = np.frombuffer(data, kind)
    return flat.reshape(tuple(shape), order="F" if fortran else "C")


def plain(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`values` in C order and little endian. CodecError for a type that may not travel."""
    little = np.asarray(values, values.dtype.newbyteorder("<"), order="C")
    if little.dtype.str not in DTYPES:
        raise CodecError(f"array: type {values.dtype} does not travel")
    return little


def unpack_map(data: object, hook: Callable[[dict[Any, Any]], Any]) -> Any:
    """A msgpack message; `hook` sees each map and may put an array in its place. CodecError."""
    if not isinstance(data, bytes):
        raise CodecError(f"expected a binary message, found {said(data)}")
    if len(data) > MOST_BYTES:
        raise CodecError(f"message of {len(data)} bytes, at most {MOST_BYTES}")

    def look(pairs: list[tuple[Any, Any]]) -> Any:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise CodecError("a key stands twice in one map")
        return hook(found)

    try:
        return msgpack.unpackb(
            data, raw=False, strict_map_key=True, object_pairs_hook=look,
            max_array_len=MOST_ITEMS, max_map_len=MOST_ITEMS, max_ext_len=0,
        )  # fmt: skip
    except CodecError:
        raise
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise CodecError(f"not a msgpack message: {type(error).__name__}: {error}") from error


def said(value: object) -> str:
    """A value from the wire, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
