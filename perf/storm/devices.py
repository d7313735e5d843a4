"""Faults of servo buses and cameras, made by the simulated robot on the wire."""

from random import Random
from typing import Any, Final

from recd.config.errors import RecdError
from recd.perf.storm.fault import Made, Strike, drawn
from recd.perf.storm.subject import StormSubject
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns

FOLLOWER: Final = "main.follower"


def wire(kind: str, *, bus: str = FOLLOWER, **fields: Any) -> Strike:
    """A fault of the wire; a tuple of two numbers is drawn between them."""

    def strike(subject: StormSubject, draw: Random) -> Made:
        told = drawn(fields, draw)
        if kind == "garbage":
            told["seed"] = draw.randrange(1, 2**31)
        subject.bus("fault", bus=bus, kind=kind, **told)
        return {"wire": kind, "bus": bus, **told}

    return strike


def clear_bus(subject: StormSubject, made: Made) -> None:
    """End the faults of a bus; servos that were taken off come back."""
    bus = made["bus"]
    if made["wire"] == "missing":
        subject.bus("missing", bus=bus, ident=made["ident"], on=False)
    if made["wire"] == "error_bits":
        subject.bus("error_bits", bus=bus, ident=made["ident"], bits=0)
    subject.bus("clear", bus=bus)


def unplug(subject: StormSubject, _: Random) -> Made:
    """Pull the follower's adapter."""
    subject.bus("unplug", bus=FOLLOWER)
    return {"unplugged": FOLLOWER}


def plug_elsewhere(subject: StormSubject, _: Made) -> None:
    """Plug it in again under another name; the serial number stays."""
    link = subject.directory / "sim" / f"ttyUSB{now_ns() % 1000}"
    subject.bus("plug", bus=FOLLOWER, link=str(link))


def picture(kind: str, *, required: str, **fields: Any) -> Strike:
    """A fault of the camera that is `required` so."""

    def strike(subject: StormSubject, draw: Random) -> Made:
        told = drawn(fields, draw)
        camera = _camera(subject, required)
        subject.camera("fault", camera=camera, kind=kind, **told)
        return {"camera": camera, "kind": kind, **told}

    return strike


def wrong_size_after_reconnect(*, required: str) -> Strike:
    """The camera goes, and comes back with pictures of half the size."""

    def strike(subject: StormSubject, draw: Random) -> Made:
        camera, frames = _camera(subject, required), draw.randint(5, 60)
        subject.camera("fault", camera=camera, kind="disconnect")
        sleep_until_ns(now_ns() + NS_PER_S // 2)
        subject.camera("clear", camera=camera)
        subject.camera("fault", camera=camera, kind="wrong_size", frames=frames)
        return {"camera": camera, "kind": "wrong_size after disconnect", "frames": frames}

    return strike


def _camera(subject: StormSubject, required: str) -> str:
    for camera, policy in subject.setting.cameras.items():
        if policy == required:
            return camera
    raise RecdError(f"no camera is required: {required} in the setting {subject.setting.name}")


def clear_cameras(subject: StormSubject, _: Made) -> None:
    """End every fault of the cameras."""
    subject.camera("clear", camera="*")
