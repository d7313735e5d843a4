"""What the whole daemon does to an arm when parts of it die, stop or come back, by the servos' log.

The simulated arms outlive the daemon, and their servos are of the more dangerous kind: they take
torque by themselves when they are given a goal.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest
import yaml

from recd.config.load import dump, load_robot
from recd.daemon.sim import launch
from recd.daemon.sim.servolog import writes_of
from recd.shm.clock import NS_PER_S
from tests.rig import START_S, Robot, until

RATE_HZ = 100
JOINTS = 6
LEADER, FOLLOWER = "main.leader", "main.follower"
GOAL, TORQUE = "Goal_Position", "Torque_Enable"
LONGEST_GAP_NS = NS_PER_S // 4
"""Half of the silence that makes a follower hold: 25 periods, more than a busy computer takes."""

VELOCITY_PER_S, GLIDE_PER_S, RAMP_S = 360.0, 60.0, 0.5
STEPS_PER_UNIT = dict.fromkeys(range(1, JOINTS), 4095 / 360) | {JOINTS: 15.0}
REST = {
    "shoulder_pan": 0.0, "shoulder_lift": -85.0, "elbow_flex": 70.0, "wrist_flex": 40.0,
    "wrist_roll": 0.0, "gripper": 5.0,
}  # fmt: skip
DANGEROUS = "goal_enables_torque"


def largest_step(ident: int, per_s: float = VELOCITY_PER_S) -> float:
    """Steps by which two goals in a row may differ; truncation to steps costs up to two."""
    return per_s / RATE_HZ * STEPS_PER_UNIT[ident] + 2


class Bench:
    """Simulated arms that outlive the daemon, and a daemon on them."""

    def __init__(self, sim: launch.RunningSim, folder: Path, *overrides: str) -> None:
        self.sim = sim
        self.folder = folder
        self.control = sim.control
        buses = list(sim.endpoints)
        by_id = {bus: arm["by_id"] for bus, arm in sim.control.describe()["arms"].items()}
        pairs = sorted({bus.partition(".")[0] for bus in buses})
        self.overrides = ["cameras.wrist=null"]
        self.overrides += [f"arms.{bus}.port={by_id[bus]}" for bus in buses]
        self.overrides += [f"arms.{bus}.calibration={sim.calibrations[bus]}" for bus in buses]
        for pair in pairs:
            limits = f"arms.{pair}.limits"
            # The leader goes on demonstrating: wherever it is by then, the follower glides there.
            self.overrides += [
                f"arms.{pair}.rate_hz={RATE_HZ}", f"{limits}.align_error=400",
                f"{limits}.ramp_s={RAMP_S}", f"{limits}.idle_park_s=0",
            ]  # fmt: skip
        self.overrides += overrides
        self.robot = Robot(folder, *self.overrides)

    @property
    def client(self) -> Any:
        return self.robot.client

    def teleoperating(self, bus: str = FOLLOWER) -> None:
        """Everything plugged in, alive, and following."""
        pair = bus.partition(".")[0]
        for name, arm in self.control.describe()["arms"].items():
            self.control.clear(bus=name)
            if not arm["plugged"]:
                self.control.plug(bus=name)
        self.control.hand(bus=f"{pair}.leader", kind="attend")
        until(lambda: self._ready(), "READY", START_S)
        if self.motion(pair)["state"] != "TELEOP":
            self.client.arm(pair)
            until(lambda: self.motion(pair)["state"] == "TELEOP", "TELEOP")
        self.ticks(30, bus)

    def _ready(self) -> bool:
        processes = self.client.status()["processes"]
        return all(p["state"] not in ("CONNECTING", "") for n, p in processes.items()
                   if n.startswith("arm:"))  # fmt: skip

    def motion(self, pair: str = "main") -> dict[str, Any]:
        return self.client.status()["arms"][pair]["motion"] or {"state": "", "cause": ""}

    def in_state(self, state: str, cause: str, pair: str = "main") -> None:
        wanted = (state, cause)
        until(
            lambda: (self.motion(pair)["state"], self.motion(pair)["cause"]) == wanted,
            f"{state} ({cause})", START_S,
        )  # fmt: skip

    def ticks(self, count: int, bus: str = FOLLOWER) -> None:
        """Wait until a bus has carried as many more requests."""

        def requests() -> int:
            return int(self.control.describe()["arms"][bus]["requests"])

        upto = requests() + count
        until(lambda: requests() >= upto, f"{count} requests on {bus}")

    def worker(self, bus: str) -> psutil.Process:
        return self.robot.workers()[f"arm:{bus}"]

    def torque(self, bus: str = FOLLOWER) -> list[bool]:
        return [j["torque"] for j in self.control.describe()["arms"][bus]["joints"].values()]

    def torque_changes(self, since: int, bus: str = FOLLOWER) -> list[tuple[int, bool]]:
        """(servo, on) for each change of torque, by whatever cause."""
        return [
            (entry.fields["id"], entry.fields["on"])
            for entry in self.control.entries(since=since, bus=bus)
            if entry.kind == "torque"
        ]

    def goals(self, since: int, bus: str = FOLLOWER) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {ident: [] for ident in range(1, JOINTS + 1)}
        for write in self.control.writes(since=since, bus=bus, name=GOAL):
            found[write.ident].append(write.value)
        return found

    def assert_untouched(self, since: int, bus: str = FOLLOWER) -> None:
        assert self.control.writes(since=since, bus=bus) == []
        assert self.torque_changes(since, bus) == []

    def assert_stood_still(self, since: int, bus: str = FOLLOWER) -> None:
        """No goal since then but, at most, the last one once more."""
        assert all(len(set(goals)) <= 1 for goals in self.goals(since, bus).values())
        assert self.torque_changes(since, bus) == []

    def moved(self, since: int) -> bool:
        """Whether the three joints that every demonstration moves have got different goals."""
        return all(len(set(goals)) > 1 for at, goals in self.goals(since).items() if at < 4)

    def assert_never_left_alone(self, since: int) -> None:
        """A goal for every joint all the time since then, at the rate of the control loop."""
        times: dict[int, list[int]] = {ident: [] for ident in range(1, JOINTS + 1)}
        for write in self.control.writes(since=since, bus=FOLLOWER, name=GOAL):
            times[write.ident].append(write.t_ns)
        for ident, written_ns in times.items():
            gaps = [b - a for a, b in itertools.pairwise(written_ns)]
            assert max(gaps) <= LONGEST_GAP_NS, (ident, max(gaps))
            assert median(gaps) < 1.5 * NS_PER_S / RATE_HZ, (ident, median(gaps))

    def assert_gentle(self, since: int, bus: str = FOLLOWER) -> None:
        """No two goals in a row, while torque is on, lie further apart than a period allows."""
        last: dict[int, int] = {}
        count = 0
        for entry in self.control.entries(since=since, bus=bus):
            if entry.kind == "torque" and not entry.fields["on"]:
                last.pop(entry.fields["id"], None)
            for write in writes_of(entry):
                if write.name == GOAL:
                    step = abs(write.value - last.get(write.ident, write.value))
                    assert step <= largest_step(write.ident), (write.ident, step)
                    last[write.ident] = write.value
                    count += 1
        assert count > 0

    def stop_daemon(self) -> None:
        if self.robot.process is not None and self.robot.process.poll() is None:
            self.robot.end()

    def kill_daemon(self) -> None:
        """The supervisor dies at once; wait until its workers have followed."""
        tree = self.robot.tree()
        os.kill(self.robot.process.pid, signal.SIGKILL)
        self.robot.process.wait()
        self.robot.close_client()
        until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in tree),
              "all processes to end")  # fmt: skip


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[launch.RunningSim]:
    directory = tmp_path_factory.mktemp("sim")
    settings = {f"{FOLLOWER}.{DANGEROUS}": True}
    with launch.running(directory, pairs=["main"], hand="attend", settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def shared(sim: launch.RunningSim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(sim, tmp_path_factory.mktemp("robot"), "arms.main.torque_on_exit=hold")
    yield made
    made.stop_daemon()


@pytest.fixture
def bench(shared: Bench) -> Bench:
    """A daemon that teleoperates."""
    if shared.robot.process is None or shared.robot.process.poll() is not None:
        shared.robot.start()
    shared.teleoperating()
    return shared


@pytest.fixture
def free(sim: launch.RunningSim, shared: Bench) -> launch.RunningSim:
    """Arms without torque that no daemon holds."""
    shared.stop_daemon()
    sim.control.brown_out(bus=FOLLOWER, down_ms=0)
    sim.control.hand(bus=LEADER, kind="attend")
    return sim


def test_boot_writes_settings_only_and_a_second_boot_nothing(free, tmp_path) -> None:
    first = Bench(free, tmp_path)
    mark = free.control.mark()
    first.robot.start()
    first.ticks(50)
    assert first.motion()["state"] == "DISARMED"
    for bus in (LEADER, FOLLOWER):
        assert first.torque_changes(mark, bus) == []
        names = {write.name for write in free.control.writes(since=mark, bus=bus)}
        assert not names & {GOAL, TORQUE}
    first.stop_daemon()
    mark = free.control.mark()
    first.robot.start()
    first.ticks(50)
    first.stop_daemon()
    for bus in (LEADER, FOLLOWER):
        first.assert_untouched(mark, bus)


def test_teleoperation_goes_on_through_stop_save_and_start(bench) -> None:
    client, began = bench.client, bench.motion()["since_ns"]
    begin = bench.control.mark()
    for _ in range(2):
        client.start()
        until(lambda: bench.robot.rows() >= 30, "30 rows")
        mark = bench.control.mark()
        assert client.stop()["state"] == "saved"
        until(lambda since=mark: bench.moved(since), "the goals of the first three joints to move")
    bench.assert_never_left_alone(begin)
    told = bench.motion()
    assert (told["state"], told["since_ns"]) == ("TELEOP", began)
    assert bench.torque_changes(begin) == []
    bench.assert_gentle(begin)


def test_a_killed_follower_process_leaves_the_arm_holding_until_arm(bench) -> None:
    begin = bench.control.mark()
    before = bench.worker(FOLLOWER)
    before.kill()
    bench.in_state("HOLD", "found_with_torque")
    mark = bench.control.mark()
    assert bench.worker(FOLLOWER).pid != before.pid
    bench.ticks(60)
    bench.assert_untouched(mark)
    bench.client.arm()
    bench.in_state("TELEOP", "command")
    bench.ticks(100)
    assert bench.torque_changes(begin) == []
    bench.assert_gentle(begin)


def test_a_killed_leader_process_makes_the_follower_hold_until_resume(bench) -> None:
    begin = bench.control.mark()
    before = bench.worker(LEADER)
    before.kill()
    bench.in_state("HOLD", "leader_silent")
    mark = bench.control.mark()
    until(lambda: bench.robot.workers().get(f"arm:{LEADER}", before).pid != before.pid, "a leader")
    bench.ticks(60, LEADER)
    bench.ticks(60)
    bench.assert_stood_still(mark)
    bench.client.resume()
    bench.in_state("TELEOP", "command")
    bench.ticks(100)
    assert bench.torque_changes(begin) == []
    bench.assert_gentle(begin)


def test_a_leader_stopped_for_two_seconds_does_not_move_the_arm_when_it_goes_on(bench) -> None:
    begin = bench.control.mark()
    leader = bench.worker(LEADER)
    leader.suspend()
    bench.in_state("HOLD", "leader_silent")
    mark = bench.control.mark()
    bench.ticks(2 * RATE_HZ)
    leader.resume()
    bench.ticks(60, LEADER)
    bench.assert_stood_still(mark)
    assert bench.motion()["state"] == "HOLD"
    bench.client.resume()
    bench.in_state("TELEOP", "command")
    bench.ticks(100)
    bench.assert_gentle(begin)


@pytest.mark.parametrize("power_gone", [False, True])
def test_a_follower_stopped_for_two_seconds_does_not_move_when_it_goes_on(
    bench, power_gone
) -> None:
    begin = bench.control.mark()
    follower = bench.worker(FOLLOWER)
    follower.suspend()
    try:
        if power_gone:
            bench.control.brown_out(bus=FOLLOWER, down_ms=100)
        bench.ticks(2 * RATE_HZ, LEADER)  # the demonstration goes on meanwhile
        mark = bench.control.mark()
    finally:
        follower.resume()
    if power_gone:
        bench.in_state("FAULT", "torque_lost")
    else:
        bench.in_state("HOLD", "loop_stalled")
    bench.ticks(60)
    bench.assert_stood_still(mark)
    assert bench.torque() == [not power_gone] * JOINTS
    bench.client.arm() if power_gone else bench.client.resume()
    bench.in_state("TELEOP", "command")
    bench.ticks(100)
    bench.assert_gentle(begin)


def test_a_stopped_supervisor_changes_nothing_for_the_arm(bench) -> None:
    begin = bench.control.mark()
    supervisor = psutil.Process(bench.robot.process.pid)
    supervisor.suspend()
    try:
        bench.ticks(2 * RATE_HZ)
        goals = bench.goals(begin)
    finally:
        supervisor.resume()
    assert all(len(told) > RATE_HZ // 4 for told in goals.values())
    assert bench.motion()["state"] == "TELEOP"
    bench.ticks(60)
    assert bench.torque_changes(begin) == []
    bench.assert_gentle(begin)


def test_a_follower_plugged_in_under_another_name_holds_until_arm(bench) -> None:
    begin = bench.control.mark()
    bench.control.unplug(bus=FOLLOWER)
    until(lambda: bench.client.status()["processes"][f"arm:{FOLLOWER}"]["state"] == "CONNECTING",
          "CONNECTING")  # fmt: skip
    assert bench.torque() == [True] * JOINTS
    bench.control.plug(bus=FOLLOWER, link=str(bench.sim.directory / "elsewhere"))
    bench.in_state("HOLD", "found_with_torque")
    mark = bench.control.mark()
    bench.ticks(60)
    bench.assert_untouched(mark)
    bench.client.arm()
    bench.in_state("TELEOP", "command")
    bench.ticks(100)
    assert bench.torque_changes(begin) == []
    bench.assert_gentle(begin)


def test_a_leader_plugged_in_again_at_another_pose_moves_nothing_before_resume(bench) -> None:
    begin = bench.control.mark()
    bench.control.unplug(bus=LEADER)
    bench.in_state("HOLD", "leader_silent")
    mark = bench.control.mark()
    pan = bench.control.describe()["arms"][FOLLOWER]["joints"]["shoulder_pan"]["steps"]
    aside = pan + 600 if pan < 2048 else pan - 600
    bench.control.place(bus=LEADER, joints={"shoulder_pan": aside})
    bench.control.hand(bus=LEADER, kind="still")
    bench.control.plug(bus=LEADER)
    bench.ticks(60, LEADER)
    bench.ticks(60)
    bench.assert_stood_still(mark)
    mark = bench.control.mark()
    bench.client.resume()
    bench.in_state("TELEOP", "command")
    until(lambda: abs((bench.goals(mark)[1] or [pan])[-1] - aside) < 20, "the glide to end")
    first = bench.goals(mark)[1][: round(RAMP_S * RATE_HZ / 2)]
    steps = [abs(b - a) for a, b in itertools.pairwise(first)]
    assert max(steps) <= largest_step(1, GLIDE_PER_S)
    bench.assert_gentle(begin)


def test_a_brown_out_is_a_fault_and_torque_comes_back_by_arm_alone(bench) -> None:
    mark = bench.control.mark()
    bench.control.brown_out(bus=FOLLOWER, down_ms=250)
    until(lambda: bench.motion()["state"] == "FAULT", "FAULT")
    bench.ticks(100)
    assert {on for _, on in bench.torque_changes(mark)} == {False}
    bench.client.arm()
    bench.in_state("TELEOP", "command")
    bench.ticks(60)
    bench.assert_gentle(mark)


def test_estop_stands_still_and_a_second_one_applies_the_policy(bench) -> None:
    bench.client.estop()
    mark = bench.control.mark()
    assert (bench.motion()["state"], bench.motion()["cause"]) == ("HOLD", "estop")
    bench.ticks(100)
    bench.assert_stood_still(mark)
    bench.client.estop()
    bench.ticks(60)
    assert bench.motion()["armed"] is False
    assert bench.torque() == [True] * JOINTS  # the policy of this robot is hold


def test_a_killed_daemon_leaves_the_arm_holding_and_the_next_one_moves_nothing(bench) -> None:
    begin = bench.control.mark()
    bench.kill_daemon()
    assert bench.torque() == [True] * JOINTS
    bench.assert_gentle(begin)
    mark = bench.control.mark()
    bench.robot.start()
    bench.in_state("HOLD", "found_with_torque")
    bench.ticks(60)
    bench.assert_untouched(mark)
    bench.client.arm()
    bench.in_state("TELEOP", "command")
    bench.ticks(100)
    assert bench.torque_changes(begin) == []
    bench.assert_gentle(begin)


def test_only_the_end_of_the_daemon_itself_applies_the_torque_policy(free, tmp_path) -> None:
    made = Bench(free, tmp_path, "arms.main.torque_on_exit=release")
    made.robot.start()
    try:
        made.teleoperating()
        begin = made.control.mark()
        made.worker(FOLLOWER).terminate()
        made.in_state("HOLD", "found_with_torque")
        made.client.arm()
        made.in_state("TELEOP", "command")
        made.kill_daemon()
        assert made.torque_changes(begin) == []
        made.robot.start()
        made.teleoperating()
        assert made.torque_changes(begin) == []
        assert made.robot.end() == 0
        assert made.torque() == [False] * JOINTS
        made.assert_gentle(begin)
    finally:
        made.stop_daemon()


def test_recctl_release_lets_go_of_the_arm_of_a_dead_daemon(bench) -> None:
    config = bench.folder / "robot.yaml"
    root = f"dataset.root={bench.robot.root}"
    plain = dump(load_robot("demo", overrides=[root, *bench.overrides]))
    config.write_text(yaml.safe_dump(dict(plain)))
    command = [sys.executable, "-m", "recd.clients.recctl.cli", "release", str(config)]
    command += ["--policy", "release"]
    refused = subprocess.run(command, capture_output=True, text=True, env=bench.robot.environment)
    assert refused.returncode != 0
    assert "is in use by" in refused.stderr + refused.stdout
    assert bench.torque() == [True] * JOINTS
    bench.kill_daemon()
    mark = bench.control.mark()
    done = subprocess.run(command, capture_output=True, text=True, env=bench.robot.environment)
    assert done.returncode == 0, done.stderr
    assert sorted(bench.torque_changes(mark)) == [(i, False) for i in range(1, JOINTS + 1)]
    assert bench.goals(mark) == {ident: [] for ident in range(1, JOINTS + 1)}


def test_an_idle_arm_is_brought_to_rest_and_only_then_released(free, tmp_path) -> None:
    park = [f"arms.main.park.{joint}={place}" for joint, place in REST.items()]
    idle = Bench(free, tmp_path, *park, "arms.main.limits.idle_park_s=1.5")
    idle.robot.start()
    try:
        idle.teleoperating()
        begin = free.control.mark()
        free.control.hand(bus=LEADER, kind="still")
        idle.in_state("DISARMED", "parked")
        assert idle.torque() == [False] * JOINTS
        names = [write.name for write in free.control.writes(since=begin, bus=FOLLOWER)]
        assert names.index(TORQUE) > max(at for at, n in enumerate(names) if n == GOAL)
        idle.assert_gentle(begin)
    finally:
        idle.stop_daemon()


def test_two_pairs_in_one_daemon_do_not_disturb_each_other(tmp_path) -> None:
    with launch.running(tmp_path / "sim", pairs=["left", "right"], hand="attend") as arms:
        two = Bench(arms, tmp_path, "arms.main=null")
        two.robot.start()
        try:
            _left_falls_away_while_right_goes_on(two)
        finally:
            two.stop_daemon()


def _left_falls_away_while_right_goes_on(two: Bench) -> None:
    left, right = "left.follower", "right.follower"
    begin = two.control.mark()
    two.teleoperating(left)
    assert two.torque(right) == [False] * JOINTS
    two.teleoperating(right)
    began = two.motion("right")["since_ns"]
    saved = two.robot.record(20)
    assert saved["state"] == "saved"
    info = json.loads((two.robot.root / "meta" / "info.json").read_text())
    names = info["features"]["observation.state"]["names"]
    assert names[0] == "left_shoulder_pan.pos"
    assert names[-1] == "right_gripper.pos"
    assert len(names) == 2 * JOINTS

    two.client.estop("left")
    two.in_state("HOLD", "estop", "left")
    mark = two.control.mark()
    two.ticks(60, right)
    two.assert_stood_still(mark, left)
    two.client.arm("left")
    two.in_state("TELEOP", "command", "left")
    two.worker(left).kill()
    two.in_state("HOLD", "found_with_torque", "left")
    mark = two.control.mark()
    two.ticks(60, right)
    two.assert_untouched(mark, left)
    assert all(len(goals) > 5 for goals in two.goals(mark, right).values())
    told = two.motion("right")
    assert (told["state"], told["since_ns"]) == ("TELEOP", began)
    for bus in (left, right):
        assert {on for _, on in two.torque_changes(begin, bus)} == {True}
        two.assert_gentle(begin, bus)
