"""lerobot's pickles without lerobot: what its clients send becomes plain values, and its actions
are written as instructions that only its own modules carry out.

Of a pickle that comes, two of lerobot's classes are taken, as bags of plain values, and numpy's
arrays of numbers. Whatever else it names is refused before it is looked up.
"""

import io
import pickle
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recd.clients.policybench.script import RequestError

HELPERS: Final = "lerobot.async_inference.helpers"
NUMBERS: Final = "uifb"
"""Kinds of numpy's types that an array may have."""


class Told:
    """An object of lerobot's: its fields, whatever they are. None of its code."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise RequestError(f"TypeError: expected fields by name, found {state!r:.40}")
        self.fields = state


def loads(data: bytes, expected: str) -> Mapping[str, Any]:
    """The fields of the one object in a pickle. expected: its class in lerobot's helpers.

    RequestError for anything else, without having run or imported anything that it names.
    """
    try:
        told = _Reader(io.BytesIO(data)).load()
    except RequestError:
        raise
    except Exception as error:  # a pickle of rubbish may bring any of a dozen
        raise RequestError(f"{type(error).__name__}: {error}"[:200]) from error
    if not isinstance(told, _CLASSES[expected]):
        raise RequestError(f"TypeError: expected a {expected}, found {type(told).__name__}")
    return told.fields


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _KNOWN.get((module.replace("numpy.core", "numpy._core"), name))
        if found is None:
            raise RequestError(f"UnpicklingError: {module}.{name} is not taken")
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise RequestError("UnpicklingError: references to elsewhere are not taken")


class _Observation(Told):
    pass


class _Config(Told):
    pass


_CLASSES: Final[Mapping[str, type[Told]]] = {
    "TimedObservation": _Observation,
    "RemotePolicyConfig": _Config,
}


class _Kind:
    """A type of numbers, of which a pickle says the name first and the byte order later."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name, self.order = str(name)[:8], "|"

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])[:1]

    def dtype(self) -> np.dtype[Any]:
        found = np.dtype(self.name)
        if found.kind not in NUMBERS or found.names is not None:
            raise RequestError(f"TypeError: an array of {found}, expected one of numbers")
        return found.newbyteorder(">") if self.order == ">" else found


class _Array:
    """An array under way. values: once its bytes have come."""

    def __init__(self) -> None:
        self.values: npt.NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, data = state
        self.values = _array(data, kind, shape, "F" if by_columns else "C").values


def _array(data: Any, kind: Any, shape: Any, order: Any = "C") -> _Array:
    if not isinstance(kind, _Kind):
        raise RequestError("TypeError: an array without a type")
    made = _Array()
    made.values = np.frombuffer(data, kind.dtype()).reshape(shape, order=order)
    return made


def _scalar(kind: Any, data: Any) -> float:
    return float(_array(data, kind, (1,)).values[0])


def _empty(*_: Any) -> _Array:
    return _Array()


_KNOWN: Final[Mapping[tuple[str, str], Callable[..., Any]]] = {
    (HELPERS, "TimedObservation"): _Observation,
    (HELPERS, "RemotePolicyConfig"): _Config,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("numpy._core.multiarray", "_reconstruct"): _empty,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _array,
}


def plain(value: Any) -> Any:
    """An array of an observation as numpy's; other values as they are."""
    return value.values if isinstance(value, _Array) else value


def dumps(
    rows: Sequence[Sequence[float]], *, first: int, time_s: float, step_s: float, fault: str = ""
) -> bytes:
    """A pickled list of `TimedAction` for lerobot's own unpickler: each row as a torch tensor, due
    at `time_s` and step_s after the other, numbered from `first`.

    fault: `object` calls a function that nobody asked for, `huge` allocates 2^62 numbers,
    `truncated` ends in the middle.
    """
    parts = [b"\x80\x02]("]
    for k, row in enumerate(rows):
        parts += [_name(HELPERS, "TimedAction"), _real(time_s + k * step_s), _whole(first + k)]
        parts += [_tensor(row) if fault != "object" else _name("os", "getcwd") + b")R"]
        if fault == "huge":
            parts[-1] = _name("torch", "empty") + b"\x8a\x08" + struct.pack("<q", 2**62) + b"\x85R"
        parts += [b"\x87R"]
    data = b"".join([*parts, b"e."])
    return data[: len(data) // 2] if fault == "truncated" else data


def _tensor(row: Sequence[float]) -> bytes:
    return _name("torch", "tensor") + b"](" + b"".join(map(_real, row)) + b"e\x85R"


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _real(value: float) -> bytes:
    return b"G" + struct.pack(">d", value)


def _whole(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)
