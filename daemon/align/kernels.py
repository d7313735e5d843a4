"""Machine code of passes.py: the same functions, compiled; callers get addresses for arrays.

Only the compiler and the tests import this module (and so numba); processes call the machine code
through recd.shm.aot.
"""

from types import FunctionType
from typing import Any

from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from recd.daemon.align import passes
from recd.shm.aot import Kernel

_part = njit(error_model="numpy", no_cpython_wrapper=True, _nrt=False)


def _compiled(function: Any, **parts: Any) -> Any:
    """`function` compiled, with the compiled `parts` in the place of the plain ones it calls."""
    scope = {**passes.__dict__, **parts}
    return _part(FunctionType(function.__code__, scope, function.__name__))


tick_time = _compiled(passes.tick_time)
choose_frame = _compiled(passes.choose_frame)
frame_flags = _compiled(passes.frame_flags)
between = _compiled(passes.between)
align_frames = _compiled(
    passes.align_frames, tick_time=tick_time, choose_frame=choose_frame, frame_flags=frame_flags
)
align_samples = _compiled(passes.align_samples, between=between)


def _array_view(element: types.Type, dimensions: int) -> Any:
    """intrinsic(address, sizes) -> C-contiguous array over that memory (carray wants a runtime)."""
    kind = types.Array(element, dimensions, "C")

    def typed(_typing: Any, _address: Any, _sizes: Any) -> Any:
        def lower(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            array = make_array(kind)(context, builder)
            sizes = cgutils.unpack_tuple(builder, args[1], dimensions)
            stride = context.get_constant(types.intp, element.bitwidth // 8)
            strides = [stride]
            for size in reversed(sizes[1:]):
                strides.insert(0, builder.mul(strides[0], size))
            pointer = context.get_data_type(element).as_pointer()
            populate_array(
                array,
                data=builder.inttoptr(args[0], pointer),
                shape=sizes,
                strides=strides,
                itemsize=stride,
                meminfo=None,
            )
            return array._getvalue()

        return kind(types.int64, types.UniTuple(types.int64, dimensions)), lower

    return intrinsic(typed)


_int64s = _array_view(types.int64, 1)
_int64_rows = _array_view(types.int64, 2)
_float_rows = _array_view(types.float32, 2)
_byte_rows = _array_view(types.uint8, 2)


def _align_frames(  # type: ignore[no-untyped-def]
    capture, known, frames, rule, position, error, flags, ticks
):
    align_frames(
        _int64s(capture, (frames,)),
        _int64s(known, (frames,)),
        _int64s(rule, (passes.RULE_WORDS,)),
        _int64s(position, (ticks,)),
        _int64s(error, (ticks,)),
        _int64s(flags, (ticks,)),
    )


def _align_samples(  # type: ignore[no-untyped-def]
    times, values, valid, samples, tick_times, ticks, joints, joint, kind, reach, wrap, low,
    out, source, error, flags,
):  # fmt: skip
    align_samples(
        _int64s(times, (samples,)),
        _float_rows(values, (samples, joints)),
        _byte_rows(valid, (samples, joints)),
        _int64s(tick_times, (ticks,)),
        joint,
        kind,
        reach,
        wrap,
        low,
        _float_rows(out, (ticks, joints)),
        _int64_rows(source, (ticks, joints)),
        _int64_rows(error, (ticks, joints)),
        _byte_rows(flags, (ticks, joints)),
    )


_A, _I, _F = "address", "int64", "float64"

AOT: dict[str, Kernel] = {
    "align_frames": Kernel(
        _align_frames, (_A, _A, _I, _A, _A, _A, _A, _I), result="none", releases_gil=True
    ),
    "align_samples": Kernel(
        _align_samples,
        (_A, _A, _A, _I, _A, _I, _I, _I, _I, _I, _F, _F, _A, _A, _A, _A),
        result="none",
        releases_gil=True,
    ),
}
"""Arguments as the functions above name them: arrays C-contiguous, int64, float32 and uint8."""
