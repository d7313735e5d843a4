"""The only atomic accesses of recd: loads, stores and fences on 64-bit words in shared memory.

For compiled code only (numba kernels); the interpreter cannot call them. Addresses are int64, must
be multiples of 8 and are not checked. Importing this module imports numba.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_WORD = ir.IntType(64)
_ALIGN = 8


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _WORD.as_pointer())


@intrinsic
def load_acquire(typing_context: Any, address: Any) -> Any:
    """Word at `address`; no later access of this thread is done before it.

    Pairs with store_release on the same word: what its writer stored before is visible after.
    (aarch64: ldar or ldapr; x86: mov, the compiler held back.)
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer(builder, args[0]), "acquire", _ALIGN)

    return types.int64(types.int64), generate


@intrinsic
def store_release(typing_context: Any, address: Any, value: Any) -> Any:
    """Store `value`; no earlier access of this thread is done after it.

    Pairs with load_acquire on the same word. (aarch64: stlr; x86: mov.)
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], _pointer(builder, args[0]), "release", _ALIGN)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def load_relaxed(typing_context: Any, address: Any) -> Any:
    """Word at `address`, whole, in no particular order.

    Pairs with store_relaxed: the order comes from a fence or an acquire beside it.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer(builder, args[0]), "monotonic", _ALIGN)

    return types.int64(types.int64), generate


@intrinsic
def store_relaxed(typing_context: Any, address: Any, value: Any) -> Any:
    """Store `value` whole, in no particular order.

    Pairs with load_relaxed: the order comes from a fence or a release beside it.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], _pointer(builder, args[0]), "monotonic", _ALIGN)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def fence_acquire(typing_context: Any) -> Any:
    """Loads before it are done before every access after it.

    Pairs with fence_release: a reader that used a byte stored after the writer's fence sees, after
    its own, the word stored before the writer's. (aarch64: dmb ishld; x86: compiler only.)
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("acquire")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def fence_release(typing_context: Any) -> Any:
    """Accesses before it are done before every store after it.

    Pairs with fence_acquire, see there. (aarch64: dmb ish; x86: compiler only.)
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("release")
        return context.get_dummy_value()

    return types.void(), generate
