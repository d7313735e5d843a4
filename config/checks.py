"""Checks across sections and against this machine. Pure, except for reading its memory size."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recd.config.endpoints import is_local, parse_endpoint
from recd.config.errors import RecdError
from recd.config.models import ArmPairConfig, CameraConfig, PolicyServerConfig, RobotConfig
from recd.config.paths import runtime_dir
from recd.config.simulated import SIM_LEAST_PX, SIM_RATES
from recd.config.streams import RAW_PAYLOADS, frame_payload

BYTE_US = 10
"""Time of one byte at 1 Mbaud, 8N1 (facts A10.1); scales with the line rate."""

ADAPTER_US = 400
"""Adapter and servo delay of one transaction, the lower figure of facts A10.2."""

POLICY_PORTS = 4
"""Ports of `policy.endpoint`: requests, events, observations, actions."""

ADAPTER_SCHEMES = {"openpi": ("", "ws", "wss"), "gr00t": ("", "tcp"), "lerobot": ("",)}
"""`policy.type` -> how its server's address may begin, "" for HOST:PORT alone."""
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:]+\]|[^:/\s\[\]]+):\d{1,5}/?")


UNDECODED_SOURCES = ("v4l2", "http", "rtsp", "sim")
"""Camera sources that can hand over H.264 as it comes."""

SCHEMES = {"http": ("http://", "https://"), "rtsp": ("rtsp://", "rtsps://")}
"""Camera source -> what its address begins with."""

FIXED_OPTIONS = {"g": "g", "crf": "crf", "preset": "preset", "pix_fmt": "pix_fmt",
                 "threads": "threads"}  # fmt: skip
"""Encoder option -> the key that sets it: extra options never override these."""

X264_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower",
                "veryslow", "placebo")  # fmt: skip


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


def ring_slots(camera: CameraConfig, back_s: float = 0.0) -> int:
    """Slots of a camera's ring: frames in its tolerated stall and of the past that an episode may
    begin in, and two more."""
    return int(camera.fps * (camera.ring_seconds + back_s)) + 2


