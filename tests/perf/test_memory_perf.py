import io
import os

import numpy as np
import pytest
from rich.console import Console

from recd.perf import costs, memory, plots, result
from recd.perf.trend import LEAST_POINTS, means_by, trend
from recd.shm import Segment
from recd.shm.clock import now_ns

MB = 2**20
MINUTES = 60.0


def looks(grows_mb_per_hour, *, episodes=30, each=4):
    """Two minutes an episode; a process that comes and goes is seen once in each."""
    for number in range(episodes * each):
        at_s = 30.0 * number
        episode, place = divmod(number, each)
        size = round((100 + 20 * (place == 1) + grows_mb_per_hour * at_s / 3600.0) * MB)
        pss = {"writer": size, "supervisor": 40 * MB} | ({"other:x": MB} if place == 1 else {})
        yield memory.Look(at_s, episode, pss, 50 * MB, {"writer": 9, "supervisor": 20}, 7)


def figures(grows, **more):
    history = memory.History(now_ns(), list(looks(grows, **more)), [50.0], 30)
    history.pids = {"writer": {1, 2}, "supervisor": {3}, "other:x": {4, 5, 6}}
    return memory.figures(history, minutes=MINUTES) | {"others_cores": 0.0}


def test_a_line_is_found_with_an_uncertainty_that_holds_the_true_slope():
    rng = np.random.default_rng(3)
    at_s = np.arange(100) * 36.0
    found = trend(at_s, 300.0 + 5.0 * at_s / 3600.0 + rng.normal(0, 2.0, 100))
    assert abs(found.slope - 5.0) <= found.plus_minus
    assert found.plus_minus < 3.0
    assert found.grows


def test_neighbours_that_agree_are_worth_less_than_independent_ones():
    rng = np.random.default_rng(4)
    wandering = np.cumsum(rng.normal(0, 1.0, 200))
    found = trend(np.arange(200), wandering)
    assert found.independent < 30
    assert trend(np.arange(200), rng.normal(0, 1.0, 200)).independent > 100


def test_too_few_points_tell_no_slope():
    assert trend(range(LEAST_POINTS - 1), range(LEAST_POINTS - 1)) is None


def test_groups_have_their_own_means():
    assert means_by([0, 0, 2, 2], [1.0, 3.0, 5.0, 7.0]).tolist() == [2.0, 6.0]


def test_growth_is_told_of_the_process_that_grows_and_of_the_whole():
    run = figures(12.0)
    assert run["slopes_mb"]["all"]["slope"] == pytest.approx(12.0, abs=0.2)
    assert run["slopes_mb"]["each"]["writer"]["grows"]
    assert not run["slopes_mb"]["each"]["supervisor"]["grows"]
    assert run["memory"]["peak_each_mb"]["writer"] == pytest.approx(132, abs=1)
    assert run["restarts"] == {"writer": 1}


def test_peaks_within_each_episode_are_no_growth():
    run = figures(0.0)
    assert not run["slopes_mb"]["all"]["grows"]
    assert run["memory"]["peak_mb"] == pytest.approx(161, abs=0.1)


def told(run, document):
    run = run | {"minutes": MINUTES}
    return document | {"kind": memory.MEMORY, "runs": [run], "notes": []}


def test_a_leak_misses_its_goal_and_a_flat_hour_keeps_all(document):
    assert memory.kept(told(figures(0.0), document))
    assert not memory.kept(told(figures(12.0), document))


def test_an_interrupted_run_is_kept_in_its_file_and_says_that_it_is_part(document, tmp_path):
    part = told(figures(0.0, episodes=6), document)
    part["runs"][0]["minutes"] = 12.0
    path = result.save(part, tmp_path / "part.json")
    screen = Console(file=io.StringIO(), width=120)
    memory.show(result.load(path), screen)
    assert "ended after 12 of 60 min" in screen.file.getvalue()
    assert not memory.kept(part)


def test_memory_over_time_is_drawn(document, tmp_path):
    (path,) = plots.draw(told(figures(3.0), document), tmp_path, stem="hour", form="svg")
    assert path.stat().st_size > 1000


def test_a_look_counts_descriptors_and_each_segment_once():
    own = [costs.Process(os.getpid(), "own", simulated=False)]
    before = memory.look(own, at_s=0.0, episode=0)
    segment = Segment.create("looked at", 4096)
    again = Segment.attach(segment.fd)
    shared = memory.look(own, at_s=1.0, episode=0)
    assert shared.segments == before.segments + 1
    assert shared.pss["own"] > MB
    ends = os.pipe()
    assert memory.look(own, at_s=2.0, episode=0).descriptors["own"] == (
        shared.descriptors["own"] + len(ends)
    )
    for end in ends:
        os.close(end)
    again.close()
    segment.close()
