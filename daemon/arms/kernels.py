"""Machine code of passes.py and exchange.py: the same functions, compiled over pointers.

Only the compiler imports this module (and so numba); processes call the machine code through
recd.shm.aot.
"""

from recd.daemon.arms import exchange, passes
from recd.shm import calls
from recd.shm.aot import Kernel
from recd.shm.aot_parts import part, with_parts

_UNITS, _STEPS = part(passes.units_at), part(passes.steps_at)

_I, _F, _BYTES = "int64", "float64", "uint8*"
_INT32S, _INT64S, _FLOATS, _DOUBLES = "int32*", "int64*", "float32*", "float64*"

_KERNEL_CALLS = {
    name: getattr(calls, name)
    for name in ("now", "sleep_until", "wait_input", "read_some", "write_some")
}
_SEND = part(with_parts(exchange.send, **_KERNEL_CALLS))
_RECEIVE = part(with_parts(exchange.receive, **_KERNEL_CALLS))

AOT: dict[str, Kernel] = {
    "follow": Kernel(
        with_parts(
            passes.follow,
            units_at=_UNITS,
            steps_at=_STEPS,
            limited=part(passes.limited),
            over_seam=part(passes.over_seam),
            on_the_turn_of=part(passes.on_the_turn_of),
        ),
        (_DOUBLES, _DOUBLES, _INT64S, _DOUBLES, _DOUBLES, _I, _I),
        result="float64",
    ),
    "exchange": Kernel(
        with_parts(
            exchange.exchange,
            **_KERNEL_CALLS,
            send=_SEND,
            receive=_RECEIVE,
            receive_until=part(
                with_parts(exchange.receive_until, **_KERNEL_CALLS, receive=_RECEIVE)
            ),
            take_replies=part(passes.take_replies),
        ),
        (_INT64S, _INT64S, _BYTES, _I, _BYTES, _INT64S, _I, _I, _BYTES, _INT64S),
    ),
    "send_words": Kernel(
        with_parts(exchange.send_words, fill_words=part(passes.fill_words), send=_SEND),
        (_INT64S, _INT64S, _BYTES, _I, _I, _INT64S, _I),
    ),
    "positions": Kernel(
        with_parts(passes.positions, units_at=_UNITS),
        (_BYTES, _I, _I, _INT64S, _DOUBLES, _DOUBLES, _I, _F),
        result="none",
    ),
    "take_telemetry": Kernel(
        passes.take_telemetry, (_BYTES, _I, _INT64S, _INT64S, _I), result="none"
    ),
    "anything_exceeded": Kernel(passes.anything_exceeded, (_INT64S, _I, _INT64S, _I)),
    "fill_sample": Kernel(
        passes.fill_sample,
        (_INT32S, _FLOATS, _I, _INT64S, _INT64S, *[_DOUBLES] * 5),
        result="none",
    ),
}
"""Arguments as the functions themselves name them."""
