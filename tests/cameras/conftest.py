"""A simulated V4L2 device, a source in a process of its own, and a real camera worker."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recd.config.streams import STATUS_COUNTER_NAMES, STATUS_DTYPE, STATUS_STATES
from recd.daemon.sim import camera_control
from recd.daemon.sim.v4l2shim.build import build, compiler, environment
from recd.daemon.sim.v4l2shim.pictures import numbered_card
from recd.daemon.sim.v4l2shim.server import VirtualCameraServer
from recd.daemon.sim.v4l2shim.spec import Pictures, VirtualCamera
from recd.daemon.worker import Link, RingGrant, WorkerSpec
from recd.shm import (
    CellReader,
    Doorbell,
    ReaderPolicy,
    RingReader,
    RingSpec,
    Slot,
    create_cell,
    create_ring,
)
from recd.shm.clock import NS_PER_S, now_ns

READER = Path(__file__).with_name("reader.py")
PATIENCE_NS = 60 * NS_PER_S
"""For a test that fails; nothing here waits that long when it passes."""

CAMERA = {
    "source": "v4l2", "device": "0", "width": 640, "height": 480, "fps": 30.0, "fourcc": "auto",
}  # fmt: skip


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if compiler() is None:
        pytest.skip("no C compiler (cc, gcc or clang) to build the V4L2 shim with")
    return build(tmp_path_factory.mktemp("shim"))


class Webcam:
    """One simulated device at `path`, a placeholder file so that links and /proc work."""

    def __init__(self, server: VirtualCameraServer, path: Path, library: Path) -> None:
        self.server, self.path = server, path
        self.environment = environment(library, {path: server.path})


@pytest.fixture
def webcam(shim: Path, tmp_path: Path) -> Iterator[Callable[..., Webcam]]:
    with ExitStack() as stack:

        def make(
            camera: VirtualCamera | None = None, *, node: str = "video0",
            pictures: Pictures = numbered_card,
        ) -> Webcam:  # fmt: skip
            path = tmp_path / "dev" / node
            path.parent.mkdir(exist_ok=True)
            path.touch()
            server = VirtualCameraServer(
                tmp_path / f"{node}.sock", camera or VirtualCamera(), pictures
            )
            # Exact numbers must not depend on how busy the computer is.
            server.change(lambda script: setattr(script, "patient", True))
            return Webcam(stack.enter_context(server), path, shim)

        yield make


class SourceReader:
    """A process that opens sources one after the other, under the preload library."""

    def __init__(self, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(READER)], env={**os.environ, **env},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, request: dict[str, Any], *, frames: int, shim: str = "") -> None:
        assert self.process.stdin is not None
        fields = {"width": 640, "height": 480, "fps": "30", **request}
        self.process.stdin.write(
            json.dumps({"request": fields, "frames": frames, "shim": shim}) + "\n"
        )
        self.process.stdin.flush()

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        assert text, "the reader of sources died"
        return dict(json.loads(text))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="session")
def shared_reader(shim: Path) -> Iterator[list[SourceReader]]:
    shared = [SourceReader({"LD_PRELOAD": str(shim)})]
    yield shared
    shared[0].close()


@pytest.fixture
def new_reader() -> Iterator[Callable[[dict[str, str]], SourceReader]]:
    with ExitStack() as stack:

        def make(env: dict[str, str]) -> SourceReader:
            reader = SourceReader(env)
            stack.callback(reader.close)
            return reader

        yield make


@pytest.fixture
def read_source(shared_reader: list[SourceReader], shim: Path) -> Callable[..., Any]:
    """Opens a source in another process and reads frames; returns what it said, line by line."""

    def read(request: dict[str, Any], *, frames: int, env: dict[str, str] | None = None) -> Any:
        if shared_reader[0].process.poll() is not None:
            shared_reader[0] = SourceReader({"LD_PRELOAD": str(shim)})
        reader = shared_reader[0]
        reader.ask(request, frames=frames, shim=(env or {}).get("RECD_V4L2_SHIM", ""))
        said = [reader.line()]
        while said[-1]["ty"] != "closed":
            said.append(reader.line())
        return said

    return read


class Rig:
    """A camera worker as the supervisor starts it, and the reading ends of all it writes."""

    def __init__(self, camera: dict[str, Any], **options: Any) -> None:
        payload = options.get("payload", "mjpeg")
        # Several seconds of frames: a test that the host keeps from running loses none of them.
        slots, slot_bytes = options.get("slots", 160), options.get("slot_bytes", 640 * 480)
        meta = {
            "camera": "front", "payload": payload, "width": camera["width"],
            "height": camera["height"], "step": camera.get("step", False),
        }  # fmt: skip
        self.segment = create_ring(RingSpec("cam.front", "frame", slots, slot_bytes, meta=meta))
        self.cell = create_cell("status.camera:front", STATUS_DTYPE)
        self.doorbell = Doorbell.create()
        self.reader: RingReader | None = None
        if options.get("join", True):
            self.join()
        self._camera, self._env = camera, options.get("env", {})
        self.link: Link | None = None
        self.restart()

    def restart(self) -> None:
        """exec the worker on these rings, for the first time or after it was killed."""
        if self.link is not None:
            self.link.close()
        self.messages: list[dict[str, Any]] = []
        self.link, theirs = Link.pair()
        spec = WorkerSpec(
            name="camera:front", kind="camera", instance="test", runtime_dir="",
            link_fd=theirs.fileno(), config={"name": "front", **self._camera},
            rings={"cam.front": RingGrant(self.segment.fd, doorbells=(self.doorbell.fd,))},
            cells={"status.camera:front": self.cell.fd},
        )  # fmt: skip
        read_end, write_end = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "recd.daemon.worker", str(read_end)],
            pass_fds=(read_end, *spec.passed_fds()),
            env={**os.environ, "RECD_LOG_LEVEL": "critical", **self._env},
        )
        os.close(read_end)
        theirs.close()
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(spec.pack())

    def join(self) -> RingReader:
        self.reader = RingReader(
            self.segment, 0, policy=ReaderPolicy.MUST_KEEP, doorbell=self.doorbell
        )
        return self.reader

    def await_message(self, ty: str, event: str = "") -> dict[str, Any]:
        assert self.link is not None
        poll = select.poll()
        poll.register(self.link.fd, select.POLLIN)
        deadline_ns = now_ns() + PATIENCE_NS
        while now_ns() < deadline_ns:
            while (message := self.link.recv()) is not None:
                self.messages.append(message)
                if message["ty"] == ty and message.get("event", "") == event:
                    return message
            assert not self.link.closed, f"worker left; it said {self.messages}"
            poll.poll(100)
        raise AssertionError(f"no {ty} {event}; it said {self.messages}")

    def frames(self, count: int) -> list[Slot]:
        assert self.reader is not None
        taken: list[Slot] = []
        deadline_ns = now_ns() + PATIENCE_NS
        while len(taken) < count:
            slot = self.reader.take()
            if slot is not None:
                taken.append(slot)
                continue
            assert now_ns() < deadline_ns, f"{len(taken)} of {count} frames; {self.messages}"
            self.reader.wait(100_000_000)
        return taken

    def each(self, count: int, look: Callable[[Slot], Any]) -> list[Any]:
        """`look` at each of the next frames while its slot is still its own."""
        seen = []
        for _ in range(count):
            slot = self.frames(1)[0]
            seen.append(look(slot))
            assert slot.intact()
        return seen

    def until(self, promise: Callable[[Slot], bool]) -> Slot:
        deadline_ns = now_ns() + PATIENCE_NS
        while now_ns() < deadline_ns:
            slot = self.frames(1)[0]
            if promise(slot):
                return slot
        raise AssertionError("no such frame came")

    def status_or_none(self) -> dict[str, Any] | None:
        read = CellReader(self.cell).read()
        if read is None:
            return None
        _, record = read
        counters = zip(STATUS_COUNTER_NAMES["camera"], record["counters"].tolist(), strict=False)
        state = STATUS_STATES["camera"][int(record["state"])]
        return {"state": state, "worked": int(record["work"].sum()), **dict(counters)}

    def status(self) -> dict[str, Any]:
        status = self.status_or_none()
        assert status is not None
        return status

    def stop(self) -> int:
        assert self.link is not None
        self.link.send("stop")
        return self.process.wait(timeout=60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.link is not None
        self.link.close()
        if self.reader is not None:
            self.reader.close()
        self.doorbell.close()
        self.segment.close()
        self.cell.close()


@pytest.fixture
def rig() -> Iterator[Callable[..., Rig]]:
    with ExitStack() as stack:

        def make(camera: dict[str, Any], **options: Any) -> Rig:
            made = Rig({**CAMERA, **camera}, **options)
            stack.callback(made.close)
            return made

        yield make


class SimCamera:
    """The simulated camera that recd ships, in its own process, with its control socket."""

    def __init__(self, spec: str, folder: Path, *options: str) -> None:
        self._control = folder / f"sim-{spec.partition(':')[0]}.sock"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "recd.daemon.sim.camera", "--camera", spec,
             "--control", str(self._control), *options],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.name, told = next(iter(json.loads(self.process.stdout.readline())["cameras"].items()))
        self.url: str = told["url"]

    def fault(self, kind: str, *, frames: int, value: float = 0.0) -> None:
        camera_control.call(
            str(self._control), "fault", camera=self.name, kind=kind, frames=frames, value=value
        )

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def sim_camera(tmp_path: Path) -> Iterator[Callable[..., SimCamera]]:
    with ExitStack() as stack:

        def make(spec: str, *options: str) -> SimCamera:
            camera = SimCamera(spec, tmp_path, *options)
            stack.callback(camera.close)
            return camera

        yield make


@pytest.fixture
def noise() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, 640 * 480 * 2, np.uint8)
