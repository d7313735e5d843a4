"""Machine code of passes.py, exchange.py and pacing.py: the same functions, compiled over pointers.

Only the compiler imports this module (and so numba); processes call the machine code through
recd.shm.aot.
"""

from typing import Any

from recd.daemon.arms import exchange, pacing, passes
from recd.shm import calls, clock
from recd.shm.aot import Kernel
from recd.shm.aot_parts import from_block, part, with_parts
from recd.shm.put import ring_put

_UNITS, _STEPS = part(passes.units_at), part(passes.steps_at)

_I, _F, _BYTES = "int64", "float64", "uint8*"
_INT32S, _INT64S, _FLOATS, _DOUBLES = "int32*", "int64*", "float32*", "float64*"

_KERNEL_CALLS = {
    name: getattr(calls, name)
    for name in ("now", "sleep_until", "wait_input", "read_some", "write_some")
}
_SEND = part(with_parts(exchange.send, **_KERNEL_CALLS))
_RECEIVE = part(with_parts(exchange.receive, **_KERNEL_CALLS))

_POSITIONS = part(with_parts(passes.positions, units_at=_UNITS))
_FILL = part(passes.fill_sample)


def _prepared(function: Any, arguments: tuple[str, ...], result: str = "int64") -> Kernel:
    """A kernel for tickcode.Call."""
    return Kernel(from_block(function, arguments), (_INT64S,), result)


def put_sample(
    ring: Any, calls: Any, tick: int, sample_ns: int, arrival_ns: int, flags: int,
    data: Any, offset: int, valid: int, raw: Any, present: Any, scales: Any, joints: int,
    unknown: float, integers: Any, floats: Any, sent_raw: Any, leader: Any, requested: Any,
    limited: Any, sent: Any,
) -> Any:  # fmt: skip
    """passes.positions and passes.fill_sample, then the staged record into its ring (put.ring_put):
    the last piece of a tick as one call [15 us less than as four]."""
    _POSITIONS(data, offset, valid, raw, present, scales, joints, unknown)
    _FILL(
        integers, floats, joints, raw, sent_raw, present, leader, requested, limited, sent
    )  # fmt: skip
    return ring_put(ring, calls, sample_ns, arrival_ns, tick, flags)


_TICK = part(clock.tick_ns)

AOT: dict[str, Kernel] = {
    "pace": _prepared(
        with_parts(
            pacing.pace,
            **_KERNEL_CALLS,
            tick_ns=_TICK,
            tick_at_or_before=part(with_parts(clock.tick_at_or_before, tick_ns=_TICK)),
            bucket=part(pacing.bucket),
        ),
        (_INT64S, _INT64S, _INT32S, _INT32S, _I, _I),
    ),
    "follow": _prepared(
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
    "exchange": _prepared(
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
    "send_words": _prepared(
        with_parts(exchange.send_words, fill_words=part(passes.fill_words), send=_SEND),
        (_INT64S, _INT64S, _BYTES, _I, _I, _I, _INT64S),
    ),
    "put_sample": _prepared(
        put_sample,
        (
            *("address", _INT64S, _I, _I, _I, _I),
            *(_BYTES, _I, _I, _INT64S, _DOUBLES, _DOUBLES, _I, _F),
            *(_INT32S, _FLOATS, _INT64S, _DOUBLES, _DOUBLES, _DOUBLES, _DOUBLES),
        ),
    ),
    "take_telemetry": Kernel(
        passes.take_telemetry, (_BYTES, _I, _INT64S, _INT64S, _I), result="none"
    ),
    "anything_exceeded": Kernel(passes.anything_exceeded, (_INT64S, _I, _INT64S, _I)),
}
"""Arguments as the functions themselves name them; of prepared ones in a block."""
