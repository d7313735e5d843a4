"""The code of a control tick by name, as Python or as machine code: pacing.py, exchange.py and
passes.py."""

from collections.abc import Callable
from typing import Any, Protocol

from recd.daemon.arms import exchange, pacing, passes
from recd.shm import aot

KERNELS = "recd.daemon.arms.kernels"
"""Module whose table `recd.shm.aot.load` compiles."""


class Code(Protocol):
    """Functions by name."""

    def __getitem__(self, name: str, /) -> Callable[..., Any]: ...


PLAIN: Code = {
    function.__name__: function
    for function in (
        pacing.pace,
        exchange.exchange,
        exchange.send_words,
        passes.follow,
        passes.take_telemetry,
        passes.anything_exceeded,
    )
}
"""As Python: for whoever serves an arm outside its loop."""


def machine_code() -> Code:
    """As machine code, compiled and cached when it was not yet (seconds, once)."""
    return aot.load(KERNELS)
