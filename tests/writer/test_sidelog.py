import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recd.config.errors import DatasetError
from recd.config.policy_streams import chunk_dtype
from recd.config.streams import STREAMS_VERSION, arm_sample_dtype
from recd.daemon.dataset.draft import OWN_FOLDER
from recd.daemon.dataset.sides import read_stream
from recd.daemon.writer.episode import Episode
from recd.daemon.writer.history import History
from recd.daemon.writer.sidelog import SideLog, records_of
from recd.daemon.writer.streams import RecordStream
from recd.shm import ReaderPolicy, RingReader, RingSpec, create_ring

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


EARLIER = Path(__file__).with_name("streams_2") / "chunks.arrows"
"""Three chunks as version 2 of the streams wrote them: without a task."""


def test_a_side_file_of_an_earlier_version_is_read_with_its_new_fields_unused():
    table, whole = read_stream(EARLIER)
    assert whole
    assert table.schema.metadata[b"recd.streams_version"] == b"2"
    records = records_of(table, chunk_dtype(6))
    assert records["task"].tolist() == [b"", b"", b""]
    assert records["chunk"].tolist() == [1, 2, 3]
    assert records["values"][:, :3].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]


def test_a_task_comes_back_from_a_side_file_as_it_was(tmp_path):
    log = SideLog(tmp_path / "chunks.arrows", chunk_dtype(6), compressed=True)
    record = np.zeros((), chunk_dtype(6))
    record["task"] = "placé".encode()
    log.append(record)
    log.close()
    table, _ = read_stream(tmp_path / "chunks.arrows")
    assert records_of(table, chunk_dtype(6))["task"].tolist() == ["placé".encode()]


@pytest.mark.parametrize(
    ("stamp", "words"), [(STREAMS_VERSION + 1, "Update recd"), (STREAMS_VERSION, "has no `task`")]
)
def test_a_side_file_that_cannot_be_understood_is_refused(stamp, words):
    table, _ = read_stream(EARLIER)
    other = table.replace_schema_metadata({"recd.streams_version": str(stamp)})
    with pytest.raises(DatasetError) as refused:
        records_of(other, chunk_dtype(6))
    assert words in str(refused.value)


def begin_of(staging: Path, uid: str, t0_ns: int) -> dict[str, object]:
    return {
        "uid": uid, "recording": "main", "staging": str(staging), "t0_ns": t0_ns,
        "rate_num": 30, "rate_den": 1, "grid": "clock", "task": "the episode's",
    }  # fmt: skip


def test_an_episode_that_an_earlier_version_began_is_gone_on_with(tmp_path):
    own = tmp_path / OWN_FOLDER
    own.mkdir()
    shutil.copy(EARLIER, own / "chunks.arrows")
    ring = create_ring(RingSpec("chunks", "record", 8, chunk_dtype(6).itemsize, 1, {}))
    reader = RingReader(ring, 0, policy=ReaderPolicy.MUST_KEEP)
    stream = RecordStream("chunks", reader, dtype=chunk_dtype(6), time_field="acked_ns", keep=4,
                          bulky=True)  # fmt: skip
    episode = Episode(begin_of(tmp_path, "0" * 32, 0), arms=[], logged=[stream], cameras=[],
                      resumed=True)  # fmt: skip
    assert episode.chunks.tasks(np.array([3]), np.array([99]), "the episode's") == ["the episode's"]
    episode.settle()
    episode.close_logs()
    table, whole = read_stream(own / "chunks.arrows")
    assert whole
    assert table["chunk"].to_pylist() == [1, 2, 3]
    assert table.schema.metadata[b"recd.streams_version"] == str(STREAMS_VERSION).encode()
