"""Machine code of passes.py: the same functions, compiled over pointers.

Only the compiler imports this module (and so numba); processes call the machine code through
recd.shm.aot.
"""

from types import FunctionType
from typing import Any

from numba import njit

from recd.daemon.align import passes
from recd.shm.aot import Kernel


def _with(function: Any, **parts: Any) -> Any:
    """`function` with `parts` in the place of the functions that it calls."""
    return FunctionType(function.__code__, {**passes.__dict__, **parts}, function.__name__)


def _part(function: Any) -> Any:
    return njit(error_model="numpy", no_cpython_wrapper=True, _nrt=False, forceinline=True)(
        function
    )


_CHOOSE = _part(passes.choose_between)

_I, _F, _BYTES = "int64", "float64", "uint8*"
_INT64S, _FLOATS, _DOUBLES = "int64*", "float32*", "float64*"

AOT: dict[str, Kernel] = {
    "align_frames": Kernel(
        _with(
            passes.align_frames,
            tick_time=_part(passes.tick_time),
            choose_frame=_part(passes.choose_frame),
            frame_flags=_part(passes.frame_flags),
        ),
        (_INT64S, _INT64S, _I, _INT64S, _I, _INT64S, _INT64S, _INT64S),
        result="none",
        releases_gil=True,
    ),
    "align_samples": Kernel(
        _with(
            passes.align_samples,
            count_reached=_part(passes.count_reached),
            judge_rows=_part(_with(passes.judge_rows, choose_between=_CHOOSE)),
            judge_any_rows=_part(
                _with(
                    passes.judge_any_rows,
                    choose_sample=_part(_with(passes.choose_sample, choose_between=_CHOOSE)),
                )
            ),
            fill=_part(passes.fill),
            fill_between=_part(_with(passes.fill_between, between=_part(passes.between))),
            fill_odd_rows=_part(_with(passes.fill_odd_rows, between=_part(passes.between))),
            find_neighbours=_part(
                _with(passes.find_neighbours, neighbours=_part(passes.neighbours))
            ),
        ),
        (
            _INT64S, _FLOATS, _BYTES, _I, _INT64S, _I, _INT64S, _DOUBLES, _I, _I, _I, _I, _F,
            _INT64S, _DOUBLES, _INT64S, _FLOATS, _INT64S, _INT64S, _BYTES,
        ),
        result="none",
        releases_gil=True,
    ),
}  # fmt: skip
"""Arguments as the functions themselves name them."""
