"""Operator keys: a terminal in cbreak mode (also over ssh) and, by evdev, a USB pedal or keypad.

Never grabs keys of other windows. Without a terminal and without a pedal there are simply no keys.
"""

import os
import select
import sys
import termios
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from recd.config.errors import DeviceError

KEYS: dict[bytes, str] = {
    b"\x1b[C": "next", b"\x1bOC": "next", b"n": "next", b"N": "next",
    b"\x1b[D": "rerecord", b"\x1bOD": "rerecord", b"r": "rerecord", b"R": "rerecord",
    b"\x1b": "stop", b"q": "stop", b"Q": "stop",
    b" ": "hold",
    b"s": "success", b"f": "fail",
    b"a": "arm", b"d": "detach",
    b"e": "estop",
    b"p": "policy.pause", b"t": "policy.takeover", b"g": "policy.resume",
    b"h": "highlight",
}  # fmt: skip
"""Bytes of one key press -> action. The first three are LeRobot's keys."""

PEDAL_KEYS: dict[str, str] = {
    "KEY_RIGHT": "next", "KEY_N": "next", "KEY_ENTER": "next", "KEY_KPENTER": "next",
    "KEY_PAGEDOWN": "next", "KEY_C": "next",
    "KEY_LEFT": "rerecord", "KEY_R": "rerecord", "KEY_PAGEUP": "rerecord", "KEY_A": "rerecord",
    "KEY_ESC": "stop", "KEY_Q": "stop",
    "KEY_SPACE": "hold", "KEY_B": "hold",
}  # fmt: skip
"""evdev key names -> action. Three-pedal boards usually send a, b and c."""

ESCAPE_WAIT_S = 0.03
"""A lone Esc and the start of an arrow key look the same for this long at most."""


class Terminal:
    """Keys from standard input. Restores the terminal on exit, however the block is left."""

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else -1
        self._saved: list[Any] | None = None

    @property
    def available(self) -> bool:
        """False without a terminal: then no keys ever come."""
        return self._fd >= 0

    def __enter__(self) -> Self:
        if self.available:
            self._saved = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._saved is not None and self.available:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)

    @property
    def fd(self) -> int:
        return self._fd

    def read(self) -> str | None:
        """The action of the key that waits, or None for keys without a meaning."""
        try:
            pressed = os.read(self._fd, 1)
        except OSError:
            pressed = b""  # hung up
        if not pressed:
            self._fd = -1  # the terminal was closed
            return None
        if pressed == b"\x1b":
            while len(pressed) < 3 and select.select([self._fd], [], [], ESCAPE_WAIT_S)[0]:
                pressed += os.read(self._fd, 1)
        return KEYS.get(pressed)


class Pedal:
    """Keys from one evdev device, grabbed so that they type nowhere else."""

    def __init__(self, path: str) -> None:
        try:
            import evdev
        except ImportError as error:
            raise DeviceError(
                f"{path}: a pedal needs the python package evdev, which is not installed",
                mend="pip install 'recd[pedal]'",
            ) from error
        self._path = path
        try:
            self._device = evdev.InputDevice(path)
            self._device.grab()
        except PermissionError as error:
            raise DeviceError(
                f"{path}: permission denied", mend="sudo usermod -aG input $USER, then log in again"
            ) from error
        except OSError as error:
            raise DeviceError(
                f"{path}: {error.strerror or error}", mend="ls -l /dev/input/by-id lists devices."
            ) from error
        self._names: Callable[[int], Any] = lambda code: evdev.ecodes.KEY.get(code, "")

    @property
    def fd(self) -> int:
        """Descriptor to wait on; -1 once the device is gone."""
        return int(self._device.fd)

    def read(self) -> str | None:
        """The action of the first key press that waits, or None."""
        action = None
        try:
            events = list(self._device.read())
        except OSError as error:
            self.close()
            raise DeviceError(
                f"{self._path}: the pedal is gone ({error.strerror})", mend="Plug it in again."
            ) from error
        for event in events:
            if event.type == 1 and event.value == 1 and action is None:
                names = self._names(event.code)
                for name in [names] if isinstance(names, str) else names:
                    action = action or PEDAL_KEYS.get(name)
        return action

    def close(self) -> None:
        self._device.close()


def wait_for_action(sources: list[Terminal | Pedal], timeout_s: float) -> str | None:
    """The first action of any source within `timeout_s`, or None."""
    fds = {source.fd: source for source in sources if source.fd >= 0}
    ready, _, _ = select.select(list(fds), [], [], timeout_s)
    for fd in ready:
        if (action := fds[fd].read()) is not None:
            return action
    return None
