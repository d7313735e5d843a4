"""What cameras ask of the USB links that they share, against what those carry. Pure.

Rates of compressed pictures are estimates; many cameras reserve more than they send, so a bus that
is full here is full, and one that is nearly full may be.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from recd.daemon.doctor.facts import Device, UsbDevice
from recd.daemon.doctor.findings import Finding, Level

MJPEG_BYTES_PER_PIXEL: Final = 0.25
"""A webcam's JPEG of a lively scene; 640x480 then has 77 kB."""


@dataclass(frozen=True, slots=True)
class Link:
    """What one speed carries in bytes per second: all isochronous streams together, and one."""

    together: float
    one: float


LINKS: Final[Mapping[float, Link]] = {
    1.5: Link(0.0, 0.0),
    12.0: Link(1.2e6, 1.0e6),
    480.0: Link(43e6, 24.5e6),
    5000.0: Link(400e6, 390e6),
    10000.0: Link(970e6, 780e6),
    20000.0: Link(1900e6, 1500e6),
}
"""Mbit/s -> Link. USB 2.0: four fifths of a microframe less what packets cost, and 3 x 1024 bytes
of one endpoint in each of 8,000 microframes a second; USB 3: after line coding."""

NEARLY: Final = 0.8

MOVE: Final = (
    "Plug a camera into another controller (lsusb -t shows them), or set fourcc: mjpeg, a smaller "
    "size or a lower fps."
)


def camera_bytes_per_s(width: int, height: int, fps: float, bytes_per_pixel: float | None) -> float:
    """What a camera sends. bytes_per_pixel: of its raw format, None for MJPEG (estimated)."""
    each = MJPEG_BYTES_PER_PIXEL if bytes_per_pixel is None else bytes_per_pixel
    return width * height * fps * each


def usb_findings(usb: Mapping[str, UsbDevice], devices: Iterable[Device]) -> Iterator[Finding]:
    """Each camera against its own link, each hub and bus against all cameras below it."""
    cameras = [device for device in devices if device.stream_bytes_per_s and device.usb in usb]
    for camera in cameras:
        own = LINKS.get(usb[camera.usb].speed_mbit)
        if own is not None and camera.stream_bytes_per_s > own.one:
            yield _too_much(camera.key, usb[camera.usb], [camera], own.one)
    shared: dict[str, list[Device]] = {}
    for camera in cameras:
        for hub in hubs_above(usb, camera.usb):
            shared.setdefault(hub, []).append(camera)
    for hub, below in shared.items():
        link = LINKS.get(usb[hub].speed_mbit)
        if link is not None and (not usb[hub].above or len(below) > 1):
            yield _judged(usb[hub], below, link)


def hubs_above(usb: Mapping[str, UsbDevice], name: str) -> Iterator[str]:
    """Hubs between a device and its computer, the nearest first, the root last."""
    above = usb[name].above
    while above in usb:
        yield above
        above = usb[above].above


def _judged(hub: UsbDevice, below: list[Device], link: Link) -> Finding:
    asked = sum(camera.stream_bytes_per_s for camera in below)
    subject = f"hub {hub.name}" if hub.above else f"bus {hub.name}"
    if asked > link.together:
        return _too_much(subject, hub, below, link.together)
    found = _words(hub, below, link.together)
    if asked <= NEARLY * link.together:
        return Finding("usb", subject, Level.OK, found)
    return Finding("usb", subject, Level.WARN, found, f"at most {NEARLY:.0%} of it", MOVE)


def _too_much(subject: str, link: UsbDevice, below: list[Device], usable: float) -> Finding:
    estimated = any(camera.compressed for camera in below)
    return Finding(
        "usb", subject, Level.WARN if estimated else Level.FAIL, _words(link, below, usable),
        f"at most {usable / 1e6:.1f} MB/s", MOVE,
    )  # fmt: skip


def _words(link: UsbDevice, below: list[Device], usable: float) -> str:
    asked = sum(camera.stream_bytes_per_s for camera in below)
    about = "about " if any(camera.compressed for camera in below) else ""
    names = ", ".join(camera.key.rpartition(".")[2] for camera in below)
    return (
        f"{names}: {about}{asked / 1e6:.1f} of {usable / 1e6:.1f} MB/s ({link.speed_mbit:g} Mbit/s)"
    )
