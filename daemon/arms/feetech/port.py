"""The serial port under the SDK's packet layer: short monotonic timeouts, no spinning, one owner.

The SDK's own handler times out by wall clock after 34 ms at least, burns a core while it waits and
never throws old input away. This one does neither; what it drops it counts.
"""

import errno
import fcntl
import os
import select
import stat
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import serial
from scservo_sdk import PortHandler

from recd.config.errors import DeviceError
from recd.daemon.arms.exchange import (
    DEADLINE_NS,
    DROPPED,
    ECHO,
    ECHO_DUE,
    ERROR,
    FD,
    HELD,
    INBOX_BYTES,
    LAST_BYTE_NS,
    LOOKED_LATE,
    RECEIVED,
    REQUEST_NS,
    WAITED_NS,
    WORDS,
)
from recd.daemon.arms.passes import integers, octets
from recd.daemon.arms.ports import describe_missing, describe_users
from recd.daemon.permission import group_of, way_in
from recd.shm import libc
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

BITS_PER_BYTE = 10
ATTACH_TIMEOUT_NS = 60 * NS_PER_MS
"""Patience while attaching: longer than the 16 ms timer of a badly set adapter, several times."""

_READ_BYTES = 4096
_PTY_MAJORS = range(136, 144)
_GONE = {errno.EIO, errno.ENXIO, errno.ENODEV, errno.EBADF}


class BusLostError(DeviceError):
    """The port went away under us (unplugged, hang-up)."""

    code = "bus"


class _Word:
    """A word of a port as its attribute."""

    def __init__(self, place: int) -> None:
        self._place = place

    def __get__(self, port: "BusPort", owner: type) -> int:
        return port.words[self._place]

    def __set__(self, port: "BusPort", value: int) -> None:
        port.words[self._place] = value


