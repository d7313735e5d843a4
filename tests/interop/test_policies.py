"""lerobot's programs drive the arm of a running recd daemon: by its plugin, and by the sidecar."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest
from recorders import SMALL

from recd.clients.adapters.profile import load_profile
from recd.clients.policybench.faults import Fault
from recd.clients.policybench.lerobot_server import LerobotServer
from recd.clients.policybench.script import Script
from recd.config.errors import RecdError
from recd.daemon.sim import launch
from tests.e2e.policybench import OVERRIDES, PolicyBench
from tests.rig import until

pytestmark = [pytest.mark.interop, pytest.mark.policies, pytest.mark.timeout(900)]


SETTINGS = (*OVERRIDES, "policy.seam=400")
"""A policy without training may want the arm anywhere; limits and ramps are what is looked at."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PolicyBench]:
    small = [setting for setting in SMALL if "wrist" not in setting]
    folder = tmp_path_factory.mktemp("robot")
    with PolicyBench.running(folder, *SETTINGS, *small, rate_hz=60) as bench:
        yield bench


@pytest.fixture
def bench(shared: PolicyBench) -> PolicyBench:
    shared.ready()
    return shared


@contextmanager
def person_attaches(bench: PolicyBench) -> Iterator[threading.Event]:
    """A person who attaches the policy as soon as it is ready."""
    attached, stop = threading.Event(), threading.Event()

    def attend() -> None:
        while not stop.wait(0.1) and not attached.is_set():
            try:
                bench.client.call("policy.attach")
            except RecdError:
                continue  # not ready yet
            attached.set()

    person = threading.Thread(target=attend)
    person.start()
    try:
        yield attached
    finally:
        stop.set()
        person.join()


def applied(bench: PolicyBench) -> int:
    """Chunks that the arm has played so far."""
    return int(bench.gateway("policy.stats").get("chunks", {}).get("applied", 0))


def moved(bench: PolicyBench, mark: int) -> int:
    """Different goals that the joint with the most of them was given."""
    return max(len(set(goals)) for goals in bench.goals(mark).values())


def assert_it_has_driven(bench: PolicyBench, mark: int, *, more_goals_than: int) -> None:
    """The program has gone, and gave the lease back; what it asked for was done gently."""
    bench.in_state("HOLD", "lease_lost")
    bench.assert_gentle(mark)
    assert moved(bench, mark) > more_goals_than


def test_lerobot_record_drives_the_arm_with_its_own_leader(
    bench, side, plugin, whole, tally, tmp_path
) -> None:
    root, mark, before = tmp_path / "dataset", bench.control.mark(), applied(bench)
    with launch.running(tmp_path / "sim") as sim, person_attaches(bench):
        side.run(
            [
                "lerobot-record",
                "--robot.type=recd",
                f"--robot.endpoint={bench.endpoint}",
                "--teleop.type=so101_leader",
                f"--teleop.port={sim.endpoints['leader']}",
                f"--teleop.id={Path(sim.calibrations['leader']).stem}",
                f"--teleop.calibration_dir={Path(sim.calibrations['leader']).parent}",
                "--dataset.repo_id=local/by_plugin",
                f"--dataset.root={root}",
                "--dataset.single_task=Follow the leader.",
                "--dataset.num_episodes=1",
                "--dataset.episode_time_s=3",
                "--dataset.rgb_encoder.vcodec=h264",
                "--dataset.push_to_hub=false",
                "--play_sounds=false",
            ],
            variables=plugin,
            name="lerobot-record-recd",
        )
    assert_it_has_driven(bench, mark, more_goals_than=20)
    tally.add("plugin_actions", applied(bench) - before)
    whole(root, episodes=1)
    rows = ds.dataset(root / "data", format="parquet").to_table()
    action, state = (np.array(rows[name].to_pylist()) for name in ("action", "observation.state"))
    assert np.abs(action[-1] - state[-1]).max() < np.abs(action[0] - state[0]).max()


def test_lerobot_rollout_drives_the_arm(bench, side, plugin, act, tally) -> None:
    mark, before = bench.control.mark(), applied(bench)
    with person_attaches(bench) as attached:
        side.run(
            [
                "lerobot-rollout",
                "--strategy.type=base",
                f"--policy.path={act}",
                "--policy.device=cpu",
                "--robot.type=recd",
                f"--robot.endpoint={bench.endpoint}",
                "--task=Stand there.",
                "--duration=2",
            ],
            variables=plugin,
            name="lerobot-rollout",
        )
    assert attached.is_set()
    assert_it_has_driven(bench, mark, more_goals_than=3)
    tally.add("plugin_actions", applied(bench) - before)


