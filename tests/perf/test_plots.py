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