def frame_ring_bytes(camera: CameraConfig, back_s: float = 0.0) -> int:
    """Memory of a camera's ring, page-rounded slots included."""
    slot = -(-frame_slot_bytes(camera) // 4096) * 4096 + 4096
    return slot * ring_slots(camera, back_s)


def available_memory_bytes() -> int:
    """Memory that the kernel says is available now."""
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        for line in meminfo:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_robot(robot: RobotConfig, *, check_machine: bool = True) -> list[Finding]:
    """All impossible combinations in a valid configuration."""
    findings = [*_cameras(robot), *_sources(robot), *_arms(robot), *_encoder(robot),
                *_undecoded(robot), *_control(robot), *_priorities(robot),
                *_policy(robot), *_policy_server(robot)]  # fmt: skip
    if check_machine:
        findings += [*_memory(robot), *_cores(robot), *_folders(robot)]
    return findings


def _control(robot: RobotConfig) -> Iterator[Finding]:
    endpoint = robot.control.endpoint
    try:
        if endpoint:
            parse_endpoint(endpoint)
    except RecdError as error:
        expected = error.message.partition("expected ")[2].partition(", found")[0]
        yield Finding(("control", "endpoint"), expected, endpoint, error.mend)


def _priorities(robot: RobotConfig) -> Iterator[Finding]:
    """No policy may delay what the servos say, however much it asks for."""
    wanted = robot.realtime
    above = [given for given in (wanted.serial_priority, wanted.arm_priority) if given]
    if wanted.gateway_priority and above and wanted.gateway_priority >= min(above):
        yield Finding(
            ("realtime", "gateway_priority"), "less than serial_priority and arm_priority: "
            f"0..{min(above) - 1}", str(wanted.gateway_priority), "Raise those, or leave it out.",
        )  # fmt: skip


def _policy(robot: RobotConfig) -> Iterator[Finding]:
    """The gateway's own address, its ports apart from those of the control plane."""
    if robot.policy is None or not robot.policy.endpoint:
        return
    key = ("policy", "endpoint")
    try:
        own = parse_endpoint(robot.policy.endpoint, named="policy.endpoint")
        other = parse_endpoint(robot.control.endpoint) if robot.control.endpoint else None
    except RecdError as error:
        expected = error.message.partition("expected ")[2].partition(", found")[0]
        yield Finding(key, expected, robot.policy.endpoint, error.mend)
        return
    last = own.port + POLICY_PORTS - 1
    if own.path or last > 65535:
        yield Finding(key, "tcp://HOST:PORT with a port up to 65532", robot.policy.endpoint,
                      "The ipc sockets are always there; name a port for others.")  # fmt: skip
    elif other is not None and other.port and own.port - 1 <= other.port <= last:
        yield Finding(key, "four ports of its own", f"{own.port}..{last}, beside control.endpoint "
                      f"at {other.port} and {other.port + 1}",
                      f"Take port {other.port + 4}.")  # fmt: skip


def _policy_server(robot: RobotConfig) -> Iterator[Finding]:
    """The server that an adapter talks to: none for `zmq`, and no plain words over a network."""
    if robot.policy is None:
        return
    kind, server = robot.policy.type, robot.policy.server
    address = server.address
    if kind == "zmq":
        if server != PolicyServerConfig():
            yield Finding(("policy", "server"), "no section: policies connect by themselves", kind,
                          "Name the protocol of that server: policy.type")  # fmt: skip
        return
    if (kind == "lerobot") != (server.lerobot is not None):
        yield Finding(
            ("policy", "server", "lerobot"), "a section for policy.type lerobot, and only for that",
            f"policy.type {kind}", "policy.server.lerobot: {python: ENV/bin/python, path: POLICY}",
        )  # fmt: skip
    if not address:
        return
    scheme, _, rest = address.rpartition("://")
    if scheme not in ADAPTER_SCHEMES[kind] or not _HOST_PORT.fullmatch(rest):
        words = " or ".join(f"{name}://HOST:PORT" if name else "HOST:PORT"
                            for name in ADAPTER_SCHEMES[kind])  # fmt: skip
        yield Finding(
            ("policy", "server", "address"), words, address, "For instance 127.0.0.1:8000"
        )
    elif scheme != "wss" and not server.unencrypted and not is_local(rest.rpartition(":")[0]):
        yield Finding(
            ("policy", "server", "address"), "a server on this computer, or wss://", address,
            "Through a tunnel (ssh -L 8000:localhost:8000 SERVER), or in a VPN: "
            "policy.server.unencrypted: true",
        )  # fmt: skip


def _cameras(robot: RobotConfig) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for name, camera in robot.cameras.items():
        key = ("cameras", name, "device")
        if camera.source != "sim" and not camera.device:
            yield Finding(key, f"a device for source {camera.source}", "none",
                          "Run 'recctl devices' to see what is connected.")  # fmt: skip
        if camera.source == "sim":
            yield from _simulated_camera(name, camera)
            continue
        identity = os.path.realpath(camera.device) if camera.device.startswith("/") else (
            f"/dev/video{camera.device}" if camera.device.isdigit() else camera.device
        )  # fmt: skip
        if camera.source != "file" and identity in seen:
            found = f"{camera.device}, which is also cameras.{seen[identity]}"
            yield Finding(key, "a device of its own", found,
                          "Give each camera its own; 'recctl devices' lists them.")  # fmt: skip
        seen[identity] = name
    steps = {n for n, camera in robot.cameras.items() if camera.step and camera.source == "file"}
    if steps and steps != set(robot.cameras):
        odd = sorted(set(robot.cameras) - steps)[0]
        yield Finding(("cameras", odd, "step"), "true for every camera when one has a step clock",
                      "false")  # fmt: skip


def _simulated_camera(name: str, camera: CameraConfig) -> Iterator[Finding]:
    if not SIM_RATES[0] <= camera.fps <= SIM_RATES[1]:
        yield Finding(("cameras", name, "fps"), f"{SIM_RATES[0]:g}..{SIM_RATES[1]:g} for a "
                      "simulated camera", f"{camera.fps:g}")  # fmt: skip
    if camera.fourcc not in ("auto", "mjpeg", "h264"):
        yield Finding(("cameras", name, "fourcc"), "auto, mjpeg or h264 for a simulated camera",
                      camera.fourcc)  # fmt: skip
    for key, pixels in (("width", camera.width), ("height", camera.height)):
        if pixels < SIM_LEAST_PX or pixels % 2:
            yield Finding(("cameras", name, key), f"an even number of at least {SIM_LEAST_PX} for "
                          "a simulated camera", f"{pixels}",
                          f"Set {key}: {max(SIM_LEAST_PX, pixels - pixels % 2)}.")  # fmt: skip


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
                              f"{bus.port}, which is also arms.{ports[identity]}",
                              "Give each bus its own; 'recctl devices' lists them.")  # fmt: skip
            ports[identity] = f"{pair}.{side}"
        yield from _joint_maps(robot, pair, arm)
        yield from _temperatures(pair, arm)


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


def _temperatures(pair: str, arm: ArmPairConfig) -> Iterator[Finding]:
    limits = arm.limits
    if limits.temperature_warn_c >= limits.temperature_release_c:
        yield Finding(("arms", pair, "limits", "temperature_warn_c"),
                      f"less than temperature_release_c ({limits.temperature_release_c})",
                      f"{limits.temperature_warn_c}", "Warn first, release later.")  # fmt: skip


def _sources(robot: RobotConfig) -> Iterator[Finding]:
    """What a source needs of `device`, and an encoder of the size."""
    for name, camera in robot.cameras.items():
        scheme = SCHEMES.get(camera.source, "")
        if scheme and camera.device and not camera.device.startswith(scheme):
            yield Finding(("cameras", name, "device"), f"{scheme[0]}HOST[:PORT]/PATH",
                          camera.device, f"Write the address with {scheme[0]}")  # fmt: skip
        if camera.step and camera.source != "file":
            yield Finding(("cameras", name, "step"),
                          f"false: a {camera.source} camera cannot wait, it has no step clock",
                          "true", "Remove step.")  # fmt: skip
        for side in ("width", "height"):
            size = getattr(camera, side)
            if robot.dataset.video and size % 2 and camera.source != "sim":
                yield Finding(("cameras", name, side), "an even number (video is yuv420p)",
                              f"{size}", f"Set {side}: {size - 1}.")  # fmt: skip


