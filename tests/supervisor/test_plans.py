"""Plans in the daemon: they run without a client, by keys, and end as they were told."""

from collections.abc import Callable
from typing import Any

from .conftest import Daemon, until

Start = Callable[..., Daemon]


def plan_in(daemon: Daemon, phase: str) -> dict[str, Any]:
    def there() -> dict[str, Any] | None:
        plan = daemon.ok("plan.status")["plan"]
        return plan if plan["phase"] == phase else None

    found: dict[str, Any] = until(there, f"plan in {phase}")
    return found


def test_a_plan_records_all_its_episodes_by_itself_with_the_rows_asked_for(shared: Daemon) -> None:
    before = len(shared.ok("episodes")["episodes"])
    shared.ok("plan.start", episodes=2, episode_s=0.5, reset_s=0.1, task="by plan")
    plan = plan_in(shared, "done")
    assert (plan["done"], plan["outcome"], plan["active"]) == (2, "complete", False)
    takes = shared.ok("episodes")["episodes"][before:]
    assert [take["state"] for take in takes] == ["saved", "saved"]
    assert {take["task"] for take in takes} == {"by plan"}
    assert all(take["rows"] >= 15 for take in takes)


def test_keys_drive_a_plan(shared: Daemon) -> None:
    shared.ok("plan.start", episodes=2, episode_s=600, reset_s=600)
    plan_in(shared, "recording")
    assert "plan" in shared.refused("start")["message"]
    shared.ok("plan.key", key="rerecord")
    assert plan_in(shared, "reset")["rerecorded"] == 1
    shared.ok("plan.key", key="next")
    plan_in(shared, "recording")
    shared.ok("plan.key", key="hold")
    assert shared.status()["flags"]["paused"]
    until(lambda: shared.status()["arms"]["main"]["motion"].get("state") == "HOLD", "arms hold")
    shared.ok("plan.key", key="next")
    plan_in(shared, "reset")
    shared.ok("plan.key", key="rerecord")
    plan_in(shared, "recording")
    shared.ok("plan.key", key="stop")
    plan = plan_in(shared, "done")
    assert (plan["done"], plan["rerecorded"], plan["outcome"]) == (1, 2, "stopped")
    states = [take["state"] for take in shared.ok("episodes")["episodes"][-3:]]
    assert states == ["discarded", "undone", "saved"]
    assert shared.refused("plan.key", key="next")["code"] == "state"


def test_a_client_that_vanishes_ends_the_plan_as_it_was_told(shared: Daemon) -> None:
    shared.ok(
        "plan.start", episodes=3, episode_s=600, reset_s=0, on_client_lost="stop", client="laptop"
    )
    plan_in(shared, "recording")
    plan = plan_in(shared, "done")
    assert (plan["outcome"], plan["done"]) == ("client lost", 1)


def test_a_client_that_leaves_on_purpose_ends_nothing(shared: Daemon) -> None:
    shared.ok("plan.start", episodes=1, episode_s=600, reset_s=0, client="laptop")
    plan_in(shared, "recording")
    assert shared.ok("plan.attach", client="tablet")["clients"] == ["laptop", "tablet"]
    shared.ok("plan.detach", client="laptop")
    assert shared.ok("plan.detach", client="tablet")["active"]
    shared.ok("stop")
    assert plan_in(shared, "done")["outcome"] == "stopped"


def test_a_dataset_that_held_episodes_before_has_to_be_resumed_on_purpose(
    start_daemon: Start,
) -> None:
    daemon = start_daemon(writer={"episodes": 4})
    daemon.wait_state("READY")
    refusal = daemon.refused("plan.start", episodes=1, episode_s=1, reset_s=0)
    assert "--resume" in refusal["mend"]
    daemon.ok("plan.start", episodes=1, episode_s=0.2, reset_s=0, resume=True)
    assert plan_in(daemon, "done")["done"] == 1
