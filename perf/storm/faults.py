"""The fault matrix as a table: how each fault is made, what it may cost, what the operator reads.

One row is one scenario: setup (an episode runs, the arms follow), fault (`strike`, then `heal`
after `lasts_s`), outcome, allowed loss. The invariants are the same for all rows (invariants.py).
"""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any, Final

from recd.daemon.faultpoints import arm as arm_point
from recd.perf.storm.subject import StormSubject, await_true
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns

Made = dict[str, Any]
"""What was done, for the record and for `heal`."""


class Outcome(StrEnum):
    """What becomes of the running episode and of the daemon."""

    GOES_ON = "the episode goes on"
    ENDS = "the episode ends and is saved"
    EITHER = "the episode goes on, or ends and is saved"
    DAEMON_DIES = "the next start publishes the episode"
    DAEMON_ENDS = "the episode is saved and the daemon ends"
    SAVED_LATER = "the episode ends; it is saved now, or by the next start once the fault is over"
    AT_STOP = "strikes while the episode is saved"


@dataclass(frozen=True, slots=True)
class Fault:
    """One row. section: of the issue's matrix; loss_ms: allowed loss of the running episode, None
    when its own outage is what is lost; reads: words of which the operator must read one;
    until_end: it is healed only when the episode has ended."""

    name: str
    section: int
    strike: Callable[[StormSubject, Random], Made]
    outcome: Outcome
    loss_ms: float | None = 0.0
    lasts_s: tuple[float, float] = (0.0, 0.0)
    heal: Callable[[StormSubject, Made], None] | None = None
    reads: tuple[str, ...] = ()
    rearms: bool = False
    until_end: bool = False


SECOND_MS = 1000.0


# --- processes ---------------------------------------------------------------------------------


def kill_worker(name: str) -> Callable[[StormSubject, Random], Made]:
    """SIGKILL to one worker."""

    def strike(subject: StormSubject, _: Random) -> Made:
        pid = subject.worker(name)
        os.kill(pid, signal.SIGKILL)
        return {"killed": name, "pid": pid}

    return strike


def kill_supervisor(subject: StormSubject, _: Random) -> Made:
    """SIGKILL to the supervisor alone; its workers have to end by themselves."""
    os.kill(subject.pid, signal.SIGKILL)
    return {"killed": "supervisor"}


def kill_everything(subject: StormSubject, draw: Random) -> Made:
    """SIGKILL to all processes, in random order."""
    tree = subject.tree()
    draw.shuffle(tree)
    for process in tree:
        process.kill()
    return {"killed": len(tree)}


