"""What is measured: how many cameras, which size, rate and codec; and the configuration of it.

Built on the `demo` preset, so that the daemon under test is the one that `make demo` runs.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from recd.config.load import read_source
from recd.config.models import RobotConfig
from recd.daemon.encode.codecs import CodecSettings
from recd.perf import v4l2_stage

FIRST_CAMERAS = ("front", "wrist", "side", "top")
PAIRS = (("main",), ("left", "right"))
"""Names of one pair of arms, and of two: a LeRobot robot has no other two."""

SOURCES = ("sim", "sim-h264", "v4l2", "v4l2-mjpeg")
"""`sim`, `sim-h264`: MJPEG or H.264 streams over HTTP. `v4l2`, `v4l2-mjpeg`: YUYV or MJPEG by ioctl
and mmap, through the preload library."""

STREAMED = ("sim", "sim-h264")


def calibrated_ms(source: str) -> float:
    """What calibrating a simulated camera would find: a stream's pictures leave 5 ms after their
    exposure, a V4L2 device stamps the exposure itself."""
    return 5.0 if source in STREAMED else 0.0


_FOURCC = {"v4l2": "YUYV", "sim-h264": "H264"}
_PIXELS = {"YUYV": "YUYV", "H264": "H.264"}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One setting. seconds: of each run; latency_ms: the camera delay that a calibration would
    give (simulated streams: 5 ms); preset: "" is the codec's default here; realtime: ask for it;
    load: what else the machine does meanwhile (load.LOADS); arm_pairs: leaders with a follower."""

    seconds: float = 30.0
    runs: int = 3
    cameras: int = 2
    width: int = 640
    height: int = 480
    fps: int = 30
    camera_fps: float = 30.0
    rate_hz: int = 250
    vcodec: str = "h264"
    preset: str = ""
    crf: int = 30
    g: int = 2
    threads: int = 1
    source: str = "sim"
    latency_ms: float = 5.0
    realtime: bool = True
    columns: str = "plain"
    load: str = "none"
    arm_pairs: int = 1

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Names of the cameras: usual ones first, then cam4, cam5, ..."""
        more = (f"cam{number}" for number in range(len(FIRST_CAMERAS), self.cameras))
        return (*FIRST_CAMERAS[: self.cameras], *more)

    @property
    def pair_names(self) -> tuple[str, ...]:
        """Names of the pairs of arms."""
        return PAIRS[self.arm_pairs - 1]

    @property
    def follower(self) -> str:
        """The bus whose arm the cameras see, and by which the joints' truth is judged."""
        return f"{self.pair_names[0]}.follower"

    @property
    def expected_rows(self) -> int:
        """Rows of one run."""
        return round(self.fps * self.seconds)

    @property
    def camera_period_ns(self) -> int:
        return round(1e9 / self.camera_fps)

    @property
    def row_period_ns(self) -> int:
        return 1_000_000_000 // self.fps

    @property
    def pixels(self) -> str:
        """Pixel format of the cameras, for people."""
        return _PIXELS.get(self.fourcc, "MJPEG 4:2:0")

    @property
    def fourcc(self) -> str:
        """The same as V4L2 names it."""
        return _FOURCC.get(self.source, "MJPG")

    @property
    def encoder(self) -> CodecSettings:
        """How each camera is encoded."""
        preset = int(self.preset) if self.preset.isdigit() else self.preset or None
        return CodecSettings(
            vcodec=self.vcodec, g=self.g, crf=self.crf, preset=preset, threads=self.threads
        )

    @property
    def streamed(self) -> bool:
        """True for cameras of the simulated robot itself, over HTTP."""
        return self.source in STREAMED

    @property
    def as_sent(self) -> bool:
        """True for cameras whose own coding is recorded."""
        return self.fourcc == "H264"

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "pixels": self.pixels}

    def title(self) -> str:
        """One line for people."""
        codec = self.vcodec + (f" {self.preset}" if self.preset else "")
        return (
            f"{self.cameras}x{self.width}x{self.height}@{self.camera_fps:g} {self.pixels}, {codec}"
            f" crf {self.crf} g {self.g}, rows at {self.fps} Hz,"
            f" {self.arm_pairs} pair{'s' if self.arm_pairs > 1 else ''} at {self.rate_hz} Hz,"
            f" load {self.load}, {self.runs} x {self.seconds:g} s"
        )


