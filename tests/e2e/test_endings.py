import os
import resource
import signal
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from recd.config.streams import TICK_DTYPE, arm_sample_dtype, telemetry_dtype
from recd.daemon.dataset.sides import read_stream
from recd.daemon.dataset.survey import survey
from recd.daemon.dataset.verify import verify_dataset
from recd.daemon.faultpoints import FOLDER_KEY, arm
from recd.daemon.writer.sidelog import records_of
from recd.shm import ReaderPolicy, RingReader, Segment
from tests.rig import SMALL, Robot, running, stolen_ns, stolen_rows, until


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_sigterm_saves_the_running_episode_and_leaves_nothing_behind(tmp_path):
    with running(tmp_path, *SMALL) as robot:
        robot.arm()
        robot.client.start()
        until(lambda: robot.rows() >= 30, "30 rows")
        tree = robot.tree()
        code = robot.end()
        assert code == 0
        until(lambda: not alive(tree), "all processes to end")
        report = verify_dataset(robot.root)
        assert (report.good, report.episodes) == (True, 1)
        assert report.rows >= 30
        (episode,) = survey(robot.root)
        assert episode.manifest["end_reason"] == "shutdown"
        rules = {reason["rule"] for reason in episode.manifest["verdict"]["reasons"]}
        assert "ended_by_fault" not in rules  # somebody wanted it
        assert list(robot.runtime.rglob("*.sock")) == []
        assert list((robot.root / ".recd" / "staging").iterdir()) == []


def test_killing_the_supervisor_ends_every_process_and_the_next_start_recovers_the_episode(
    tmp_path, monkeypatch
):
    points = tmp_path / "points"
    points.mkdir()
    monkeypatch.setenv(FOLDER_KEY, str(points))
    with running(tmp_path, *SMALL) as robot:
        robot.arm()
        saved = robot.record(20)
        robot.client.start()
        until(lambda: robot.rows() >= 30, "30 rows")
        killed = robot.workers()["encoder:front"]  # its camera's file goes on in a second part
        killed.kill()
        until(lambda: _worker(robot, "encoder:front") not in (None, killed.pid), "it to be back")
        until(lambda: robot.rows() >= 120, "120 rows")
        rows, stolen_before_ns = robot.rows(), stolen_ns()
        arm(points, "writer.rows_built", "pause")  # everybody dies while it has just logged rows
        until(lambda: not list(points.iterdir()), "the writer to log rows")
        tree = robot.tree()
        os.kill(robot.process.pid, signal.SIGKILL)
        robot.process.wait()
        until(lambda: not alive(tree), "all processes to end")
        robot.close_client()
        before = verify_dataset(robot.root)
        assert (before.good, before.episodes) == (True, 1)

        robot.start()
        report = verify_dataset(robot.root)
        assert (report.good, report.episodes) == (True, 2)
        lost = rows - (report.rows - saved["rows"])
        # One second of rows, what was not durable yet, and what came after the last look at `rows`.
        assert lost <= 30 + 15 + stolen_rows(stolen_before_ns), f"{lost} rows lost"
        torn = survey(robot.root)[-1]
        for camera in ("front", "wrist"):
            ticks, _ = read_stream(robot.own(torn.uid) / f"ticks.{camera}.arrows")
            assert ticks.num_rows >= torn.length
        assert robot.record(15)["episode_index"] == 2


def test_an_encoder_killed_in_an_episode_comes_back_into_it_without_a_hole(tmp_path):
    with running(tmp_path, *SMALL, "cameras.front.ring_seconds=10") as robot:
        robot.arm()
        robot.client.start()
        until(lambda: robot.rows() >= 30, "30 rows")
        stolen_before_ns = stolen_ns()
        killed = robot.workers()["encoder:front"]
        killed.kill()
        until(lambda: _worker(robot, "encoder:front") not in (None, killed.pid), "it to be back")
        until(lambda: robot.rows() >= 120, "120 rows")
        saved = robot.client.stop()
        assert saved["summary"]["restarts"] == {"encoder:front": 1}
        front = saved["summary"]["cameras"]["front"]
        unsent = robot.given_up()["front"] + stolen_rows(stolen_before_ns)
        assert front["missing"] <= unsent
        assert front["lost"] <= unsent
    assert verify_dataset(robot.root).good


