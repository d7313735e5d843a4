"""Pictures, payloads, and a real encoder process with the rings and the link around it."""

import os
import secrets
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from recd.config.models import RobotConfig
from recd.config.streams import STATUS_DTYPE, TICK_DTYPE, frame_payload
from recd.daemon.encode.colour import black_picture, plane_view
from recd.daemon.worker import Link, RingGrant, WorkerSpec
from recd.shm import (
    CellReader,
    Doorbell,
    ReaderPolicy,
    RingReader,
    RingSpec,
    RingWriter,
    create_cell,
    create_ring,
)
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns
from tests.payloads import PAYLOADS, Rgb, jpeg_of

av.logging.set_level(av.logging.PANIC)


@pytest.fixture(scope="session")
def make_payload() -> Callable[[str, Rgb], tuple[str, bool, bytes]]:
    def make(name: str, rgb: Rgb) -> tuple[str, bool, bytes]:
        kind, full, maker = PAYLOADS[name]
        return kind, full, maker(rgb)

    return make


@pytest.fixture(scope="session")
def moving_picture() -> Callable[..., Any]:
    """Picture of row k: a pattern that no other row has."""

    def make(k: int, width: int = 320, height: int = 240) -> Any:
        frame = black_picture(width, height)
        noise = np.random.default_rng(k).integers(20, 220, (height // 8, width // 8), np.uint8)
        plane_view(frame.planes[0])[:] = noise.repeat(8, 0).repeat(8, 1)
        return frame

    return make


@pytest.fixture(scope="session")
def decoded() -> Callable[[Path], list[Rgb]]:
    """All pictures of a video as a reader sees them, uint8 RGB."""

    def read(path: Path) -> list[Rgb]:
        with av.open(str(path)) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]

    return read


# ---------------------------------------------------------------------- a real encoder process

WIDTH, HEIGHT, FPS = 160, 96, 30
PERIOD_NS = NS_PER_S // FPS
PATIENCE_NS = 60 * NS_PER_S
FUTURE_NS = 600 * NS_PER_S
"""Frames stamped this far ahead are always in time: what is decided about them does not depend on
how fast this computer is. Each take of a rig begins this much later than the one before."""


@cache
def numbered_jpeg(number: int) -> bytes:
    """A JPEG with `number` (0..255) as eight bright or dark bars."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for bit in range(8):
        level = 220 if number >> bit & 1 else 40
        image[:, bit * WIDTH // 8 : (bit + 1) * WIDTH // 8] = level
    return jpeg_of(image, "yuvj422p")


def number_of(rgb: Rgb) -> int:
    """The number in a picture of `numbered_jpeg`; -1 for a black one."""
    bars = rgb.reshape(rgb.shape[0], 8, -1, 3).mean(axis=(0, 2, 3))
    if bars.max() < 20:
        return -1
    return sum(1 << bit for bit in range(8) if bars[bit] > 128)


def until(condition: Callable[[], Any], what: Callable[[], str]) -> Any:
    """Poll until `condition` is true and return its value; fail after long patience."""
    deadline_ns = now_ns() + PATIENCE_NS
    while now_ns() < deadline_ns:
        if value := condition():
            return value
        sleep_until_ns(now_ns() + 2 * NS_PER_MS)
    raise AssertionError(f"did not happen: {what()}")


class Rig:
    """Ring of one camera, ring of its row records, and the encoder process between them."""

    def __init__(
        self, root: Path, *, slots: int = 128, step: bool = False, fourcc: str = "auto",
        others: dict[str, Any] | None = None, **dataset: Any,
    ) -> None:  # fmt: skip
        """others: cameras of the same robot, which other processes would encode."""
        self.root = root
        self.robot = RobotConfig.model_validate(
            {
                "name": "rig",
                "cameras": {
                    "front": {"source": "sim", "width": WIDTH, "height": HEIGHT, "fourcc": fourcc},
                    **(others or {}),
                },
                "arms": {"main": {"follower": {"port": "sim"}}},
                "dataset": {"root": str(root), "fps": FPS, "encoder": {"vcodec": "h264"}} | dataset,
            }
        ).model_dump(mode="json")
        meta = {
            "camera": "front", "payload": frame_payload("sim", fourcc), "width": WIDTH,
            "height": HEIGHT, "fps_num": FPS, "fps_den": 1, "stamp": "kernel", "range": "full",
            "step": step, "rotation": 0,
        }  # fmt: skip
        self.frames = create_ring(RingSpec("cam.front", "frame", slots, 60_000, meta=meta))
        self.rows = create_ring(RingSpec("ticks.front", "record", 1024, TICK_DTYPE.itemsize))
        self.status = create_cell("status.encoder:front", STATUS_DTYPE)
        self.bell = Doorbell.create()
        self.camera = RingWriter(self.frames, [self.bell])
        self.messages: list[dict[str, Any]] = []
        self._reader = RingReader(self.rows, policy=ReaderPolicy.BEST_EFFORT)
        self._told: list[Any] = []
        self._next_t0_ns = now_ns()
        self.start()

    def start(self) -> None:
        """exec the worker on these rings."""
        self.link, theirs = Link.pair()
        camera = self.robot["cameras"]["front"]
        spec = WorkerSpec(
            name="encoder:front",
            kind="encoder",
            instance="rig",
            runtime_dir=str(self.root),
            link_fd=theirs.fileno(),
            config={"camera": "front", **camera, "encoder": self.robot["dataset"]["encoder"]},
            robot=self.robot,
            rings={
                "cam.front": RingGrant(self.frames.fd, 0, "MUST_KEEP", (self.bell.fd,)),
                "ticks.front": RingGrant(self.rows.fd),
            },
            cells={"status.encoder:front": self.status.fd},
        )
        read, write = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "recd.daemon.worker", str(read)],
            pass_fds=(read, *spec.passed_fds()),
        )
        os.close(read)
        theirs.close()
        with os.fdopen(write, "wb") as pipe:
            pipe.write(spec.pack())

    def answer(self, ty: str, **fields: Any) -> dict[str, Any]:
        """First message of this type and with these fields, waited for."""

        def found() -> dict[str, Any] | None:
            select.select([self.link.fd], [], [], 0.02)
            while (message := self.link.recv()) is not None:
                self.messages.append(message)
            for message in self.messages:
                if message["ty"] == ty and fields.items() <= message.items():
                    return message
            return None

        def missed() -> str:
            return f"{ty} {fields}; had {[(m['ty'], m.get('event', '')) for m in self.messages]}"

        return until(found, missed)

    def ready(self) -> dict[str, Any]:
        """Wait for `ready`; what was heard before is forgotten."""
        message = self.answer("ready")
        self.messages.clear()
        return message

    def begin(self, *, t0_ns: int = 0, uid: str = "", **fields: Any) -> tuple[str, int]:
        """Start a take; (uid, t0)."""
        uid = uid or secrets.token_hex(16)
        t0_ns = t0_ns or self.future()
        self.link.send(
            "begin", uid=uid, staging=str(self.staging(uid)), t0_ns=t0_ns, rate_num=FPS, rate_den=1,
            **{"grid": "clock", "codec": self.robot["dataset"]["encoder"]} | fields,
        )  # fmt: skip
        self.answer("opened", uid=uid)
        return uid, t0_ns

    def future(self) -> int:
        """A time far ahead, and later than the last one asked for."""
        self._next_t0_ns += FUTURE_NS
        return self._next_t0_ns

    def end(self, uid: str, ticks: int) -> dict[str, Any]:
        """End a take; its `closed`."""
        self.link.send("end", uid=uid, ticks=ticks, keep=True)
        return self.answer("closed", uid=uid)

    def staging(self, uid: str) -> Path:
        return self.root / ".recd" / "staging" / uid

    def frame(self, number: int, capture_ns: int, *, data: bytes = b"", **facts: Any) -> None:
        """The camera delivers a picture that shows `number`."""
        facts = {"source_seq": number, "t_arrival_ns": capture_ns} | facts
        self.camera.write(data or numbered_jpeg(number), t_capture_ns=capture_ns, **facts)

    def feed(self, numbers: range, t0_ns: int, *, period_ns: int = PERIOD_NS) -> None:
        """Frames `numbers`, frame 0 at t0; waits for room in the ring."""
        for number in numbers:
            self.frame(number, t0_ns + number * period_ns + NS_PER_MS)

    def told(self, uid: str, rows: int) -> Any:
        """Row records of a take, once there are `rows`, as the writer takes them up."""

        def enough() -> bool:
            while (slot := self._reader.take()) is not None:
                record = np.array(slot.payload).view(TICK_DTYPE)[0]
                self._told.append((slot.aux, record))
            return len(taken()) >= rows

        def taken() -> list[Any]:
            mine: list[Any] = []
            for owner, record in self._told:
                if owner == int(uid[:15], 16) and record["k"] == len(mine):
                    mine.append(record)
            return mine

        until(enough, lambda: f"{rows} records; had {len(taken())}")
        return np.array(taken()[:rows], TICK_DTYPE)

    def counter(self, index: int) -> int:
        record = CellReader(self.status).read()
        return 0 if record is None else int(record[1]["counters"][index])

    def stop(self) -> int:
        self.link.send("stop")
        return self.process.wait(timeout=60)

    def freeze(self) -> None:
        """SIGSTOP, and wait until it does not run any more."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.link.close()
        self.camera.close()
        self.bell.close()
        for segment in (self.frames, self.rows, self.status):
            segment.close()


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Makes rigs for one test."""
    rigs: list[Rig] = []

    def make(**settings: Any) -> Rig:
        rigs.append(Rig(tmp_path / "data", **settings))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One encoder for all tests of a module that leave it ready for the next take."""
    shared = Rig(tmp_path_factory.mktemp("rig"))
    shared.ready()
    yield shared
    shared.close()


@pytest.fixture
def own_rig(make_rig: Callable[..., Rig]) -> Rig:
    """An encoder for this test alone."""
    made = make_rig()
    made.ready()
    return made


@pytest.fixture(scope="session")
def shown(decoded: Callable[[Path], list[Rgb]]) -> Callable[[str], list[int]]:
    """The number in each picture of a video, -1 for black."""
    return lambda path: [number_of(picture) for picture in decoded(Path(path))]


@pytest.fixture(scope="session")
def period_ns() -> int:
    return PERIOD_NS
