"""Where `recd` and `recctl` begin: Ctrl-C while Python still reads modules ends them in silence."""

import signal
from collections.abc import Callable
from importlib import import_module


def recd() -> None:
    """Entry of `recd`."""
    _main("recd.daemon.cli")()


def recctl() -> None:
    """Entry of `recctl`."""
    _main("recd.clients.recctl.cli")()


def _main(module: str) -> Callable[[], None]:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    main: Callable[[], None] = import_module(module).main
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return main
