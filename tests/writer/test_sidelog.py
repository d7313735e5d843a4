import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from recd.config.streams import arm_sample_dtype
from recd.daemon.dataset.sides import read_stream
from recd.daemon.writer.history import History
from recd.daemon.writer.sidelog import SideLog

DTYPE = arm_sample_dtype(6)


def sample(tick: int) -> np.ndarray:
    record = np.zeros((), DTYPE)
    record["tick"] = tick
    record["sample_ns"] = tick * 4_000_000
    record["present"] = tick + np.arange(6)
    return record


def test_records_come_back_as_they_were_written(tmp_path):
    log = SideLog(tmp_path / "joints.arrows", DTYPE, batch_rows=7)
    for tick in range(20):
        log.append(sample(tick))
    log.close()
    table, whole = read_stream(tmp_path / "joints.arrows")
    assert whole
    assert table["tick"].to_pylist() == list(range(20))
    assert table["present"][19].as_py() == [19, 20, 21, 22, 23, 24]


@pytest.mark.parametrize("lost", [1, 9, 100, 1000])
def test_a_cut_file_gives_every_whole_batch_before_the_cut(tmp_path, lost):
    path = tmp_path / "joints.arrows"
    log = SideLog(path, DTYPE, batch_rows=5)
    for tick in range(50):
        log.append(sample(tick))
    log.close()
    os.truncate(path, path.stat().st_size - lost)
    table, _ = read_stream(path)
    assert table["tick"].to_pylist() == list(range(len(table)))
    assert 50 - len(table) <= 5 * (1 + lost // 500)


KILLED = """
import sys, numpy as np
from pathlib import Path
from recd.config.streams import arm_sample_dtype
from recd.daemon.writer.sidelog import SideLog
dtype = arm_sample_dtype(6)
log = SideLog(Path(sys.argv[1]), dtype, batch_rows=10)
for tick in range(105):
    record = np.zeros((), dtype); record["tick"] = tick; log.append(record)
print("written", flush=True)
sys.stdin.read()
"""


def test_kill_minus_nine_costs_at_most_the_open_batch(tmp_path):
    path = tmp_path / "joints.arrows"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    table, _ = read_stream(path)
    assert table["tick"].to_pylist() == list(range(100))


def test_history_keeps_the_newest_in_order_and_finds_the_bracketing_records():
    history = History(DTYPE, 10, time_field="sample_ns")
    for tick in range(37):
        assert history.append(sample(tick))
    assert history.records()["tick"].tolist() == list(range(27, 37))
    window = history.window(30 * 4_000_000 + 1, 32 * 4_000_000 + 1)
    assert window["tick"].tolist() == [30, 31, 32, 33]


def test_history_refuses_a_record_older_than_the_newest():
    history = History(DTYPE, 4, time_field="sample_ns")
    history.append(sample(5))
    assert not history.append(sample(4))
    assert history.out_of_order == 1
    assert history.records()["tick"].tolist() == [5]
