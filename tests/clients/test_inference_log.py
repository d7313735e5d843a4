"""Inference logs: whole rows whatever the disk does, and numbers that are those of the wire."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recd.clients.inferencelog import rows
from recd.clients.inferencelog.files import LogFiles
from recd.clients.observation import LoggedChunk
from recd.config.errors import RecdError
from recd.shm.clock import NS_PER_MS, NS_PER_S

NAMES = ("pan.pos", "lift.pos", "gripper.pos")
TABLES = {"one": ("a", "b"), "two": ("c",)}
STATE = np.array([1.0, 2.0, 3.0], np.float32)
VALUES = np.array([[1.0, 0.0, 50.0], [2.0, 0.0, 60.0]], np.float32)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def chunk(rep: str = "abs", values: np.ndarray = VALUES, **told) -> LoggedChunk:
    facts = {
        "seq": 7, "received": 5 * NS_PER_S, "t_ref": 4 * NS_PER_S, "chunk": 3, "obs": 9,
        "status": "applied", "reason": None, "first_applied": 1, "late": 1, "clipped": 0,
        "margin_ns": -2 * NS_PER_MS, "latency_ns": 60 * NS_PER_MS, "infer_ns": 52 * NS_PER_MS,
        "policy": "test", "holder": "me", "task": "pick", "rep": rep, "mode": "replace",
        "dt_ns": 33 * NS_PER_MS, "inputs": {"front": "rgb8 224x224"}, **told,
    }  # fmt: skip
    offsets = 33 * NS_PER_MS * np.arange(1, len(values) + 1, dtype=np.int64)
    return LoggedChunk(7, facts, values, offsets, STATE)


def written(tmp_path: Path, name: str, lines: list) -> list[dict[str, str]]:
    files = LogFiles(tmp_path / "log", "robot", rows.columns(NAMES), most_bytes=10**6, say=print)
    for line in lines:
        files.add(name, line)
    files.flush(0, last=True)
    files.close()
    return table(tmp_path / "log" / f"robot_{name}.csv")


def test_an_inference_is_one_row_with_what_went_in_and_what_came_out(tmp_path: Path) -> None:
    (row,) = written(tmp_path, rows.INFERENCE, [rows.inference_row(chunk(), 0, 3)])
    assert row["time"] == "1970-01-01T00:00:00.000+00:00"
    assert (row["inference_ms"], row["latency_ms"], row["margin_ms"]) == ("52.0", "60.0", "-2.0")
    assert (row["status"], row["late"], row["steps"], row["task"]) == ("applied", "1", "2", "pick")
    assert row["images"] == "front=rgb8 224x224"
    assert [row[f"input.{name}"] for name in NAMES] == ["1.0", "2.0", "3.0"]
    assert [row[f"output.{name}"] for name in NAMES] == ["1.0", "0.0", "50.0"]
    got = [float(row[f"output_{one}"]) for one in rows.STATISTICS]
    flat = VALUES.astype(float)
    assert got == pytest.approx([flat.mean(), flat.std(), flat.min(), flat.max()], abs=1e-4)


@pytest.mark.parametrize(
    ("rep", "places"),
    [
        ("abs", [[1, 0, 50], [2, 0, 60]]),
        ("rel_obs", [[2, 2, 53], [3, 2, 63]]),
        ("delta", [[2, 2, 53], [4, 2, 113]]),
        ("vel", [["", "", ""], ["", "", ""]]),
    ],
)
def test_a_trajectory_has_a_row_per_step_with_place_and_action(tmp_path: Path, rep, places) -> None:
    episode = rows.Episode("ab" * 16, 12, "other")
    found = written(
        tmp_path, rows.TRAJECTORY, rows.trajectory_rows(chunk(rep), episode, 0, 3)
    )  # fmt: skip
    assert [row["applied"] for row in found] == ["0", "1"]
    assert [row["daemon_ns"] for row in found] == ["4033000000", "4066000000"]
    assert {row["episode"] for row in found} == {"ab" * 16}
    for row, place, action in zip(found, places, VALUES, strict=True):
        assert [row[n] for n in NAMES] == [v if v == "" else str(float(v)) for v in place]
        assert [float(row[f"action.{n}"]) for n in NAMES] == action.tolist()


def test_a_chunk_that_could_not_be_read_is_logged_without_numbers(tmp_path: Path) -> None:
    bad = chunk(values=np.zeros((0, 0), np.float32), status="malformed", reason="arrays: none")
    (row,) = written(tmp_path, rows.INFERENCE, [rows.inference_row(bad, 0, 3)])
    assert (row["status"], row["reason"], row["steps"]) == ("malformed", "arrays: none", "0")
    assert row["output.pan.pos"] == row["output_mean"] == ""
    assert rows.trajectory_rows(bad, rows.Episode(), 0, 3) == []


def test_a_robot_that_says_nothing_is_a_row_that_says_so(tmp_path: Path) -> None:
    (row,) = written(tmp_path, rows.STATE, [rows.state_row(None, 4, 9, 0, 3)])
    assert (row["step"], row["connected"], row["pan.pos"], row["lift.load"]) == ("4", "0", "", "")


def test_the_block_at_the_terminal_tells_servos_output_timing_and_task() -> None:
    text = "\n".join(rows.block(chunk(), None, NAMES, 0))
    for words in ("step 7", "chunk 3 applied", "pan 1.0", "mean", "inference 52 ms", "1 rows late",
                  "task    pick"):  # fmt: skip
        assert words in text


def test_a_log_that_is_large_enough_ends_with_one_message(tmp_path: Path) -> None:
    said: list[str] = []
    files = LogFiles(tmp_path / "log", "robot", TABLES, most_bytes=2_000, say=said.append)
    for number in range(1000):
        files.add("one", [number, "x" * 20])
        if number % 20 == 19:
            files.flush(number * NS_PER_S)
    files.close()
    assert len(said) == 1
    assert "--log-most" in said[0]
    assert (tmp_path / "log" / "robot_one.csv").stat().st_size <= 2_000
    assert files.rows["one"] + files.lost == 1000


FULL = """
import resource, sys
from pathlib import Path
from recd.clients.inferencelog.files import AGAIN_NS, LogFiles

