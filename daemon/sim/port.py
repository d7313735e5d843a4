"""A serial port for the host: one end of a pseudo-terminal under a stable name.

The name is a link to the present terminal and goes when the port is unplugged. A second link under
`by-id/` carries the serial number and comes back whatever the port is then called.
"""

import fcntl
import os
import struct
import termios
import tty
from pathlib import Path

_TCGETS2 = 0x802C542A
_TERMIOS2_BYTES = 44
_OSPEED_AT = 40
_READ_BYTES = 4096


class Port:
    """The device side of a port. `fd` is for poll, -1 while unplugged."""

    def __init__(self, link: Path, serial: str) -> None:
        self.link = link
        self.serial = serial
        self.fd = -1
        self._slave = -1
        self._terminal = ""

    @property
    def plugged(self) -> bool:
        return self.fd >= 0

    @property
    def by_id(self) -> Path:
        """Link whose name holds the serial number, as /dev/serial/by-id has them."""
        return self.link.parent / "by-id" / f"usb-recd_sim_{self.serial}-if00"

    def plug(self, link: Path | None = None) -> None:
        """Appear, under `link` if given (a port may come back under another name)."""
        if self.plugged:
            return
        if link is not None:
            self.link = link
        self.fd, self._slave = os.openpty()
        # Kept open on this side too: without it, a port that nobody has open reports a hang-up
        # for ever, and settings made before the first open would be lost.
        tty.setraw(self._slave, termios.TCSANOW)
        os.set_blocking(self.fd, False)
        self._terminal = os.ttyname(self._slave)
        for name in (self.link, self.by_id):
            name.parent.mkdir(parents=True, exist_ok=True)
            _point(name, self._terminal)

    def unplug(self) -> None:
        """Disappear: names go, whoever has the port open gets a hang-up."""
        if not self.plugged:
            return
        for name in (self.link, self.by_id):
            if name.is_symlink() and os.readlink(name) == self._terminal:
                name.unlink()
        os.close(self.fd)
        os.close(self._slave)
        self.fd = self._slave = -1

    def baud(self) -> int:
        """Rate (bits a second) to which the host set the port, odd ones included."""
        raw = fcntl.ioctl(self.fd, _TCGETS2, bytes(_TERMIOS2_BYTES))
        (speed,) = struct.unpack_from("=I", raw, _OSPEED_AT)
        return int(speed)

    def read(self) -> bytes:
        """What the host wrote, b"" when there is nothing."""
        try:
            return os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return b""

    def write(self, data: bytes) -> int:
        """Give bytes to the host; returns how many fitted (a host that never reads overflows)."""
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0


def _point(name: Path, target: str) -> None:
    fresh = name.with_name(f".{name.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(name)
