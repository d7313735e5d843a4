"""The USB tree of this computer as sysfs tells it, and where a device node hangs in it.

Opens no device. `sys` is a parameter for tests and containers.
"""

import os
import re
from pathlib import Path

from recd.daemon.doctor.facts import UsbDevice

_DEVICE = re.compile(r"(usb\d+|\d+-\d+(\.\d+)*)$")
"""Folders of devices; `1-2:1.0` is one of its interfaces."""

NODE_CLASSES = ("video4linux", "tty")


def usb_devices(sys: Path = Path("/sys")) -> dict[str, UsbDevice]:
    """Every USB device and hub by the kernel's name; {} on a computer without USB."""
    folder = sys / "bus" / "usb" / "devices"
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    return {name: _device(folder / name) for name in names if _DEVICE.match(name)}


def usb_name_of(path: str, sys: Path = Path("/sys")) -> str:
    """Name of the USB device behind /dev/video0 or /dev/ttyACM0, "" when it is behind none."""
    node = Path(os.path.realpath(path)).name
    for kind in NODE_CLASSES:
        folder = sys / "class" / kind / node / "device"
        if not folder.exists():
            continue
        real = Path(os.path.realpath(folder))
        for parent in (real, *real.parents):
            if _DEVICE.match(parent.name):
                return parent.name
    return ""


def above(name: str) -> str:
    """Hub of a device: `1-2.3` hangs on `1-2`, `1-2` on `usb1`, a root on none."""
    if name.startswith("usb"):
        return ""
    hub, _, port = name.rpartition(".")
    return hub if port and hub else f"usb{name.partition('-')[0]}"


def _device(folder: Path) -> UsbDevice:
    speed = _text(folder / "speed")
    return UsbDevice(
        name=folder.name,
        above=above(folder.name),
        speed_mbit=float(speed) if speed.replace(".", "", 1).isdigit() else 0.0,
        product=_text(folder / "product"),
        autosuspend=_text(folder / "power" / "control") == "auto",
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
