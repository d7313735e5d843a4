"""Faults of processes: killed, stopped, signalled, out of files, out of processors.

SIGKILL at random times and at the named points of daemon/faultpoints.py.
"""

import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final

import psutil

from recd.config.errors import RecdError
from recd.daemon.dataset.trash import FAULT_POINTS as UNDO_POINTS
from recd.daemon.faultpoints import arm as arm_point
from recd.daemon.supervisor.forks import TITLE as FORK_SERVER
from recd.perf.storm.fault import Made, Strike
from recd.perf.storm.subject import StormSubject, await_true
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

WORKERS: Final = (
    "writer", "encoder:front", "encoder:wrist", "camera:front", "camera:wrist",
    "arm:main.follower", "arm:main.leader",
)  # fmt: skip


def kill_pid(pid: int) -> None:
    """SIGKILL; RecdError when it was gone before."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError as error:
        raise RecdError(f"process {pid} ended before it was killed") from error


def kill_worker(name: str) -> Strike:
    """SIGKILL to one worker."""

    def strike(subject: StormSubject, _: Random) -> Made:
        pid = subject.worker(name)
        kill_pid(pid)
        return {"killed": name, "pid": pid}

    return strike


def kill_fork_server(subject: StormSubject, draw: Random) -> Made:
    """SIGKILL to the fork server, where one lives still, and to an encoder: it comes by exec."""
    servers = [one for one in subject.tree() if FORK_SERVER in one.cmdline()]
    for server in servers:
        kill_pid(server.pid)
    return {**kill_worker("encoder:front")(subject, draw), "servers": len(servers)}


def kill_supervisor(subject: StormSubject, _: Random) -> Made:
    """SIGKILL to the supervisor alone; its workers have to end by themselves."""
    kill_pid(subject.pid)
    return {"killed": "supervisor"}


def kill_everything(subject: StormSubject, draw: Random) -> Made:
    """SIGKILL to all processes, in random order."""
    tree = subject.tree()
    draw.shuffle(tree)
    for process in tree:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return {"killed": len(tree)}


def kill_while_saving(subject: StormSubject, draw: Random) -> Made:
    """SIGKILL to one worker a moment after the stop that follows at once."""
    name, after_ms = draw.choice(WORKERS), draw.randint(0, 250)
    pid = subject.worker(name)

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    threading.Timer(after_ms / 1000, kill).start()
    return {"killed": name, "pid": pid, "after_ms": after_ms}


def until_killed(_: StormSubject, made: Made) -> None:
    """The next episode is not to meet a kill that was meant for this one."""
    await_true(lambda: not psutil.pid_exists(made["pid"]), "the worker to be killed", 10)


def kill_while_arming(subject: StormSubject, draw: Random) -> Made:
    """SIGKILL to an arm's process, the supervisor or everything while the arms are armed."""
    subject.client.call("disarm", policy="release")
    await_true(lambda: subject.motion() == "DISARMED", "the arms to be disarmed", 20)
    whom, after_ms = (
        draw.choice(("arm:main.follower", "arm:main.leader", "supervisor", "all")),
        (draw.randint(0, 1200)),
    )
    asked = threading.Thread(target=_arm_quietly, args=(subject,))
    asked.start()
    sleep_until_ns(now_ns() + after_ms * NS_PER_MS)
    kills: dict[str, Strike] = {"supervisor": kill_supervisor, "all": kill_everything}
    made = kills.get(whom, kill_worker(whom))(subject, draw)
    asked.join(30)
    return {**made, "whom": whom, "after_ms": after_ms, "dies": whom in kills}


def _arm_quietly(subject: StormSubject) -> None:
    """Ask for arms over a connection of its own; the answer does not matter."""
    with suppress(RecdError), subject.another_client() as client:
        client.call("arm", timeout_s=5)


