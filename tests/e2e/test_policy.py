"""Policies at the whole daemon: what they may do, and what their faults do to the arm: nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recd.clients.policy import NoObservationError
from recd.config.errors import RecdError, StateError
from recd.config.policy_wire import Status, pack, raw
from recd.config.streams import GoalSource
from recd.daemon.sim import camera_control
from recd.shm.clock import now_ns
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
    bench.in_state("HOLD", "lease_lost")
    bench.assert_gentle(mark)
    bench.assert_stands()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"actions": np.full((30, 6), np.nan)}, Status.NOT_FINITE),
        ({"actions": np.full((30, 6), np.inf)}, Status.NOT_FINITE),
        ({"actions": np.zeros((30, 5))}, Status.LAYOUT),
        ({"layout": "0123456789abcdef"}, Status.LAYOUT),
        ({"t_ref": 5}, Status.UNKNOWN_OBS),
        ({"obs": 10**9}, Status.UNKNOWN_OBS),
        ({"actions": np.full((30, 6), 5000.0)}, Status.SEAM),
        ({"lease": {"id": "0" * 32, "epoch": 1}}, Status.STALE_EPOCH),
        ({"dt_ns": 0}, Status.MALFORMED),
    ],
)
def test_a_bad_chunk_is_answered_with_its_word_and_moves_nothing(bench, changes, status) -> None:
    with bench.policy() as policy, bench.actions() as socket:
        bench.drive(policy)
        mark = bench.control.mark()
        socket.send_multipart(bench.raw_act(policy, **changes))
        told = bench.answer(socket)
        assert (told["re"], told["status"]) == ("raw", status)
        assert told["reason"]
        policy._chunk += 1
        until(lambda: bench.send(policy).status is Status.APPLIED, "the policy to go on")
        bench.assert_gentle(mark)


def test_rubbish_on_act_is_answered_and_the_arm_goes_on(bench) -> None:
    with bench.policy() as policy, bench.actions() as socket:
        bench.drive(policy)
        mark = bench.control.mark()
        header, actions = bench.raw_act(policy)
        described = {"n": "actions", "fi": 0, "enc": "raw", "sh": [60, 6]}
        for parts in (
            [header, actions[:-8]], [header], [header, actions, actions], [b"\xdf\xff\xff\xff\xff"],
            [*pack({"ty": "act", "id": "x", "arrays": [{**described, "dt": "O"}]}), actions],
            [*pack({"ty": "act", "id": "x", "arrays": [{**described, "sh": [2**63, 6]}]}), actions],
            [b"\x80\x04\x95", b"\x00"], [b""],
        ):  # fmt: skip
            socket.send_multipart(parts)
            told = bench.answer(socket)
            assert told["status"] == Status.MALFORMED
            assert told["reason"]
        until(lambda: bench.send(policy).status is Status.APPLIED, "the policy to go on")
        bench.assert_gentle(mark)


def test_numbers_that_come_twice_or_late_are_refused(bench) -> None:
    with bench.policy() as policy, bench.actions() as socket:
        bench.drive(policy)
        number = policy._chunk
        said = []
        for chunk in (number + 5, number + 5, number + 2):
            socket.send_multipart(bench.raw_act(policy, chunk=chunk))
            said.append(bench.answer(socket)["status"])
        assert said == [Status.APPLIED, Status.DUPLICATE, Status.OUT_OF_ORDER]


def test_an_old_observation_moves_nothing(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        seen = bench.observe(policy)
        while bench.observe(policy).t_ref_ns - seen.t_ref_ns < 300_000_000:
            pass
        ack = policy.act(seen, bench.chunk(seen, 3), dt_s=DT_S)
        assert ack.status is Status.OLD_OBS
        assert "observation" in ack.mend


def test_an_empty_queue_holds_and_only_an_observation_taken_later_goes_on(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        mark = bench.control.mark()
        before = bench.observe(policy)
        policy.act(before, bench.chunk(before, 3), dt_s=DT_S)
        bench.in_state("HOLD", "queue_empty")
        late = policy.act(before, bench.chunk(before, 100), dt_s=DT_S)
        assert late.status is Status.BEFORE_HOLD
        bench.rejoin(policy)
        bench.assert_gentle(mark)


def test_a_chunk_of_no_steps_stops_the_arm(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        ack = policy.act(bench.observe(policy), np.zeros((0, 6)), dt_s=DT_S)
        assert ack.status is Status.STOPPED
        bench.in_state("HOLD", "chunk_stopped")
        bench.assert_stands()


def attached(bench) -> bool:
    """Whether it may drive; not before enough of its chunks were sound."""
    try:
        bench.gateway("policy.attach")
    except StateError:
        return False
    return True


def test_a_stopped_client_is_held_while_its_chunk_would_still_last(bench) -> None:
    driver = subprocess.Popen(
        [sys.executable, str(DRIVER), bench.endpoint, "250"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert driver.stdout is not None
    try:
        while driver.stdout.readline().split(" ")[0].strip() != "shadow":
            assert driver.poll() is None
        until(lambda: attached(bench), "a warmed-up client to be attached")
        mark = bench.control.mark()
        while driver.stdout.readline().split(" ")[0].strip() != "applied":
            pass
        bench.in_state("POLICY")
        stopped_ns = now_ns()
        driver.send_signal(signal.SIGSTOP)
        told = bench.in_state("HOLD")
        assert told["cause"] == "heartbeat_missed"
        assert told["since_ns"] < stopped_ns + round(250 * DT_S * 1e9), "the chunk would last"
        bench.assert_gentle(mark)
        bench.assert_stands()
        driver.send_signal(signal.SIGCONT)
        bench.in_state("POLICY")
        bench.assert_gentle(mark)
    finally:
        driver.send_signal(signal.SIGCONT)
        driver.kill()
        driver.wait()
        driver.stdout.close()
        if driver.stdin is not None:
            driver.stdin.close()


def test_a_loop_that_hangs_is_held_although_its_heartbeat_lives(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        mark = bench.control.mark()
        seen = bench.observe(policy)
        ack = policy.act(seen, bench.chunk(seen, 250), dt_s=DT_S)
        assert ack.status is Status.APPLIED
        told = bench.in_state("HOLD", "heartbeat_missed")
        assert told["since_ns"] < seen.t_ref_ns + round(250 * DT_S * 1e9), "the chunk would last"
        assert bench.leases()["main"]["kind"] == "policy", "its lease is kept for a while"
        bench.assert_gentle(mark)
        bench.rejoin(policy)


def test_a_lease_stolen_in_the_middle_of_a_chunk_ends_it_and_nobody_drives(bench) -> None:
    with bench.policy(name="first") as first, bench.policy(name="second") as second:
        bench.drive(first)
        with pytest.raises(RecdError, match="held by first"):
            second.acquire()
        mark = bench.control.mark()
        second.acquire(kind="teleop")
        bench.in_state("HOLD", "lease_lost")
        assert bench.send(first).status is Status.STALE_EPOCH
        bench.center = bench.observe(second).state.astype(float)
        assert bench.send(second).status is Status.SHADOW
        bench.assert_gentle(mark)
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


def test_a_camera_that_stops_is_named_and_the_arm_holds(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        mark = bench.control.mark()
        camera_control.call(bench.cameras, "fault", camera="*", kind="stall")

        def starved() -> str:
            try:
                policy.observe()
            except NoObservationError as error:
                return error.message if "front" in error.message else ""
            return ""

        assert "stale" in until(starved, "no observation")
        bench.in_state("HOLD", "queue_empty")
        bench.assert_gentle(mark)
        camera_control.call(bench.cameras, "clear")
        bench.rejoin(policy)


def test_a_killed_gateway_holds_the_arm_and_its_lease_does_not_come_back(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        mark = bench.control.mark()
        seen = bench.observe(policy)
        policy.act(seen, bench.chunk(seen, 250), dt_s=DT_S)
        killed_ns = now_ns()
        os.kill(bench.robot.workers()["gateway"].pid, signal.SIGKILL)
        told = bench.in_state("HOLD")
        assert told["cause"] in ("heartbeat_missed", "lease_lost")
        assert told["since_ns"] < killed_ns + round(250 * DT_S * 1e9)
        bench.in_state("HOLD", "lease_lost")
        until(lambda: bench.leases()["main"]["kind"] == "nobody", "a new gateway")
        bench.assert_gentle(mark)
    bench.ready()
    with bench.policy() as policy:
        bench.drive(policy)


def test_a_flood_on_act_neither_moves_nor_ends_anything(bench) -> None:
    bench.client.start()
    with bench.policy() as policy, bench.actions() as socket:
        bench.drive(policy)
        mark = bench.control.mark()
        parts = bench.raw_act(policy, lease={"id": "0" * 32, "epoch": 1})
        sent = 0
        while sent < 20_000:
            socket.send_multipart(parts)
            sent += 1
            while socket.poll(0):
                socket.recv_multipart()
        bench.rejoin(policy)
        bench.assert_gentle(mark)
    saved = bench.client.stop()
    assert saved["state"] == "saved"
    assert saved["rows"] > 0


def arrows(path: Path) -> pa.Table:
    with path.open("rb") as file:
        return pa.ipc.open_stream(file).read_all()


def test_an_episode_tells_who_drove_each_row_and_keeps_every_chunk(bench) -> None:
    def rows() -> int:
        return bench.robot.rows()

    with bench.policy() as policy, bench.actions() as socket:
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
    assert [(one["holder"], one["kind"]) for one in manifest["policies"]] == [("policy", "policy")]
    assert manifest["outcome"] == "success"
    assert manifest["policy"]["latency_ms"]["p99"] >= manifest["policy"]["latency_ms"]["p50"] > 0
    assert manifest["policy"]["chunks"]["not_finite"] == 1
    chunks = arrows(own / "chunks.arrows")
    statuses = chunks["status"].to_numpy()
    numbers = chunks["chunk"].to_numpy()
    assert list(Status).index(Status.NOT_FINITE) in statuses
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