_BASE = ("cameras", "width", "height", "fps", "camera_fps", "rate_hz", "vcodec", "preset", "source",
         "realtime", "load", "arm_pairs")  # fmt: skip


def is_base(scenario: Scenario) -> bool:
    """True for the base case, for which the limits of the rig class `bench` are meant."""
    return all(getattr(scenario, name) == getattr(Scenario(), name) for name in _BASE)


PEER_LIKE: dict[str, Any] = {
    "source": "v4l2", "vcodec": "h264", "preset": "medium", "crf": 30, "g": 2, "latency_ms": 0.0,
}  # fmt: skip
"""The settings of the quoted peer run: YUYV from V4L2 devices, libx264 with its default preset."""


def like_peer(scenario: Scenario) -> Scenario:
    """The same load with the pixel format and encoder options of the quoted peer."""
    return replace(scenario, **PEER_LIKE)


def configuration(scenario: Scenario, *, instance: str, root: Path) -> dict[str, Any]:
    """The robot's configuration as plain data. instance: of the daemon; root: dataset folder."""
    data = read_source("demo").data
    data["name"] = "bench"
    data["instance"] = instance
    data["cameras"] = {
        name: _camera(scenario, number) for number, name in enumerate(scenario.camera_names)
    }
    pair = data["arms"]["main"] | {"rate_hz": scenario.rate_hz}
    data["arms"] = {
        name: pair
        | {side: pair[side] | {"id": f"{name}_{side}"} for side in ("leader", "follower")}
        for name in scenario.pair_names
    }
    encoder: dict[str, Any] = {
        "vcodec": scenario.vcodec, "crf": scenario.crf, "g": scenario.g,
        "threads": scenario.threads,
    }  # fmt: skip
    if scenario.preset:
        encoder["preset"] = int(scenario.preset) if scenario.preset.isdigit() else scenario.preset
    data["dataset"] |= {
        "root": str(root), "repo_id": "local/recd_bench", "fps": scenario.fps, "encoder": encoder,
        "columns": scenario.columns,
    }  # fmt: skip
    data["realtime"] = {"enabled": scenario.realtime}
    return data


def _camera(scenario: Scenario, number: int) -> dict[str, Any]:
    camera: dict[str, Any] = {
        "source": "sim",
        "width": scenario.width,
        "height": scenario.height,
        "fps": scenario.camera_fps,
        "latency_ms": scenario.latency_ms,
    }
    if scenario.as_sent:
        camera["fourcc"] = "h264"
    if not scenario.streamed:
        fourcc = "yuyv" if scenario.fourcc == "YUYV" else "mjpeg"
        device = v4l2_stage.device_path(number)
        camera |= {"source": "v4l2", "device": device, "fourcc": fourcc}
    return camera


def merged(data: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with what `more` says in place of the same keys, section by section."""
    told = dict(data)
    for key, value in more.items():
        inner = told.get(key)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            told[key] = merged(inner, value)
        else:
            told[key] = value
    return told


def write_configuration(
    scenario: Scenario, path: Path, *, instance: str, root: Path,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> None:  # fmt: skip
    """Write the YAML file that `recd run` is given. more: keys beyond the scenario."""
    data = merged(configuration(scenario, instance=instance, root=root), more)
    path.write_text(yaml.safe_dump(data, sort_keys=False))


def robot_of(path: Path) -> RobotConfig:
    """The resolved configuration; ConfigError as `recd run` would tell it."""
    from recd.config.load import load_robot

    return load_robot(path)
