import io
from copy import deepcopy

import pytest
from rich.console import Console

from recd.config.errors import RecdError
from recd.perf import compare, result


def with_figure(document, *values, path="waits.stop_to_durable_ms"):
    told = deepcopy(document)
    (run,) = told["runs"]
    group, key = path.split(".")
    told["runs"] = []
    for value in values:
        one = deepcopy(run)
        one[group][key] = value
        told["runs"].append(one)
    told["summary"] = result.summary(told["runs"])
    return told


def verdict(found, figure="waits.stop_to_durable_ms"):
    return next(one for one in found if one.figure == figure).verdict


def test_a_change_inside_the_spread_of_the_runs_is_none(document):
    a, b = with_figure(document, 80.0, 100.0, 120.0), with_figure(document, 90.0, 115.0, 130.0)
    assert verdict(compare.changes(a, b)) is compare.Verdict.SAME


def test_a_change_beyond_the_band_is_better_or_worse_by_its_direction(document):
    a, b = with_figure(document, 99.0, 100.0, 101.0), with_figure(document, 149.0, 150.0, 151.0)
    assert verdict(compare.changes(a, b)) is compare.Verdict.WORSE
    assert verdict(compare.changes(b, a)) is compare.Verdict.BETTER


def test_of_rows_more_is_better(document):
    path = "rows.percent_kept"
    a = with_figure(document, 100.0, path=path)
    b = with_figure(document, 90.0, path=path)
    assert verdict(compare.changes(a, b), path) is compare.Verdict.WORSE
    assert verdict(compare.changes(b, a), path) is compare.Verdict.BETTER


def test_the_band_of_a_a_results_replaces_that_of_the_runs(document):
    a, b = with_figure(document, 60.0, 100.0, 140.0), with_figure(document, 120.0)
    calm = [with_figure(document, value) for value in (99.0, 101.0)]
    restless = [with_figure(document, value) for value in (80.0, 120.0)]
    assert verdict(compare.changes(a, b)) is compare.Verdict.SAME
    assert verdict(compare.changes(a, b, calm)) is compare.Verdict.WORSE
    assert verdict(compare.changes(a, b, restless)) is compare.Verdict.SAME


def test_something_where_there_was_nothing_is_a_change(document):
    a = with_figure(document, 0.0, path="finish.cpu_s")
    b = with_figure(document, 0.2, path="finish.cpu_s")
    assert verdict(compare.changes(a, b), "finish.cpu_s") is compare.Verdict.WORSE


@pytest.mark.parametrize("key", ["cameras", "vcodec", "load"])
def test_results_of_different_scenarios_are_not_compared(document, key):
    other = deepcopy(document)
    other["scenario"][key] = "another"
    with pytest.raises(RecdError, match=f"scenario.{key}"):
        compare.require_same(document, other)


def test_a_result_from_before_there_were_loads_had_none(document):
    older = deepcopy(document)
    del older["scenario"]["load"]
    assert compare.require_same(older, document) == []


def test_another_machine_and_a_noisy_one_are_told(document):
    other = deepcopy(document)
    other["machine"]["cpu"] = "another processor"
    other["silence"]["quiet"] = False
    notes = compare.require_same(document, other)
    assert any("another processor" in note for note in notes)
    assert any("B was measured on a machine that was not quiet" in note for note in notes)


def test_only_what_changed_is_printed_and_all_is_counted(document):
    a, b = with_figure(document, 100.0), with_figure(document, 200.0)
    found = compare.changes(a, b)
    out = io.StringIO()
    compare.show(found, [], Console(file=out, width=140), everything=False, banded=False)
    text = out.getvalue()
    assert "waits.stop_to_durable_ms" in text
    assert "start_reply_ms" not in text
    assert f"{len(found)} figures: {len(found) - 1} the same, 1 worse" in text
