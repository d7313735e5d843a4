"""The code of a control tick by name, as Python or as machine code: pacing.py, exchange.py and
passes.py.

Most of it is called by way of a `Call`, which holds all arguments; only what changes is set anew.
"""

import ctypes
import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from recd.daemon.arms import exchange, pacing, passes
from recd.shm import aot

KERNELS = "recd.daemon.arms.kernels"
"""Module whose table `recd.shm.aot.load` compiles."""

_BITS, _FLOAT = struct.Struct("<q"), struct.Struct("<d")


class Call(Protocol):
    """A function with its arguments. run: calls it; args: its arguments, numbers among them to be
    set in place."""

    run: Callable[[], Any]
    args: Any

    def point(self, place: int, memory: Any) -> None:
        """Another array (`doubles`, `integers`) as the argument at `place`."""


class Code(Protocol):
    """Functions by name, to be called as they are, or prepared with their arguments."""

    def __getitem__(self, name: str, /) -> Callable[..., Any]: ...

    def prepare(self, name: str, /, *args: Any) -> Call: ...


class _PlainCall:
    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.args: Any = list(args)
        self.run: Callable[[], Any] = lambda: function(*self.args)

    def point(self, place: int, memory: Any) -> None:
        self.args[place] = memory


class Plain:
    """As Python: for whoever serves an arm outside its loop."""

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        self.functions = functions

    def __getitem__(self, name: str, /) -> Callable[..., Any]:
        return self.functions[name]

    def prepare(self, name: str, /, *args: Any) -> Call:
        """The function with these arguments."""
        return _PlainCall(self.functions[name], args)


class _MachineCall:
    """`args` are words: numbers, bits of floats, addresses of memory that is kept alive here."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._kept = list(args)
        self.args: Any = passes.integers(map(_word, args))
        self.run: Callable[[], Any] = partial(function, ctypes.c_void_p(_word(self.args)))

    def point(self, place: int, memory: Any) -> None:
        self._kept[place] = memory
        self.args[place] = ctypes.addressof(memory)


def _word(value: Any) -> int:
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        word: int = _BITS.unpack(_FLOAT.pack(value))[0]
        return word
    return value.value or 0 if isinstance(value, ctypes.c_void_p) else ctypes.addressof(value)


class MachineCode:
    """As machine code."""

    def __init__(self, kernels: aot.Kernels) -> None:
        self._kernels = kernels

    def __getitem__(self, name: str, /) -> Callable[..., Any]:
        return self._kernels[name]

    def prepare(self, name: str, /, *args: Any) -> Call:
        """The kernel with these arguments, for kernels that take a block (aot_parts.from_block)."""
        return _MachineCall(self._kernels[name], args)


PLAIN: Code = Plain(
    {
        function.__name__: function
        for function in (
            pacing.pace,
            exchange.exchange,
            exchange.send_words,
            passes.follow,
            passes.take_telemetry,
            passes.anything_exceeded,
        )
    }
)


def machine_code() -> Code:
    """As machine code, compiled and cached when it was not yet (seconds, once)."""
    return MachineCode(aot.load(KERNELS))
