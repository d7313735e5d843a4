"""Machine code of passes.py: the same functions, compiled over pointers.

Only the compiler imports this module (and so numba); processes call the machine code through
recd.shm.aot.
"""

from types import FunctionType
from typing import Any

from numba import njit

from recd.daemon.pixels import passes
from recd.shm.aot import Kernel


def _with(function: Any, **parts: Any) -> Any:
    """`function` with `parts` in the place of the functions that it calls."""
    return FunctionType(function.__code__, {**passes.__dict__, **parts}, function.__name__)


def _part(function: Any) -> Any:
    return njit(error_model="numpy", no_cpython_wrapper=True, _nrt=False)(function)


_I, _WORDS, _HALVES = "int64", "int64*", "int32*"

AOT: dict[str, Kernel] = {
    "scale_bytes": Kernel(
        passes.scale_bytes,
        (_WORDS, _I, _WORDS, _I, _I, _I, _I, _I),
        result="none",
        releases_gil=True,
    ),
    "split_yuyv": Kernel(
        _with(
            passes.split_yuyv,
            eight_lumas=_part(_with(passes.eight_lumas, four_bytes=_part(passes.four_bytes))),
            mean_chroma=_part(passes.mean_chroma),
        ),
        (_WORDS, _I, _WORDS, _I, _HALVES, _HALVES, _I, _I, _I, _I, _I, _I, _I),
        result="none",
        releases_gil=True,
    ),
}
"""Arguments as the functions themselves name them."""
