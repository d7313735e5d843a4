"""Cameras of this computer: stable names, formats, controls, and who uses them. Disturbs nobody.

Nodes that deliver no pictures (metadata, encoders) are left out.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recd.daemon.cameras import v4l2_controls
from recd.daemon.cameras.access import DeviceUser, users_of
from recd.daemon.cameras.request import FOURCC_OF_PAYLOAD
from recd.daemon.cameras.v4l2_formats import Offer, can_capture, capability, offers

_NODE = re.compile(r"video(\d+)$")
_LINK_FOLDERS = ("by-id", "by-path")


@dataclass(frozen=True, slots=True)
class FoundCamera:
    """One capture node. path: /dev/videoN; names: its stable links, best first; card, driver, bus:
    as the driver says; formats: what it offers; controls: present values and ranges; users:
    processes that hold it open; problem: why it could not be asked, else empty."""

    path: str
    names: tuple[str, ...] = ()
    card: str = ""
    driver: str = ""
    bus: str = ""
    formats: tuple[Offer, ...] = ()
    controls: dict[str, Any] | None = None
    users: tuple[DeviceUser, ...] = ()
    problem: str = ""

    @property
    def device(self) -> str:
        """What to write into the configuration: the most stable name there is."""
        return self.names[0] if self.names else self.path

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and tables; `fourcc` of a format is the configuration's word."""
        return {
            "device": self.device,
            "path": self.path,
            "names": list(self.names),
            "card": self.card,
            "driver": self.driver,
            "bus": self.bus,
            "formats": [_plain_offer(offer) for offer in self.formats],
            "controls": self.controls or {},
            "users": [{"pid": user.pid, "name": user.name} for user in self.users],
            "problem": self.problem,
        }


def _plain_offer(offer: Offer) -> dict[str, Any]:
    return {
        "pixelformat": offer.pixelformat,
        "fourcc": FOURCC_OF_PAYLOAD.get(offer.payload, ""),
        "sizes": [{"size": str(size), "fps": str(size.rates)} for size in offer.sizes],
    }


def list_cameras(
    *, dev: Path = Path("/dev"), sys: Path = Path("/sys"), proc: Path = Path("/proc")
) -> list[FoundCamera]:
    """All cameras, by node number. The roots are parameters for tests and containers."""
    nodes = sorted(
        (int(match.group(1)), entry)
        for entry in dev.glob("video*")
        if (match := _NODE.match(entry.name))
    )
    links = _stable_names(dev)
    found = (_look_at(entry, links.get(entry.name, ()), sys, proc) for _, entry in nodes)
    return [camera for camera in found if camera is not None]


def _stable_names(dev: Path) -> dict[str, tuple[str, ...]]:
    """Node name -> its links under by-id, then by-path."""
    names: dict[str, tuple[str, ...]] = {}
    for folder in _LINK_FOLDERS:
        base = dev / "v4l" / folder
        for link in sorted(base.iterdir()) if base.is_dir() else []:
            node = Path(os.path.realpath(link)).name
            names[node] = (*names.get(node, ()), str(link))
    return names


def _look_at(node: Path, names: Sequence[str], sys: Path, proc: Path) -> FoundCamera | None:
    users = users_of(node, proc=proc)
    try:
        fd = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        problem = error.strerror or str(error)
        return FoundCamera(
            str(node), tuple(names), _card_by_sysfs(node, sys), users=users, problem=problem
        )
    try:
        caps = capability(fd)
        if not can_capture(caps):
            return None
        return FoundCamera(
            path=str(node),
            names=tuple(names),
            card=caps.card.decode(errors="replace"),
            driver=caps.driver.decode(errors="replace"),
            bus=caps.bus_info.decode(errors="replace"),
            formats=offers(fd),
            controls=v4l2_controls.report(fd),
            users=users,
        )
    except OSError as error:
        problem = error.strerror or str(error)
        return FoundCamera(str(node), tuple(names), users=users, problem=problem)
    finally:
        os.close(fd)


def _card_by_sysfs(node: Path, sys: Path) -> str:
    try:
        return (sys / "class" / "video4linux" / node.name / "name").read_text().strip()
    except OSError:
        return ""