def kill_as_it_begins(subject: StormSubject, draw: Random) -> Made:
    """Somebody is killed at the named point that the beginning of an episode passes."""
    point = draw.choice(("supervisor.begun", "writer.begin", "encoder.begin"))
    arm_point(subject.armed_points, point, "kill")
    uids = []
    with suppress(RecdError):
        uids.append(subject.client.start(task="killed as it begins")["uid"])
    dies = point.startswith("supervisor")
    if not dies:
        await_true(lambda: not any(subject.armed_points.iterdir()), f"{point} to be passed", 30)
        sleep_until_ns(now_ns() + 2 * NS_PER_S)
        with suppress(RecdError):  # the episode may have ended by itself
            subject.client.stop(timeout_s=60)
    return {"point": point, "uids": uids, "dies": dies}


def dies_every_time(name: str) -> Strike:
    """SIGKILL to a worker as often as it comes, until the daemon gives it up."""

    def strike(subject: StormSubject, _: Random) -> Made:
        killed: set[int] = set()

        def given_up() -> bool:
            seat = subject.client.status()["processes"][name]
            if seat["pid"] and seat["pid"] not in killed:
                killed.add(int(seat["pid"]))
                with suppress(ProcessLookupError):
                    os.kill(int(seat["pid"]), signal.SIGKILL)
            return bool(seat["phase"] == "given_up")

        await_true(given_up, f"{name} to be given up", 90)
        return {"killed": name, "times": len(killed)}

    return strike


def reset(subject: StormSubject, _: Made) -> None:
    """Leave FAULT, as the operator does."""
    subject.client.call("reset")


def kill_while_gliding(subject: StormSubject, draw: Random) -> Made:
    """SIGKILL to the follower while it glides back to its leader after a hold."""
    subject.client.call("hold")
    sleep_until_ns(now_ns() + NS_PER_S // 3)
    subject.client.call("resume")
    glides_ms = draw.randint(50, 800)
    sleep_until_ns(now_ns() + glides_ms * NS_PER_MS)
    return {"glides_ms": glides_ms} | kill_worker("arm:main.follower")(subject, draw)


def use_up_files(name: str) -> Strike:
    """No process `name` (a worker, or `supervisor`) may open another file."""

    def strike(subject: StormSubject, _: Random) -> Made:
        pid = subject.pid if name == "supervisor" else subject.worker(name)
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        # Below what is open, poll itself would fail, which no lack of files does.
        highest = max(int(fd.name) for fd in Path(f"/proc/{pid}/fd").iterdir())
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, hard))
        return {"pid": pid, "limit": soft, "process": name}

    return strike


def give_files_back(_: StormSubject, made: Made) -> None:
    """The limit as it was, if the process still lives."""
    with suppress(ProcessLookupError):
        hard = resource.prlimit(made["pid"], resource.RLIMIT_NOFILE)[1]
        resource.prlimit(made["pid"], resource.RLIMIT_NOFILE, (made["limit"], hard))


def stop_worker(name: str) -> Strike:
    """SIGSTOP; `go_on` ends it."""

    def strike(subject: StormSubject, _: Random) -> Made:
        pid = subject.worker(name)
        os.kill(pid, signal.SIGSTOP)
        return {"stopped": name, "pids": [pid]}

    return strike


