"""What the daemon tells systemd, heard at a notify socket of our own. No systemd is needed."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recd.daemon.supervisor.notify import Notifier
from recd.daemon.supervisor.statusline import LONGEST, starting_line, status_line
from recd.shm.clock import NS_PER_S, now_ns

from .conftest import SIMULATED, Daemon, until

Start = Callable[..., Daemon]
WATCHDOG_NS = 400_000_000


class Manager:
    """The listening end of $NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.address)
        self.heard: list[str] = []
        self._looked_at = 0

    @property
    def environment(self) -> dict[str, str]:
        return {
            "NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": str(WATCHDOG_NS // 1000),
            "WATCHDOG_PID": "",
        }  # fmt: skip

    def hear(self, timeout_s: float = 30.0) -> str:
        """The next datagram; TimeoutError when none comes."""
        self.socket.settimeout(timeout_s)
        self.heard += self.socket.recv(4096).decode().splitlines()
        return self.heard[-1]

    def until(self, line: str, *, naming: str = "") -> None:
        """Hear until a line begins so and names `naming`; what comes after it is looked at by the
        next call."""
        deadline_ns = now_ns() + 60 * NS_PER_S
        while True:
            while self._looked_at < len(self.heard):
                self._looked_at += 1
                heard = self.heard[self._looked_at - 1]
                if heard.startswith(line) and naming in heard:
                    return
            assert now_ns() < deadline_ns, (line, set(self.heard))
            self.hear()

    def starving(self) -> None:
        """Hear until the watchdog would have bitten: nothing fed it for a whole period."""
        fed_ns, deadline_ns = now_ns(), now_ns() + 30 * NS_PER_S
        while now_ns() - fed_ns < WATCHDOG_NS:
            assert now_ns() < deadline_ns, "the watchdog is fed on and on"
            try:
                self.hear(WATCHDOG_NS / 4e9)
            except TimeoutError:
                continue
            if self.heard[-1] == "WATCHDOG=1":
                fed_ns = now_ns()
        self._looked_at = len(self.heard)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    listening = Manager(tmp_path / "notify")
    yield listening
    listening.socket.close()


def test_ready_comes_after_recovery_and_until_then_the_start_is_told_and_prolonged(
    start_daemon: Start, manager: Manager, tmp_path: Path
) -> None:
    gate = tmp_path / "recovered"
    daemon = start_daemon(writer={"ready_after": str(gate)}, environment=manager.environment)
    manager.until("STATUS=starting: recovering what an earlier session left")
    manager.until("EXTEND_TIMEOUT_USEC=60000000")
    assert not any(line.startswith("READY") for line in manager.heard)
    assert not (daemon.runtime / "ctl.sock").exists()
    gate.touch()
    manager.until("READY=1")
    assert f"MAINPID={daemon.process.pid}" in manager.heard
    assert (daemon.runtime / "ctl.sock").exists()
    daemon.end()


def test_ready_waits_for_every_process_but_not_for_one_that_said_why_it_cannot(
    start_daemon: Start, manager: Manager, tmp_path: Path
) -> None:
    gate = tmp_path / "warm"
    start_daemon(
        camera__front={"refuse": True}, arm__main_follower={"ready_after": str(gate)},
        environment=manager.environment,
    )  # fmt: skip
    manager.until("STATUS=starting: waiting for arm:main.follower")
    gate.touch()
    manager.until("READY=1")
    # IDLE, or FAULT where the camera has been given up before the arm was ready.
    manager.until("STATUS=", naming="camera:front")


def test_the_status_follows_the_session_and_ends_with_stopping(
    start_daemon: Start, manager: Manager
) -> None:
    daemon = start_daemon(environment=manager.environment, writer={"commit_s": 0.3})
    manager.until("STATUS=READY; arms ")
    uid = daemon.ok("start")["uid"]
    manager.until(f"STATUS=RECORDING {uid}")
    daemon.ok("stop")
    manager.until("STATUS=READY; arms ")
    assert daemon.end() == 0
    manager.until("STOPPING=1")


def test_a_status_that_found_the_queue_full_is_told_as_soon_as_there_is_room(
    manager: Manager,
) -> None:
    notifier = Notifier(manager.environment)
    while notifier.send(WATCHDOG="1"):
        pass
    notifier.status("RECORDING")
    manager.hear()
    notifier.status("RECORDING")
    manager.until("STATUS=RECORDING")
    notifier.close()


def test_a_daemon_that_refuses_to_start_says_why_in_its_status(
    start_daemon: Start, manager: Manager
) -> None:
    from recd.config.errors import RecdError
    from recd.daemon import cli

    os.environ["NOTIFY_SOCKET"] = manager.address
    try:
        cli._tell(RecdError("dataset.root: expected a folder, found a file", mend="move it"))
    finally:
        del os.environ["NOTIFY_SOCKET"]
    manager.until("STATUS=refused: dataset.root: expected a folder, found a file")


def test_a_frozen_arm_starves_the_watchdog_although_the_supervisor_lives(
    start_daemon: Start, manager: Manager
) -> None:
    daemon = start_daemon(
        environment=manager.environment, timing={"arm:main.follower": {"stale_after_ns": 600_000}}
    )
    manager.until("WATCHDOG=1")
    arm = daemon.pid_of("arm:main.follower")
    os.kill(arm, signal.SIGSTOP)
    manager.starving()
    assert daemon.status()["processes"]["arm:main.follower"]["pid"] == arm
    os.kill(arm, signal.SIGCONT)
    manager.until("WATCHDOG=1")


def test_a_frozen_camera_or_an_arm_known_to_be_stopped_does_not_starve_the_watchdog(
    start_daemon: Start, manager: Manager
) -> None:
    daemon = start_daemon(
        environment=manager.environment, timing={"camera:front": {"stale_after_ns": 600_000}}
    )
    manager.until("WATCHDOG=1")
    os.kill(daemon.pid_of("camera:front"), signal.SIGSTOP)

    def given_up() -> bool:
        arm = daemon.status()["processes"]["arm:main.follower"]
        if arm["pid"]:
            os.kill(arm["pid"], signal.SIGKILL)
        return bool(arm["phase"] == "given_up")

    until(given_up, "the arm given up")
    for _ in range(20):
        manager.until("WATCHDOG=1")


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({}, "READY; arms TELEOP"),
        ({"degraded": ["camera:wrist"]}, "READY; arms TELEOP; degraded: camera:wrist"),
        ({"fault": "writer has given up", "state": "FAULT"},
         "FAULT; writer has given up; arms TELEOP"),
        ({"flags": {"low_disk": True}}, "READY; arms TELEOP; disk nearly full"),
        ({"committing": ["a", "b"]}, "READY; arms TELEOP; saving 2"),
        ({"stage": "finishing"}, "ending: saving the last episode; arms TELEOP"),
        ({"episode": {"uid": "0a1b"}, "state": "RECORDING"}, "RECORDING 0a1b; arms TELEOP"),
        ({"arms": {"left": {"motion": {"state": "HOLD"}}, "right": {"motion": {}}}},
         "READY; arms left HOLD, right away"),
    ],
)  # fmt: skip
def test_the_status_line_says_what_is_done_and_what_is_wrong(
    said: dict[str, Any], line: str
) -> None:
    brief = {
        "state": "READY", "stage": "running", "fault": "", "waiting_for": [], "degraded": [],
        "flags": {}, "committing": [], "episode": None,
        "arms": {"main": {"motion": {"state": "TELEOP"}}},
    }  # fmt: skip
    assert status_line({**brief, **said}) == line


def test_a_long_reason_is_cut_and_a_start_names_what_it_waits_for() -> None:
    assert len(starting_line([f"camera:c{i}" for i in range(99)])) == LONGEST
    assert starting_line(["camera:a", "arm:b"]) == "starting: waiting for camera:a, arm:b"


def test_the_simulated_robot_is_no_exception(start_daemon: Start, manager: Manager) -> None:
    start_daemon(set=SIMULATED, environment=manager.environment)
    manager.until("READY=1")
