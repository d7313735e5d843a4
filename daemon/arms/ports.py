"""Serial ports of this computer: stable names, USB serial numbers, who has them open. Linux only.

Reads /dev, /sys and /proc; opens no port.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BY_ID = Path("/dev/serial/by-id")
_SYS_TTY = Path("/sys/class/tty")


@dataclass(frozen=True, slots=True)
class PortUser:
    """A process that has a port open."""

    pid: int
    command: str


@dataclass(frozen=True, slots=True)
class SerialPort:
    """One serial port.

    device: /dev/ttyACM0; stable: by-id link that survives re-plugging, or None; usb_serial,
    product, vendor_product ("1a86:55d3"): from USB, "" when unknown; latency_timer_ms: of FTDI
    adapters, None elsewhere; users: who has it open, as far as this user may see.
    """

    device: str
    stable: str | None
    usb_serial: str
    product: str
    vendor_product: str
    latency_timer_ms: int | None
    users: tuple[PortUser, ...]


def list_ports() -> tuple[SerialPort, ...]:
    """All USB serial ports, by device name."""
    stable = _stable_names()
    found = []
    for entry in sorted(_SYS_TTY.glob("tty*")):
        if not (entry / "device").exists() or not entry.name.startswith(("ttyUSB", "ttyACM")):
            continue
        device = f"/dev/{entry.name}"
        usb = _usb_folder(entry)
        vendor = _text(usb, "idVendor")
        found.append(
            SerialPort(
                device=device,
                stable=stable.get(device),
                usb_serial=_text(usb, "serial"),
                product=_text(usb, "product"),
                vendor_product=f"{vendor}:{_text(usb, 'idProduct')}" if vendor else "",
                latency_timer_ms=latency_timer_ms(device),
                users=port_users(device),
            )
        )
    return tuple(found)


def usb_serial_of(path: str) -> str:
    """USB serial number behind a port path, "" when it has none (or is a pseudo-terminal)."""
    name = Path(os.path.realpath(path)).name
    return _text(_usb_folder(_SYS_TTY / name), "serial")


def find_again(path: str, usb_serial: str) -> str:
    """Where the port is now: `path` if it is there, else the port with the same USB serial number.

    Returns `path` when neither is found: opening it then says what is missing.
    """
    if os.path.exists(path) or not usb_serial:
        return path
    for port in list_ports():
        if port.usb_serial == usb_serial:
            return port.stable or port.device
    return path


def latency_timer_ms(path: str) -> int | None:
    """How long an FTDI adapter collects bytes before it sends them; None for others."""
    name = Path(os.path.realpath(path)).name
    try:
        return int((_SYS_TTY / name / "device" / "latency_timer").read_text())
    except (OSError, ValueError):
        return None


def port_users(path: str) -> tuple[PortUser, ...]:
    """Other processes that have `path` open, those that /proc lets us see."""
    try:
        wanted = os.stat(path).st_rdev
    except OSError:
        return ()
    found = {}
    for pid, fd in _open_files():
        try:
            status = os.stat(fd)
        except OSError:
            continue
        if status.st_rdev == wanted and pid != os.getpid():
            found[pid] = PortUser(pid, _command(pid))
    return tuple(found.values())


def lock_holders(path: str) -> tuple[PortUser, ...]:
    """Processes that hold the advisory lock with which recd and others claim a port."""
    try:
        inode = os.stat(path).st_ino
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return ()
    pids = {int(row[4]) for row in rows if row[1] == "FLOCK" and row[5].endswith(f":{inode}")}
    return tuple(PortUser(pid, _command(pid)) for pid in sorted(pids) if pid > 0)


def describe_users(path: str) -> str:
    """Who uses a port, in words."""
    users = lock_holders(path) or port_users(path)
    return ", ".join(f"{user.command} (pid {user.pid})" for user in users) or "another process"


def describe_missing() -> str:
    """What an operator can do about a port that is not there."""
    ports = list_ports()
    if not ports:
        return "No USB serial port is plugged in. Connect the arm's board and its power."
    names = ", ".join(port.stable or port.device for port in ports)
    return f"Plugged in are: {names}."


def _stable_names() -> dict[str, str]:
    if not _BY_ID.is_dir():
        return {}
    return {os.path.realpath(link): str(link) for link in sorted(_BY_ID.iterdir())}


def _usb_folder(tty: Path) -> Path | None:
    """The USB device's folder above a tty: the first parent that has an idVendor."""
    if not (tty / "device").exists():
        return None
    folder = Path(os.path.realpath(tty / "device"))
    for parent in (folder, *folder.parents):
        if (parent / "idVendor").exists():
            return parent
    return None


def _text(folder: Path | None, name: str) -> str:
    if folder is None:
        return ""
    try:
        return (folder / name).read_text().strip()
    except OSError:
        return ""


def _open_files() -> Iterator[tuple[int, str]]:
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        folder = f"/proc/{entry}/fd"
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            yield int(entry), f"{folder}/{name}"


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "?"
    return b" ".join(word for word in words if word).decode(errors="replace")[:80] or "?"
