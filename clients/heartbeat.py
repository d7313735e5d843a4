"""The heartbeat of a policy's client: it says how far the loop has come, and measures the clock.

A thread with a connection of its own; it beats while the loop is busy, and tells when it hangs.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from recd.config.policy_wire import Clock, pack, unpack
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

ANSWER_MS = 50
"""How long an answer is waited for; what comes later is read, late, with the next one."""

DRIFT_PPM = 500
"""How fast two clocks part at most: what a kernel slews, far more than quartz does. A measurement
is worth less by that as it ages."""


class Heart:
    """Sends a pulse until it is stopped. open_socket: makes its connection, in its thread; pulse:
    header of the next one; clock: how this computer's clock goes to the daemon's, None so far."""

    def __init__(
        self, open_socket: "Callable[[], zmq.Socket[bytes]]",
        pulse: Callable[[], Mapping[str, Any]], *, every_ms: int,
    ) -> None:  # fmt: skip
        self._open, self._pulse, self._every_ms = open_socket, pulse, every_ms
        self.clock: Clock | None = None
        self.unsent = 0
        self._measured_ns = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._live, name="recd-pulse", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Idempotent; returns when it beats no more."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _live(self) -> None:
        with self._open() as socket:
            while not self._stopped.is_set():
                sent_ns = now_ns()
                self._beat(socket, sent_ns)
                left_ns = sent_ns + self._every_ms * NS_PER_MS - now_ns()
                self._stopped.wait(max(0, left_ns) / NS_PER_S)

    def _beat(self, socket: "zmq.Socket[bytes]", sent_ns: int) -> None:
        ident = str(sent_ns)
        try:
            socket.send_multipart(pack({**self._pulse(), "id": ident}), zmq.NOBLOCK)
        except zmq.Again:
            self.unsent += 1  # the daemon does not read, and will take it for silence
        while socket.poll(ANSWER_MS):
            told, back_ns = unpack(socket.recv_multipart())[0], now_ns()
            if told.get("re") == ident:
                self._hear(told, sent_ns, back_ns)
                return

    def _hear(self, told: Mapping[str, Any], sent_ns: int, back_ns: int) -> None:
        """Of an older daemon, which does not say `rx`: nothing."""
        if "rx" not in told:
            return
        found = Clock.measured(sent_ns=sent_ns, rx_ns=told["rx"], tx_ns=told["tx"], back_ns=back_ns)
        self.clock = better(self.clock, found, age_ns=sent_ns - self._measured_ns)
        self._measured_ns = sent_ns


def better(known: Clock | None, found: Clock, *, age_ns: int) -> Clock:
    """The surer of a new measurement and the one before it, whose bound has grown since then."""
    if known is None:
        return found
    aged = Clock(known.offset_ns, known.bound_ns + -(-age_ns * DRIFT_PPM // 10**6))
    return found if found.bound_ns <= aged.bound_ns else aged
