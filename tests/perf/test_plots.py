import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
import pytest

from recd.config.streams import HISTOGRAM_BUCKETS, TICK_DTYPE, TickFlag
from recd.perf import plots
from recd.perf.run_result import TIMELINE_POINTS, timeline
from recd.perf.truth import PictureTruth


@pytest.fixture
def drawable(document):
    counts = [0] * HISTOGRAM_BUCKETS
    counts[20:24] = [100, 50, 10, 1]
    (run,) = document["runs"]
    run["control"]["arm:main.follower"]["lateness_histogram"] = counts
    run["cameras"]["front"]["timeline"] = {"s": [0.0, 0.1], "latency_ms": [30.0, 35.0]}
    document["floor"] = {"processes": {"arm:main.follower": {"bare_histogram": counts}}}
    return document


def test_every_plot_is_a_picture(tmp_path, drawable):
    written = plots.draw(drawable, tmp_path / "new", stem="one", form="png")
    assert {path.name for path in written} == {f"one-{name}.png" for name in plots.PLOTS["spine"]}
    for path in written:
        picture = cv2.imread(str(path))
        assert picture.shape[1] > 600
        assert picture.std() > 1


def both(percent, cores):
    return {"percent_kept": percent, "repeated": 1, "stale_joints": 0, "skew_ms": {"p99": 4.0},
            "save_s": 0.1, "start_s": 2.0, "cores": cores, "peak_pss_bytes": 4e8,
            "written_bytes": 1e7}  # fmt: skip


PARTS = {
    # A peer that gave up has no figures but these.
    "beside": {"pairs": [
        {"recd": both(100.0, 0.5), "lerobot": both(99.0, 0.7)},
        {"recd": both(100.0, 0.6), "lerobot": {"error": "gave up", "percent_kept": 0.0}},
    ]},
    "imports": {"processes": {
        "arm:main.leader": {"modules": 9, "ms": 50.0, "packages": {"numpy": 45.0, "json": 5.0}},
        "supervisor": {"modules": 9, "ms": 70.0, "packages": {"zmq": 68.0, "json": 2.0}},
    }},
    "ticks": {"loops": {"arm:main.leader": {"blocks": [100, 107, 100]}}},
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(PARTS))
def test_measurements_of_one_part_are_drawn_with_what_they_name(tmp_path, document, kind):
    import matplotlib as mpl

    told = {**PARTS[kind], "kind": kind, "scenario": document["scenario"],
            "origin": document["origin"]}  # fmt: skip
    with mpl.rc_context({"svg.fonttype": "none"}):
        (path,) = plots.draw(told, tmp_path, stem="one", form="svg")
    words = {
        "beside": ("rows kept, %", "lerobot", "skew joints to picture p99, ms"),
        "imports": ("arm:main.leader", "numpy", "zmq", "others"),
        "ticks": ("arm:main.leader",),
    }
    text = path.read_text()
    for word in words[kind]:
        assert word in text
    assert (">json<" in text) is False  # too light for a colour of its own


def test_svg_plots_name_processes_cameras_and_what_was_measured(tmp_path, drawable):
    written = plots.draw(drawable, tmp_path, stem="one", form="svg")
    assert all(ElementTree.parse(path).getroot().tag.endswith("svg") for path in written)


def test_a_result_of_an_older_version_without_histograms_is_drawn_too(tmp_path, document):
    assert len(plots.draw(document, tmp_path, stem="old", form="svg")) == len(plots.PLOTS["spine"])


def test_the_timeline_keeps_the_worst_row_of_every_stretch_and_leaves_repeats_out():
    rows = 5 * TIMELINE_POINTS
    records = np.zeros(rows, TICK_DTYPE)
    captured = 10**12 + np.arange(rows, dtype=np.int64) * 33_000_000
    records["tick_ns"] = captured
    records["encoded_ns"] = captured + 20_000_000
    records["encoded_ns"][1003] += 400_000_000
    records["encoded_ns"][500] += 900_000_000
    records["flags"][500] = TickFlag.REPEAT
    told = timeline(records, PictureTruth(rows, rows, captured, 0, 0))
    assert len(told["s"]) == len(told["latency_ms"]) == TIMELINE_POINTS
    assert max(told["latency_ms"]) == 420.0
    assert told["s"][told["latency_ms"].index(420.0)] == pytest.approx(1003 * 0.033, abs=1e-3)
