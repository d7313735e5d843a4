"""Free TCP ports of this computer, from below the range that the kernel gives out by itself."""

import random
import socket
from contextlib import ExitStack
from pathlib import Path

from recd.config.errors import RecdError

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST = 10_000
_TRIES = 200


def free_ports(count: int) -> int:
    """The first of `count` neighbouring ports that nobody has on 127.0.0.1. RecdError for none."""
    kernels = int(_RANGE.read_text().split()[0])
    dice = random.SystemRandom()
    for _ in range(_TRIES):
        first = dice.randrange(_FIRST, kernels - count)
        with ExitStack() as held:
            try:
                for number in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
        return first
    raise RecdError(f"127.0.0.1: expected {count} free ports in a row, found none",
                    mend="Close what listens there.")  # fmt: skip
