import os
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd.config.load import read_source, validate
from recd.config.streams import TICK_DTYPE, TickFlag
from recd.daemon.dataset.layout import Layout
from recd.daemon.writer.sidelog import SideLog
from recd.perf import quiet, recording
from recd.perf.episode import StoredEpisode
from recd.perf.run_result import camera_counts, row_counts
from recd.perf.scenario import Scenario, configuration, like_peer
from recd.perf.truth import PictureTruth
from recd.shm.clock import NS_PER_S, now_ns


def ticks(rows, **flags):
    records = np.zeros(rows, TICK_DTYPE)
    records["source_seq"] = np.arange(rows)
    for row, flag in flags.items():
        records["flags"][int(row[1:])] = flag
    return records


def seen(rows, *, fps=30.0, period_scale=1.0):
    captured = (10**12 + np.arange(rows) * NS_PER_S / fps * period_scale).astype(np.int64)
    return PictureTruth(rows, rows, captured, 0, 0)


def test_a_row_is_kept_only_when_all_pictures_and_all_joints_are_true():
    joints = np.ones(10, bool)
    joints[2] = False
    cameras = {"a": ticks(10, r3=TickFlag.MISSING), "b": ticks(10, r4=TickFlag.REPEAT)}
    told = row_counts(cameras, joints, {7}, expected=10)
    assert (told["stored"], told["kept"], told["joints_invalid"]) == (10, 7, 1)
    assert told["percent_kept"] == 70.0


def test_rows_that_were_never_stored_are_not_kept_and_surplus_rows_do_not_count():
    joints = np.ones(8, bool)
    assert row_counts({"a": ticks(8)}, joints, set(), expected=10)["percent_kept"] == 80.0
    assert row_counts({"a": ticks(8)}, joints, set(), expected=7)["percent_kept"] == 100.0


def test_drift_allows_as_many_repeats_as_its_bound_says():
    scenario = Scenario(seconds=30.0)
    records = ticks(900, r100=TickFlag.REPEAT, r500=TickFlag.REPEAT, r700=TickFlag.REPEAT)
    told = camera_counts(records, seen(900, period_scale=1.002), scenario)
    assert told["drift_ppm"] == pytest.approx(-1996, abs=5)
    assert told["allowed_by_drift"] == 2
    assert (told["repeated"], told["beyond_drift"]) == (3, 1)


def test_repeats_of_a_slower_camera_are_expected_and_not_beyond():
    records = ticks(60, r1=TickFlag.REPEAT | TickFlag.EXPECTED, r3=TickFlag.REPEAT)
    scenario = Scenario(seconds=2.0, camera_fps=15.0)
    told = camera_counts(records, seen(60, fps=15.0), scenario)
    assert (told["expected_repeats"], told["repeated"], told["beyond_drift"]) == (1, 1, 0)


@pytest.mark.parametrize(
    "scenario", [Scenario(), Scenario(cameras=5, rate_hz=100, vcodec="av1", preset="9")]
)
def test_a_scenario_is_a_valid_configuration(tmp_path, scenario):
    source = read_source("demo")
    source.data.clear()
    source.data.update(configuration(scenario, instance="bench_1", root=tmp_path / "d"))
    robot = validate(source)
    assert len(robot.cameras) == scenario.cameras
    assert robot.arms["main"].rate_hz == scenario.rate_hz
    assert robot.dataset_root == tmp_path / "d"


def test_the_peers_settings_are_those_of_the_quoted_run():
    scenario = like_peer(Scenario())
    assert (scenario.pixels, scenario.vcodec, scenario.preset) == ("YUYV", "h264", "medium")
    assert (scenario.crf, scenario.g) == (30, 2)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9])
def test_runs_begin_at_the_asked_camera_phase(share):
    asked_ns = now_ns()
    reference, period = asked_ns - 5 * NS_PER_S + 123, 33_333_333
    at = recording.phased_start_ns(reference, period, share)
    assert at > asked_ns
    assert ((at - reference) % period) / period == pytest.approx(share, abs=1e-6)


def test_a_machine_that_is_used_is_told_to_be_used():
    silence = quiet.Silence(False, 5.0, quiet.Load(1.5, 0.0), (1.0, 1.0, 1.0))
    assert "NOT QUIET" in silence.sentence()
    assert not quiet.Load(0.05, 0.2).quiet
    assert quiet.Load(0.05, 0.0).quiet


def test_load_is_the_difference_of_two_readings():
    load = quiet.CpuClock(3 * NS_PER_S, 14.0, 0.5).since(quiet.CpuClock(NS_PER_S, 11.0, 0.0))
    assert (load.busy_cores, load.stolen_cores) == (1.5, 0.25)


def test_the_clock_of_the_machine_goes_on_with_what_anybody_computes():
    before, mine_s = quiet.CpuClock.read(), time.process_time()
    while time.process_time() < mine_s + 0.3:
        sum(range(1000))
    after = quiet.CpuClock.read()
    span_s = (after.at_ns - before.at_ns) / NS_PER_S
    tick_s = 0.05  # of the kernel's counters, several of them
    assert 0.3 - tick_s <= after.busy_s - before.busy_s <= os.cpu_count() * span_s + tick_s


def test_the_record_of_a_row_that_a_stop_cut_off_is_no_row(tmp_path):
    own = Layout(tmp_path).episode("one")
    own.mkdir(parents=True)
    log = SideLog(own / "ticks.front.arrows", TICK_DTYPE)
    log.extend(ticks(4))
    log.close()
    episodes = tmp_path / "meta/episodes/chunk-000/file-000.parquet"
    episodes.parent.mkdir(parents=True)
    pq.write_table(pa.table({"episode_index": [0], "length": [3]}), episodes)

    assert len(StoredEpisode(tmp_path, "one", 0).ticks("front")) == 3
