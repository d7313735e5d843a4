import json
from copy import deepcopy
from pathlib import Path

import pytest

from recd.config.errors import RecdError
from recd.perf import beside, result
from recd.perf.bench import INDEX

RESULTS = Path(__file__).parents[2] / "perf" / "results"
KEPT = sorted(path for path in RESULTS.rglob("*.json") if path.name != INDEX)
SPINES = [path for path in KEPT if "-beside-" not in path.name]
BESIDES = [path for path in KEPT if "-beside-" in path.name]


def test_a_whole_result_comes_back_as_it_was_written(tmp_path, document):
    path = result.save(document, tmp_path / "deep" / "result.json")
    assert result.load(path) == json.loads(json.dumps(document))


@pytest.mark.parametrize("path", ["machine.cpu", "silence.quiet", "runs", "floor", "format"])
def test_a_missing_key_is_named(document, path):
    *above, key = path.split(".")
    holder = document
    for name in above:
        holder = holder[name]
    del holder[key]
    assert any(said.startswith(path) for said in result.problems(document))


def test_a_missing_figure_of_one_camera_is_named_with_its_run(document):
    document["runs"].append(deepcopy(document["runs"][0]))
    del document["runs"][1]["cameras"]["front"]["truth"]["wrong"]
    assert result.problems(document) == ["runs[1].cameras.front.truth.wrong: missing"]


def test_another_version_is_refused(tmp_path, document):
    path = tmp_path / "newer.json"
    path.write_text(json.dumps({**document, "format": result.RESULT_VERSION + 1}))
    with pytest.raises(RecdError, match="format"):
        result.load(path)


def test_a_partial_result_is_not_written(tmp_path, document):
    del document["scenario"]
    with pytest.raises(RecdError, match="scenario"):
        result.save(document, tmp_path / "result.json")
    assert list(tmp_path.iterdir()) == []


def test_the_summary_is_median_and_range_over_runs(run):
    runs = [deepcopy(run) for _ in range(3)]
    for at, one in enumerate(runs):
        one["waits"]["start_reply_ms"] = 10.0 * at
        one["cameras"]["front"]["repeated"] = at
    told = result.summary(runs)
    assert told["waits.start_reply_ms"] == {
        "median": 10.0, "least": 0.0, "most": 20.0, "n": 3, "unit": "ms",
    }  # fmt: skip
    assert told["cameras.front.repeated"]["most"] == 2
    assert told["control.arm:main.follower.lateness_us.p99"]["median"] == 100.0
    assert told["cpu.cores.camera:front"]["unit"] == "cores"


def test_committed_results_are_whole_quiet_and_of_a_clean_commit():
    kept = {str(path.relative_to(RESULTS)): json.loads(path.read_text()) for path in SPINES}
    assert [n for n, told in kept.items() if result.problems(told)] == []
    assert [n for n, told in kept.items() if not told["silence"]["quiet"]] == []
    assert [n for n, told in kept.items() if told["origin"]["commit"].endswith("+")] == []


def test_committed_side_by_side_results_say_noisy_unless_quiet_and_are_of_a_clean_commit():
    kept = {path.stem: beside.load(path) for path in BESIDES}
    quiet = {
        name: all(pair["silence"]["quiet"] for pair in told["pairs"]) for name, told in kept.items()
    }
    assert {name: not name.endswith("-noisy") for name in kept} == quiet
    assert [n for n, told in kept.items() if told["origin"]["commit"].endswith("+")] == []
