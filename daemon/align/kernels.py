"""Machine code of passes.py: the same functions, compiled over pointers.

Only the compiler imports this module (and so numba); processes call the machine code through
recd.shm.aot.
"""

from recd.daemon.align import passes
from recd.shm import clock
from recd.shm.aot import Kernel
from recd.shm.aot_parts import part, with_parts

_CHOOSE = part(passes.choose_between)

_I, _F, _BYTES = "int64", "float64", "uint8*"
_INT64S, _FLOATS, _DOUBLES = "int64*", "float32*", "float64*"

AOT: dict[str, Kernel] = {
    "align_frames": Kernel(
        with_parts(
            passes.align_frames,
            tick_ns=part(clock.tick_ns),
            choose_frame=part(passes.choose_frame),
            frame_flags=part(passes.frame_flags),
        ),
        (_INT64S, _INT64S, _I, _INT64S, _I, _INT64S, _INT64S, _INT64S),
        result="none",
        releases_gil=True,
    ),
    "align_samples": Kernel(
        with_parts(
            passes.align_samples,
            count_reached=part(passes.count_reached),
            judge_rows=part(with_parts(passes.judge_rows, choose_between=_CHOOSE)),
            judge_any_rows=part(
                with_parts(
                    passes.judge_any_rows,
                    choose_sample=part(with_parts(passes.choose_sample, choose_between=_CHOOSE)),
                )
            ),
            fill=part(passes.fill),
            fill_between=part(with_parts(passes.fill_between, between=part(passes.between))),
            fill_odd_rows=part(with_parts(passes.fill_odd_rows, between=part(passes.between))),
            find_neighbours=part(
                with_parts(passes.find_neighbours, neighbours=part(passes.neighbours))
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