class BusPort(PortHandler):
    """PortHandler of one bus.

    reply_timeout_ns: patience on top of the time that the bytes need on the wire; request_ns: when
    the last request was handed to the kernel; last_byte_ns: when the newest byte was read;
    dropped_bytes: input thrown away before a request; inbox: input that nobody has taken yet;
    received_bytes: all input; waited_ns: time asleep for replies; echo: 1 for an adapter that sends
    back what it is given; words: these and others, where an exchange keeps them (exchange.py);
    read_into, calls: what else an exchange is handed.
    """

    request_ns = _Word(REQUEST_NS)
    last_byte_ns = _Word(LAST_BYTE_NS)
    deadline_ns = _Word(DEADLINE_NS)
    dropped_bytes = _Word(DROPPED)
    received_bytes = _Word(RECEIVED)
    waited_ns = _Word(WAITED_NS)
    echo = _Word(ECHO)
    echo_due = _Word(ECHO_DUE)
    looked_late = _Word(LOOKED_LATE)

    def __init__(self, path: str, *, baud: int, bus: str = "", exclusive: bool = True) -> None:
        super().__init__(path)
        self.baudrate = baud
        self.bus = bus or path
        self.exclusive = exclusive
        self.byte_ns = BITS_PER_BYTE * NS_PER_S // baud
        self.reply_timeout_ns = ATTACH_TIMEOUT_NS
        self.words = integers([0] * WORDS)
        self.inbox = bytearray()
        self.read_into = octets(bytes(INBOX_BYTES))
        self.calls = libc.table()
        self.use(-1)

    def openPort(self) -> bool:  # noqa: N802 (the SDK's name)
        """Open, unless told otherwise for this process alone. DeviceError says what stands in the
        way, and the mend.
        """
        path = self.port_name
        try:
            port = serial.Serial(path, self.baudrate, timeout=0, exclusive=self.exclusive)
            if self.exclusive:
                _keep_others_out(port.fileno())
        except (serial.SerialException, OSError, ValueError) as error:
            raise open_error(error, path, self.bus, self.baudrate) from None
        self.ser = port
        self.use(port.fileno())
        self.is_open = True
        self.is_using = False
        self.tx_time_per_byte = 1000.0 / self.baudrate * BITS_PER_BYTE
        _ask_low_latency(port)
        self.clearPort()
        return True

    def use(self, fd: int) -> None:
        """Read and write this descriptor from now on."""
        self.words[FD], self._fds = fd, [fd]

    def setupPort(self, cflag_baud: int) -> bool:  # noqa: N802
        """The SDK's way to open; the rate was given at construction."""
        del cflag_baud
        return self.openPort()

    def change_baud(self, baud: int) -> None:
        """Another line rate on the open port; input is thrown away."""
        self.baudrate = baud
        self.byte_ns = BITS_PER_BYTE * NS_PER_S // baud
        self.ser.baudrate = baud
        self.clearPort()

    def closePort(self) -> None:  # noqa: N802
        if self.is_open:
            self.is_open = False
            self.use(-1)
            self.ser.close()

    def clearPort(self) -> None:  # noqa: N802
        """Throw away all input. The SDK calls it before each request."""
        self.drop_inbox()
        while select.select(self._fds, (), (), 0)[0]:
            self._fill()
            self.drop_inbox()

    def getBytesAvailable(self) -> int:  # noqa: N802
        while select.select(self._fds, (), (), 0)[0]:
            self._fill()
        return len(self.inbox)

    def readPort(self, length: int) -> bytes:  # noqa: N802
        """Up to `length` bytes, waited for as `await_bytes` does."""
        if length <= 0:  # the SDK asks for less than nothing after a damaged length byte
            return b""
        self.await_bytes(length)
        taken = bytes(self.inbox[:length])
        del self.inbox[:length]
        return taken

    def await_bytes(self, length: int) -> bool:
        """Wait, asleep, until `inbox` holds `length` bytes; False when the deadline came first.

        Bytes that are there when the deadline has passed are taken, once: a process that was woken
        late must not call the line late.
        """
        inbox = self.inbox
        while len(inbox) < length:
            now = now_ns()
            left_ns = self.deadline_ns - now
            if left_ns <= 0:
                if self.looked_late or not self.getBytesAvailable():
                    break
                self.looked_late = 1
                continue
            came = select.select(self._fds, (), (), left_ns / NS_PER_S)[0]
            self.waited_ns += now_ns() - now
            if came:
                self._fill()
        return len(inbox) >= length

    def drop_inbox(self) -> None:
        """Throw away what nobody has taken."""
        self.dropped_bytes += len(self.inbox)
        self.inbox.clear()

    def settle(self, taken: int) -> None:
        """After an exchange: bytes that came behind the `taken` ones go to `inbox`. Raises what
        stopped it, BusLostError for a port that is gone."""
        words = self.words
        if words[ERROR]:
            raise self._lost(OSError(words[ERROR], os.strerror(words[ERROR])))
        self.inbox += bytes(self.read_into[taken : words[HELD]])

    def writePort(self, packet: Sequence[int]) -> int:  # noqa: N802
        """Hand a request to the kernel; returns the bytes taken."""
        data = bytes(packet)
        if self.echo:
            self.echo_due += len(data)
        self.request_ns = now_ns()
        try:
            return os.write(self.words[FD], data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._lost(error) from None

    def setPacketTimeout(self, packet_length: int) -> None:  # noqa: N802
        """Deadline for replies of `packet_length` bytes in all, from now."""
        self.looked_late = 0
        self.deadline_ns = now_ns() + packet_length * self.byte_ns + self.reply_timeout_ns

    def setPacketTimeoutMillis(self, msec: float) -> None:  # noqa: N802
        self.looked_late = 0
        self.deadline_ns = now_ns() + round(msec * NS_PER_MS)

    def isPacketTimeout(self) -> bool:  # noqa: N802
        return now_ns() >= self.deadline_ns

    def extend_deadline(self, for_ns: int) -> None:
        """Wait for input until `for_ns` from now."""
        self.looked_late = 0
        self.deadline_ns = now_ns() + for_ns

    def _fill(self) -> int:
        try:
            data = os.read(self.words[FD], _READ_BYTES)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._lost(error) from None
        if not data:
            raise self._lost(OSError(errno.EIO, "hang-up"))
        self.last_byte_ns = now_ns()
        if self.echo_due:
            own = min(self.echo_due, len(data))
            self.echo_due -= own
            data = data[own:]
        self.inbox += data
        self.received_bytes += len(data)
        return len(data)

    def _lost(self, error: OSError) -> Exception:
        if error.errno not in _GONE:
            return error
        return BusLostError(
            f"{self.bus}: the port {self.port_name} went away ({error.strerror})",
            mend="Check the USB cable and the adapter; it is taken up again when it comes back.",
        )


def _keep_others_out(fd: int) -> None:
    # A pseudo-terminal's other end outlives us, and with it the flag: after a kill nobody but root
    # could open it again. The lock that pyserial took is enough there.
    if os.major(os.fstat(fd).st_rdev) not in _PTY_MAJORS:
        fcntl.ioctl(fd, termios.TIOCEXCL)


def _ask_low_latency(port: Any) -> None:
    try:
        port.set_low_latency_mode(True)
    except (OSError, ValueError, NotImplementedError):
        return  # not every driver has it; attaching measures the reply time and speaks up


def _no_tty(error: Exception) -> bool:
    """pyserial hides the number of a failed termios call in the error behind its own."""
    behind = error.__context__
    return isinstance(behind, termios.error) and behind.args[0] == errno.ENOTTY


def open_error(error: Exception, path: str, bus: str, baud: int) -> DeviceError:
    """What stands between us and the port at `path`, in words and with the mend.

    bus: whose key of the configuration is named; `path` itself where none has to do with it.
    """
    key = "" if bus == path else f"arms.{bus}.port: "
    number = getattr(error, "errno", None)
    if isinstance(error, BlockingIOError) or "lock" in str(error).lower():
        number = errno.EBUSY
    exists = Path(path).exists()
    if not exists:
        return DeviceError(f"{key}there is no {path}", mend=describe_missing())
    if number == errno.EBUSY:
        return DeviceError(
            f"{key}{path} is in use by {describe_users(path)}",
            mend="End that program, or stop the daemon that holds it: recctl shutdown.",
            code="busy",
        )
    if number in (errno.EACCES, errno.EPERM):
        return DeviceError(
            f"{key}no permission to open {path} (it belongs to group {group_of(path)})",
            mend=way_in(path, usual="dialout"),
            code="permission",
        )
    if not stat.S_ISCHR(os.stat(path).st_mode) or _no_tty(error):
        return DeviceError(
            f"{key}{path} is not a serial port",
            mend="Give a serial port; recctl devices lists them.",
        )
    if isinstance(error, ValueError):
        key = key.replace(".port: ", ".baud: ")
        return DeviceError(f"{key}{path} cannot do {baud} baud ({error})", mend="Set 1000000.")
    return DeviceError(
        f"{key}{path} cannot be opened: {error}",
        mend="Unplug the adapter and plug it in again; recctl devices lists the ports.",
    )
