"""Checks across sections and against this machine. Pure, except for reading its memory size."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from recd.config.models import ArmPairConfig, CameraConfig, RobotConfig
from recd.config.streams import RAW_PAYLOADS, frame_payload

BYTE_US = 10
"""Time of one byte at 1 Mbaud, 8N1 (facts A10.1); scales with the line rate."""

ADAPTER_US = 400
"""Adapter and servo delay of one transaction, the lower figure of facts A10.2."""

SIM_RATES = (1.0, 240.0)
SIM_LEAST_PX = 160
"""A simulated camera's stamp takes a corner of 160x48 pixels, and has to fit when turned."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem before file and line are known."""

    key: tuple[str | int, ...]
    expected: str
    found: str
    mend: str = ""


def bus_tick_us(joints: int, *, follower: bool, baud: int = 1_000_000) -> float:
    """Time that one control tick needs on the wire, adapter delay included, in microseconds.

    A tick is one sync read of positions and, for a follower, one sync write of goals.
    """
    byte_us = BYTE_US * 1_000_000 / baud
    request, replies = 8 + joints, 8 * joints
    goals = 8 + 3 * joints if follower else 0
    return (request + replies + goals) * byte_us + ADAPTER_US


def frame_slot_bytes(camera: CameraConfig) -> int:
    """Payload capacity of one slot of a camera's ring, in bytes.

    MJPEG gets one byte per pixel, far above any real JPEG.
    """
    num, den = RAW_PAYLOADS.get(frame_payload(camera.source, camera.fourcc), (1, 1))
    return max(camera.width * camera.height * num // den, 64 * 1024)


def ring_slots(camera: CameraConfig) -> int:
    """Slots of a camera's ring: frames in its tolerated stall, and two more."""
    return int(camera.fps * camera.ring_seconds) + 2


def frame_ring_bytes(camera: CameraConfig) -> int:
    """Memory of a camera's ring, page-rounded slots included."""
    slot = -(-frame_slot_bytes(camera) // 4096) * 4096 + 4096
    return slot * ring_slots(camera)


def available_memory_bytes() -> int:
    """Memory that the kernel says is available now."""
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        for line in meminfo:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_robot(robot: RobotConfig, *, check_machine: bool = True) -> list[Finding]:
    """All impossible combinations in a valid configuration."""
    findings = [*_cameras(robot), *_arms(robot)]
    if check_machine:
        findings += _memory(robot)
    return findings


def _cameras(robot: RobotConfig) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for name, camera in robot.cameras.items():
        key = ("cameras", name, "device")
        if camera.source != "sim" and not camera.device:
            yield Finding(key, f"a device for source {camera.source}", "none",
                          "Run 'recctl devices' to see what is connected.")  # fmt: skip
        if camera.step and camera.source != "file":
            yield Finding(("cameras", name, "step"), "true only for source file: a device cannot "
                          "wait", f"true for source {camera.source}")  # fmt: skip
        if camera.source == "sim":
            yield from _simulated_camera(name, camera)
            continue
        identity = os.path.realpath(camera.device) if camera.device.startswith("/") else (
            f"/dev/video{camera.device}" if camera.device.isdigit() else camera.device
        )  # fmt: skip
        if camera.source != "file" and identity in seen:
            found = f"{camera.device}, which is also cameras.{seen[identity]}"
            yield Finding(key, "a device of its own", found, "Give each camera its own device.")
        seen[identity] = name
    steps = {name for name, camera in robot.cameras.items() if camera.step}
    if steps and steps != set(robot.cameras):
        odd = sorted(set(robot.cameras) - steps)[0]
        yield Finding(("cameras", odd, "step"), "true for every camera when one has a step clock",
                      "false")  # fmt: skip


def _simulated_camera(name: str, camera: CameraConfig) -> Iterator[Finding]:
    if not SIM_RATES[0] <= camera.fps <= SIM_RATES[1]:
        yield Finding(("cameras", name, "fps"), f"{SIM_RATES[0]:g}..{SIM_RATES[1]:g} for a "
                      "simulated camera", f"{camera.fps:g}")  # fmt: skip
    if camera.fourcc not in ("auto", "mjpeg"):
        yield Finding(("cameras", name, "fourcc"), "auto or mjpeg for a simulated camera",
                      camera.fourcc)  # fmt: skip
    for key, pixels in (("width", camera.width), ("height", camera.height)):
        if pixels < SIM_LEAST_PX or pixels % 2:
            yield Finding(("cameras", name, key), f"an even number of at least {SIM_LEAST_PX} for "
                          "a simulated camera", f"{pixels}",
                          f"Set {key}: {max(SIM_LEAST_PX, pixels + pixels % 2)}.")  # fmt: skip


def _arms(robot: RobotConfig) -> Iterator[Finding]:
    ports: dict[str, str] = {}
    for pair, arm in robot.arms.items():
        for side, bus in (("leader", arm.leader), ("follower", arm.follower)):
            if bus is None:
                continue
            yield from _rate(pair, arm, side, bus.baud)
            if bus.port == "sim":
                continue
            identity = os.path.realpath(bus.port)
            if identity in ports:
                yield Finding(("arms", pair, side, "port"), "a port of its own",
                              f"{bus.port}, which is also arms.{ports[identity]}")  # fmt: skip
            ports[identity] = f"{pair}.{side}"
        yield from _joint_maps(robot, pair, arm)


def _rate(pair: str, arm: ArmPairConfig, side: str, baud: int) -> Iterator[Finding]:
    needed_us = bus_tick_us(6, follower=side == "follower", baud=baud)
    most_hz = int(1e6 / needed_us)
    if arm.rate_hz > most_hz:
        yield Finding(("arms", pair, "rate_hz"),
                      f"at most {most_hz} Hz: a tick of the {side} takes {needed_us / 1000:.2f} ms "
                      f"on the wire at {baud} baud", f"{arm.rate_hz}",
                      f"Set rate_hz: {min(most_hz, 250)}.")  # fmt: skip


def _joint_maps(robot: RobotConfig, pair: str, arm: ArmPairConfig) -> Iterator[Finding]:
    joints = robot.joints(pair)
    maps = {
        ("follower", "max_relative_target"): arm.follower.max_relative_target,
        ("park",): arm.park,
    }
    for path, values in maps.items():
        for joint in values if isinstance(values, dict) else ():
            if joint not in joints:
                yield Finding(("arms", pair, *path, joint), f"one of {', '.join(joints)}", joint)


def _memory(robot: RobotConfig) -> Iterator[Finding]:
    total = sum(frame_ring_bytes(camera) for camera in robot.cameras.values())
    available = available_memory_bytes()
    if total > available // 2:
        largest = max(robot.cameras, key=lambda name: frame_ring_bytes(robot.cameras[name]))
        yield Finding(("cameras", largest, "ring_seconds"),
                      f"rings of at most {available // 2 // 2**20} MiB (half of the free memory)",
                      f"{total // 2**20} MiB for all cameras",
                      "Lower ring_seconds, or record MJPEG (fourcc: mjpeg).")  # fmt: skip
