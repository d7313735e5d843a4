"""The daemon under test: a real one, started as a user starts it, in folders of its own.

It ends with its block, however that is left; nothing of it stays but the dataset.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from recd.clients.client import NotRunningError, RecdClient
from recd.config.errors import RecdError
from recd.config.models import RobotConfig
from recd.config.paths import control_endpoint
from recd.daemon.arms.side import SIM_FOLDER
from recd.daemon.dataset.decode import waiting
from recd.perf import costs, v4l2_stage
from recd.perf.scenario import Scenario, robot_of, write_configuration
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

START_TIMEOUT_S = 120.0
ARM_TIMEOUT_S = 30.0
END_TIMEOUT_S = 60.0
DECODED_S = 300.0

POSE_FILE = "pose.bin"

_LOOK_NS = 50 * NS_PER_MS
_DECODE_LOOK_NS = 500 * NS_PER_MS


@dataclass(frozen=True, slots=True)
class Subject:
    """A running daemon. client: connected to it; start_s: process start to READY; stage_pid: of the
    process with the simulated V4L2 cameras, 0 when there is none."""

    client: RecdClient
    robot: RobotConfig
    runtime_dir: Path
    root: Path
    log: Path
    pid: int
    start_s: float
    stage_pid: int = 0

    @property
    def pose_path(self) -> Path:
        """Where the simulated arms truly are."""
        return self.runtime_dir / SIM_FOLDER / POSE_FILE

    def names(self) -> dict[str, int]:
        """Process table name -> pid, of those that run."""
        told = self.client.status()["processes"]
        return {name: int(facts["pid"]) for name, facts in told.items() if facts.get("pid")}

    def tree(self) -> list[costs.Process]:
        """Every process of the daemon now."""
        found = costs.tree(self.pid, self.names())
        if self.stage_pid:
            found.append(costs.Process(self.stage_pid, f"{costs.SIMULATOR}:v4l2", simulated=True))
        return found

    def losses(self) -> dict[str, int]:
        """Ring -> records lost so far by its readers that must keep all, torn ones included."""
        rings = self.client.call("shm")["rings"]
        return {
            ring["name"]: sum(
                reader["lost"] + reader["torn"]
                for reader in ring["readers"]
                if reader["policy"] == "MUST_KEEP"
            )
            + int(ring["dropped"])
            for ring in rings
        }

    def motion(self) -> str:
        """States of the pairs' motion now, in words: TELEOP when all follow."""
        return ", ".join(sorted(_motion(self.client.status())))

    def realtime(self) -> dict[str, dict[str, str]]:
        """Real-time settings of camera and arm processes: asked for -> granted, or why not."""
        devices = self.client.call("devices")["devices"]
        return {one["process"]: dict(one["facts"].get("realtime") or {}) for one in devices}

    def await_decoded(self) -> None:
        """Until every saved episode was decoded once in the background. RecdError after a while."""
        deadline_ns = now_ns() + round(DECODED_S * NS_PER_S)
        while left := waiting(self.root):
            if now_ns() > deadline_ns:
                raise RecdError(f"{self.root}: {len(left)} episodes are still not decoded")
            sleep_until_ns(now_ns() + _DECODE_LOOK_NS)

    def arm(self) -> float:
        """Torque on and following; seconds from the command until every pair follows."""
        began = now_ns()
        self.client.arm()
        await_state(self.client, _motion, {"TELEOP"}, timeout_s=ARM_TIMEOUT_S)
        return (now_ns() - began) / NS_PER_S


def await_state(
    client: RecdClient, look: Callable[[dict[str, Any]], set[str]], wanted: set[str], *,
    timeout_s: float,
) -> None:  # fmt: skip
    """Ask `status` until `look` of it is `wanted`. RecdError when that takes too long."""
    deadline_ns = now_ns() + int(timeout_s * NS_PER_S)
    while (found := look(client.status())) != wanted:
        if now_ns() > deadline_ns:
            raise RecdError(f"expected {wanted} within {timeout_s:g} s, found {found or 'nothing'}")
        sleep_until_ns(now_ns() + _LOOK_NS)


