"""openpi on the wire: msgpack maps with arrays as maps of four binary keys. Safe to decode.

The reference decoder builds whatever type a message names; this one takes numbers only.
"""

from typing import Any

import msgpack
import numpy as np

from recd.clients.adapters.arrays import CodecError, array_of, plain, said, unpack_map

_ARRAY, _SCALAR = b"__ndarray__", b"__npgeneric__"


def encode(message: Any) -> bytes:
    """msgpack bytes of maps, lists, scalars and arrays. CodecError for what may not travel."""
    try:
        return bytes(msgpack.packb(message, default=_told))
    except (TypeError, ValueError, OverflowError) as error:
        raise CodecError(f"cannot be sent: {error}") from error


def decode(data: object) -> Any:
    """What is in a message; arrays are read-only views. CodecError for anything unsound."""
    return unpack_map(data, _found)


def _told(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        little = plain(value)
        return {_ARRAY: True, b"data": little.tobytes(), b"dtype": little.dtype.str,
                b"shape": list(little.shape)}  # fmt: skip
    if isinstance(value, np.generic):
        return {_SCALAR: True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"{type(value).__name__} has no form on this wire")


def _found(told: dict[Any, Any]) -> Any:
    if _ARRAY in told:
        return array_of(told.get(b"dtype"), told.get(b"shape"), told.get(b"data"))
    if _SCALAR in told:
        value = told.get(b"data")
        if not isinstance(value, bool | int | float):
            raise CodecError(f"scalar: expected a number, found {said(value)}")
        return value
    return told