def _encoder(robot: RobotConfig) -> Iterator[Finding]:
    encoder = robot.dataset.encoder
    key = ("dataset", "encoder")
    for option in encoder.extra_options:
        if option in FIXED_OPTIONS:
            yield Finding((*key, "extra_options", option), "options that have no key of their own",
                          option, f"Set dataset.encoder.{FIXED_OPTIONS[option]}.")  # fmt: skip
    if encoder.vcodec in ("h264", "hevc") and encoder.preset not in (None, *X264_PRESETS):
        yield Finding((*key, "preset"), f"one of {', '.join(X264_PRESETS)} for {encoder.vcodec}",
                      f"{encoder.preset}", "Remove it for veryfast.")  # fmt: skip


def _undecoded(robot: RobotConfig) -> Iterator[Finding]:
    """What recording a camera's own H.264 leaves no room for: every change to its pictures."""
    for name, camera in robot.cameras.items():
        if camera.fourcc != "h264":
            continue
        key, decoded = ("cameras", name), "Or let it be decoded: fourcc: auto."
        if camera.source not in UNDECODED_SOURCES:
            yield Finding((*key, "source"), f"one of {', '.join(UNDECODED_SOURCES)} for fourcc "
                          "h264", camera.source, decoded)  # fmt: skip
        if camera.fps != robot.dataset.fps:
            yield Finding((*key, "fps"), f"{robot.dataset.fps}, the dataset's: a picture that is "
                          "recorded as it comes is one row", f"{camera.fps:g}",
                          f"Set the camera to {robot.dataset.fps}. {decoded}")  # fmt: skip
        for field, plain in (("rotation", 0), ("accept_mismatch", False)):
            if getattr(camera, field) != plain:
                yield Finding((*key, field), f"{plain} for pictures that are recorded as they come",
                              f"{getattr(camera, field)}", decoded)  # fmt: skip
        if not robot.dataset.video:
            yield Finding((*key, "fourcc"), "pixels for dataset.video: false", "h264", decoded)
        if robot.policy is not None:
            yield Finding((*key, "fourcc"), "pictures that a policy can be given", "h264",
                          decoded)  # fmt: skip
        if robot.dataset.encoder.vcodec not in ("auto", "h264"):
            yield Finding(("dataset", "encoder", "vcodec"), f"auto or h264 with cameras.{name} "
                          "recorded as it comes", robot.dataset.encoder.vcodec,
                          f"Set vcodec: h264. {decoded}")  # fmt: skip


def _cores(robot: RobotConfig) -> Iterator[Finding]:
    present = os.sched_getaffinity(0)
    for i, core in enumerate(robot.realtime.arm_cpus):
        if core not in present:
            yield Finding(("realtime", "arm_cpus", i), f"cores of {sorted(present)}", f"{core}",
                          "Remove it, or leave arm_cpus out.")  # fmt: skip


def _folders(robot: RobotConfig) -> Iterator[Finding]:
    """Paths of this computer: the dataset's, the control sockets', video files as sources."""
    root = robot.dataset_root
    try:
        if (trouble := _unusable(root)) is not None:
            yield Finding(("dataset", "root"), "a folder that can be written", trouble,
                          "Choose another one, or give this user the right to it.")  # fmt: skip
    except OSError as error:
        yield Finding(("dataset", "root"), "a folder that can be written",
                      f"{root}: {error.strerror}", "Choose another dataset.root.")  # fmt: skip
    try:
        runtime_dir(robot.instance_name, robot.control.runtime_dir)
    except RecdError as error:
        yield Finding(("control", "runtime_dir"), "a short path", error.message, error.mend)
    for name, camera in robot.cameras.items():
        if camera.source == "file" and camera.device and not os.path.isfile(camera.device):
            yield Finding(("cameras", name, "device"), "a video file", f"no file {camera.device}",
                          "Correct the path.")  # fmt: skip


def _unusable(folder: Path) -> str | None:
    """Why nothing can be created at `folder`; None when it, or its first parent, can be written."""
    parent = folder
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        return f"{parent}, which is a file"
    if not os.access(parent, os.W_OK | os.X_OK):
        return f"{parent}, which this user may not write to"
    return None


def _memory(robot: RobotConfig) -> Iterator[Finding]:
    back_s = robot.highlight_s
    total = sum(frame_ring_bytes(camera, back_s) for camera in robot.cameras.values())
    available = available_memory_bytes()
    if total > available // 2:
        largest = max(robot.cameras, key=lambda name: frame_ring_bytes(robot.cameras[name]))
        yield Finding(("cameras", largest, "ring_seconds"),
                      f"rings of at most {available // 2 // 2**20} MiB (half of the free memory)",
                      f"{total // 2**20} MiB for all cameras",
                      "Lower ring_seconds, or record MJPEG (fourcc: mjpeg).")  # fmt: skip
