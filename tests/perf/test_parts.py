import io

import numpy as np
from rich.console import Console

from recd.perf import growth, imports, plots, visible, waits
from recd.perf.waits import Episode


def test_imports_are_summed_by_package_and_the_compiler_is_named():
    found = imports.counted(
        [
            "import time: self [us] | cumulative | imported package",
            "import time:       200 |        200 |   numba.core",
            "import time:      1300 |       1500 | numba",
            "import time:      1000 |       1000 | json",
            "2026-01-01 a line of the log",
        ]
    )
    assert found.packages == {"numba": 1.5, "json": 1.0}
    assert (found.modules, found.ms, found.compiler) == (3, 2.5, ["numba"])


def test_every_record_reaches_a_reader_in_another_process():
    told = visible.measure(turns=2, each=20)
    assert told["ring_us"]["n"] == told["floor_us"]["n"] == 40
    assert told["ring_us"]["p50"] > 0


def test_what_the_ring_adds_is_judged_turn_by_turn():
    floor = np.full((3, 100), 20_000)
    ring = floor + np.array([[10_000], [200_000], [30_000]])
    told = visible.judged(floor, ring)
    assert told["beyond_p99_us"] == 30.0
    assert visible.kept(told)
    assert not visible.kept(visible.judged(floor, floor + 60_000))


def test_one_late_row_or_reply_misses_its_goal(document):
    good = [Episode(5.0, 1.1, 60.0)] * 9
    assert waits.kept({"runs": [waits.summed(good)]})
    for bad in (Episode(51.0, 1.1, 60.0), Episode(5.0, 2.1, 60.0), Episode(5.0, 1.1, 101.0)):
        assert not waits.kept({"runs": [waits.summed([*good, bad])]})


def grown(document, *stops):
    def figures(ms):
        return {"p50": ms, "p99": ms, "max": 2 * ms}

    runs = [
        {
            "episodes_before": 10 ** (n + 1),
            "recd": {"start_reply_ms": figures(4.0), "stop_to_durable_ms": figures(stop)},
            "lerobot": {"save_ms": figures(100.0 * (n + 1))} if n else None,
        }
        for n, stop in enumerate(stops)
    ]
    return document | {"kind": growth.GROWTH, "runs": runs, "notes": []}


def test_a_stop_that_takes_longer_in_a_large_dataset_is_not_flat(document):
    assert growth.kept(grown(document, 60.0, 70.0))
    assert not growth.kept(grown(document, 60.0, 70.0, 95.0))


def test_growth_is_one_table_and_one_plot_of_both(document, tmp_path):
    told = grown(document, 60.0, 70.0, 66.0)
    screen = Console(file=io.StringIO(), width=140)
    growth.show(told, screen)
    text = screen.file.getvalue()
    for word in ("1,000", "66.0", "1.10", "lerobot: save_episode p50", "300.0", "flat"):
        assert word in text
    (path,) = plots.draw(told, tmp_path, stem="g", form="svg")
    assert path.stat().st_size > 1000
