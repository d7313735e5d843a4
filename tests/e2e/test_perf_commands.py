"""The measuring commands with the real daemon, as small as they can be."""

import json

import pytest

from recd.daemon.dataset import survey, verify_dataset
from recd.perf import growth, imports, result
from recd.perf.grow import grow
from recd.perf.scenario import Scenario

SMALL = Scenario(seconds=0.5, runs=1, cameras=1, width=160, height=160)


@pytest.fixture
def recd_perf(monkeypatch, tmp_path):
    from recd.perf import cli

    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["recd.perf", *words])
        return cli.main()

    return run


def test_memory_of_a_minute_is_a_result_with_every_process(recd_perf, tmp_path):
    recd_perf("memory", "--minutes", "0.15", "--seconds", "1", "--look-every", "0.3", "--cameras",
              "1", "--size", "160x160", "--quiet-for", "1", "-o", "hour.json")  # fmt: skip
    told = result.load(tmp_path / "hour.json")
    (run,) = told["runs"]
    assert run["episodes"]["saved"] >= 1
    assert {"writer", "supervisor", "camera:front"} <= set(run["looks"]["each_mb"])
    assert len(run["looks"]["at_s"]) == len(run["looks"]["segments"]) > 3
    assert not list(tmp_path.glob("recd-bench-data-*"))


def test_waits_hold_every_episode_that_was_recorded(recd_perf, tmp_path):
    recd_perf("waits", "--episodes", "3", "--cameras", "1", "--size", "160x160", "--quiet-for", "1",
              "-o", "waits.json")  # fmt: skip
    (run,) = json.loads((tmp_path / "waits.json").read_text())["runs"]
    assert len(run["episodes"]) == run["stop_to_durable_ms"]["n"] == 3
    assert all(one["first_row_periods"] > 0 for one in run["episodes"])


def test_no_process_of_a_daemon_imports_the_compiler_at_run_time(tmp_path):
    told = imports.measure(SMALL, tmp_path)
    assert told["compiler"] == []
    # What encoders and cameras import stands in the line of the fork server.
    for name in ("writer", "supervisor", "arm:main.leader", "forkserver"):
        assert told["processes"][name]["modules"] > 50


def test_a_grown_dataset_is_whole_and_recorded_into_at_each_size(tmp_path):
    kept = []
    plan = growth.Plan(SMALL, tmp_path, sizes=(3, 6), count=2, peer=False, quiet_s=1.0)
    told = growth.measure(plan, None, keep=kept.append, say=lambda text: None)
    assert [run["episodes_before"] for run in told["runs"]] == [3, 6]
    assert len(kept) == 2
    result.save(told, tmp_path / "growth.json")
    grow(plan.root, 12, say=lambda text: None)
    episodes = survey(plan.root)
    assert len({one.uid for one in episodes}) == 12
    report = verify_dataset(plan.root)
    assert report.good, report.findings
