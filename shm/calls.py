"""Calls of C functions by their address, for compiled code only (numba kernels).

A kernel is leaf code that nobody links: whoever calls it hands it the addresses of what it may
call. Integers and pointers only, all as int64. Importing this module imports numba.
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from recd.shm.libc import CLOCK_GETTIME, CLOCK_NANOSLEEP, ERRNO, PPOLL, READ, ROOM, SELF, WRITE

_WORD, _INT = ir.IntType(64), ir.IntType(32)


def _called(builder: Any, result: Any, args: Any) -> Any:
    kind = ir.FunctionType(result, [_WORD] * (len(args) - 1))
    return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])


@intrinsic
def call_long(typing_context: Any, address: Any, a: Any, b: Any, c: Any) -> Any:
    """Call the function at `address`, whose result is a `long`, a `ssize_t` or a pointer."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _called(builder, _WORD, args)

    return types.int64(*[types.int64] * 4), generate


@intrinsic
def call_int(typing_context: Any, address: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Call the function at `address`, whose result is an `int`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sext(_called(builder, _INT, args), _WORD)

    return types.int64(*[types.int64] * 5), generate


@intrinsic
def int_at(typing_context: Any, address: Any) -> Any:
    """The `int` at `address`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sext(builder.load(builder.inttoptr(args[0], _INT.as_pointer())), _WORD)

    return types.int64(types.int64), generate


@intrinsic
def address_of(typing_context: Any, pointer: Any) -> Any:
    """The address that a pointer argument of a kernel holds."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(args[0], _WORD)

    return types.int64(pointer), generate


# --- the calls of recd.shm.libc, for kernels that are handed its table ----------------------------

_WORD_BYTES = 8
_NS_PER_S = 1_000_000_000
_CLOCK_MONOTONIC, _TIMER_ABSTIME, _EINTR = 1, 1, 4
_POLLIN = 1 << 32
"""In the word of a `struct pollfd`, beside the descriptor."""

_part = njit(error_model="numpy", no_cpython_wrapper=True, _nrt=False)


@_part
def now(calls):  # type: ignore[no-untyped-def]
    """CLOCK_MONOTONIC, ns."""
    call_int(calls[CLOCK_GETTIME], _CLOCK_MONOTONIC, calls[SELF] + ROOM * _WORD_BYTES, 0, 0)
    return calls[ROOM] * _NS_PER_S + calls[ROOM + 1]


@_part
def sleep_until(calls, at_ns):  # type: ignore[no-untyped-def]
    """Sleep until a time of CLOCK_MONOTONIC, whatever signals come."""
    calls[ROOM], calls[ROOM + 1] = at_ns // _NS_PER_S, at_ns % _NS_PER_S
    room = calls[SELF] + ROOM * _WORD_BYTES
    while call_int(calls[CLOCK_NANOSLEEP], _CLOCK_MONOTONIC, _TIMER_ABSTIME, room, 0) == _EINTR:
        pass


@_part
def wait_input(calls, fd, for_ns):  # type: ignore[no-untyped-def]
    """1 when there is something to read, or comes within `for_ns`; else 0."""
    calls[ROOM], calls[ROOM + 1] = for_ns // _NS_PER_S, for_ns % _NS_PER_S
    calls[ROOM + 2] = fd | _POLLIN
    room = calls[SELF] + ROOM * _WORD_BYTES
    return 1 if call_int(calls[PPOLL], room + 2 * _WORD_BYTES, 1, room, 0) > 0 else 0


@_part
def ring_bell(calls, fd):  # type: ignore[no-untyped-def]
    """Wake the listener of a doorbell. Nothing is told of an error: an eventfd that is full has
    woken it already, and a control loop does not end over one that is gone."""
    calls[ROOM] = 1
    call_long(calls[WRITE], fd, calls[SELF] + ROOM * _WORD_BYTES, _WORD_BYTES)


@_part
def _or_errno(calls, result):  # type: ignore[no-untyped-def]
    return result if result >= 0 else 0 - int_at(call_long(calls[ERRNO], 0, 0, 0))


@_part
def read_some(calls, fd, target, at, most):  # type: ignore[no-untyped-def]
    """Read into bytes `target` from `at` on. How many bytes, 0 at a hang-up, or -errno; again
    after a signal, as os.read."""
    while True:
        got = _or_errno(calls, call_long(calls[READ], fd, address_of(target) + at, most))
        if got != 0 - _EINTR:
            return got


@_part
def write_some(calls, fd, packet, size):  # type: ignore[no-untyped-def]
    """Write `size` bytes of `packet`. How many bytes, or -errno; again after a signal, as
    os.write: a terminal refuses while one is pending."""
    while True:
        sent = _or_errno(calls, call_long(calls[WRITE], fd, address_of(packet), size))
        if sent != 0 - _EINTR:
            return sent
