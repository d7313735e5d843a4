"""The watchdog is for a daemon that hangs, never for a camera that is missing."""

import socket
from pathlib import Path

import pytest

from recd.daemon.sim.camera_control import call
from recd.shm.clock import NS_PER_S, now_ns
from tests.rig import Robot, until

WATCHDOG_NS = 3 * NS_PER_S
"""It is fed twice in this time; what is left over is for the host of a busy computer."""


class Watched(Robot):
    """A robot whose daemon has a service manager: a socket of the test."""

    notify = ""

    @property
    def environment(self) -> dict[str, str]:
        return {
            **super().environment, "NOTIFY_SOCKET": self.notify,
            "WATCHDOG_USEC": str(WATCHDOG_NS // 1000), "WATCHDOG_PID": "",
        }  # fmt: skip


@pytest.mark.parametrize("periods", [3, pytest.param(10, marks=pytest.mark.soak)])
def test_without_any_camera_for_many_watchdog_periods_the_daemon_lives_and_the_arms_follow(
    tmp_path: Path, periods: int
) -> None:
    robot = Watched(tmp_path, "name=demo", "dataset.encoder.vcodec=h264")
    robot.notify = str(robot.runtime / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(robot.notify)
        try:
            robot.start()
            robot.arm()
            cameras = str(robot.runtime / "demo" / "sim" / "cameras.sock")
            for camera in ("front", "wrist"):
                call(cameras, "fault", camera=camera, kind="disconnect")
            until(lambda: _away(robot), "both cameras to be away")
            before = _ticks(robot)
            assert _longest_gap_ns(manager, periods * WATCHDOG_NS) < WATCHDOG_NS
            assert robot.process is not None
            assert robot.process.poll() is None
            assert _away(robot)
            assert robot.motion() == "TELEOP"
            assert _ticks(robot) > before
            call(cameras, "clear", camera="*")
            assert robot.client is not None
            robot.client.wait_until("READY", timeout_s=60)
        finally:
            code = robot.end()
        assert code == 0


def _away(robot: Robot) -> bool:
    assert robot.client is not None
    cameras = robot.client.status()["cameras"]
    return all(camera["state"] not in ("running", "starting") for camera in cameras.values())


def _ticks(robot: Robot) -> int:
    assert robot.client is not None
    return int(robot.client.status()["arms"]["main"]["follower"]["ticks"])


def _longest_gap_ns(manager: socket.socket, span_ns: int) -> int:
    """The longest time without WATCHDOG=1 within `span_ns`, as systemd would have seen it."""
    fed_ns = begun_ns = now_ns()
    longest = 0
    manager.settimeout(WATCHDOG_NS / NS_PER_S)
    while now_ns() - begun_ns < span_ns:
        try:
            said = manager.recv(4096)
        except TimeoutError:
            return now_ns() - fed_ns
        if b"WATCHDOG=1" in said.splitlines():
            longest, fed_ns = max(longest, now_ns() - fed_ns), now_ns()
    return longest