def _motion(status: dict[str, Any]) -> set[str]:
    return {str(arm["motion"].get("state")) for arm in status["arms"].values()}


def _session(status: dict[str, Any]) -> set[str]:
    return {str(status["state"])}


@contextmanager
def running(
    scenario: Scenario, directory: Path, more: Mapping[str, Any] = MappingProxyType({}), *,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Subject]:  # fmt: skip
    """A daemon of `scenario` with its dataset and log in `directory`, READY.

    more: keys of its configuration beyond the scenario; variables: of its environment, beside
    ours. RecdError with its last words when it does not start.
    """
    instance = f"bench_{os.getpid()}"
    config, log = directory / "bench.yaml", directory / "recd.log"
    root = directory / "dataset"
    write_configuration(scenario, config, instance=instance, root=root, more=more)
    robot = robot_of(config)
    with ExitStack() as stack:
        # A folder of its own and a short one: a socket's path has at most 107 bytes.
        base = stack.enter_context(tempfile.TemporaryDirectory(prefix="recd-bench-"))
        runtime = Path(base) / instance
        stage = stack.enter_context(_stage(scenario, runtime, Path(base) / "v4l2"))
        around = {**os.environ, "RECD_RUNTIME_DIR": base, **(stage.environment if stage else {})}
        began = now_ns()
        process = stack.enter_context(_process(config, log, {**around, **(variables or {})}))
        client = stack.enter_context(_connected(process, runtime, log))
        await_state(client, _session, {"READY"}, timeout_s=START_TIMEOUT_S)
        start_s = (now_ns() - began) / NS_PER_S
        yield Subject(
            client, robot, runtime, root, log, pid=int(client.status()["pid"]), start_s=start_s,
            stage_pid=stage.pid if stage else 0,
        )  # fmt: skip
        _end(client)


def _end(client: RecdClient) -> None:
    """Ask the daemon to end. One that has ended before its answer came did what was asked, and what
    was measured is not to be lost for it."""
    with suppress(NotRunningError):
        client.shutdown(timeout_s=END_TIMEOUT_S)


@contextmanager
def _stage(scenario: Scenario, runtime: Path, folder: Path) -> Iterator[v4l2_stage.Stage | None]:
    if scenario.streamed:
        yield None
        return
    plan = v4l2_stage.StagePlan(
        names=scenario.camera_names, width=scenario.width, height=scenario.height,
        fps=scenario.camera_fps, pose=str(runtime / SIM_FOLDER / POSE_FILE),
        bus=scenario.follower, folder=str(folder), fourcc=scenario.fourcc,
    )  # fmt: skip
    with v4l2_stage.running(plan) as stage:
        yield stage


@contextmanager
def _process(
    config: Path, log: Path, variables: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "recd.daemon.cli", "run", str(config)]
    with log.open("ab") as sink:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=dict(variables),
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
        process.wait(END_TIMEOUT_S)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _connected(process: subprocess.Popen[bytes], runtime: Path, log: Path) -> RecdClient:
    socket = runtime / "ctl.sock"
    deadline_ns = now_ns() + int(START_TIMEOUT_S * NS_PER_S)
    while not socket.exists():
        if process.poll() is not None:
            raise RecdError(
                f"the daemon ended with code {process.returncode}:\n{last_words(log)}",
                mend=f"See {log}",
            )
        if now_ns() > deadline_ns:
            raise NotRunningError("the daemon opened no control socket", mend=f"See {log}")
        sleep_until_ns(now_ns() + _LOOK_NS)
    return RecdClient(endpoint=control_endpoint(runtime))


def last_words(log: Path, lines: int = 5) -> str:
    """The end of a daemon's log."""
    told = log.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join(f"  {line}" for line in told)
