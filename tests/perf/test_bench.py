import io
import json
from copy import deepcopy
from dataclasses import replace

import pytest
from rich.console import Console

from recd.config.errors import RecdError
from recd.perf import bench, grid_report
from recd.perf.grid import Grid
from recd.perf.scenario import Scenario
from recd.perf.spine import Plan, require_space

CELLS = (Scenario(seconds=2, runs=1, cameras=1), Scenario(seconds=2, runs=1, cameras=2))


@pytest.fixture
def measured(document):
    def measure(plan, say):
        say("measured")
        if plan.scenario.cameras == 2:
            (plan.directory / "recd.log").write_text("the last words\n")
            raise RecdError("the daemon ended with code 1")
        return {**deepcopy(document), "scenario": plan.scenario.plain()}

    return measure


def test_a_cell_whose_encoder_this_machine_has_not_fails_before_a_daemon_is_started(
    tmp_path, monkeypatch
):
    # The probe is a process of its own, this interpreter: one that ends at once found no hardware.
    monkeypatch.setattr("sys.executable", "/bin/false")
    told = []
    scenario = Scenario(seconds=2, runs=1, cameras=1, vcodec="h264_qsv")
    (cell,) = bench.run_grid(
        Grid("mine", (scenario,)), tmp_path / "bench", quiet_s=1, say=told.append
    )
    for word in ("h264_qsv", "the probe found", "ended with code 1"):
        assert word in cell.error
    assert not cell.file
    assert not any("daemon" in line or "quiet" in line for line in told)


def ran(tmp_path, measured, cells=CELLS):
    folder = tmp_path / "bench"
    said = []
    told = bench.run_grid(
        Grid("mine", cells), folder, quiet_s=1, say=said.append, measure_cell=measured
    )
    return folder, told, said


def test_a_cell_that_fails_costs_itself_and_leaves_its_log(tmp_path, measured):
    folder, told, said = ran(tmp_path, measured, CELLS[::-1])
    assert [bool(cell.error) for cell in told] == [True, False]
    assert (folder / "01-recd.log").read_text() == "the last words\n"
    index, results = bench.load_folder(folder)
    assert [one["scenario"]["cameras"] for one in results] == [1]
    assert index["expected"] == len(index["cells"]) == 2
    assert any("failed" in line for line in said)
    assert not (folder / "data").exists()


def test_a_bench_that_was_interrupted_keeps_the_cells_before(tmp_path, measured):
    def interrupted(plan, say):
        if plan.scenario.cameras == 2:
            raise KeyboardInterrupt
        return measured(plan, say)

    with pytest.raises(KeyboardInterrupt):
        ran(tmp_path, interrupted)
    index, results = bench.load_folder(tmp_path / "bench")
    assert (len(results), index["expected"]) == (1, 2)
    assert "1 of 2 cells ran" in shown(index, results)


def test_a_bench_that_ended_early_is_gone_on_with_where_it_ended(tmp_path, measured):
    folder, told, _ = ran(tmp_path, measured)
    (folder / "data").mkdir()
    (folder / "data" / "half an episode").write_text("killed while it recorded\n")
    asked = []

    def mended(plan, say):
        assert not any(plan.directory.iterdir())
        asked.append(plan.scenario.cameras)
        return measured(replace(plan, scenario=replace(plan.scenario, cameras=9)), say) | {
            "scenario": plan.scenario.plain()
        }

    first = (folder / told[0].file).read_bytes()
    folder, told, said = ran(tmp_path, mended)
    assert asked == [2]  # the cell that failed
    assert [cell.error for cell in told] == ["", ""]
    assert (folder / told[0].file).read_bytes() == first
    index, results = bench.load_folder(folder)
    assert [one["scenario"]["cameras"] for one in results] == [1, 2]
    assert len(index["cells"]) == 2
    assert any("1 of them are there" in line for line in said)
    ran(tmp_path, mended)
    assert asked == [2]


@pytest.mark.parametrize("other", ["grid", "commit", "computer", "cells"])
def test_results_of_another_bench_are_not_mixed_with_these(tmp_path, measured, other):
    folder, told, _ = ran(tmp_path, measured)
    index = json.loads((folder / bench.INDEX).read_text())
    match other:
        case "grid":
            index["grid"] = "theirs"
        case "commit":
            index["origin"]["commit"] = "0123456789ab"
        case "computer":
            index["machine"]["cores_allowed"] = 640
        case "cells":
            one = json.loads((folder / told[0].file).read_text())
            one["scenario"]["cameras"] = 7
            (folder / told[0].file).write_text(json.dumps(one))
    (folder / bench.INDEX).write_text(json.dumps(index))
    with pytest.raises(RecdError, match="another bench") as error:
        ran(tmp_path, measured)
    found = {"grid": "theirs", "commit": "0123456789ab", "computer": "640",
             "cells": told[0].title}  # fmt: skip
    assert found[other] in str(error.value)
    assert "--directory" in str(error.value)


def shown(index, results):
    out = io.StringIO()
    grid_report.show(index, results, Console(file=out, width=200, emoji=False))
    return out.getvalue()


def test_the_table_has_percent_kept_first_and_tells_what_failed(tmp_path, measured):
    folder, _, _ = ran(tmp_path, measured)
    text = shown(*bench.load_folder(folder))
    head = next(line for line in text.splitlines() if "kept" in line)
    assert head.split()[0] == "kept"
    assert "100.00" in text
    assert "the daemon ended with code 1" in text


def test_a_folder_that_is_no_bench_and_one_of_another_format_are_refused(tmp_path):
    with pytest.raises(RecdError, match="folder of a bench"):
        bench.load_folder(tmp_path)
    (tmp_path / bench.INDEX).write_text(json.dumps({"format": 99}))
    with pytest.raises(RecdError, match="99"):
        bench.load_folder(tmp_path)


def test_too_little_disk_is_told_in_gigabytes_before_anything_runs(tmp_path):
    huge = Scenario(seconds=3600, runs=50, cameras=16, width=7680, height=4320, fps=240)
    with pytest.raises(RecdError, match=r"GB free, found") as error:
        require_space(Plan(huge, tmp_path / "not yet there"))
    assert "Free some" in str(error.value)


def test_names_of_cells_differ_whenever_scenarios_differ():
    base = Scenario()
    others = [
        replace(base, **change)
        for change in (
            {"cameras": 3}, {"width": 320}, {"source": "v4l2"}, {"source": "v4l2-mjpeg"},
            {"preset": "ultrafast"}, {"rate_hz": 100}, {"load": "disk"}, {"vcodec": "av1"},
        )
    ]  # fmt: skip
    assert len({bench.slug(one) for one in [base, *others]}) == len(others) + 1
