"""Kernels out of plain functions that call one another: the called ones compiled and put in place.

For modules with a table `AOT`; only the compiler imports it (and so numba).
"""

from types import FunctionType
from typing import Any

from numba import njit


def with_parts(function: Any, **parts: Any) -> Any:
    """`function` with `parts` in the place of the functions that it calls by these names."""
    return FunctionType(function.__code__, {**function.__globals__, **parts}, function.__name__)


def part(function: Any) -> Any:
    """`function` as a part of a kernel, without a call of its own."""
    return njit(error_model="numpy", no_cpython_wrapper=True, _nrt=False, forceinline=True)(
        function
    )