def dies_every_time(name: str) -> Callable[[StormSubject, Random], Made]:
    """SIGKILL to a worker as often as it comes, until the daemon gives it up."""

    def strike(subject: StormSubject, _: Random) -> Made:
        killed: set[int] = set()

        def given_up() -> bool:
            seat = subject.client.status()["processes"][name]
            if seat["pid"] and seat["pid"] not in killed:
                killed.add(int(seat["pid"]))
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
    sleep_until_ns(now_ns() + glides_ms * NS_PER_S // 1000)
    return {"glides_ms": glides_ms} | kill_worker("arm:main.follower")(subject, draw)


def use_up_files(name: str) -> Callable[[StormSubject, Random], Made]:
    """No process `name` (a worker, or `supervisor`) may open another file."""

    def strike(subject: StormSubject, _: Random) -> Made:
        pid = subject.pid if name == "supervisor" else subject.worker(name)
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        return {"pid": pid, "limit": soft}

    return strike


def give_files_back(_: StormSubject, made: Made) -> None:
    """The limit as it was, if the process still lives."""
    try:
        hard = resource.prlimit(made["pid"], resource.RLIMIT_NOFILE)[1]
        resource.prlimit(made["pid"], resource.RLIMIT_NOFILE, (made["limit"], hard))
    except ProcessLookupError:
        return


def stop_worker(name: str) -> Callable[[StormSubject, Random], Made]:
    """SIGSTOP; `go_on` ends it."""

    def strike(subject: StormSubject, _: Random) -> Made:
        pid = subject.worker(name)
        os.kill(pid, signal.SIGSTOP)
        return {"stopped": name, "pid": pid}

    return strike


def go_on(_: StormSubject, made: Made) -> None:
    """SIGCONT to what was stopped, if it still lives."""
    try:
        os.kill(made["pid"], signal.SIGCONT)
    except ProcessLookupError:
        return


def send(number: signal.Signals) -> Callable[[StormSubject, Random], Made]:
    """A signal to the supervisor, as a terminal or service manager sends it."""

    def strike(subject: StormSubject, _: Random) -> Made:
        os.kill(subject.pid, number)
        return {"signal": number.name}

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


def die_at(points: tuple[str, ...]) -> Callable[[StormSubject, Random], Made]:
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


# --- buses -------------------------------------------------------------------------------------

FOLLOWER, LEADER = "main.follower", "main.leader"


def wire(
    kind: str, *, bus: str = FOLLOWER, **fields: Any
) -> Callable[[StormSubject, Random], Made]:
    """A fault of the wire; a tuple of two numbers is drawn between them."""

    def strike(subject: StormSubject, draw: Random) -> Made:
        drawn = {
            key: draw.randint(*value) if isinstance(value, tuple) else value
            for key, value in fields.items()
        }
        if kind == "garbage":
            drawn["seed"] = draw.randrange(1, 2**31)
        subject.bus("fault", bus=bus, kind=kind, **drawn)
        return {"wire": kind, "bus": bus, **drawn}

    return strike


def clear_bus(subject: StormSubject, made: Made) -> None:
    """End the faults of a bus; servos that were taken off come back."""
    bus = made["bus"]
    if made["wire"] == "missing":
        subject.bus("missing", bus=bus, ident=made["ident"], on=False)
    if made["wire"] == "error_bits":
        subject.bus("error_bits", bus=bus, ident=made["ident"], bits=0)
    subject.bus("clear", bus=bus)


def unplug(subject: StormSubject, _: Random) -> Made:
    """Pull the follower's adapter."""
    subject.bus("unplug", bus=FOLLOWER)
    return {"unplugged": FOLLOWER}


def plug_elsewhere(subject: StormSubject, _: Made) -> None:
    """Plug it in again under another name; the serial number stays."""
    link = subject.directory / "sim" / f"ttyUSB{now_ns() % 1000}"
    subject.bus("plug", bus=FOLLOWER, link=str(link))


# --- cameras -----------------------------------------------------------------------------------


def picture(kind: str, **fields: Any) -> Callable[[StormSubject, Random], Made]:
    """A fault of one camera, drawn among both."""

    def strike(subject: StormSubject, draw: Random) -> Made:
        drawn = {
            key: draw.randint(*value) if isinstance(value, tuple) else value
            for key, value in fields.items()
        }
        camera = draw.choice(("front", "wrist"))
        subject.camera("fault", camera=camera, kind=kind, **drawn)
        return {"camera": camera, "kind": kind, **drawn}

    return strike


def clear_cameras(subject: StormSubject, _: Made) -> None:
    """End every fault of the cameras."""
    subject.camera("clear", camera="*")


FAULTS: Final[tuple[Fault, ...]] = (
    Fault("supervisor killed", 1, kill_supervisor, Outcome.DAEMON_DIES, SECOND_MS),
    Fault("everything killed", 1, kill_everything, Outcome.DAEMON_DIES, SECOND_MS),
    Fault("everything killed, recovery killed too", 1, die_and_die_in_recovery,
          Outcome.DAEMON_DIES, SECOND_MS),
    Fault("supervisor killed at a named point", 1, die_at(POINTS_OF_SUPERVISOR),
          Outcome.AT_STOP, SECOND_MS),
    Fault("killed at a named point while saving", 1, die_at(POINTS_AT_STOP), Outcome.AT_STOP),
    Fault("writer killed at a named point", 1, die_at(POINTS_RECORDING), Outcome.GOES_ON,
          lasts_s=(1.5, 2.5), reads=("writer",)),
    Fault("writer killed", 1, kill_worker("writer"), Outcome.GOES_ON, reads=("writer",)),
    Fault("writer killed, the next one while it resumes", 1, die_at_resume, Outcome.GOES_ON,
          reads=("writer",)),
    Fault("encoder killed", 1, kill_worker("encoder:front"), Outcome.GOES_ON,
          reads=("encoder:front",)),
    Fault("camera process killed, required: mark", 1, kill_worker("camera:front"),
          Outcome.GOES_ON, None, reads=("camera:front",)),
    Fault("camera process killed, required: abort", 1, kill_worker("camera:wrist"),
          Outcome.ENDS, None, reads=("camera:wrist",)),
    Fault("follower process killed", 1, kill_worker("arm:main.follower"), Outcome.ENDS,
          reads=("arm:main.follower",), rearms=True),
    Fault("leader process killed", 1, kill_worker("arm:main.leader"), Outcome.ENDS,
          reads=("arm:main.leader",), rearms=True),
    Fault("follower killed while it glides to its leader", 1, kill_while_gliding, Outcome.ENDS,
          SECOND_MS, reads=("arm:main.follower",), rearms=True),
    Fault("all devices gone at once", 1, kill_worker("sim"), Outcome.ENDS, None,
          reads=("sim", "camera:", "arm:"), rearms=True),
    Fault("SIGTERM", 2, send(signal.SIGTERM), Outcome.DAEMON_ENDS),
    Fault("SIGINT", 2, send(signal.SIGINT), Outcome.DAEMON_ENDS),
    Fault("SIGHUP", 2, send(signal.SIGHUP), Outcome.DAEMON_ENDS),
    Fault("encoder stopped for 1 s", 3, stop_worker("encoder:wrist"), Outcome.GOES_ON,
          lasts_s=(1.0, 1.0), heal=go_on),
    Fault("encoder stopped for 10 s", 3, stop_worker("encoder:wrist"), Outcome.GOES_ON,
          lasts_s=(10.0, 10.0), heal=go_on, reads=("encoder",)),
    Fault("writer stopped for 10 s", 3, stop_worker("writer"), Outcome.GOES_ON,
          lasts_s=(10.0, 10.0), heal=go_on),
    Fault("all cores busy", 3, hog_processors, Outcome.GOES_ON),
    Fault("viewer and client that stop reading", 3, stuck_clients, Outcome.GOES_ON),
    Fault("servo reply late once", 4, wire("late", ms=(60, 80)), Outcome.EITHER, rearms=True),
    Fault("servo replies late in a burst", 4, wire("late", ms=(60, 80), count=(3, 8)),
          Outcome.EITHER, rearms=True),
    Fault("bad checksums", 4, wire("checksum", count=(1, 40)), Outcome.EITHER, rearms=True),
    Fault("garbage on the line", 4, wire("garbage", count=(1, 20), size=(1, 60)),
          Outcome.EITHER, rearms=True),
    Fault("short replies", 4, wire("short", count=(1, 20), size=(1, 8)), Outcome.EITHER,
          rearms=True),
    Fault("one servo silent", 4, wire("missing", ident=(1, 6)), Outcome.EITHER,
          lasts_s=(0.5, 1.5), heal=clear_bus, rearms=True),
    Fault("bus silent for 2 s", 4, wire("silent", for_ms=2000), Outcome.ENDS,
          lasts_s=(2.0, 2.0), heal=clear_bus, reads=("bus_silent",), rearms=True),
    Fault("brown-out", 4, wire("brown_out"), Outcome.ENDS,
          reads=("torque_lost", "bus_silent"), rearms=True),
    Fault("overload bits", 4, wire("error_bits", ident=(1, 6), bits=32), Outcome.EITHER,
          lasts_s=(0.5, 1.5), heal=clear_bus, rearms=True),
    Fault("adapter unplugged, back under another name", 4, unplug, Outcome.ENDS,
          lasts_s=(1.0, 2.0), heal=plug_elsewhere, reads=("arm:main.follower",), rearms=True),
    Fault("camera frozen", 5, picture("freeze", frames=(20, 60)), Outcome.EITHER, None,
          lasts_s=(1.0, 2.5), heal=clear_cameras),
    Fault("camera at half rate", 5, picture("half_rate", frames=(30, 90)), Outcome.EITHER, None,
          lasts_s=(1.0, 2.5), heal=clear_cameras),
    Fault("corrupt JPEGs", 5, picture("corrupt", frames=(1, 25)), Outcome.EITHER, None,
          lasts_s=(1.0, 1.0), heal=clear_cameras),
    Fault("garbled JPEGs", 5, picture("garble", frames=(1, 25)), Outcome.EITHER, None,
          lasts_s=(1.0, 1.0), heal=clear_cameras),
    Fault("wrong picture size", 5, picture("wrong_size", frames=(5, 60)), Outcome.EITHER, None,
          lasts_s=(1.0, 2.0), heal=clear_cameras),
    Fault("camera stalled", 5, picture("stall", frames=(10, 60)), Outcome.EITHER, None,
          lasts_s=(1.0, 2.0), heal=clear_cameras),
    Fault("camera gone and back", 5, picture("disconnect"), Outcome.EITHER, None,
          lasts_s=(0.5, 3.0), heal=clear_cameras),
    Fault("camera never back in its episode", 5, picture("disconnect"), Outcome.EITHER, None,
          lasts_s=(2.0, 5.0), heal=clear_cameras, until_end=True, reads=("camera:",)),
    Fault("supervisor may open no file", 6, use_up_files("supervisor"), Outcome.GOES_ON,
          lasts_s=(2.0, 4.0), heal=give_files_back),
    Fault("writer may open no file", 6, use_up_files("writer"), Outcome.GOES_ON,
          lasts_s=(2.0, 4.0), heal=give_files_back),
    Fault("camera process dies every time, required: abort", 9, dies_every_time("camera:wrist"),
          Outcome.ENDS, None, heal=reset, until_end=True, reads=("FAULT", "camera:wrist")),
    Fault("follower process dies every time", 9, dies_every_time("arm:main.follower"),
          Outcome.ENDS, heal=reset, until_end=True, reads=("FAULT",), rearms=True),
)  # fmt: skip
"""In the order of the issue's matrix. Faults of disks are a table of their own (disks.py): they
need a file system that may be filled."""

BY_NAME: Final = {fault.name: fault for fault in FAULTS}
