import os
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from recd.clients.client import NotRunningError, RecdClient
from recd.daemon.sim import camera_control
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns

START_S = 90.0
SLOW_ARMS, FULL_RATE = "arms.main.rate_hz=100", "arms.main.rate_hz=250"
"""So that a test tells of what it does and not of how busy the computer is; the full rate is for
those that ask for it."""

SMALL = tuple(
    f"cameras.{name}.{key}={value}"
    for name in ("front", "wrist")
    for key, value in (("width", 320), ("height", 240))
)
"""Pictures that cost little, for tests of anything but their size."""


def until(found: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """Ask until the answer is true; fail with `what` after `timeout_s`."""
    deadline_ns = now_ns() + int(timeout_s * NS_PER_S)
    while not (answer := found()):
        if now_ns() > deadline_ns:
            pytest.fail(f"waited {timeout_s:g} s for {what}")
        sleep_until_ns(now_ns() + NS_PER_S // 50)
    return answer


def stolen_ns() -> int:
    """What the host has taken from the CPUs of this computer since it started, in all."""
    return int(psutil.cpu_times().steal * NS_PER_S)


def stolen_rows(before_ns: int, fps: int = 30) -> int:
    """Rows that lie in the time that the host took since stolen_ns() was `before_ns`."""
    return -(-(stolen_ns() - before_ns) * fps // NS_PER_S)


class Robot:
    """A real daemon with the simulated robot, in folders of its own."""

    def __init__(
        self, folder: Path, *overrides: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.root = folder / "dataset"
        # Unix socket paths are short; pytest's folders are not.
        self.runtime = Path(tempfile.mkdtemp(prefix="recd-e2e-"))
        weakref.finalize(self, shutil.rmtree, self.runtime, ignore_errors=True)
        self.overrides = overrides
        self._extra = dict(environment or {})
        self.log = folder / "recd.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.client: RecdClient | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "RECD_RUNTIME_DIR": str(self.runtime),
            "RECD_LOG": "json",
            **self._extra,
        }

    def start(self) -> None:
        command = [sys.executable, "-m", "recd.daemon.cli", "run", "demo"]
        for override in (SLOW_ARMS, f"dataset.root={self.root}", *self.overrides):
            command += ["--set", override]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment
            )
        self.client = until(self._connect, "the control socket", START_S)
        self.client.wait_until("READY", timeout_s=START_S)

    def _connect(self) -> RecdClient | None:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"the daemon ended: {self.log.read_text()[-2000:]}")
        try:
            endpoint = self.runtime / "demo" / "ctl.sock"
            if not endpoint.exists():
                return None
            os.environ["RECD_RUNTIME_DIR"] = str(self.runtime)
            return RecdClient("demo")
        except NotRunningError:
            return None

    def arm(self) -> None:
        assert self.client is not None
        self.client.arm()
        until(lambda: self.motion() == "TELEOP", "TELEOP")

    def motion(self) -> str:
        assert self.client is not None
        return str(self.client.status()["arms"]["main"]["motion"].get("state"))

    def rows(self) -> int:
        """Rows of the running episode so far."""
        assert self.client is not None
        episode = self.client.status()["episode"]
        return int(episode["rows"]) if episode else 0

    def decided(self, camera: str) -> int:
        """Rows of a camera that its encoder has decided, of all episodes."""
        return int(self._ring(f"ticks.{camera}")["head"])

    def while_encoder_is_away(self, camera: str, other: str) -> None:
        """An episode that begins and goes on; in it the encoder of `camera` stands still for three
        seconds of the camera `other`, and has come after it on return."""
        self.arm()
        self.client.start()
        until(lambda: self.rows() >= 30, "30 rows")
        encoder, before = self.workers()[f"encoder:{camera}"], self.decided(other)
        encoder.suspend()
        until(lambda: self.decided(other) >= before + 90, "three seconds of the other camera")
        encoder.resume()
        until(lambda: self.rows() >= before + 100, "the encoder to catch up")

    def never_encoded(self, camera: str) -> int:
        """Frames that the ring of a camera lost before its encoder came after them."""
        readers = self._ring(f"cam.{camera}")["readers"]
        (lost,) = [reader["lost"] for reader in readers if reader["policy"] == "MUST_KEEP"]
        return int(lost)

    def _ring(self, name: str) -> dict[str, Any]:
        return next(ring for ring in self.client.call("shm")["rings"] if ring["name"] == name)

    def record(self, rows: int) -> dict[str, Any]:
        """One episode of at least `rows` rows, saved."""
        assert self.client is not None
        self.client.start()
        until(lambda: self.rows() >= rows, f"{rows} rows")
        return self.client.stop()

    def given_up(self) -> dict[str, int]:
        """Frames that the simulated cameras never sent because the computer was busy."""
        cameras = str(next(self.runtime.rglob("cameras.sock")))
        told = camera_control.call(cameras, "describe")["cameras"]
        return {name: camera["dropped"] + camera["overrun"] for name, camera in told.items()}

    @property
    def policy_endpoint(self) -> str:
        return f"ipc://{self.runtime / 'demo' / 'policy.sock'}"

    def own(self, uid: str) -> Path:
        return self.root / ".recd" / "episodes" / uid

    def workers(self) -> dict[str, psutil.Process]:
        """Worker processes by name, less those that ended since the daemon told of them."""
        assert self.client is not None
        found = {}
        for name, told in self.client.status()["processes"].items():
            with suppress(psutil.NoSuchProcess):
                if told["pid"]:
                    found[name] = psutil.Process(told["pid"])
        return found

    def tree(self) -> list[psutil.Process]:
        assert self.process is not None
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def end(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(90)
        self.close_client()
        return code

    def close_client(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None


@contextmanager
def running(
    folder: Path, *overrides: str, environment: Mapping[str, str] | None = None
) -> Iterator[Robot]:
    folder.mkdir(parents=True, exist_ok=True)
    robot = Robot(folder, *overrides, environment=environment)
    try:
        robot.start()
        yield robot
    finally:
        robot.close_client()
        if robot.process is not None and robot.process.poll() is None:
            robot.process.send_signal(signal.SIGTERM)
            try:
                robot.process.wait(60)
            except subprocess.TimeoutExpired:
                robot.process.kill()
                robot.process.wait()