def test_a_writer_killed_in_an_episode_comes_back_into_it_and_nothing_is_lost(tmp_path):
    with running(tmp_path, *SMALL) as robot:
        robot.arm()
        robot.client.start()
        for rows in (30, 90):
            until(lambda rows=rows: robot.rows() >= rows, f"{rows} rows")
            killed = robot.workers()["writer"]
            killed.kill()
            until(
                lambda pid=killed.pid: _worker(robot, "writer") not in (None, pid),
                "the writer to be back",
            )
        until(lambda: robot.rows() >= 130, "130 rows")
        saved = robot.client.stop()
        assert saved["summary"]["restarts"] == {"writer": 2}
        own = robot.own(saved["uid"])
        for stream, kept, whole in side_files(own):
            assert whole, stream
            number = NUMBERED_BY[stream.partition(".")[0]]
            published = in_ring(robot, stream, kept.dtype)[number].tolist()
            logged = kept[number].tolist()
            begin = published.index(logged[0])
            assert published[begin : begin + len(logged)] == logged, stream
        rows, _ = read_stream(own / "rows.arrows")
        assert rows["k"].to_pylist() == list(range(saved["rows"]))
    assert verify_dataset(robot.root).findings == ()


NUMBERED_BY = {"arm": "tick", "telemetry": "sample_ns", "ticks": "k"}


def side_files(own: Path) -> Iterator[tuple[str, Any, bool]]:
    """Name, records and wholeness of every stream that the writer logged."""
    dtypes = {"arm": arm_sample_dtype(6), "telemetry": telemetry_dtype(6), "ticks": TICK_DTYPE}
    for path in sorted(own.glob("*.*.arrows")):
        table, whole = read_stream(path)
        yield path.stem, records_of(table, dtypes[path.stem.partition(".")[0]]), whole


def in_ring(robot: Robot, stream: str, dtype: np.dtype[np.void]) -> Any:
    """All records that the ring of a running daemon still holds; record rings hold a minute."""
    fd = os.open(_descriptor_of(robot, stream), os.O_RDONLY)
    with closing(Segment.attach(fd, readonly=True)) as segment:
        reader = RingReader(segment, policy=ReaderPolicy.BEST_EFFORT)
        reader.seek(0)
        records = []
        while (slot := reader.take()) is not None:
            records.append(slot.payload[: dtype.itemsize].copy().view(dtype)[0])
    os.close(fd)
    return np.array(records, dtype)


def _descriptor_of(robot: Robot, stream: str) -> Path:
    """The supervisor's descriptor of a ring; others come and go meanwhile."""
    for fd in Path(f"/proc/{robot.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if os.readlink(fd).startswith(f"/memfd:recd:{stream} "):
                return fd
    raise AssertionError(f"the supervisor holds no ring {stream}")


def _worker(robot: Robot, name: str) -> int | None:
    told = robot.client.status()["processes"][name]
    return told["pid"] if told["phase"] == "running" else None


def test_an_encoder_stopped_for_longer_than_its_ring_loses_nothing(tmp_path):
    # A ring of one second, an encoder away for three.
    with running(tmp_path, *SMALL, "cameras.front.ring_seconds=1") as robot:
        robot.while_encoder_is_away("front", "wrist")
        assert robot.never_encoded("front") == 0
        saved = robot.client.stop()
        assert not (robot.root / ".recd/staging" / saved["uid"]).exists()
    assert verify_dataset(robot.root).findings == ()


def test_a_disk_that_takes_no_more_costs_the_episode_its_rest_and_the_writer_not_its_life(tmp_path):
    with running(tmp_path, *SMALL) as robot:
        robot.arm()
        lost = robot.client.start()["uid"]
        until(lambda: robot.rows() >= 60, "60 rows")
        writer = robot.workers()["writer"]
        _, hard = resource.prlimit(writer.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, (4096, hard))  # no file grows any more
        until(lambda: robot.client.status()["state"] != "RECORDING", "the episode to end")
        take = until(
            lambda: next((t for t in robot.client.call("episodes")["episodes"]
                          if t["uid"] == lost and t["state"] == "failed"), None), "it to be told",
        )  # fmt: skip
        assert "File too large" in take["reason"]
        resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert robot.record(20)["episode_index"] == 0
        assert robot.workers()["writer"].pid == writer.pid
        robot.end()
        robot.close_client()
        robot.start()
        assert [e.uid for e in survey(robot.root)][1:] == [lost]
        assert survey(robot.root)[1].length >= 45
