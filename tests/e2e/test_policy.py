"""Policies at the whole daemon: what they may do, and what their faults do to the arm: nothing."""

import json
import re
import subprocess
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recd.clients.policy import PolicyClient
from recd.config.errors import RecdError, StateError
from recd.config.policy_wire import Status, raw
from recd.config.streams import GoalSource
from tests.e2e.policybench import DT_S
from tests.rig import until

DRIVER = Path(__file__).with_name("drive_policy.py")


def test_nothing_moves_before_a_person_says_so_and_then_the_policy_drives(bench) -> None:
    mark = bench.control.mark()
    with pytest.raises(StateError, match="no policy holds the lease"):
        bench.client.call("policy.attach")
    with bench.policy() as policy:
        policy.acquire()
        with pytest.raises(StateError, match="sound chunks"):
            bench.client.call("policy.attach")
        bench.center = bench.observe(policy).state.astype(float)
        assert {bench.send(policy).status for _ in range(3)} == {Status.SHADOW}
        assert all(len(set(goals)) <= 1 for goals in bench.goals(mark).values())
        bench.client.call("policy.attach")
        bench.rejoin(policy)
        until(lambda: (bench.send(policy), len(set(bench.goals(mark)[1])) > 20)[1], "movement")
        arm = bench.observe(policy).arms["main"]
        assert 0 < arm.need_by_ns < arm.queued_until_ns
    bench.in_state("HOLD", "lease_lost")
    bench.assert_gentle(mark)
    bench.assert_stands()


