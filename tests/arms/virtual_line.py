"""The real bus code on the simulated servos' own line, in virtual time: late wakings included.

Stands where the kernel stands: under `os.read`, `os.write`, `select` and the clock of one port.
"""

from types import SimpleNamespace
from typing import Any

from recd.daemon.arms import exchange as exchange_module
from recd.daemon.arms.feetech import bus as bus_module
from recd.daemon.arms.feetech import port as port_module
from recd.daemon.arms.feetech.bus import ServoBus
from recd.daemon.arms.feetech.port import BusPort
from recd.daemon.arms.tickcode import PLAIN, Code
from recd.daemon.sim.bus import Bus, LineTiming
from recd.daemon.sim.motion import Mechanics
from recd.daemon.sim.servo import Servo
from recd.daemon.sim.servolog import ServoLog

from .virtual_kernel import VirtualKernel

S = 1_000_000_000
US = 1_000
MS = 1_000_000
BAUD = 1_000_000
STEP_NS = 100 * US
"""The joints turn by one step in this time, so that a position tells when it was read."""

IDS = (1, 2, 3, 4, 5, 6)
_CODE_NS = 1 * US


class VirtualLine:
    """now: the virtual time (ns); oversleep: by how much (ns) each coming sleep wakes late."""

    def __init__(self, monkeypatch: Any, code: Code = PLAIN) -> None:
        self.now = S
        self.oversleep: list[int] = []
        servos = [Servo(ident, Mechanics(), angle=0.0, at_ns=S) for ident in IDS]
        for servo in servos:
            servo.joint.hand = lambda at_ns: (at_ns - S) / STEP_NS
        timing = LineTiming(packet_ns=0)
        self.bus = Bus("virtual", servos, log=ServoLog(entries=10), timing=timing)
        self._inbox = b""
        kernel = SimpleNamespace(read=self._read, write=self._write)
        for module in (port_module, exchange_module):
            monkeypatch.setattr(module, "os", kernel)
            monkeypatch.setattr(module, "select", SimpleNamespace(select=self._select))
            monkeypatch.setattr(module, "now_ns", self._clock)
        monkeypatch.setattr(bus_module, "now_ns", self._clock)
        for module in (bus_module, exchange_module):
            monkeypatch.setattr(module, "sleep_until_ns", self.sleep_until)
        port = BusPort("virtual", baud=BAUD)
        self._kernel = VirtualKernel(
            clock=self._clock, sleep_until=self.sleep_until, read=self._read, write=self._write,
            wait_input=lambda _fd, for_ns: bool(self._select((), (), (), for_ns / S)[0]),
        )  # fmt: skip
        port.calls = self._kernel.table
        self.servos = ServoBus(port, IDS, code)

    def sleep_until(self, at_ns: int) -> None:
        if at_ns > self.now:
            late_ns = self.oversleep.pop() if self.oversleep else 0
            self._advance(at_ns + late_ns)

    def read_at(self, position: int, since_ns: int) -> int:
        """When a joint was at `position`, the first such time from shortly before `since_ns` on."""
        turn_ns = 4096 * STEP_NS
        at_ns = S + position * STEP_NS
        behind = since_ns - 2 * STEP_NS - at_ns
        return at_ns + -(-behind // turn_ns) * turn_ns

    def _clock(self) -> int:
        self.now += _CODE_NS
        return self.now

    def _advance(self, at_ns: int) -> None:
        while (due := self.bus.next_ns()) is not None and due <= at_ns:
            self.now = max(self.now, due)
            self._collect()
        self.now = max(self.now, at_ns)
        self._collect()

    def _collect(self) -> None:
        self.bus.run(self.now)
        self._inbox += self.bus.take_due(self.now)

    def _select(self, _fds: Any, _w: Any, _x: Any, timeout_s: float) -> tuple[Any, Any, Any]:
        until_ns = self.now + round(timeout_s * 1e9)
        self._collect()
        while not self._inbox:
            due = self.bus.next_ns()
            if due is None or due > until_ns:
                self._advance(until_ns)
                return [], [], []
            self.now = max(self.now, due)
            self._collect()
        return [0], [], []

    def _read(self, _fd: int, most: int) -> bytes:
        if not self._inbox:
            raise BlockingIOError
        taken, self._inbox = self._inbox[:most], self._inbox[most:]
        return taken

    def _write(self, _fd: int, data: bytes) -> int:
        self.bus.receive(data, self.now, BAUD)
        return len(data)