def robot_client_plays(
    bench, side, plugin, address: str, path: object, *, task: str, name: str = "robot_client"
) -> None:
    """The unmodified robot_client moves the arm 40 times by the server at an address."""
    command = [
        "lerobot.async_inference.robot_client",
        "--robot.type=recd",
        f"--robot.endpoint={bench.endpoint}",
        f"--server_address={address}",
        "--policy_type=act",
        f"--pretrained_name_or_path={path}",
        "--actions_per_chunk=20",
        f"--task={task}",
    ]
    with (
        person_attaches(bench) as attached,
        side.running(command, variables=plugin, name=name) as client,
    ):
        until(attached.is_set, "the person")
        since = applied(bench)

        def played() -> bool:
            client.has_said("Robot connected")
            return applied(bench) > since + 40

        until(played, "40 actions of the server")


def test_robot_client_drives_the_arm_with_what_the_policy_server_says(
    bench, side, plugin, act, policy_server, tally
) -> None:
    mark, before = bench.control.mark(), applied(bench)
    robot_client_plays(bench, side, plugin, policy_server, act, task="Stand there.")
    assert_it_has_driven(bench, mark, more_goals_than=3)
    tally.add("plugin_actions", applied(bench) - before)


def by_sidecar(side, plugin, address: str, path: object, **more: object) -> tuple[str, ...]:
    """Settings of a daemon that asks the server at an address through the sidecar."""
    server = {"address": address, **more}
    return (
        *SETTINGS,
        *(setting for setting in SMALL if "wrist" not in setting),
        *(f"policy.server.{key}={value}" for key, value in server.items()),
        "policy.type=lerobot",
        f"policy.server.lerobot={{python: {side.python}, path: {path}, actions_per_chunk: 20}}",
        f"policy.server.lerobot.python_path=[{plugin['PYTHONPATH'].rpartition(':')[2]}]",
    )


@pytest.fixture
def scripted() -> Iterator[LerobotServer]:
    """The scripted server, which has neither lerobot nor torch."""
    server = LerobotServer(load_profile("", wire="lerobot"), Script(latency_ms=30, jitter_ms=5))
    try:
        yield server
    finally:
        server.close()


def test_robot_client_drives_the_arm_with_what_a_scripted_server_says(
    bench, side, plugin, scripted, tally
) -> None:
    mark, before = bench.control.mark(), applied(bench)
    robot_client_plays(bench, side, plugin, scripted.address, "scripted", task="Swing.",
                       name="robot_client-scripted")  # fmt: skip
    assert scripted.served > 2
    assert not scripted.trouble
    assert_it_has_driven(bench, mark, more_goals_than=10)
    tally.add("plugin_actions", applied(bench) - before)


def test_a_scripted_server_drives_through_the_sidecar_and_its_faults_only_hold_the_arm(
    side, plugin, scripted, tally, tmp_path
) -> None:
    asked = by_sidecar(side, plugin, scripted.address, "scripted", timeout_s=2, failures_most=20)
    with PolicyBench.running(tmp_path / "robot", *asked, rate_hz=60) as bench:
        mark = bench.control.mark()
        with person_attaches(bench) as attached:
            until(attached.is_set, "the adapter to be ready", 120)
        bench.in_state("POLICY")
        for kind in ("nan", "object", "huge", "truncated", "error", "hangup", "restart"):
            scripted.faults.set(Fault(kind))
            until(lambda kind=kind: scripted.faults.happened.get(kind), f"{kind} to happen")
            since = applied(bench)
            until(lambda since=since: applied(bench) > since + 2, f"chunks after {kind}")
            bench.in_state("POLICY")
        scripted.faults.set(Fault("stall", 1, 600.0))
        bench.in_state("HOLD", "queue_empty")
        scripted.faults.clear()
        bench.in_state("POLICY")
        assert moved(bench, mark) > 20
        bench.assert_gentle(mark)
        tally.add("scripted_chunks", applied(bench))


def test_the_policy_server_drives_the_arm_through_the_sidecar(
    side, plugin, act, policy_server, tally, tmp_path
) -> None:
    asked = by_sidecar(side, plugin, policy_server, act)
    with PolicyBench.running(tmp_path / "robot", *asked, rate_hz=60) as bench:
        mark = bench.control.mark()
        with person_attaches(bench) as attached:
            until(attached.is_set, "the adapter to be ready", 120)
        until(lambda: applied(bench) > 5, "chunks of the policy server")
        bench.in_state("POLICY")
        told = bench.gateway("policy.stats")["adapter"]
        assert "no network interface" in told["server"]["confined"]
        assert "no devices" in told["server"]["confined"]
        model = bench.leases()["main"]["model"]
        assert model == f"{policy_server} policy=act path={act}"
        assert moved(bench, mark) > 3
        bench.assert_gentle(mark)
        tally.add("sidecar_chunks", applied(bench))
