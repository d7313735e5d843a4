"""One short measurement of policies with the real daemon: whole, and with every reaction seen."""

from recd.perf import result
from recd.perf.policy.bench import Plan, measure, scenario_of
from recd.perf.policy.document import document


def test_a_short_measurement_of_policies_finds_all_its_figures(tmp_path) -> None:
    scenario = scenario_of(cameras=1, width=320, height=240, rate_hz=100, seconds=1.0, runs=1)
    plan = Plan(scenario, tmp_path, latencies_ms=(50.0,), adapter="none", freezes=1,
                interruptions=("hold",), transports=("ipc", "curve"), settle_s=0.0,
                quiet_s=1.0)  # fmt: skip
    said: list[str] = []
    found = document(plan, measure(plan, said.append))
    path = result.save(found, tmp_path / "policy.json")
    (run,) = result.load(path)["runs"]
    assert set(run["observe"]) == {"ipc", "curve"}
    assert min(asked["ms"]["n"] for asked in run["observe"].values()) > 0
    assert run["first_goal"]["ms"]["n"] > 0
    assert sum(run["frozen"]["causes"].values()) == 1
    assert "none" not in run["frozen"]["causes"], "the arm held when its policy stopped"
    assert run["interrupted"]["last_goal_ms"]["n"] + run["interrupted"]["idle"] == 1
    assert run["tracking"]["50"]["chunks"] > 0
    assert set(run["lateness"]) == {"arm:main.leader", "arm:main.follower"}
    assert {"gateway", "writer", "supervisor"} <= set(run["cpu"]["cores"])
    assert run["streams"]["chunks"] == 0
    assert found["rig"] == "any", "limits of the usual load do not judge another one"
