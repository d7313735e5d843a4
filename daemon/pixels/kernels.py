"""Machine code of passes.py: the same functions, compiled over pointers.

Only the compiler imports this module (and so numba); processes call the machine code through
recd.shm.aot.
"""

from recd.daemon.pixels import passes
from recd.shm.aot import Kernel
from recd.shm.aot_parts import part, with_parts

_I, _WORDS, _HALVES = "int64", "int64*", "int32*"

AOT: dict[str, Kernel] = {
    "scale_bytes": Kernel(
        passes.scale_bytes,
        (_WORDS, _I, _WORDS, _I, _I, _I, _I, _I),
        result="none",
        releases_gil=True,
    ),
    "split_yuyv": Kernel(
        with_parts(
            passes.split_yuyv,
            eight_lumas=part(with_parts(passes.eight_lumas, four_bytes=part(passes.four_bytes))),
            mean_chroma=part(passes.mean_chroma),
        ),
        (_WORDS, _I, _WORDS, _I, _HALVES, _HALVES, _I, _I, _I, _I, _I, _I, _I),
        result="none",
        releases_gil=True,
    ),
}
"""Arguments as the functions themselves name them."""
