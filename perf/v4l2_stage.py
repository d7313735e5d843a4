"""Simulated V4L2 cameras that show the simulated arm: YUYV or MJPEG, stamped, in one process.

`python -m recd.perf.v4l2_stage JSON` serves the devices that the preload library makes visible to
the daemon. Needs a C compiler once.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.errors import DeviceError
from recd.daemon import realtime
from recd.daemon.sim.figure import PoseSource
from recd.daemon.sim.pose import ArmPose, PoseHistory
from recd.daemon.sim.render import Renderer
from recd.daemon.sim.v4l2shim.build import build, environment
from recd.daemon.sim.v4l2shim.server import VirtualCameraServer
from recd.daemon.sim.v4l2shim.spec import VirtualCamera, VirtualFormat, VirtualSize

FIRST_DEVICE = 90
"""Numbers of /dev/videoN that no computer uses."""


PRIORITY = 40
"""SCHED_FIFO, where allowed: a camera does not wait for the programs that record it. Below recd's
own arms and cameras, which must not wait for a drawing that costs a real camera nothing."""


def device_path(number: int) -> str:
    """Path under which the daemon sees camera `number`."""
    return f"/dev/video{FIRST_DEVICE + number}"


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What is served. names: views of the cameras; pose: file of the simulated robot, which may
    come later; bus: the arm they look at; folder: for sockets and the library; fourcc: YUYV or
    MJPG."""

    names: tuple[str, ...]
    width: int
    height: int
    fps: float
    pose: str
    bus: str
    folder: str
    fourcc: str = "YUYV"


@dataclass(frozen=True, slots=True)
class Stage:
    """A running stage. environment: variables that the daemon needs to see the devices."""

    pid: int
    environment: dict[str, str]


@contextmanager
def running(plan: StagePlan) -> Iterator[Stage]:
    """The devices, in a process of their own, as long as the block lasts."""
    folder = Path(plan.folder)
    folder.mkdir(parents=True, exist_ok=True)
    library = build(folder)
    fields = {name: getattr(plan, name) for name in plan.__slots__}
    command = [sys.executable, "-m", "recd.perf.v4l2_stage", json.dumps(fields)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise DeviceError(f"simulated V4L2 cameras: ended with code {process.wait()}")
        sockets = {device_path(n): _socket(folder, n) for n in range(len(plan.names))}
        yield Stage(process.pid, environment(library, sockets))
    finally:
        process.terminate()
        process.communicate()


def _socket(folder: Path, number: int) -> Path:
    return folder / f"v4l2-{number}.sock"


class Artist:
    """Draws one camera's pictures, in the planned form, at the time of their exposure."""

    def __init__(self, plan: StagePlan, number: int) -> None:
        from recd.daemon.sim.jpeg import JpegEncoder

        self._plan = plan
        self._jpeg = JpegEncoder(plan.width, plan.height) if plan.fourcc == "MJPG" else None
        subsampling = (2, 1) if self._jpeg is None else self._jpeg.subsampling
        self._renderer = Renderer(
            plan.width, plan.height, view=plan.names[number], camera=number, subsampling=subsampling
        )
        half = (plan.height, plan.width // 2)
        self._planes: tuple[npt.NDArray[np.uint8], ...] = (
            np.zeros((plan.height, plan.width), np.uint8),
            np.zeros(half, np.uint8),
            np.zeros(half, np.uint8),
        )
        self._packed: npt.NDArray[np.uint8] = np.zeros((plan.height, plan.width, 2), np.uint8)
        self._pose: ArmPose | None = None
        self.server: VirtualCameraServer | None = None

    def picture(self, number: int, pixelformat: str, width: int, height: int) -> bytes:
        """One exposure; only the planned size and form are ever offered."""
        del pixelformat, width, height
        assert self.server is not None
        if self._pose is None:
            self._pose = ArmPose(PoseHistory(self._plan.pose), self._plan.bus)
        return self.draw(self._pose, number, self.server.exposing_ns)

    def draw(self, pose: PoseSource, number: int, t_capture_ns: int) -> bytes:
        """Picture `number` of the arm as it is in `pose` at `t_capture_ns`, as the device sends."""
        planes = self._planes if self._jpeg is None else self._jpeg.planes
        self._renderer.draw(planes, pose, frame=number, t_capture_ns=t_capture_ns)
        if self._jpeg is not None:
            return self._jpeg.encode()
        luma, blue, red = planes
        self._packed[:, :, 0] = luma
        self._packed[:, 0::2, 1] = blue
        self._packed[:, 1::2, 1] = red
        return self._packed.tobytes()


def camera_model(plan: StagePlan) -> VirtualCamera:
    """A device that offers exactly what is planned."""
    rate = Fraction(plan.fps).limit_denominator(1001)
    size = VirtualSize(plan.width, plan.height, (rate,))
    return VirtualCamera(formats=(VirtualFormat(plan.fourcc, (size,)),))


def serve(plan: StagePlan) -> None:
    """Serve all devices until SIGTERM."""
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    with ExitStack() as stack:
        for number in range(len(plan.names)):
            artist = Artist(plan, number)
            path = _socket(Path(plan.folder), number)
            server = VirtualCameraServer(path, camera_model(plan), artist.picture)
            artist.server = stack.enter_context(server)
        print("ready", flush=True)
        signal.sigwait(stop)


def main(argv: list[str]) -> int:
    """Entry of the process."""
    realtime.die_with_parent()
    fields: dict[str, Any] = json.loads(argv[0])
    os.environ.pop("LD_PRELOAD", None)
    realtime.apply(realtime.RealtimeRequest(priority=PRIORITY))
    serve(StagePlan(**{**fields, "names": tuple(fields["names"])}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
