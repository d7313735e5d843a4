"""What is recorded by itself while a policy drives, at the whole daemon."""

import json
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from recd.config.errors import StateError
from recd.config.streams import GoalSource
from recd.shm.clock import now_ns
from tests.clients.test_commands import Keyboard
from tests.e2e.policybench import FOLLOWER, OVERRIDES, PolicyBench
from tests.e2e.test_policy import arrows
from tests.rig import until

BACK_S = 3


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PolicyBench]:
    more = ("simulation.demonstration=false", f"rollout.highlight_s={BACK_S}")
    with PolicyBench.running(tmp_path_factory.mktemp("robot"), *OVERRIDES, *more) as bench:
        yield bench


@pytest.fixture
def bench(shared: PolicyBench) -> Iterator[PolicyBench]:
    shared.ready()
    yield shared
    shared.client.call("rollout.stop")


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


def test_an_attempt_with_its_correction_inside_marks_who_had_the_arm(bench) -> None:
    rollout(bench, "dagger", corrections="inside")
    with bench.policy() as policy:
        correct(bench, policy)
        bench.ticks(30)  # rows of the pause, too
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


def test_a_sentry_records_on_and_on_in_episodes(bench) -> None:
    rollout(bench, "sentry", episode_s=1)
    assert [take["rows"] >= 25 for take in saved(bench, 2)[:2]] == [True, True]
    with pytest.raises(StateError, match="a rollout records by itself"):
        bench.client.call("plan.start", episodes=1, episode_s=5, reset_s=0, resume=True)


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


def test_an_attempt_at_its_longest_is_saved_and_paused_and_a_persons_word_begins_the_next(
    bench,
) -> None:
    rollout(bench, "episodic", episode_s=2)
    with bench.policy() as policy:
        bench.drive(policy)

        def paused() -> bool:
            bench.send(policy)
            return bench.motion()["state"] == "PAUSED"

        until(paused, "the pause")
        saved(bench, 1)
        bench.client.wait_until("READY")
        assert bench.client.status()["rollout"]["uid"] == "", "no episode of a paused policy"
        bench.client.call("policy.resume")
        bench.rejoin(policy)
        until(lambda: bench.client.status()["rollout"]["uid"], "the next episode")
        bench.client.hold()
        takes = saved(bench, 2)
    assert [take["end_reason"] for take in takes] == ["rollout", "rollout"]
    assert takes[0]["rows"] >= 55


def test_keys_interrupt_correct_give_back_and_save_the_last_seconds(bench) -> None:
    rollout(bench, "highlight")
    recctl = [sys.executable, "-m", "recd.clients.recctl.cli", "rollout"]
    with (
        bench.policy() as policy,
        Keyboard(bench.robot, "--keys", command=recctl) as terminal,
    ):
        terminal.sees(b"h highlight")
        bench.drive(policy)
        terminal.press(b"t")
        bench.in_state("CORRECTING")
        terminal.press(b"p")
        bench.in_state("PAUSED")
        terminal.sees(b"PAUSED")
        terminal.press(b"g")
        bench.in_state("HOLD")
        bench.client.wait_until("READY")
        terminal.press(b"h")
        (take,) = saved(bench, 1)
        terminal.sees(take["uid"][:8].encode())
        terminal.press(b"d")
        assert terminal.process.wait(30) == 0
    assert take["end_reason"] == "highlight"
