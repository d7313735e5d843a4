"""Between a person and a program at the whole daemon: take-over by hand, driven leader, replay."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from recd.clients.replay import Replay, read_actions
from recd.config.errors import RecdError
from recd.config.streams import GoalSource
from recd.daemon.arms.calibration import load_calibration
from recd.daemon.arms.models import ARM_MODELS, joint_units
from tests.e2e.policybench import FOLLOWER, OVERRIDES, PolicyBench
from tests.e2e.test_policy import arrows
from tests.rig import running, until

LEADER = "main.leader"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PolicyBench]:
    more = ("arms.main.hand_over.moved=5", "arms.main.hand_over.leader=driven",
            "arms.main.telemetry_hz=50", "simulation.demonstration=false")  # fmt: skip
    with running(tmp_path_factory.mktemp("robot"), *OVERRIDES, *more) as robot:
        robot.arm()
        bench = PolicyBench(robot)
        yield bench
        bench.control.close()


@pytest.fixture
def bench(shared: PolicyBench) -> PolicyBench:
    shared.control.hand(bus=LEADER, kind="still")
    shared.ready()
    return shared


def torque(bench: PolicyBench, bus: str) -> list[bool]:
    joints = bench.control.describe()["arms"][bus]["joints"]
    return [bool(joint["torque"]) for joint in joints.values()]


def push(bench: PolicyBench, joint: str = "shoulder_pan", by: int = 200) -> None:
    at = bench.control.describe()["arms"][LEADER]["joints"][joint]["steps"]
    bench.control.script(bus=LEADER, frames=[[0.3, {joint: at + by}]])


def test_whoever_moves_the_leader_has_the_arm_and_the_policy_needs_a_persons_word(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        mark = bench.control.mark()
        sent = [bench.send(policy) for _ in range(20)]
        assert sent
        assert bench.motion()["state"] in ("POLICY", "HOLD"), (
            "a leader that lies still does nothing"
        )
        bench.rejoin(policy)

        def taken() -> bool:
            bench.send(policy)
            return bench.motion()["state"] in ("PAUSED", "CORRECTING")

        push(bench)
        until(taken, "the take-over")
        bench.in_state("CORRECTING")
        bench.assert_gentle(mark)
        assert not any(torque(bench, LEADER)), "it is in a hand: nobody drives it"
        bench.client.call("policy.resume")
        bench.in_state("HOLD")
        bench.center = bench.observe(policy).state.astype(float)
        bench.rejoin(policy)
        bench.assert_gentle(mark)


def test_a_driven_leader_comes_to_the_follower_and_is_let_go_at_the_take_over(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        bench.client.call("policy.pause")
        bench.in_state("PAUSED")
        until(lambda: all(torque(bench, LEADER)), "the leader to be driven")
        until(
            lambda: np.abs(pose(bench, LEADER) - pose(bench, FOLLOWER)).max() < 5,
            "the arms to meet",
        )
        mark = bench.control.mark()
        bench.client.call("policy.takeover")
        bench.in_state("CORRECTING")
        assert not any(torque(bench, LEADER))
        bench.assert_gentle(mark)


def test_a_take_over_by_command_brings_the_leader_first_and_never_tugs_at_it(bench) -> None:
    push(
        bench, by=120
    )  # ten degrees from the follower: it would agree, and is brought all the same
    until(lambda: np.abs(pose(bench, LEADER) - pose(bench, FOLLOWER)).max() > 8, "a push")
    with bench.policy() as policy:
        bench.drive(policy)
        mark = bench.control.mark()
        bench.client.call("policy.takeover")
        bench.in_state("CORRECTING")
    changes = [(entry.fields["id"], entry.fields["on"])
               for entry in bench.control.entries(since=mark, bus=LEADER)
               if entry.kind == "torque"]  # fmt: skip
    for ident in range(1, 7):
        assert [on for servo, on in changes if servo == ident] == [True, False]
    assert np.abs(pose(bench, LEADER) - pose(bench, FOLLOWER)).max() < 5
    bench.assert_gentle(mark)


def test_a_leader_that_is_driven_and_let_go_again_and_again_stays_alive(bench) -> None:
    leader = bench.robot.workers()["arm:main.leader"].pid
    with bench.policy() as policy:
        bench.drive(policy)
        for _ in range(4):
            bench.client.call("policy.pause")
            until(lambda: all(torque(bench, LEADER)), "the leader to be driven")
            bench.client.call("policy.takeover")
            bench.in_state("CORRECTING")
            until(lambda: not any(torque(bench, LEADER)), "the leader to be let go")
    assert bench.robot.workers()["arm:main.leader"].pid == leader


def pose(bench: PolicyBench, bus: str) -> np.ndarray:
    """Where an arm is, in dataset units."""
    told, joints = bench.control.describe()["arms"][bus], ARM_MODELS["so101"]
    scales = load_calibration(Path(told["calibration"]), joints, bus=bus).scales(
        joint_units(joints, use_degrees=True)
    )
    steps = [told["joints"][joint.name]["steps"] for joint in joints]
    return np.array([scale.to_units(at) for scale, at in zip(scales, steps, strict=True)])


def test_a_replayed_episode_moves_the_arm_as_it_was_recorded(bench) -> None:
    bench.client.call("teleop")
    bench.in_state("TELEOP")
    at = bench.control.describe()["arms"][LEADER]["joints"]["shoulder_pan"]["steps"]
    there, back = {"shoulder_pan": at + 250}, {"shoulder_pan": at}
    bench.client.start()
    bench.control.script(bus=LEADER, frames=[[0.8, there], [1.6, back]])
    until(lambda: bench.robot.rows() >= 60, "rows of a person")
    first = bench.client.stop()
    bench.client.hold()
    actions = read_actions(bench.robot.root, first["episode_index"])
    assert len(actions.rows) == first["rows"]
    mark = bench.control.mark()
    bench.client.start()
    with bench.policy(name="replay") as client:
        told = Replay(client, actions, attach=lambda: bench.client.call("policy.attach")).run()
    assert told["rows"] == first["rows"]
    saved = bench.client.stop()
    bench.in_state("HOLD")
    bench.assert_gentle(mark)
    rows = arrows(bench.robot.own(saved["uid"]) / "rows.arrows")
    source = rows["recd.control_source"].to_numpy()
    assert (source == GoalSource.REPLAY).sum() > 0.8 * len(actions.rows)
    assert GoalSource.LEADER not in source
    pan = np.array(rows["action"].to_pylist())[source == GoalSource.REPLAY][:, 0]
    assert abs(np.ptp(pan) - np.ptp(actions.rows[:, 0])) < 3.0


def test_a_replay_ends_when_a_person_holds_the_arm_and_says_so(bench) -> None:
    known = read_actions(bench.robot.root, 0)

    def attach() -> None:
        bench.client.call("policy.attach")

    def interrupt(done_s: float, of_s: float) -> None:
        if bench.motion()["state"] == "REPLAY":
            bench.client.hold()

    with bench.policy(name="replay") as client:
        play = Replay(client, known, attach=attach)
        with pytest.raises(RecdError, match="taken from it: HOLD"):
            play.run(interrupt)
    bench.assert_stands()


def test_a_replay_gives_way_to_a_policy_and_never_takes_from_one(bench) -> None:
    with bench.policy(name="other") as policy:
        policy.acquire()
        with (
            bench.policy(name="replay") as client,
            pytest.raises(RecdError, match="held by other"),
        ):
            client.acquire(kind="replay")


def test_an_episode_that_is_not_there_or_of_another_robot_is_refused(bench) -> None:
    with pytest.raises(RecdError, match="episode 99"):
        read_actions(bench.robot.root, 99)
    known = read_actions(bench.robot.root, 0)
    with bench.policy() as client:
        other = type(known)(("left_" + known.names[0], *known.names[1:]), known.rows, 30.0, "")
        with pytest.raises(RecdError, match="this robot"):
            Replay(client, other, attach=lambda: None)
