"""systemd's notification protocol: datagrams to $NOTIFY_SOCKET. Silent where there is none."""

import os
import socket
from collections.abc import Mapping

from recd.shm.clock import NS_PER_S

EXTEND_NS = 60 * NS_PER_S
"""How long systemd waits for the next sign of life while recovery goes on."""


class Notifier:
    """Sends READY, STATUS, WATCHDOG, STOPPING. A service manager that is gone is no error.

    watchdog_ns: how often systemd wants a sign of life (WATCHDOG_USEC), 0 never.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        self._status = ""
        self._extended_ns = 0
        self.watchdog_ns = 0
        if not address:
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        if (environment.get("WATCHDOG_PID") or str(os.getpid())) == str(os.getpid()):
            self.watchdog_ns = int(environment.get("WATCHDOG_USEC", "0")) * 1000

    def send(self, **fields: str) -> bool:
        """One datagram of `NAME=value` lines. False when it did not reach the queue of systemd."""
        if self._socket is None:
            return True
        text = "\n".join(f"{name}={value}" for name, value in fields.items())
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError:
            return False  # nobody listens or its queue is full; the next one will say the same
        return True

    def ready(self, status: str) -> None:
        """The daemon does its job from now on."""
        self._status = status
        self.send(READY="1", STATUS=status, MAINPID=str(os.getpid()))

    def status(self, status: str) -> None:
        """One line for `systemctl status`; sent until it is through, then only when it changed."""
        if status != self._status and self.send(STATUS=status):
            self._status = status

    def starting(self, status: str, now: int) -> None:
        """Not ready yet but at work: as long as this is called, the start takes what it needs."""
        self.status(status)
        if now - self._extended_ns >= EXTEND_NS // 4:
            self._extended_ns = now
            self.send(EXTEND_TIMEOUT_USEC=str(EXTEND_NS // 1000))

    def alive(self) -> None:
        """Feed the watchdog."""
        self.send(WATCHDOG="1")

    def stopping(self) -> None:
        """The daemon is on its way out."""
        self.send(STOPPING="1", STATUS="stopping")

    def close(self) -> None:
        """Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
