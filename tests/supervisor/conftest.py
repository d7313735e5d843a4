"""A daemon under test: the real supervisor in a process of its own, with stand-in workers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import psutil
import pytest
import zmq

from recd.config.messages import decode, new_request_id
from recd.daemon.supervisor.forks import TITLE
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns

HERE = Path(__file__).parent
CONFIG = """
name: testrobot
cameras:
  front: {source: v4l2, device: "7", width: 160, height: 160, fps: 30}
arms:
  main:
    follower: {port: /dev/nowhere, id: f}
    rate_hz: 50
dataset: {root: DATA, fps: 30, task: test task, reserve_mb: 0}
"""

PATIENCE_NS = 60 * NS_PER_S


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a condition, with a deadline far beyond anything a loaded machine needs."""
    deadline = now_ns() + PATIENCE_NS
    while not (found := condition()):
        if now_ns() > deadline:
            raise AssertionError(f"did not happen: {what}")
        sleep_until_ns(now_ns() + 10_000_000)
    return found


class Daemon:
    def __init__(self, folder: Path, script: dict[str, Any]) -> None:
        self.runtime = folder / "run" / "testrobot"
        self.config = folder / "robot.yaml"
        self.config.write_text(CONFIG.replace("DATA", str(folder / "data")))
        self.log = folder / f"daemon-{new_request_id()[:6]}.log"
        environment = {
            **os.environ,
            "RECD_RUNTIME_DIR": str(folder / "run"),
            "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}",
            **script.get("environment", {}),
        }
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "daemon_under_test.py"), str(self.config),
                 json.dumps(script)],
                stdout=out, stderr=out, env=environment, start_new_session=True,
            )  # fmt: skip
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None

    @property
    def said(self) -> str:
        return self.log.read_text()

    def socket(self) -> "zmq.Socket[bytes]":
        if self._socket is None:
            until(lambda: (self.runtime / "ctl.sock").exists() or self.ended, "control socket")
            assert not self.ended, self.said
            self._socket = self.connect()
        return self._socket

    def connect(self) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"ipc://{self.runtime / 'ctl.sock'}")
        return socket

    def subscribe(self) -> "zmq.Socket[bytes]":
        self.socket()
        socket = self._context.socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.subscribe(b"")
        socket.connect(f"ipc://{self.runtime / 'evt.sock'}")
        return socket

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def request(self, cmd: str, *, request_id: str = "", **args: Any) -> dict[str, Any]:
        request_id = request_id or new_request_id()
        self.post(cmd, request_id=request_id, **args)
        return self.reply_to(request_id)

    def post(self, cmd: str, *, request_id: str, deadline_ms: int = 30_000, **args: Any) -> None:
        message = {"v": 1, "ty": "req", "id": request_id, "cmd": cmd, "args": args,
                   "deadline_ms": deadline_ms}  # fmt: skip
        self.socket().send(msgpack.packb(message))

    def reply_to(self, request_id: str) -> dict[str, Any]:
        while True:
            assert self.socket().poll(PATIENCE_NS // 1_000_000), f"no reply\n{self.said}"
            reply = decode(self.socket().recv())
            if reply["re"] == request_id:
                return reply

    def ok(self, cmd: str, **args: Any) -> dict[str, Any]:
        reply = self.request(cmd, **args)
        assert reply["ok"], reply
        result: dict[str, Any] = reply["result"]
        return result

    def refused(self, cmd: str, **args: Any) -> dict[str, Any]:
        reply = self.request(cmd, **args)
        assert not reply["ok"], reply
        error: dict[str, Any] = reply["error"]
        return error

    def status(self) -> dict[str, Any]:
        return self.ok("status")

    def wait_state(self, state: str) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            status = self.status()
            return status if status["state"] == state else None

        found: dict[str, Any] = until(there, f"state {state}")
        return found

    def pid_of(self, process: str) -> int:
        pid: int = self.status()["processes"][process]["pid"]
        return pid

    def everything(self) -> list[psutil.Process]:
        """All processes below the supervisor."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def titled(self) -> dict[str, psutil.Process]:
        """The supervisor's children by title. A fork bears the server's until it has its own."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):
                found.setdefault(" ".join(child.cmdline()).strip("\0 "), child)
        return found

    def workers(self) -> list[psutil.Process]:
        return [worker for title, worker in self.titled().items() if title != TITLE]

    def fork_server(self) -> psutil.Process:
        return self.titled()[TITLE]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send the signal, and wait for the exit code."""
        if not self.ended:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)

    @property
    def committed(self) -> str:
        """What the stand-in writer has noted, one line per take."""
        return (self.config.parent / "committed").read_text()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
        self._context.destroy(linger=0)
        if not self.ended:
            workers = self.everything()
            self.process.kill()
            self.process.wait()
            for worker in workers:  # one that a test has stopped does not see the daemon's end
                with suppress(psutil.NoSuchProcess):
                    worker.kill()


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    started: list[Daemon] = []

    def start(**script: Any) -> Daemon:
        daemon = Daemon(
            tmp_path,
            {
                name.replace("__", ":").replace("main_", "main."): value
                for name, value in script.items()
            },
        )
        started.append(daemon)
        return daemon

    yield start
    for daemon in started:
        daemon.close()


SIMULATED = ["cameras.front.source=sim", "arms.main.follower.port=sim"]
"""Overrides that make the test robot a simulated one: one more process, before all others."""


@pytest.fixture
def daemon(start_daemon: Callable[..., Daemon]) -> Daemon:
    """A healthy daemon of one camera and one follower, in READY."""
    healthy = start_daemon()
    healthy.wait_state("READY")
    return healthy


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One healthy daemon for all tests of a module that leave it in READY."""
    healthy = Daemon(tmp_path_factory.mktemp("shared"), {})
    healthy.wait_state("READY")
    yield healthy
    healthy.close()


def gone(processes: list[psutil.Process]) -> bool:
    """True when none of them runs any more (a zombie nobody reaped has ended)."""
    return all(
        not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        for process in processes
    )
