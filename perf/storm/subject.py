"""The daemon under the storm: started as a user starts it, killed as nobody should, started again.

All its folders are its own. It knows how to reach processes and simulated devices of one daemon and
nothing about which fault is when.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import zmq

from recd.clients.client import RecdClient
from recd.config.errors import RecdError
from recd.config.messages import decode
from recd.config.paths import control_endpoint, event_endpoint
from recd.daemon.faultpoints import FOLDER_KEY
from recd.daemon.realtime import die_with_parent
from recd.daemon.sim.camera_control import call as camera_call
from recd.daemon.sim.control import SimControl
from recd.perf.storm.settings import STRICT, Setting
from recd.perf.subject import last_words
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns

READY_WITHIN_S = 120.0
ENDS_WITHIN_S = 90.0
LOOK_NS = NS_PER_S // 25


def await_true(found: Any, what: str, timeout_s: float) -> Any:
    """Ask until the answer is true. RecdError with `what` when that takes longer."""
    deadline_ns = now_ns() + int(timeout_s * NS_PER_S)
    while not (answer := found()):
        if now_ns() > deadline_ns:
            raise RecdError(f"waited {timeout_s:g} s for {what}", code="deadline")
        sleep_until_ns(now_ns() + LOOK_NS)
    return answer


def _end_with_the_storm() -> None:
    """A storm that is killed leaves no daemon: it is told to end, as by a service manager."""
    die_with_parent(signal.SIGTERM)


class Ear:
    """Everything that the daemon publishes, as an operator's client hears it, in order."""

    def __init__(self, directory: Path) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, 200)
        self._socket.subscribe("")
        self._socket.connect(event_endpoint(directory))
        self._over = threading.Event()
        self.heard: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._over.is_set():
            with suppress(zmq.Again):
                topic, body = self._socket.recv_multipart()
                if topic != b"state":
                    self.heard.append({"topic": topic.decode(), **decode(body)})
        self._socket.close()

    def close(self) -> None:
        """Stop listening."""
        self._over.set()
        self._thread.join(5)
        self._context.destroy(linger=0)


@dataclass(slots=True)
class StormSubject:
    """One robot's daemon. folder: dataset, log, configuration; base: short path for its sockets;
    variables: of its environment, besides."""

    folder: Path
    base: Path
    dataset: Path
    setting: Setting = STRICT
    variables: Mapping[str, str] = field(default_factory=dict)
    instance: str = field(default_factory=lambda: f"storm_{os.getpid()}")
    process: subprocess.Popen[bytes] | None = None
    _client: RecdClient | None = None
    ear: Ear | None = None

    @property
    def directory(self) -> Path:
        """Runtime folder of the instance."""
        return self.base / self.instance

    @property
    def log(self) -> Path:
        return self.folder / "recd.log"

    @property
    def armed_points(self) -> Path:
        """Folder that arms fault points of the running daemon."""
        return self.folder / "points"

    @property
    def client(self) -> RecdClient:
        assert self._client is not None, "only a running daemon is asked"
        return self._client

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def dead(self) -> bool:
        """True when the supervisor's process is gone."""
        return self.process is None or self.process.poll() is not None

    def start(self) -> float:
        """Start it and wait for READY; seconds that took. RecdError with its last words."""
        self.armed_points.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "recd.daemon.cli", "run", "demo"]
        for override in (
            f"name={self.instance}", f"dataset.root={self.dataset}", *self.setting.all_overrides,
        ):  # fmt: skip
            command += ["--set", override]
        environment = {
            **os.environ, "RECD_RUNTIME_DIR": str(self.base), "RECD_LOG": "json",
            FOLDER_KEY: str(self.armed_points), **self.variables,
        }  # fmt: skip
        began_ns = now_ns()
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment,
                start_new_session=True, preexec_fn=_end_with_the_storm,
            )  # fmt: skip
        await_true(self._listens, "the control socket", READY_WITHIN_S)
        self._client = RecdClient(endpoint=control_endpoint(self.directory))
        self.ear = Ear(self.directory)
        self.client.wait_until("READY", timeout_s=READY_WITHIN_S)
        return (now_ns() - began_ns) / NS_PER_S

    def _listens(self) -> bool:
        if self.dead:
            raise RecdError(f"the daemon ended:\n{last_words(self.log)}", mend=f"See {self.log}")
        with (
            suppress(RecdError),
            closing(RecdClient(endpoint=control_endpoint(self.directory), timeout_s=2)) as probe,
        ):
            return bool(probe.hello())
        return False

    def end(self) -> int:
        """Ask it to end, as a service manager does; its exit code."""
        self.forget()
        assert self.process is not None
        if not self.dead:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(ENDS_WITHIN_S)

    def forget(self) -> None:
        """Drop the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self.ear is not None:
            self.ear.close()
            self.ear = None

    def destroy(self) -> None:
        """Leave no process behind, whatever happened."""
        tree = self.tree()
        self.forget()
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process is not None:
            self.process.wait()

    def tree(self) -> list[psutil.Process]:
        """The supervisor and everything it started."""
        with suppress(psutil.NoSuchProcess):
            if self.process is not None:
                supervisor = psutil.Process(self.process.pid)
                return [supervisor, *supervisor.children(recursive=True)]
        return []

    @property
    def connected(self) -> bool:
        """True from a start until `forget`."""
        return self._client is not None

    def another_client(self) -> RecdClient:
        """A connection for another thread."""
        return RecdClient(endpoint=control_endpoint(self.directory))

    def state(self) -> str:
        """State of the session."""
        return str(self.client.status()["state"])

    def motion(self) -> str:
        """State of the pair of arms."""
        return str(self.client.status()["arms"]["main"]["motion"].get("state"))

    def rows(self) -> int:
        """Rows of the running episode, 0 when there is none."""
        episode = self.client.status()["episode"]
        return int(episode["rows"]) if episode else 0

    def worker(self, name: str) -> int:
        """Process id of a worker that runs; RecdError when it does not."""
        pid = self.client.status()["processes"][name]["pid"]
        if not pid:
            raise RecdError(f"{name} does not run")
        return int(pid)

    def worker_or_none(self, name: str) -> int | None:
        """Process id of a worker, None while it is away."""
        pid: int | None = self.client.status()["processes"][name]["pid"]
        return pid

    def bus(self, cmd: str, **arguments: Any) -> dict[str, Any]:
        """One command to the simulated buses."""
        with SimControl(self.directory / "sim") as control:
            return control.call(cmd, **arguments)

    def camera(self, cmd: str, **arguments: Any) -> dict[str, Any]:
        """One command to the simulated cameras."""
        return camera_call(str(self.directory / "sim" / "cameras.sock"), cmd, **arguments)

    def losses(self) -> dict[str, int]:
        """Ring -> records that a reader which must keep all has lost so far."""
        rings = self.client.call("shm")["rings"]
        return {
            ring["name"]: sum(
                reader["lost"] for reader in ring["readers"] if reader["policy"] == "MUST_KEEP"
            )
            for ring in rings
        }
