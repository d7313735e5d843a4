"""A real daemon on simulated V4L2 devices whose every picture is known."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path

import av
import pytest

from recd.daemon.dataset.verify import verify_dataset
from recd.daemon.sim.v4l2shim.build import build, compiler, environment
from recd.daemon.sim.v4l2shim.server import VirtualCameraServer
from recd.daemon.sim.v4l2shim.spec import VirtualCamera, VirtualFormat, VirtualSize
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns
from tests.payloads import HEIGHT, PAYLOADS, WIDTH, bars, worst_on_flat_areas
from tests.rig import Robot, running

DEVICES = {
    "jpeg420": ("MJPG", "jpeg 4:2:0"),
    "jpeg422": ("MJPG", "jpeg 4:2:2"),
    "jpeg444": ("MJPG", "jpeg 4:4:4"),
    "yuyv": ("YUYV", "yuyv limited"),
}
"""camera -> (pixel format of its device, payload of its pictures)."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if compiler() is None:
        pytest.skip("no C compiler (cc, gcc or clang) to build the V4L2 shim with")
    return build(tmp_path_factory.mktemp("shim"))


def bars_camera(folder: Path, name: str, *, clocked: bool = True) -> VirtualCameraServer:
    pixelformat, payload = DEVICES[name]
    picture = PAYLOADS[payload][2](bars())
    size = VirtualSize(WIDTH, HEIGHT, (Fraction(30),))
    camera = VirtualCamera(formats=(VirtualFormat(pixelformat, (size,)),))
    return VirtualCameraServer(folder / f"{name}.sock", camera, lambda *_: picture, clocked=clocked)


@contextmanager
def robot_with(
    folder: Path, library: Path, servers: dict[str, VirtualCameraServer], *, ring_s: int = 5
) -> Iterator[Robot]:
    """The demo's arms, and these devices instead of its cameras."""
    paths = {name: f"/dev/video{90 + number}" for number, name in enumerate(servers)}
    overrides = ["cameras.front=null", "cameras.wrist=null"]
    for name, path in paths.items():
        fourcc = DEVICES[name][0].lower().replace("mjpg", "mjpeg")
        wanted = {"source": "v4l2", "device": path, "width": WIDTH, "height": HEIGHT, "fps": 30,
                  "fourcc": fourcc, "ring_seconds": ring_s}  # fmt: skip
        overrides += [f"cameras.{name}.{key}={value}" for key, value in wanted.items()]
    devices = {paths[name]: server.path for name, server in servers.items()}
    with running(folder, *overrides, environment=environment(library, devices)) as robot:
        yield robot


def test_colour_bars_of_every_chroma_come_out_of_the_dataset_within_3_of_255(tmp_path, library):
    with ExitStack() as stack:
        servers = {name: stack.enter_context(bars_camera(tmp_path, name)) for name in DEVICES}
        robot = stack.enter_context(robot_with(tmp_path / "robot", library, servers))
        saved = robot.record(20)
    assert verify_dataset(robot.root).findings == ()
    for name in DEVICES:
        video = next((robot.root / "videos" / f"observation.images.{name}").glob("*/*.mp4"))
        with av.open(str(video)) as container:
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(pictures) == saved["rows"]
        assert max(worst_on_flat_areas(picture) for picture in pictures) <= 3, name


def test_an_encoder_of_raw_frames_stopped_for_longer_than_its_ring_loses_nothing(tmp_path, library):
    # A ring of one second, an encoder away for three.
    with ExitStack() as stack:
        names = ("yuyv", "jpeg420")
        servers = {name: stack.enter_context(bars_camera(tmp_path, name)) for name in names}
        robot = stack.enter_context(robot_with(tmp_path / "robot", library, servers, ring_s=1))
        robot.while_encoder_is_away("yuyv", "jpeg420")
        assert robot.never_encoded("yuyv") == 0
        saved = robot.client.stop()
        assert not (robot.root / ".recd/staging" / saved["uid"]).exists()
    assert verify_dataset(robot.root).findings == ()


def metronome(server: VirtualCameraServer, hz: int, ended: threading.Event) -> Callable[[], None]:
    def beat() -> None:
        due_ns = now_ns()
        while not ended.is_set():
            sleep_until_ns(due_ns)
            server.expose(due_ns)
            due_ns += NS_PER_S // hz

    return beat


def test_a_camera_that_gives_fewer_pictures_than_it_promised_is_told_as_repeating(
    tmp_path, library
):
    ended = threading.Event()
    with bars_camera(tmp_path, "jpeg420", clocked=False) as server:
        thread = threading.Thread(target=metronome(server, 25, ended))  # as exposure in low light
        thread.start()
        try:
            with robot_with(tmp_path / "robot", library, {"jpeg420": server}) as robot:
                saved = robot.record(90)
        finally:
            ended.set()
            thread.join()
    told = {reason["rule"]: reason for reason in saved["verdict"]["reasons"]}
    assert told["repeated"]["stream"] == "jpeg420"
    assert told["repeated"]["value"] > 8  # a sixth of the rows, if this computer is not busy
