"""The daemon as a process: it starts its workers, serves, and leaves nothing behind."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from .conftest import SIMULATED, Daemon, gone, until

Start = Callable[..., Daemon]


def test_a_simulated_robot_gets_its_endpoints_and_workers_their_titles(
    start_daemon: Start,
) -> None:
    daemon = start_daemon(set=SIMULATED)
    status = daemon.wait_state("READY")
    assert {entry["phase"] for entry in status["processes"].values()} == {"running"}
    assert {"recd:cam:front", "recd:enc:front", "recd:arm:main.follower", "recd:writer",
            "recd:sim"} <= set(daemon.titled())  # fmt: skip
    devices = {entry["process"]: entry for entry in daemon.ok("devices")["devices"]}
    assert devices["camera:front"]["devices"] == ["http://127.0.0.1:1/front"]
    assert devices["arm:main.follower"]["devices"] == ["/dev/null#main.follower"]
    assert devices["camera:front"]["facts"]["config"]["source"] == "http"


def test_sigterm_ends_everything_and_leaves_nothing(daemon: Daemon) -> None:
    workers = daemon.everything()
    assert len(workers) == 5  # the fork server too
    assert daemon.end() == 0
    assert gone(workers)
    assert not daemon.runtime.exists()


def test_a_signal_saves_the_running_episode_first(start_daemon: Start) -> None:
    daemon = start_daemon(writer={"commit_s": 0.3})
    daemon.wait_state("READY")
    uid = daemon.ok("start")["uid"]
    assert daemon.end(signal.SIGINT) == 0
    assert f"saved {uid}" in daemon.committed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_terminal_that_signals_every_process_ends_them_in_order_with_the_episode_saved(
    start_daemon: Start, number: signal.Signals
) -> None:
    daemon = start_daemon()
    daemon.wait_state("READY")
    uid = daemon.ok("start")["uid"]
    for worker in daemon.workers():
        worker.send_signal(number)
    assert daemon.end(number) == 0
    assert f"saved {uid}" in daemon.committed
    assert "restarts" not in daemon.said
    assert f"killed by {number.name}" not in daemon.said


def test_shutdown_replies_when_all_workers_have_ended(daemon: Daemon) -> None:
    workers = daemon.everything()
    assert daemon.ok("shutdown") == {"ended": True}
    assert gone(workers)
    assert daemon.process.wait(timeout=60) == 0


def test_kill_9_of_the_supervisor_kills_every_worker_and_the_next_one_starts(
    start_daemon: Start,
) -> None:
    daemon = start_daemon(camera__front={"ignore_term": True})
    daemon.wait_state("READY")
    workers = daemon.everything()
    os.kill(daemon.process.pid, signal.SIGKILL)
    until(lambda: gone(workers), "all workers gone")
    daemon.process.wait()
    second = start_daemon()
    assert second.wait_state("READY")["pid"] == second.process.pid


def test_a_second_daemon_of_the_instance_is_refused_and_names_the_first(
    daemon: Daemon, start_daemon: Start
) -> None:
    second = start_daemon()
    assert second.process.wait(timeout=60) == 2
    assert f"process {daemon.process.pid}" in second.said
    assert "shutdown" in second.said
    assert daemon.status()["state"] == "READY"


def test_workers_that_ignore_sigterm_or_are_stopped_do_not_hold_up_the_end(
    start_daemon: Start,
) -> None:
    daemon = start_daemon(
        camera__front={"ignore_term": True}, timing={"camera:front": {"stop_after_ns": 300}}
    )
    daemon.wait_state("READY")
    workers = daemon.workers()
    os.kill(daemon.pid_of("encoder:front"), signal.SIGSTOP)
    assert daemon.end(signal.SIGHUP) == 0
    assert gone(workers)


def test_a_writer_that_refuses_the_dataset_ends_the_daemon_with_its_words(
    start_daemon: Start,
) -> None:
    daemon = start_daemon(writer={"refuse": True})
    assert daemon.process.wait(timeout=60) == 2
    assert "camera 7 is not there" in daemon.said
    assert "plug it in" in daemon.said
    assert "Traceback" not in daemon.said


def held_simulator(start_daemon: Start, gate: Path) -> tuple[Daemon, dict[str, psutil.Process]]:
    """A daemon whose simulator is ready once `gate` exists; its workers that wait for it."""
    daemon = start_daemon(set=SIMULATED, sim={"ready_after": str(gate)})
    titles = {"recd:cam:front", "recd:arm:main.follower"}

    def loading() -> dict[str, psutil.Process]:
        found = daemon.titled()
        return {title: found[title] for title in titles} if titles <= set(found) else {}

    return daemon, until(loading, "workers that load ahead")


def test_workers_load_while_the_simulator_starts_and_begin_with_what_it_reports(
    start_daemon: Start, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    daemon, loading = held_simulator(start_daemon, gate)
    camera = daemon.status()["processes"]["camera:front"]
    assert (camera["phase"], camera["pid"], camera["uptime_s"]) == ("waiting", None, None)
    gate.touch()
    daemon.wait_state("READY")
    assert daemon.pid_of("camera:front") == loading["recd:cam:front"].pid
    facts = {one["process"]: one["facts"] for one in daemon.ok("devices")["devices"]}
    assert facts["camera:front"]["config"]["device"] == "http://127.0.0.1:1/front"
    assert facts["arm:main.follower"]["config"]["follower"]["port"] == "/dev/null#main.follower"


def test_a_worker_killed_while_it_waits_for_the_simulator_is_there_when_its_turn_comes(
    start_daemon: Start, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    daemon, loading = held_simulator(start_daemon, gate)
    loading["recd:cam:front"].kill()
    until(lambda: daemon.status()["processes"]["camera:front"]["restarts"] == 1, "restart")
    gate.touch()
    daemon.wait_state("READY")
    assert daemon.pid_of("camera:front") != loading["recd:cam:front"].pid


def test_the_end_of_a_daemon_whose_workers_still_wait_leaves_nothing(
    start_daemon: Start, tmp_path: Path
) -> None:
    daemon, _ = held_simulator(start_daemon, tmp_path / "gate")
    workers = daemon.workers()
    assert daemon.end() == 0
    assert gone(workers)
    assert not daemon.runtime.exists()
