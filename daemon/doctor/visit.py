"""One visit of the doctor: reads and measures everything that the checks look at. About 4 seconds.

Opens no camera and no port beyond what `config check` asks, and leaves nothing behind. Without a
configuration the computer alone is looked at, with three cameras of 640x480@30 as the patient.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from recd.config.errors import ConfigError, RecdError
from recd.config.load import dump, load_robot
from recd.config.models import CameraConfig, RealtimeConfig, RobotConfig
from recd.config.streams import RAW_PAYLOADS, frame_payload
from recd.daemon.arms.ports import latency_timer_ms, port_users
from recd.daemon.cameras.access import users_of
from recd.daemon.cameras.v4l2 import device_path
from recd.daemon.doctor import clip, machine
from recd.daemon.doctor.bandwidth import camera_bytes_per_s
from recd.daemon.doctor.disk import existing, measure_disk
from recd.daemon.doctor.facts import Codec, Device, Facts, Stream
from recd.daemon.doctor.headroom import LITTLE, load_of, works
from recd.daemon.doctor.usb import usb_devices, usb_name_of
from recd.daemon.encode.choice import CodecPolicy
from recd.daemon.encode.codecs import CodecSettings
from recd.daemon.permission import group_of, way_in
from recd.daemon.preflight import check_here

Problem = tuple[str, str, str, str]

REFERENCE = tuple(clip.Request(f"camera{k}", "mjpeg", 640, 480, 30.0) for k in (1, 2, 3))
REFERENCE_CODECS = ("h264", "libsvtav1")
FASTER_PRESETS = ("superfast", "ultrafast")
NODE_SOURCES = ("v4l2", "opencv")
"""Camera sources whose device is a node of this computer."""


def visit(config: str = "", *, overrides: Iterable[str] = ()) -> Facts:
    """Facts of this computer and of the robot in `config` (file or preset, "" for none)."""
    robot, problems = _robot(config, tuple(overrides)) if config else (None, ())
    root = Path.cwd() if robot is None else robot.dataset_root
    reserve = 0 if robot is None else robot.dataset.reserve_mb * 1_000_000
    disk = measure_disk(root, reserve)
    return Facts(
        cores=len(os.sched_getaffinity(0)),
        governors=machine.governors(),
        granted=machine.granted(RealtimeConfig() if robot is None else robot.realtime),
        clock=machine.clock(),
        memory=machine.memory(robot),
        kernels=machine.kernels(),
        disk=disk,
        codecs=() if disk.error else _codecs(robot, existing(root)),
        usb=usb_devices(),
        devices=() if robot is None else tuple(_devices(robot)),
        problems=problems,
        named=config,
    )


def _robot(
    config: str, overrides: tuple[str, ...]
) -> tuple[RobotConfig | None, tuple[Problem, ...]]:
    """The robot as far as it can be read, and everything that `config check` finds."""
    problems: tuple[Problem, ...] = ()
    try:
        check_here(load_robot(config, overrides=overrides), config, overrides=overrides)
    except ConfigError as error:
        problems = tuple(
            (f"{p.key} ({p.where})", p.found, p.expected, p.mend) for p in error.problems
        )
    try:
        return load_robot(config, overrides=overrides, check_machine=False), problems
    except ConfigError:
        return None, problems


def _devices(robot: RobotConfig) -> Iterable[Device]:
    for name, camera in robot.cameras.items():
        if camera.source in NODE_SOURCES and camera.device:
            path = device_path(camera.device)
            found = _device(f"cameras.{name}", path, usual="video")
            users = tuple(str(user) for user in users_of(path)) if found.there else ()
            payload = frame_payload(camera.source, camera.fourcc)
            raw = RAW_PAYLOADS.get(payload)
            yield replace(
                found, users=users, compressed=raw is None,
                stream_bytes_per_s=camera_bytes_per_s(
                    camera.width, camera.height, camera.fps, raw and raw[0] / raw[1]
                ),
            )  # fmt: skip
    for pair, arm in robot.arms.items():
        for side, bus in (("leader", arm.leader), ("follower", arm.follower)):
            if bus is not None and bus.port != "sim":
                users = tuple(f"{u.command} (pid {u.pid})" for u in port_users(bus.port))
                found = _device(f"arms.{pair}.{side}", bus.port, usual="dialout")
                yield replace(found, users=users, latency_timer_ms=latency_timer_ms(bus.port))


def _device(key: str, path: str, *, usual: str) -> Device:
    if not os.path.exists(path):
        return Device(key, path, there=False)
    return Device(
        key, path, there=True, may_use=os.access(path, os.R_OK | os.W_OK),
        group=group_of(path), way_in=way_in(path, usual=usual), usb=usb_name_of(path),
    )  # fmt: skip


def _codecs(robot: RobotConfig | None, folder: Path) -> tuple[Codec, ...]:
    """The codec that would be used, measured; and faster presets of it where it leaves little."""
    if robot is None:
        return tuple(
            clip.measure(CodecSettings(vcodec=name), REFERENCE, folder) for name in REFERENCE_CODECS
        )
    cameras = [
        _request(robot, name, camera)
        for name, camera in robot.cameras.items()
        if frame_payload(camera.source, camera.fourcc) != "h264"  # nothing is encoded
    ]
    if not cameras or not robot.dataset.video:
        return ()
    wanted = CodecSettings.from_plain(robot.dataset.encoder.model_dump(mode="json"))
    first = cameras[0]
    policy = CodecPolicy(
        dump(robot), f"observation.images.{first.camera}", (first.width, first.height)
    )
    try:
        settings = policy.choose(wanted)[0]
    except RecdError as error:
        return (Codec(wanted.vcodec, _refused(cameras, error.message), 1),)
    used = clip.measure(settings, cameras, folder)
    if not works(used) or 1 - load_of(used) >= LITTLE or settings.row.vcodec != "h264":
        return (used,)
    faster = [p for p in FASTER_PRESETS if p != settings.effective_preset]
    offers = (replace(settings, preset=preset) for preset in faster)
    return (used, *(clip.measure(offer, cameras, folder) for offer in offers))


def _refused(cameras: Sequence[clip.Request], reason: str) -> tuple[Stream, ...]:
    return tuple(Stream(c.camera, c.width, c.height, c.fps, refused=reason) for c in cameras)


def _request(robot: RobotConfig, name: str, camera: CameraConfig) -> clip.Request:
    """A row of the dataset is one picture, whatever the camera's own rate."""
    turned = camera.rotation in (90, 270)
    width, height = (camera.height, camera.width) if turned else (camera.width, camera.height)
    payload = frame_payload(camera.source, camera.fourcc)
    return clip.Request(name, payload, width, height, float(robot.dataset.fps))
