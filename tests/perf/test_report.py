import io
import json

import pytest
from rich.console import Console

from recd.config.errors import RecdError
from recd.perf import beside, pass_through, report, result


def printed(document):
    out = io.StringIO()
    report.show(document, Console(file=out, width=120, emoji=False))
    return out.getvalue()


def test_percent_kept_comes_first_and_the_peers_figures_are_told_to_be_quoted(document):
    text = printed(document)
    assert text.index("kept, %") < text.index("repeated rows")
    assert "896 of 900" in text
    assert "not measured here" in text
    assert "lerobot-record 0.6.1, unmodified" in text


def test_without_a_peer_run_of_the_same_load_nothing_is_quoted(document):
    document["scenario"]["cameras"] = 7
    assert "896" not in printed(document)


def test_pictures_as_their_camera_sends_them_have_a_cost_and_no_floor(document):
    (run,) = document["runs"]
    run["against_floors"] = pass_through.costs(run)
    pictures = sum(camera["truth"]["pictures"] for camera in run["cameras"].values())
    assert run["against_floors"]["pipeline_ms"] == pytest.approx((0.01 * 5 + 0.1) * 1e3 / pictures)
    document["floors"], document["summary"] = None, result.summary(document["runs"])
    text = printed(document)
    assert "as their camera sends them" in text
    assert "floors, measured after" not in text
    document["floors"] = {"code": {}}
    assert pass_through.line(document) is None


def test_a_noisy_machine_and_a_wrong_picture_cannot_be_overlooked(document):
    document["notes"] = ["THE MACHINE IS NOT QUIET"]
    document["runs"][0]["cameras"]["front"]["truth"]["findings"] = [
        "row 7: stamp of another camera"
    ]
    text = printed(document)
    assert "NOT QUIET" in text
    assert "row 7: stamp of another camera" in text


def test_what_is_over_budget_is_listed_with_the_reason_of_its_limit(document):
    document["budgets"] = [
        {"subject": "process:writer", "metric": "cores", "unit": "cores", "value": 0.9,
         "limit": 0.1, "kept": False, "reason": "Appends small records."},
        {"subject": "run", "metric": "start_reply_ms", "unit": "ms", "value": 5.0,
         "limit": 50, "kept": True, "reason": "Feels immediate."},
    ]  # fmt: skip
    text = printed(document)
    assert "1 of 2 kept" in text
    assert "Appends small records." in text


def test_the_floor_is_shown_with_its_ratios(document):
    figures = {"p50": 10.0, "p99": 90.0, "p99_9": 200.0, "n": 100}
    document["floor"] = {
        "legs": [],
        "processes": {
            "arm:main.leader": {
                "ours_lateness_us": figures, "bare_lateness_us": figures,
                "ratio_p50": 1.25, "ratio_p99": 1.5, "ratio_p99_9": 2.0,
            }
        },
    }  # fmt: skip
    assert "1.25 / 1.50 / 2.00" in printed(document)


def test_a_side_by_side_result_is_one_table_with_both_recorders(tmp_path, document):
    figures = {"p50": 9.0, "p99": 12.0}
    ours = {"percent_kept": 100.0, "stored": 900, "new": 900, "skew_ms": figures, "save_s": 0.1}
    theirs = {**ours, "percent_kept": 98.5, "stored": 886, "save_s": 0.4}
    told = {
        "format": beside.BESIDE_VERSION, "kind": "beside", "lerobot": "0.6.1", "notes": [],
        "origin": document["origin"], "machine": document["machine"],
        "scenario": document["scenario"],
        "pairs": [{"recd": ours, "lerobot": theirs}, {"recd": ours, "lerobot": ours}],
    }  # fmt: skip
    path = tmp_path / "beside.json"
    path.write_text(json.dumps(told))
    out = io.StringIO()
    beside.show(beside.load(path), Console(file=out, width=140))
    text = out.getvalue()
    assert text.index("rows kept, %") < text.index("save wait, s")
    assert "99.25 (98.50..100.00)" in text


def test_another_kind_of_file_is_no_side_by_side_result(tmp_path, document):
    path = tmp_path / "other.json"
    path.write_text(json.dumps(document))
    with pytest.raises(RecdError, match="side-by-side"):
        beside.load(path)
