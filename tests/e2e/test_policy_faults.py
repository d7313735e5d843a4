"""What policies do wrong at the whole daemon, and what that does to the arm: nothing.

One episode is recorded through all of it. After every test the servos' log shows that no step was
too large, and rows still come. docs/policy_api.md has the table of faults.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from recd.clients.policy import NoObservationError
from recd.config.errors import RecdError, StateError
from recd.config.policy_wire import ACT_BYTES, Status, pack
from recd.config.streams import GoalSource
from recd.daemon.policy.layout import ActionLayout
from recd.daemon.sim import camera_control
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns
from tests.e2e.policybench import DT_S, PolicyBench, driving
from tests.e2e.test_policy import arrows
from tests.rig import until

LONG_STEPS = 250
LONG_NS = round(LONG_STEPS * DT_S * NS_PER_S)
"""A chunk that lasts for more than eight seconds: what holds the arm before is not its end."""


@pytest.fixture
def bench(shared: PolicyBench) -> Iterator[PolicyBench]:
    """An armed robot that records; afterwards it was never jerked, and records still."""
    shared.ready()
    if shared.client.status()["episode"] is None:
        shared.client.start()
    mark = shared.control.mark()
    yield shared
    shared.assert_gentle(mark)
    upto = shared.robot.rows() + 3
    until(lambda: shared.robot.rows() >= upto, "rows after the fault")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"actions": np.full((30, 6), np.nan)}, Status.NOT_FINITE),
        ({"actions": np.full((30, 6), np.inf)}, Status.NOT_FINITE),
        ({"actions": np.zeros((30, 5))}, Status.LAYOUT),
        ({"layout": "0123456789abcdef"}, Status.LAYOUT),
        ({"layout": "permuted"}, Status.LAYOUT),
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
        if changes.get("layout") == "permuted":
            changes = {"layout": of_permuted_names(policy.robot["action"])}
        socket.send_multipart(bench.raw_act(policy, **changes))
        told = bench.answer(socket)
        assert (told["re"], told["status"]) == ("raw", status)
        assert told["reason"]
        policy._chunk += 1
        bench.goes_on(policy)


def of_permuted_names(action: dict[str, Any]) -> str:
    """The layout of a policy that has the robot's own joints in another order."""
    names = action["names"]
    robots = ActionLayout(tuple(names), *(tuple(action[key]) for key in ("units", "low", "high")),
                          groups={})  # fmt: skip
    assert robots.layout_id == action["layout"]
    return ActionLayout((names[1], names[0], *names[2:]), robots.units, robots.low,
                        robots.high, groups={}).layout_id  # fmt: skip


def test_rubbish_on_act_is_answered_and_the_arm_goes_on(bench) -> None:
    with bench.policy() as policy, bench.actions() as socket:
        bench.drive(policy)
        header, actions = bench.raw_act(policy)
        described = {"n": "actions", "fi": 0, "enc": "raw", "sh": [60, 6]}
        for parts in (
            [header, actions[:-8]], [header], [header, actions, actions], [b"\xdf\xff\xff\xff\xff"],
            [*pack({"ty": "act", "id": "x", "arrays": [{**described, "dt": "O"}]}), actions],
            [*pack({"ty": "act", "id": "x", "arrays": [{**described, "sh": [2**63, 6]}]}), actions],
            [b"\x80\x04\x95", b"\x00"], [b""],
            pack({**policy.pulse, "id": "x", "clock": {"offset_ns": 0, "bound_ns": -1}}),
        ):  # fmt: skip
            socket.send_multipart(parts)
            told = bench.answer(socket)
            assert told["status"] == Status.MALFORMED
            assert told["reason"]
        bench.goes_on(policy)


def test_a_message_beyond_every_size_costs_its_sender_the_connection_alone(bench) -> None:
    with bench.policy() as policy, bench.actions() as socket:
        bench.drive(policy)
        header, _ = bench.raw_act(policy)
        socket.send_multipart([header, bytes(ACT_BYTES + 1)])
        bench.goes_on(policy)
        assert not socket.poll(0), "it was not read, so it has no answer"


def test_numbers_that_come_twice_or_late_are_refused(bench) -> None:
    with bench.policy() as policy, bench.actions() as socket:
        bench.drive(policy)
        number = policy._chunk
        said = []
        for chunk in (number + 5, number + 5, number + 2):
            socket.send_multipart(bench.raw_act(policy, chunk=chunk))
            said.append(bench.answer(socket)["status"])
        assert said == [Status.APPLIED, Status.DUPLICATE, Status.OUT_OF_ORDER]
        bench.in_state("POLICY")


