"""TCP ports for daemons under test, from below the range that the kernel gives out by itself.

A port that was free when it was asked for is then taken by nobody but another test.
"""

import random
import socket
from contextlib import ExitStack
from pathlib import Path

_FIRST = 10_000


def free_ports(count: int) -> int:
    """The first of `count` neighbouring ports that are free on 127.0.0.1."""
    kernels = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    dice = random.SystemRandom()
    while True:
        first = dice.randrange(_FIRST, kernels - count)
        with ExitStack() as held:
            try:
                for number in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
        return first
