import os
import signal

import psutil

from recd.daemon.dataset.verify import verify_dataset

from .conftest import Robot, running, until


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_sigterm_saves_the_running_episode_and_leaves_nothing_behind(tmp_path):
    with running(tmp_path) as robot:
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
        assert list(robot.runtime.rglob("*.sock")) == []
        assert list((robot.root / ".recd" / "staging").iterdir()) == []


def test_killing_the_supervisor_ends_every_process_and_the_next_start_recovers_the_episode(
    tmp_path,
):
    with running(tmp_path) as robot:
        robot.arm()
        saved = robot.record(20)
        robot.client.start()
        until(lambda: robot.rows() >= 90, "90 rows")
        rows = robot.rows()
        tree = robot.tree()
        os.kill(robot.process.pid, signal.SIGKILL)
        robot.process.wait()
        until(lambda: not alive(tree), "all processes to end", 20)
        robot.close_client()
        before = verify_dataset(robot.root)
        assert (before.good, before.episodes) == (True, 1)

        robot.start()
        report = verify_dataset(robot.root)
        assert (report.good, report.episodes) == (True, 2)
        lost = rows - (report.rows - saved["rows"])
        # One second of rows, what was not durable yet, and what came after the last look at `rows`.
        assert lost <= 30 + 15, f"{lost} rows lost"
        assert robot.record(15)["episode_index"] == 2


def test_an_encoder_killed_in_an_episode_comes_back_into_it_without_a_hole(tmp_path):
    with running(tmp_path, "cameras.front.ring_seconds=20") as robot:
        robot.arm()
        robot.client.start()
        until(lambda: robot.rows() >= 30, "30 rows")
        robot.workers()["encoder:front"].kill()
        until(lambda: _encoders(robot) == 2, "the encoder to be back")
        until(lambda: robot.rows() >= 120, "120 rows")
        saved = robot.client.stop()
        assert saved["summary"]["restarts"] == {"encoder:front": 1}
        front = saved["summary"]["cameras"]["front"]
        assert (front["missing"], front["lost"]) == (0, 0)
    assert verify_dataset(robot.root).good


def _encoders(robot: Robot) -> int:
    told = robot.client.status()["processes"]
    return sum(p["pid"] is not None and p["phase"] == "running" for n, p in told.items()
               if n.startswith("encoder:"))  # fmt: skip
