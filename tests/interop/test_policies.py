"""lerobot's programs drive the robot of a running recd daemon: as its plugin, and through the sidecar."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lerobot_side import Lerobot
from recorders import SMALL, SMALL_SIZE, Rig

from recd.config.errors import RecdError
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns
from tests.e2e.policybench import OVERRIDES, PolicyBench
from tests.rig import running

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

POSE = (0.0, -85.0, 70.0, 40.0, 0.0, 5.0)
"""Where the policies want the arm: near where the simulated follower lies at first."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PolicyBench]:
    small = [setting for setting in SMALL if "wrist" not in setting]
    with running(tmp_path_factory.mktemp("robot"), *small, *OVERRIDES) as robot:
        robot.arm()
        yield PolicyBench(robot)


@pytest.fixture(scope="module")
def act(side: Lerobot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("act")
    side.run(["tiny_act.py", str(folder), *map(str, SMALL_SIZE), *map(str, POSE)], name="tiny_act")
    return folder


@contextmanager
def person_attaches(bench: PolicyBench) -> Iterator[list[int]]:
    """A person who attaches whatever policy is ready; how often so far."""
    attached: list[int] = []
    stop = threading.Event()

    def attend() -> None:
        while not stop.wait(0.1):
            try:
                bench.robot.client.call("policy.attach")
            except RecdError:
                continue
            attached.append(bench.control.mark())
            return

    person = threading.Thread(target=attend)
    person.start()
    try:
        yield attached
    finally:
        stop.set()
        person.join()


def test_lerobot_rollout_drives_the_arm(bench, side, plugin, act, tally) -> None:
    bench.ready()
    mark = bench.control.mark()
    with person_attaches(bench) as attached:
        side.run(
            [
                "lerobot-rollout",
                "--strategy.type=base",
                f"--policy.path={act}",
                "--policy.device=cpu",
                "--robot.type=recd",
                f"--robot.endpoint={bench.endpoint}",
                "--task=stand there",
                "--duration=3",
            ],
            variables=plugin,
            name="lerobot-rollout",
        )
    assert attached
    bench.assert_gentle(mark)