def test_an_old_observation_moves_nothing(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        seen = bench.observe(policy)
        while bench.observe(policy).t_ref_ns - seen.t_ref_ns < 300_000_000:
            pass
        ack = policy.act(seen, bench.chunk(seen, 3), dt_s=DT_S)
        assert ack.status is Status.OLD_OBS
        assert "observation" in ack.mend


def test_a_chunk_whose_rows_are_all_late_leaves_the_plan_that_was_there(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        seen = bench.observe(policy)
        assert policy.act(seen, bench.chunk(seen, LONG_STEPS), dt_s=DT_S).status is Status.APPLIED
        # Due within a millisecond of the observation: in the past by the time they come.
        ack = policy.act(seen, bench.chunk(seen, 3), dt_s=1.0, offsets_ns=(1, 2, 3))
        assert (ack.status, ack.late) == (Status.ALL_LATE, 3)
        assert ack.mend
        bench.ticks(40)
        assert bench.motion()["state"] == "POLICY"


def test_an_empty_queue_holds_and_only_an_observation_taken_later_goes_on(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        before = bench.observe(policy)
        policy.act(before, bench.chunk(before, 3), dt_s=DT_S)
        bench.in_state("HOLD", "queue_empty")
        late = policy.act(before, bench.chunk(before, 100), dt_s=DT_S)
        assert late.status is Status.BEFORE_HOLD
        bench.rejoin(policy)


def test_a_chunk_that_says_how_long_it_is_valid_is_played_no_longer(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        seen = bench.observe(policy)
        ack = policy.act(seen, bench.chunk(seen, LONG_STEPS), dt_s=DT_S, valid_s=0.5)
        assert ack.status is Status.APPLIED
        told = bench.in_state("HOLD", "chunk_expired")
        assert told["since_ns"] < seen.t_ref_ns + LONG_NS, "the chunk would last"
        bench.rejoin(policy)


def test_inferences_of_300_ms_starve_chunks_of_200_ms_and_the_arm_rejoins_each_time(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        for _ in range(3):
            seen = bench.observe(policy)
            assert policy.act(seen, bench.chunk(seen, 6), dt_s=DT_S).status is Status.APPLIED
            held = bench.in_state("HOLD", "queue_empty")
            assert held["since_ns"] > seen.t_ref_ns + round(6 * DT_S * NS_PER_S)
            slow = bench.observe(policy)
            sleep_until_ns(slow.t_ref_ns + 300_000_000)  # its inference
            late = policy.act(slow, bench.chunk(slow, 6), dt_s=DT_S).status
            assert late in (Status.ALL_LATE, Status.OLD_OBS, Status.BEFORE_HOLD)
            assert bench.motion()["state"] == "HOLD"
            bench.rejoin(policy)


def attached(bench) -> bool:
    """Whether it may drive; not before enough of its chunks were sound."""
    try:
        bench.gateway("policy.attach")
    except StateError:
        return False
    return True


def test_a_stopped_client_is_held_while_its_chunk_would_still_last(bench) -> None:
    with driving(bench.endpoint, LONG_STEPS) as driver:
        driver.until_said("shadow")
        until(lambda: attached(bench), "a warmed-up client to be attached")
        driver.until_said("applied")
        bench.in_state("POLICY")
        stopped_ns = now_ns()
        os.kill(driver.pid, signal.SIGSTOP)
        try:
            told = bench.in_state("HOLD")
            assert told["cause"] == "heartbeat_missed"
            assert told["since_ns"] < stopped_ns + LONG_NS, "the chunk would last"
            bench.assert_stands()
        finally:
            os.kill(driver.pid, signal.SIGCONT)
        bench.in_state("POLICY")


def test_a_client_that_is_killed_and_starts_anew_does_not_drive_by_what_was_allowed_before(
    bench,
) -> None:
    with driving(bench.endpoint, LONG_STEPS) as driver:
        until(lambda: attached(bench), "a warmed-up client to be attached")
        bench.in_state("POLICY")
        os.kill(driver.pid, signal.SIGKILL)
        bench.in_state("HOLD", "heartbeat_missed")
    with bench.policy(name="anew") as policy:
        with pytest.raises(RecdError, match="held by driven by a test") as refused:
            policy.acquire()
        assert "policy detach" in refused.value.mend
        bench.gateway("policy.detach")
        until(lambda: bench.leases()["main"]["kind"] == "nobody", "the lease to be free")
        mark = bench.control.mark()
        policy.acquire()
        bench.center = bench.observe(policy).state.astype(float)
        assert {bench.send(policy).status for _ in range(4)} == {Status.SHADOW}
        assert all(len(set(goals)) <= 1 for goals in bench.goals(mark).values())
        bench.gateway("policy.attach")
        bench.rejoin(policy)


def test_a_policy_that_counts_its_chunks_from_one_again_is_refused(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        until(lambda: bench.send(policy) and policy._chunk > 3, "some chunks")
        policy._chunk = 0
        ack = bench.send(policy)
        assert ack.status is Status.OUT_OF_ORDER
        assert "upwards" in ack.mend


@pytest.mark.parametrize("hours", [1, -1])
def test_a_client_whose_clock_is_an_hour_off_drives_like_any_other(bench, hours: int) -> None:
    world = ("unshare", "--user", "--map-root-user", "--time", "--monotonic", str(3600 * hours))
    if subprocess.run([*world, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no time namespaces here, or this computer runs for less than an hour")
    with driving(bench.endpoint, 60, world=world) as driver:
        offset_ns, bound_ns = map(int, driver.until_said("clock").split()[1:3])
        assert abs(offset_ns + 3600 * hours * NS_PER_S) <= bound_ns
        until(lambda: attached(bench), "a warmed-up client to be attached")
        driver.until_said("applied")
        bench.in_state("POLICY")
        told = until(lambda: bench.leases()["main"].get("clock"), "its clock to be told")
        assert abs(told["offset_ns"] - offset_ns) <= told["bound_ns"] + bound_ns
    bench.in_state("HOLD")


def test_a_loop_that_hangs_is_held_although_its_heartbeat_lives(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        seen = bench.observe(policy)
        ack = policy.act(seen, bench.chunk(seen, LONG_STEPS), dt_s=DT_S)
        assert ack.status is Status.APPLIED
        told = bench.in_state("HOLD", "heartbeat_missed")
        assert told["since_ns"] < seen.t_ref_ns + LONG_NS, "the chunk would last"
        assert bench.leases()["main"]["kind"] == "policy", "its lease is kept for a while"
        bench.rejoin(policy)


def test_a_lease_stolen_in_the_middle_of_a_chunk_ends_it_and_nobody_drives(bench) -> None:
    with bench.policy(name="first") as first, bench.policy(name="second") as second:
        bench.drive(first)
        with pytest.raises(RecdError, match="held by first"):
            second.acquire()
        second.acquire(kind="teleop")
        bench.in_state("HOLD", "lease_lost")
        assert bench.send(first).status is Status.STALE_EPOCH
        bench.center = bench.observe(second).state.astype(float)
        assert bench.send(second).status is Status.SHADOW
        bench.assert_stands()


@pytest.mark.parametrize(("kind", "words"), [("stall", "ms old"), ("freeze", "stands still")])
def test_a_camera_that_stops_is_named_and_the_arm_holds(bench, kind: str, words: str) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        camera_control.call(bench.cameras, "fault", camera="*", kind=kind)

        def starved() -> str:
            try:
                policy.observe()
            except NoObservationError as error:
                return error.message if "front" in error.message else ""
            return ""

        assert words in until(starved, "no observation")
        bench.in_state("HOLD", "queue_empty")
        camera_control.call(bench.cameras, "clear")
        bench.rejoin(policy)


def test_a_killed_gateway_holds_the_arm_and_its_lease_does_not_come_back(bench) -> None:
    with bench.policy() as policy:
        bench.drive(policy)
        seen = bench.observe(policy)
        policy.act(seen, bench.chunk(seen, LONG_STEPS), dt_s=DT_S)
        killed_ns = now_ns()
        os.kill(bench.robot.workers()["gateway"].pid, signal.SIGKILL)
        told = bench.in_state("HOLD")
        assert told["cause"] in ("heartbeat_missed", "lease_lost")
        assert told["since_ns"] < killed_ns + LONG_NS
        bench.in_state("HOLD", "lease_lost")
        until(lambda: bench.leases()["main"]["kind"] == "nobody", "a new gateway")
    bench.ready()
    with bench.policy() as policy:
        bench.drive(policy)


def test_a_flood_on_act_neither_moves_nor_ends_anything(bench) -> None:
    with bench.policy() as policy, bench.actions() as socket:
        bench.drive(policy)
        parts = bench.raw_act(policy, lease={"id": "0" * 32, "epoch": 1})
        for number in range(20_000):
            socket.send_multipart(parts)
            while socket.poll(0):
                socket.recv_multipart()
            if number % 1000 == 0:
                bench.send(policy)  # who gives no sign of life for long loses the lease, rightly
        bench.rejoin(policy)
        assert bench.leases()["main"]["kind"] == "policy"


def test_the_episode_of_all_these_faults_is_saved_whole_and_says_who_drove(shared) -> None:
    shared.ready()
    with shared.policy() as policy:
        if shared.client.status()["episode"] is None:
            shared.client.start()
        shared.drive(policy)
        upto = shared.robot.rows() + 10
        until(lambda: (shared.send(policy), shared.robot.rows() >= upto)[1], "rows of the policy")
        saved = shared.client.stop()
    assert saved["state"] == "saved"
    rows = arrows(shared.robot.own(saved["uid"]) / "rows.arrows")
    assert len(rows) == saved["rows"]
    sources = set(rows["recd.control_source"].to_pylist())
    assert {GoalSource.POLICY, GoalSource.HOLD} <= sources
    assert GoalSource.LEADER not in sources
    manifest = json.loads((shared.robot.own(saved["uid"]) / "manifest.json").read_text())
    assert {one["kind"] for one in manifest["policies"]} >= {"policy"}