said = []
files = LogFiles(Path(sys.argv[1]), "robot", {"one": ("a", "b")}, most_bytes=10**9, say=said.append)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
now = 10**12
for number in range(300):
    files.add("one", [number, "x" * 20])
    if number == 200:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        now += AGAIN_NS
    if number % 10 == 9:
        now += 10**9
        files.flush(now)
files.close()
print(len(said), files.rows["one"], files.lost)
print(said[0])
"""


def test_a_full_disk_costs_whole_rows_is_told_once_and_goes_on_with_room(tmp_path: Path) -> None:
    """The limit of the file's size stands for the disk: the kernel writes as far as it can."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "log")], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    counts, said = done.stdout.splitlines()
    told, kept, lost = (int(word) for word in counts.split())
    assert told == 1
    assert "rows are lost until there is room" in said
    found = table(tmp_path / "log" / "robot_one.csv")
    assert all(row["b"] == "x" * 20 for row in found), "no half row"
    assert (len(found), kept + lost) == (kept, 300)
    numbers = [int(row["a"]) for row in found]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 299, "it went on when there was room again"
    assert lost > 0


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecdError, match="expected to write") as caught:
        LogFiles(tmp_path / "file" / "log", "robot", TABLES, most_bytes=1, say=print)
    assert "--log-dir" in caught.value.mend


def test_nothing_is_left_of_a_log_that_never_began(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "log", "robot", TABLES, most_bytes=10**6, say=print)
    files.remove()
    assert list(tmp_path.iterdir()) == []
