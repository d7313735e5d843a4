"""What the whole daemon does to an arm when parts of it die, stop or come back, by the servos' log.

The simulated arms outlive the daemon, and their servos are of the more dangerous kind: they take
torque by themselves when they are given a goal.
"""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
import yaml

from recd.config.load import dump, load_robot
from recd.daemon.sim import launch
from tests.e2e.armbench import (
    FOLLOWER,
    GLIDE_PER_S,
    GOAL,
    JOINTS,
    LEADER,
    RAMP_S,
    RATE_HZ,
    TORQUE,
    Bench,
    largest_step,
)
from tests.rig import stolen_ns, until

REST = {
    "shoulder_pan": 0.0, "shoulder_lift": -85.0, "elbow_flex": 70.0, "wrist_flex": 40.0,
    "wrist_roll": 0.0, "gripper": 5.0,
}  # fmt: skip
DANGEROUS = "goal_enables_torque"


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
    begin, stolen_before_ns = bench.control.mark(), stolen_ns()
    for _ in range(2):
        client.start()
        until(lambda: bench.robot.rows() >= 30, "30 rows")
        mark = bench.control.mark()
        assert client.stop()["state"] == "saved"
        until(lambda since=mark: bench.moved(since), "the goals of the first three joints to move")
    bench.assert_never_left_alone(begin, stolen_before_ns=stolen_before_ns)
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


def _another_leader(bench: Bench, before: psutil.Process) -> psutil.Process:
    """The leader's process that the supervisor started after `before`."""

    def other() -> psutil.Process | None:
        found = bench.robot.workers().get(f"arm:{LEADER}", before)
        return found if found.pid != before.pid else None

    return until(other, "a leader")


def test_a_killed_leader_process_makes_the_follower_hold_until_resume(bench) -> None:
    begin = bench.control.mark()
    first = bench.worker(LEADER)
    first.kill()
    # A quick computer has it back within the half second in which the follower only waits. After a
    # second end the supervisor alone waits for that long.
    before = _another_leader(bench, first)
    before.kill()
    bench.in_state("HOLD", "leader_silent")
    mark = bench.control.mark()
    _another_leader(bench, before)
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
    until(lambda: bench.moved(begin), "the follower to be moving")
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
