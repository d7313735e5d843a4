"""Between a person and a program at the whole daemon: take-over by hand, driven leader, replay."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from recd.clients.replay import Replay, read_actions
from recd.config.errors import RecdError, StateError
from recd.config.streams import GoalSource
from recd.daemon.arms.calibration import load_calibration
from recd.daemon.arms.models import ARM_MODELS, joint_units
from recd.shm.clock import now_ns
from tests.e2e.policybench import FOLLOWER, OVERRIDES, PolicyBench
from tests.e2e.test_policy import arrows
from tests.rig import running, until

LEADER = "main.leader"
BACK_S = 3


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PolicyBench]:
    more = ("arms.main.hand_over.moved=5", "arms.main.hand_over.leader=driven",
            "simulation.demonstration=false", f"rollout.highlight_s={BACK_S}")  # fmt: skip
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


def rows_of(bench: PolicyBench, uid: str) -> dict[str, np.ndarray]:
    told = arrows(bench.robot.own(uid) / "rows.arrows")
    names = ("recd.control_source", "recd.intervention")
    return {name: told[name].to_numpy(zero_copy_only=False) for name in names}


def rollout(bench: PolicyBench, strategy: str, **options: object) -> None:
    bench.client.call("rollout.start", strategy=strategy, **options)


def saved(bench: PolicyBench, count: int) -> list[dict]:
    """The episodes of the rollout, once as many are durable."""

    def found() -> list[dict] | None:
        uids = bench.client.status()["rollout"]["uids"]
        takes = bench.client.call("episodes", limit=20)["episodes"]
        mine = [take for take in takes if take["uid"] in uids and take["state"] == "saved"]
        return mine if len(mine) >= count else None

    return until(found, f"{count} episodes of the rollout")


def correct(bench: PolicyBench, policy) -> None:
    """Drive, take over by command, lead for a while, give back."""
    bench.drive(policy)
    bench.ticks(100)
    bench.rejoin(policy)
    bench.client.call("policy.takeover")
    bench.in_state("CORRECTING")
    until(lambda: bench.motion()["led_ns"], "the arms to have met")
    bench.ticks(150)
    bench.client.call("policy.pause")
    bench.in_state("PAUSED")


def test_a_correction_of_its_own_holds_nothing_but_a_persons_leading(bench) -> None:
    rollout(bench, "dagger", corrections="own")
    with bench.policy() as policy:
        correct(bench, policy)
        (take,) = saved(bench, 1)
    told = rows_of(bench, take["uid"])
    assert len(told["recd.intervention"]) == take["rows"] > 5
    assert told["recd.intervention"].all()
    assert set(told["recd.control_source"]) == {GoalSource.LEADER}
    assert take["end_reason"] == "correction"
    bench.client.call("rollout.stop")


def test_an_attempt_with_its_correction_inside_marks_who_had_the_arm(bench) -> None:
    rollout(bench, "dagger", corrections="inside")
    with bench.policy() as policy:
        correct(bench, policy)
        bench.client.hold()
        (take,) = saved(bench, 1)
    told = rows_of(bench, take["uid"])
    source, corrected = told["recd.control_source"], told["recd.intervention"]
    said = (take["rows"], take["end_reason"], sorted(set(source)))
    assert {GoalSource.HOLD, GoalSource.LEADER} <= set(source), said
    assert corrected.any(), said
    assert (source[corrected] == GoalSource.LEADER).all()
    assert not corrected[source == GoalSource.HAND_OVER].any()
    assert json.loads((bench.robot.own(take["uid"]) / "manifest.json").read_text())["rollout"] == {
        "strategy": "dagger", "corrections": "inside"
    }  # fmt: skip
    bench.client.call("rollout.stop")


def test_a_sentry_records_on_and_on_in_episodes(bench) -> None:
    rollout(bench, "sentry", episode_s=1)
    assert [take["rows"] >= 25 for take in saved(bench, 2)[:2]] == [True, True]
    with pytest.raises(StateError, match="a rollout records by itself"):
        bench.client.call("plan.start", episodes=1, episode_s=5, reset_s=0, resume=True)
    bench.client.call("rollout.stop")
    until(lambda: bench.client.status()["state"] == "READY", "the last one to end")


def test_a_highlight_saves_what_was_before_it_was_asked_for(bench) -> None:
    rollout(bench, "highlight")
    bench.client.wait_until("READY")
    asked_ns = now_ns()
    take = bench.client.call("highlight", timeout_s=60)
    assert abs(take["rows"] - 30 * BACK_S) <= 3
    told = arrows(bench.robot.own(take["uid"]) / "rows.arrows")
    assert (told["tick_ns"].to_numpy() < asked_ns + 100_000_000).all()
    cameras = take["summary"]["cameras"]
    assert all(camera["missing"] == 0 for camera in cameras.values()), cameras
    assert take["summary"]["buses"][FOLLOWER]["invalid_rows"] == 0
    bench.client.call("rollout.stop")