def stop_everything(subject: StormSubject, draw: Random) -> Made:
    """SIGSTOP to all processes for some seconds, as in a suspended computer."""
    pids = [process.pid for process in subject.tree()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    seconds = draw.uniform(2, 12)
    sleep_until_ns(now_ns() + round(seconds * NS_PER_S))
    go_on(subject, {"pids": pids})
    return {"stopped": len(pids), "seconds": round(seconds, 1)}


def go_on(_: StormSubject, made: Made) -> None:
    """SIGCONT to what was stopped, if it still lives."""
    for pid in made["pids"]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def send(number: signal.Signals) -> Strike:
    """A signal to the supervisor, as a service manager or `kill` sends it."""

    def strike(subject: StormSubject, _: Random) -> Made:
        os.kill(subject.pid, number)
        return {"signal": number.name}

    return strike


def send_to_all(number: signal.Signals) -> Strike:
    """A signal to every process at once, as a terminal (Ctrl-C, closing it) or a shutdown does."""

    def strike(subject: StormSubject, _: Random) -> Made:
        tree = subject.tree()
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return {"signal": number.name, "processes": len(tree)}

    return strike


def hog_processors(_: StormSubject, draw: Random) -> Made:
    """Busy loops on all cores for some seconds; they end by themselves, too."""
    seconds = draw.uniform(2, 5)
    code = f"import time\nend = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass"
    hogs = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(os.cpu_count() or 1)]
    for hog in hogs:
        hog.wait()
    return {"hogs": len(hogs), "seconds": round(seconds, 2)}


def stuck_clients(subject: StormSubject, draw: Random) -> Made:
    """A viewer that stops reading events and a client that asks and never takes an answer."""
    import zmq

    from recd.config.messages import Request, new_request_id
    from recd.config.paths import control_endpoint, event_endpoint

    context = zmq.Context()
    viewer, asker = context.socket(zmq.SUB), context.socket(zmq.DEALER)
    viewer.setsockopt(zmq.RCVHWM, 1)
    viewer.subscribe("")
    viewer.connect(event_endpoint(subject.directory))
    asker.setsockopt(zmq.RCVHWM, 1)
    asker.connect(control_endpoint(subject.directory))
    requests = draw.randrange(200, 600)
    for _ in range(requests):
        asker.send(Request(new_request_id(), "status", {}, 1000).pack())
    sleep_until_ns(now_ns() + 2 * NS_PER_S)
    context.destroy(linger=0)
    return {"requests": requests}


# --- named points ------------------------------------------------------------------------------

POINTS_AT_STOP: Final = (
    "encoder.rows_done", "encoder.closed", "writer.sealed",
    "commit.begin", "commit.checked", "commit.data_written", "commit.episodes_written",
    "commit.stats_written", "commit.info_written", "commit.manifest_written", "commit.verified",
    "commit.kept", "commit.synced", "commit.prepared", "commit.moved.own", "commit.moved.video",
    "commit.moved.data", "commit.moved.episodes", "commit.moved.stats", "commit.moved.info",
    "commit.folders_synced", "commit.done", "commit.cleaned",
)  # fmt: skip
POINTS_OF_SUPERVISOR: Final = (
    "supervisor.ending", "supervisor.sealed", "supervisor.durable",
)  # fmt: skip
POINTS_RECORDING: Final = ("writer.rows_built", "writer.synced")
POINTS_OF_RECOVERY: Final = (
    "recover.begin", "recover.measured", "recover.cut", "recover.end",
    "commit.prepared", "commit.moved.data", "commit.done",
)  # fmt: skip
POINTS_OF_UNDO: Final = tuple(point for point in UNDO_POINTS if point != "undo.moved.tasks")
"""An undo puts the tasks back only when its episode brought a new one."""


def die_at(points: tuple[str, ...]) -> Strike:
    """Whoever next passes one of `points` is killed there."""

    def strike(subject: StormSubject, draw: Random) -> Made:
        point = draw.choice(points)
        arm_point(subject.armed_points, point, "kill")
        return {"point": point}

    return strike


def die_and_die_in_recovery(subject: StormSubject, draw: Random) -> Made:
    """Everything is killed, and the recovery of the next start is killed at one of its points."""
    made = die_at(POINTS_OF_RECOVERY)(subject, draw)
    return made | kill_everything(subject, draw)


def die_at_resume(subject: StormSubject, draw: Random) -> Made:
    """The writer is killed, and the next one is killed while it takes up the episode."""
    made = die_at(("writer.resumed",))(subject, draw)
    return made | kill_worker("writer")(subject, draw)