def test_a_chunk_of_no_steps_stops_the_arm(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        ack = policy.act(bench.observe(policy), np.zeros((0, 6)), dt_s=DT_S)
        assert ack.status is Status.STOPPED
        bench.in_state("HOLD", "chunk_stopped")
        bench.assert_stands()


def test_a_person_is_obeyed_at_once_and_the_policy_only_looks_on(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        mark = bench.control.mark()
        bench.client.hold()
        assert bench.motion()["state"] == "HOLD"
        assert [bench.send(policy).status for _ in range(5)] == [Status.SHADOW] * 5
        assert bench.motion()["state"] == "HOLD"
        bench.assert_gentle(mark)
        bench.gateway("policy.attach")
        bench.rejoin(policy)
        bench.client.estop()
        assert bench.motion()["cause"] == "estop"
        with pytest.raises(StateError):
            bench.client.call("policy.attach")
        bench.client.arm()
        bench.in_state("TELEOP")


def recctl(bench, *command: str, policy: PolicyClient | None = None) -> list[str]:
    """What it prints; it has to succeed, without a complaint. policy: lives meanwhile."""
    running = subprocess.Popen(
        [sys.executable, "-m", "recd.clients.recctl.cli", *command],
        env=bench.robot.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def ended() -> bool:
        if policy is not None:
            policy.progress += 1
        return running.poll() is not None

    until(ended, f"the end of recctl {command}")
    said, complaints = running.communicate()
    assert (running.returncode, complaints) == (0, "")
    return said.splitlines()


def test_an_operator_interrupts_takes_over_gives_back_and_detaches_by_recctl(bench) -> None:
    with bench.policy(name="mine", model="fold v3") as policy, bench.actions() as socket:
        bench.drive(policy)
        mark = bench.control.mark()
        assert recctl(bench, "policy", "pause", policy=policy) == ["main: PAUSED (command)"]
        said = recctl(bench, "policy", "takeover", policy=policy)
        assert said[0].startswith(("main: PAUSED", "main: CORRECTING"))
        bench.in_state("CORRECTING")
        said = recctl(bench, "policy", "resume", policy=policy)
        assert said == ["main: HOLD (waiting_for_chunk)"]
        bench.center = bench.observe(policy).state.astype(float)
        bench.rejoin(policy)
        socket.send_multipart(bench.raw_act(policy, layout="0123456789abcdef"))
        assert bench.answer(socket)["status"] == Status.LAYOUT
        until(
            lambda: (bench.gateway("policy.stats")["refused"] or {}).get("status") == "layout",
            "the reason",  # told once a second
        )
        told = "\n".join(recctl(bench, "policy", "stats", policy=policy))
        assert "mine (policy) holds the lease, last heard " in told
        assert "it may drive" in told
        assert "\n  model: fold v3\n" in told
        assert re.search(
            r"^  its clock: the robot's is [+-]0.\d{3} ms from it, give or take ", told, re.M
        )
        assert ": layout: layout: expected " in told
        assert "Ask `describe` again" in told
        assert "  policy: mine (policy) holds main" in recctl(bench, "status", policy=policy)
        said = recctl(bench, "policy", "detach", policy=policy)
        assert said == ["main: HOLD (command)"]
        until(lambda: bench.leases()["main"]["kind"] == "nobody", "the lease to be free")
        bench.assert_gentle(mark)
    assert "  policy: nobody holds a lease" in recctl(bench, "status")


def test_a_policy_at_an_arm_without_torque_is_detached_as_well(bench) -> None:
    bench.client.call("disarm", policy="release")
    bench.in_state("DISARMED")
    with bench.policy() as policy:
        policy.acquire()
        until(lambda: bench.leases()["main"]["kind"] == "policy", "the lease to be told")
        assert recctl(bench, "policy", "detach")[0].startswith("main: DISARMED")
        until(lambda: bench.leases()["main"]["kind"] == "nobody", "the lease to be free")


def test_pause_correct_and_resume_go_without_a_jump(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        mark = bench.control.mark()
        bench.client.call("policy.pause")
        bench.in_state("PAUSED")
        bench.client.call("policy.takeover")
        bench.in_state("CORRECTING")
        assert bench.send(policy).status is not Status.APPLIED
        bench.ticks(40)
        bench.client.call("policy.resume")
        bench.in_state("HOLD")
        bench.center = bench.observe(policy).state.astype(float)
        bench.rejoin(policy)
        bench.assert_gentle(mark)


def arrows(path: Path) -> pa.Table:
    with path.open("rb") as file:
        return pa.ipc.open_stream(file).read_all()


def test_a_model_that_is_no_short_line_is_refused_and_takes_no_lease(bench) -> None:
    for model, found in (("m" * 257, "at most 256 bytes, found 257"), ("two\nlines", "one line")):
        with bench.policy(model=model) as policy, pytest.raises(RecdError, match=found) as refused:
            policy.acquire()
        assert refused.value.code == "argument"
    assert bench.leases()["main"]["kind"] == "nobody"


def test_an_episode_tells_who_drove_each_row_and_keeps_every_chunk(bench) -> None:
    def rows() -> int:
        return bench.robot.rows()

    with bench.policy(model="fold v3, step 40000") as policy, bench.actions() as socket:
        bench.drive(policy)
        bench.client.start()
        until(lambda: (bench.send(policy), rows() >= 20)[1], "rows of the policy")
        socket.send_multipart(bench.raw_act(policy, actions=np.full((30, 6), np.nan)))
        assert bench.answer(socket)["status"] == Status.NOT_FINITE
        policy._chunk += 1
        upto = rows() + 10
        until(lambda: (bench.send(policy, facts={"task": "put it back"}), rows() >= upto)[1],
              "rows of another task")  # fmt: skip
        bench.client.mark("success")
        last = bench.send(policy, 2)
        assert last.status is Status.APPLIED
        bench.in_state("HOLD", "queue_empty")
        upto = rows() + 20
        until(lambda: rows() >= upto, "rows of the hold")
        bench.client.call("policy.takeover")
        bench.in_state("CORRECTING")
        upto = rows() + 20
        until(lambda: rows() >= upto, "rows of a correction")
        saved = bench.client.stop()
    own = bench.robot.own(saved["uid"])
    told = arrows(own / "rows.arrows")
    source = told["recd.control_source"].to_numpy()
    chunk = told["recd.chunk_id"].to_numpy()
    corrected = told["recd.intervention"].to_numpy(zero_copy_only=False).astype(bool)
    assert {GoalSource.POLICY, GoalSource.HOLD, GoalSource.LEADER} <= set(source.tolist())
    assert (chunk[source == GoalSource.POLICY] > 0).mean() > 0.9
    others = np.isin(source, (GoalSource.POLICY, GoalSource.HAND_OVER), invert=True)
    assert (chunk[others] == -1).all()
    assert corrected.any()
    assert not corrected[source == GoalSource.POLICY].any()
    tasks = told["task"].to_pylist()
    assert set(tasks) == {saved["task"], "put it back"}
    assert {chunk[k] > 0 for k, task in enumerate(tasks) if task == "put it back"} == {True}
    manifest = json.loads((own / "manifest.json").read_text())
    (noted,) = manifest["policies"]
    assert [noted[key] for key in ("holder", "kind", "model")] == [
        "policy", "policy", "fold v3, step 40000"]  # fmt: skip
    assert manifest["outcome"] == "success"
    assert manifest["policy"]["latency_ms"]["p99"] >= manifest["policy"]["latency_ms"]["p50"] > 0
    assert manifest["policy"]["chunks"]["not_finite"] == 1
    chunks = arrows(own / "chunks.arrows")
    statuses = chunks["status"].to_numpy()
    numbers = chunks["chunk"].to_numpy()
    refused = chunks.slice(statuses.tolist().index(list(Status).index(Status.NOT_FINITE)), 1)
    (values,), (columns,) = refused["values"].to_pylist(), refused["columns"].to_pylist()
    assert np.isnan(values[: 30 * columns]).all(), "kept as it came"
    assert b"finite" in refused["reason"].to_pylist()[0]
    assert (chunks["infer_end_ns"].to_numpy() >= chunks["infer_start_ns"].to_numpy()).all()
    acted = set(chunk[source == GoalSource.POLICY].tolist()) - {-1}
    assert len(acted & set(numbers.tolist())) >= len(acted) - 1, "all but one from before the start"


def test_another_client_of_the_role_observe_may_look_and_not_act(bench) -> None:
    seen: dict[str, Any] = {}
    with bench.policy() as onlooker:
        looked = bench.observe(onlooker)
        seen = json.loads(json.dumps(onlooker.call("stats")))
        ack = onlooker.act(looked, bench.chunk(looked), dt_s=DT_S)
    assert looked.images["front"].startswith(b"\xff\xd8")
    assert looked.images["front"].rstrip(b"\0").endswith(b"\xff\xd9")
    assert np.isfinite(looked.state).all()
    assert seen["leases"]["main"]["kind"] == "nobody"
    assert ack.status is Status.STALE_EPOCH


def test_buffers_of_an_observation_are_what_the_header_says(bench) -> None:
    with bench.policy() as policy:
        seen = bench.observe(policy)
        assert set(seen.facts) == {"state", "state_newest", "front"}
        for facts in seen.facts.values():
            assert 0 <= facts["t"] <= seen.sent_ns
            assert facts["age_ns"] == seen.sent_ns - facts["t"]
        assert raw("x", seen.state).dtype == "f4"
        newer = bench.observe(policy)
        assert newer.number > seen.number
        assert newer.t_ref_ns > seen.t_ref_ns


def test_a_policy_of_velocities_moves_the_arm_by_them_and_stops_with_them(bench) -> None:
    with bench.policy() as policy:
        bench.seat(policy)
        mark = bench.control.mark()
        begun = bench.observe(policy).state.astype(float)

        def velocities(*, steps: int = 15, speed: float = 20.0) -> Status:
            seen = bench.observe(policy)
            rows = np.full((steps, 6), speed) * np.eye(1, 6)
            mask = [True] * 5 + [False]
            return policy.act(seen, rows, dt_s=DT_S, representation="vel", mask=mask).status

        def moved() -> bool:
            velocities()
            return bench.observe(policy).state[0] - begun[0] > 8.0

        until(moved, "the first joint to move")
        until(lambda: velocities(steps=3) is Status.APPLIED, "a last short chunk")
        bench.in_state("HOLD", "queue_empty")
        bench.assert_gentle(mark)
        bench.assert_stands()
        ended = bench.observe(policy).state
        np.testing.assert_allclose(ended[1:], begun[1:], atol=2.0)


def test_a_wrist_that_passes_its_seam_does_not_turn_back_by_a_whole_turn(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        seen = bench.observe(policy)
        wrist = policy.names.index("wrist_roll.pos")
        way = np.linspace(seen.state[wrist], 185.0, 60)
        rows = np.repeat(seen.state[None].astype(float), 120, axis=0)
        rows[:, wrist] = np.concatenate([way, np.full(60, way[-1])])
        rows[rows[:, wrist] > 180.0, wrist] -= 360.0  # as the joint itself would be read
        mark = bench.control.mark()
        assert policy.act(seen, rows, dt_s=DT_S).status is Status.APPLIED

        def there() -> bool:
            policy.progress += 1
            return bool(bench.observe(policy).state[wrist] > 175.0)

        until(there, "the wrist to come to its seam")
        bench.ticks(60)
        goals = bench.goals(mark)[wrist + 1]
        assert min(b - a for a, b in pairwise(goals)) > -20, "it never turned back"
        bench.assert_gentle(mark)
        # From there on a policy says -175: five degrees from where the arm is told to be.
        seen = bench.observe(policy)
        ahead = np.repeat(seen.state[None].astype(float), 30, axis=0)
        ahead[:, wrist] = -175.0
        ack = policy.act(seen, ahead, dt_s=DT_S)
        assert (ack.status, ack.splice_gap < 10) == (Status.APPLIED, True)


class Model:
    """What the page's loop asks: it stays where the arm is, until it was let drive."""

    def __init__(self, bench) -> None:
        self._bench = bench
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def infer(self, images, state, task) -> np.ndarray:
        assert images["front"].startswith(b"\xff\xd8")
        assert task
        if self._bench.motion()["state"] == "POLICY":
            raise KeyboardInterrupt
        with suppress(RecdError):  # not before enough of its chunks were sound
            self._bench.client.call("policy.attach")
        return np.repeat(state[None], 30, axis=0)


def test_the_loop_on_the_page_drives_as_it_stands_there(bench) -> None:
    page = (Path(__file__).parents[2] / "docs" / "policy_api.md").read_text()
    loop = page.partition("## Twenty lines")[2].partition("```python\n")[2].partition("```")[0]
    model = Model(bench)
    with pytest.raises(KeyboardInterrupt):
        exec(compile(loop, "policy_api.md", "exec"), {"model": model})
    assert model.resets > 1, "at its first observation, and when it was let drive"
    bench.in_state("HOLD")
