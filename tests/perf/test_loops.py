import json
import os
import subprocess

import numpy as np
import pytest

from recd.config.errors import RecdError
from recd.config.load import load_robot
from recd.config.streams import HISTOGRAM_BUCKETS, STATUS_DTYPE, JointFlag, arm_sample_dtype
from recd.perf import bare_loop, floor
from recd.perf.control import LoopCounts, StatusCells, loop_between, sample_figures
from recd.shm import CellWriter, Segment, create_cell
from recd.shm.clock import NS_PER_S

PROCESS = "arm:main.follower"


def histogram(**counts):
    array = np.zeros(HISTOGRAM_BUCKETS, np.int64)
    for bucket, count in counts.items():
        array[int(bucket[1:])] = count
    return array


def test_status_cells_are_read_from_another_process_without_asking_it():
    process = "arm:only_here.follower"  # other tests of this process leave cells of real names
    cell = create_cell(f"status.{process}", STATUS_DTYPE)
    record = np.zeros(1, STATUS_DTYPE)
    record["lateness"][0][20], record["progress"] = 7, 9
    CellWriter(Segment.attach(cell.fd)).write(record)
    with StatusCells(os.getpid(), [process]) as cells:
        counts = cells.read()[process]
    assert (counts.lateness[20], counts.lateness.sum(), counts.progress) == (7, 7, 9)
    cell.close()


def test_a_process_without_a_status_cell_is_named():
    with pytest.raises(RecdError, match="camera:nowhere"):
        StatusCells(os.getpid(), ["camera:nowhere"])


def test_only_what_was_counted_in_between_counts():
    before = LoopCounts(histogram(b80=100), histogram(b120=100), 100, 7)
    after = LoopCounts(histogram(b80=100, b96=50), histogram(b120=150), 150, 9)
    told = loop_between(before, after)
    assert told["lateness_us"]["n"] == 50
    assert told["skipped"] == 2
    assert 2**12 / 1e3 <= told["lateness_us"]["p50"] <= 2**12.125 / 1e3
    assert not told["restarted"]


def test_a_process_that_began_anew_counts_from_zero():
    before = LoopCounts(histogram(b80=100), histogram(b120=100), 100)
    after = LoopCounts(histogram(b80=3), histogram(b120=3), 3)
    told = loop_between(before, after)
    assert told["lateness_us"]["n"] == 3
    assert told["restarted"]


def test_samples_tell_of_skipped_ticks_and_of_the_way_from_leader_to_goal():
    samples = np.zeros(5, arm_sample_dtype(6))
    samples["tick"] = [1000, 1001, 1004, 1005, 1006]
    samples["request_ns"] = samples["tick"] * (NS_PER_S // 250) + 1_600_000 + 90_000
    samples["leader_ns"] = samples["request_ns"] - 1_000_000
    samples["goal_written_ns"] = samples["request_ns"] - 50_000
    told = sample_figures(samples, role="follower", rate_hz=250, first_ns=0, last_ns=2**62)
    assert (told["samples"], told["skipped"], told["invalid"]) == (5, 2, 0)
    assert told["skipped_by_bus"] == 0
    assert told["request_us"]["p50"] == 90.0
    assert told["leader_to_goal_us"]["p99"] == 950.0


@pytest.mark.parametrize(
    ("half_width_us", "flags", "by_bus"),
    [(500, 0, 0), (1700, 0, 0), (1750, 0, 3), (5000, 0, 3), (500, JointFlag.NO_REPLY, 3)],
)
def test_ticks_skipped_for_want_of_replies_are_told_apart(half_width_us, flags, by_bus):
    samples = np.zeros(4, arm_sample_dtype(6))
    samples["tick"] = [1000, 1001, 1005, 1006]
    samples["request_ns"] = samples["tick"] * (NS_PER_S // 250) + 50_000
    samples["half_width_ns"] = 500_000
    samples["half_width_ns"][1], samples["flags"][1] = half_width_us * 1000, flags
    told = sample_figures(samples, role="leader", rate_hz=250, first_ns=0, last_ns=2**62)
    assert (told["skipped"], told["skipped_by_bus"]) == (3, by_bus)


@pytest.mark.parametrize(("goal_after_ns", "cycle_us"), [(-100_000, 1100.0), (900_000, 1160.0)])
def test_a_cycle_lasts_from_the_first_byte_until_the_line_is_free(goal_after_ns, cycle_us):
    samples = np.zeros(3, arm_sample_dtype(6))
    samples["request_ns"] = np.arange(1, 4) * 4_000_000
    samples["half_width_ns"] = 500_000
    samples["goal_written_ns"] = samples["request_ns"] + goal_after_ns
    samples["flags"][2], samples["half_width_ns"][2] = JointFlag.NO_REPLY, 3_000_000
    told = sample_figures(samples, role="follower", rate_hz=250, first_ns=0, last_ns=2**62)
    assert told["cycle_us"]["n"] == 2
    assert told["cycle_us"]["p99"] == cycle_us


def test_a_bare_loop_is_asked_for_what_the_control_loop_asks_for():
    robot = load_robot("demo")
    loops = floor.bare_loops(robot, seconds=2.0)
    assert set(loops) == {"arm:main.leader", PROCESS}
    loop = loops[PROCESS]
    assert (loop.rate_hz, loop.ticks, loop.priority) == (250, 500, robot.realtime.arm_priority)
    assert loop.phase_ns == 1_600_000
    assert loop.spin_ns == robot.realtime.spin_us * 1000


def test_a_bare_loop_in_a_process_of_its_own_tells_of_every_tick():
    loop = bare_loop.BareLoop(
        rate_hz=100, phase_ns=0, spin_ns=0, priority=0, cpus=(), lock_memory=False,
        timer_slack_ns=1, ticks=20,
    )  # fmt: skip
    done = subprocess.run(bare_loop.command(loop), capture_output=True, text=True, timeout=60)
    told = json.loads(done.stdout)
    assert told["exact_lateness_us"]["n"] == sum(told["lateness_histogram"]) == 20
    assert list(told["realtime"]) == ["timer slack 1 ns"]


def leg(kind, bucket, skipped=0):
    counts = LoopCounts(bucket, bucket, 1, skipped)
    return floor.Leg(kind, {PROCESS: loop_between(None, counts)})


def test_loops_are_compared_leg_by_leg_and_pooled():
    legs = [
        leg(floor.OURS, histogram(b96=100), 3), leg(floor.BARE, histogram(b88=100), 1),
        leg(floor.OURS, histogram(b96=100)), leg(floor.BARE, histogram(b96=100)),
    ]  # fmt: skip
    told = floor.compared(legs)["processes"][PROCESS]
    assert told["ratio_p50_spread"]["least"] == pytest.approx(1.0)
    assert told["ratio_p50_spread"]["most"] == pytest.approx(2.0)
    assert 1.0 < told["ratio_p50"] <= 2.0
    assert (told["ours_skipped"], told["bare_skipped"]) == ([3, 0], [1, 0])
    assert json.dumps(floor.compared(legs))
