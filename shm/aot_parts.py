"""Kernels out of plain functions that call one another: the called ones compiled and put in place.

For modules with a table `AOT`; only the compiler imports it (and so numba).
"""

from collections.abc import Sequence
from types import FunctionType
from typing import Any

from numba import njit, types
from numba.extending import intrinsic


def with_parts(function: Any, **parts: Any) -> Any:
    """`function` with `parts` in the place of the functions that it calls by these names."""
    space = {**function.__globals__, **parts}
    return FunctionType(function.__code__, space, function.__name__, function.__defaults__)


def part(function: Any) -> Any:
    """`function` as a part of a kernel, without a call of its own."""
    return njit(error_model="numpy", no_cpython_wrapper=True, _nrt=False, forceinline=True)(
        function
    )


def from_block(function: Any, arguments: Sequence[str]) -> Any:
    """`function` as a kernel of one argument: a block of words (`int64*`) that holds its own, which
    are of the types `arguments` (words of aot.C_TYPES): addresses, numbers, float64 as its bits.

    One pointer is the cheapest that ctypes can pass [called in cold caches: 21 arguments 11 us, one
    4 us].
    """
    taken = [f"take_{number}(block[{number}])" for number in range(len(arguments))]
    space = {f"take_{number}": _TAKE[word] for number, word in enumerate(arguments)}
    space["function"] = part(function)
    exec(f"def blocked(block):\n    return function({', '.join(taken)})", space)
    return space["blocked"]


def _pointer(item: Any) -> Any:
    kind = types.CPointer(item)

    @intrinsic
    def take(typing_context: Any, word: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(kind))

        return kind(types.int64), generate

    return take


@intrinsic
def _float(typing_context: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float64))

    return types.float64(types.int64), generate


@part
def _word(word):  # type: ignore[no-untyped-def]
    return word


_TAKE: dict[str, Any] = {
    "address": _word,
    "int64": _word,
    "float64": _float,
    **{
        f"{name}*": _pointer(getattr(types, name))
        for name in ("uint8", "int32", "int64", "float32", "float64")
    },
}
