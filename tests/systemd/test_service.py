"""recd under a real systemd: installed, started, watched, killed, stopped, uninstalled.

One robot with simulated arms and camera for most of it; where the arms have to outlive the daemon,
a simulated SO-101 of its own on pseudo-terminals.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig import until
from tests.systemd.booted import BIN, Machine

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(300)]

DATA = "/var/lib/recd/data"
SMALL = (
    "cameras.wrist=null", "cameras.front.width=320", "cameras.front.height=240",
    "dataset.encoder.vcodec=h264", f"dataset.root={DATA}",
)  # fmt: skip
UNIT = "recd.service"


def install(machine: Machine, config: str, *options: str, sets: tuple[str, ...] = ()) -> str:
    given = [word for value in sets for word in ("--set", value)]
    return machine.run("recctl", "service", "install", config, *options, *given)


def status(machine: Machine, *options: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(machine.run("recctl", *options, "--json", "status"))
    return told


def wait_state(machine: Machine, state: str, *options: str) -> dict[str, Any]:
    def there() -> dict[str, Any] | None:
        found = machine.run("recctl", *options, "--json", "status", code=None)
        try:
            told: dict[str, Any] = json.loads(found)
        except ValueError:
            return None
        return told if told.get("state") == state else None

    unit = f"recd@{options[-1]}.service" if options[-1:] == ("real",) else UNIT
    try:
        found: dict[str, Any] = until(there, f"{state} of {unit}", 120)
    except pytest.fail.Exception:
        print(machine.journal(unit, "-n", "30"))
        raise
    return found


def wait_rows(machine: Machine, rows: int) -> str:
    def enough() -> str:
        episode = status(machine)["episode"] or {}
        return str(episode["uid"]) if episode.get("rows", 0) >= rows else ""

    uid: str = until(enough, f"{rows} rows")
    return uid


def saved(machine: Machine) -> int:
    """Episodes in the dataset; it begins with the first."""
    info = f"{DATA}/meta/info.json"
    text = machine.run("sh", "-c", f"test ! -e {info} || cat {info}")
    return int(json.loads(text)["total_episodes"]) if text else 0


@pytest.fixture(scope="module")
def installed(machine: Machine) -> Iterator[Machine]:
    """The service of one simulated robot, with an operator in its group and a stranger."""
    machine.run("useradd", "-m", "recd_ben")
    machine.run("useradd", "-m", "recd_ann")
    before = machine.run("find", "/etc", "-type", "f", "-newer", "/etc/machine-id")
    install(machine, "demo", sets=("name=robot", *SMALL))
    machine.run("usermod", "-aG", "recd", "recd_ann")
    yield machine
    machine.run("recctl", "service", "uninstall")
    assert machine.show(UNIT, "LoadState") == "not-found"
    after = machine.run("find", "/etc", "-type", "f", "-newer", "/etc/machine-id")
    ours = {line for line in after.splitlines() if "recd" in line}
    assert ours == {line for line in before.splitlines() if "recd" in line}
    machine.run("ls", DATA)  # datasets stay


@pytest.fixture
def running(installed: Machine) -> Iterator[Machine]:
    """The service in READY, with a clean slate of failures; stopped afterwards."""
    installed.run("systemctl", "reset-failed", code=None)
    installed.run("systemctl", "start", UNIT)
    wait_state(installed, "READY")
    yield installed
    installed.run("systemctl", "stop", UNIT)


def test_start_returns_when_ready_and_hardening_takes_nothing_away(running: Machine) -> None:
    assert running.show(UNIT, "ActiveState") == "active"
    assert running.show(UNIT, "StatusText").startswith("READY")
    processes = status(running)["processes"]
    granted = {
        setting: answer for process in processes.values()
        for setting, answer in process["realtime"].items()
    }  # fmt: skip
    assert {"SCHED_FIFO 70", "SCHED_FIFO 50", "memory lock"} <= set(granted)
    assert running.show(UNIT, "LimitMEMLOCK") == "infinity"
    if not running.may_raise_limits():
        del granted["memory lock"]  # a system that takes CAP_SYS_RESOURCE from its process 1
    assert set(granted.values()) == {"granted"}
    assert "kernels" in running.run("ls", "/var/cache/recd")
    owner = running.run("stat", "-c", "%U %G %a", "/run/recd/robot", "/run/recd/robot/ctl.sock")
    assert owner.splitlines() == ["recd recd 750", "recd recd 660"]


def test_the_journal_knows_the_priority_of_every_line(running: Machine) -> None:
    running.run("recctl", "sim", "fault", "front", "disconnect", "frames=10")
    until(lambda: "camera:front" in running.journal(UNIT, "-p", "warning"), "a warning")
    assert "recd starts" not in running.journal(UNIT, "-p", "warning")
    assert "supervisor: recd starts version=" in running.journal(UNIT, "-p", "info")


def test_people_of_the_group_operate_the_daemon_and_share_its_files(running: Machine) -> None:
    running.run_as("recd_ann", "recctl", "start")
    wait_rows(running, 15)
    running.run_as("recd_ann", "recctl", "stop")
    running.run_as("recd_ann", "recctl", "snapshot", "-o", "/tmp/pictures")
    for words in (("recctl", "status"), ("recctl", "-i", "robot", "status")):
        told = running.run_as("recd_ben", *words, code=1)
        assert "operated by the user recd and the group recd" in told
        assert "sudo usermod -aG recd $USER" in told
    modes = running.run("find", DATA, "-type", "f", "-not", "-perm", "-g=rw")
    assert modes == ""
    assert running.run("find", DATA, "-not", "-group", "recd") == ""


def test_stopping_in_mid_episode_saves_it(running: Machine) -> None:
    before = saved(running)
    running.run("recctl", "start")
    wait_rows(running, 30)
    running.run("systemctl", "stop", UNIT)
    assert running.show(UNIT, "Result") == "success"
    assert saved(running) == before + 1
    running.run("recctl", "verify", DATA)
    assert "torque policy" not in running.journal(UNIT, "-n", "20")


def test_a_killed_supervisor_is_started_again_and_loses_at_most_a_second(running: Machine) -> None:
    before = saved(running)
    running.run("recctl", "start")
    wait_rows(running, 60)
    pid = running.show(UNIT, "MainPID")
    running.run("kill", "-9", pid)
    until(lambda: running.show(UNIT, "NRestarts") == "1", "a restart", 60)
    wait_state(running, "READY")
    assert running.show(UNIT, "MainPID") != pid
    assert saved(running) == before + 1
    assert "recd died: signal (killed KILL)" in running.journal(UNIT)
    running.run("recctl", "verify", DATA)


def test_a_supervisor_that_hangs_is_ended_by_the_watchdog_and_started_again(
    running: Machine,
) -> None:
    pid = running.show(UNIT, "MainPID")
    running.run("kill", "-STOP", pid)
    until(lambda: "Watchdog timeout" in running.journal(UNIT), "the watchdog", 60)
    until(lambda: running.show(UNIT, "MainPID") not in (pid, "0"), "a restart", 60)
    wait_state(running, "READY")
    assert "recd died: watchdog" in running.journal(UNIT)


def test_without_its_camera_the_service_lives_through_ten_watchdog_periods(
    installed: Machine,
) -> None:
    drop_in = f"/etc/systemd/system/{UNIT}.d/watchdog.conf"
    installed.write(drop_in, "[Service]\nWatchdogSec=3\n")
    installed.run("systemctl", "daemon-reload")
    installed.run("systemctl", "reset-failed", code=None)
    installed.run("systemctl", "start", UNIT)
    try:
        wait_state(installed, "READY")
        pid = installed.show(UNIT, "MainPID")
        installed.run("recctl", "sim", "fault", "front", "disconnect")
        installed.run("sleep", "30")
        assert installed.show(UNIT, "MainPID") == pid
        assert installed.show(UNIT, "StatusText").startswith("IDLE; waiting for camera:front")
        installed.run("recctl", "sim", "clear")
        wait_state(installed, "READY")
    finally:
        installed.run("systemctl", "stop", UNIT)
        installed.run("rm", drop_in)
        installed.run("systemctl", "daemon-reload")


def test_a_daemon_that_dies_again_and_again_is_given_up_with_its_reason(
    installed: Machine,
) -> None:
    installed.run("systemctl", "reset-failed", code=None)
    drop_in = f"/etc/systemd/system/{UNIT}.d/dies.conf"
    installed.write(drop_in, "[Service]\nExecStartPre=/bin/sh -c 'kill -9 $$$$'\n")
    installed.run("systemctl", "daemon-reload")
    installed.run("systemctl", "start", UNIT, code=None)
    until(lambda: installed.show(UNIT, "ActiveState") == "failed", "giving up", 60)
    assert installed.show(UNIT, "NRestarts") == "4"
    installed.run("rm", drop_in)
    installed.run("systemctl", "daemon-reload")
    installed.run("systemctl", "reset-failed", UNIT)


def test_a_refused_configuration_is_told_once_and_not_tried_again(installed: Machine) -> None:
    config = "/etc/recd/robot.yaml"
    good = installed.run("cat", config)
    installed.write(config, good + "unknown: 1\n")
    installed.run("systemctl", "start", UNIT, code=1)
    assert installed.show(UNIT, "NRestarts") == "0"
    assert "unknown: expected a known key" in installed.journal(UNIT, "-p", "err")
    installed.run("systemctl", "reset-failed", UNIT)
    assert "write " + config in install(installed, "demo", sets=("name=robot", *SMALL))


def test_installing_again_changes_nothing_and_a_busy_daemon_is_not_restarted(
    running: Machine,
) -> None:
    again = install(running, "demo", sets=("name=robot", *SMALL))
    assert "write" not in again
    assert again.splitlines()[-1] == "running"
    pid = running.show(UNIT, "MainPID")
    running.run("recctl", "start")
    changed = ("name=robot", *SMALL, "dataset.task=Another one")
    told = install(running, "demo", sets=changed)
    assert "still runs as before: episode " in told
    assert "refused: episode " in running.run("recctl", "service", "restart", code=1)
    assert running.show(UNIT, "MainPID") == pid
    running.run("recctl", "stop")
    running.run("recctl", "service", "restart")
    assert running.show(UNIT, "MainPID") != pid
    assert wait_state(running, "READY")["task"] == "Another one"
    assert running.show(UNIT, "NRestarts") == "0"
    told = running.run("recctl", "service", "status")
    assert "recd.service: active (running), enabled" in told
    install(running, "demo", sets=("name=robot", *SMALL))


SIM = "/run/simrobot"
ARMS = f"""
name: real
cameras: {{}}
arms:
  main:
    leader: {{port: {SIM}/main.leader, id: l, calibration: LEADER}}
    follower: {{port: {SIM}/main.follower, id: f, calibration: FOLLOWER}}
    torque_on_exit: release
dataset: {{root: /var/lib/recd/arms, fps: 30}}
"""
TORQUE = f"""
import json
from recd.daemon.sim.control import SimControl
with SimControl("{SIM}") as control:
    arms = control.describe()["arms"]
    joints = arms["main.follower"]["joints"].values()
    print(json.dumps([joint["torque"] for joint in joints]))
"""


def torque(machine: Machine) -> set[bool]:
    return set(json.loads(machine.run(str(BIN / "python"), "-c", TORQUE)))


@pytest.fixture
def arms_outside(machine: Machine) -> Iterator[Machine]:
    """A simulated SO-101 pair that outlives the daemon, and a service for it."""
    machine.run(
        "systemd-run", "--unit=simrobot", "--collect", str(BIN / "python"), "-m",
        "recd.daemon.sim", "--pair", "main", "--dir", SIM,
    )  # fmt: skip

    this_run = machine.show("simrobot", "InvocationID")

    def said() -> str:
        # Only of this run: an earlier one's line says nothing of when the ports are there.
        lines = machine.journal("simrobot", f"_SYSTEMD_INVOCATION_ID={this_run}").splitlines()
        return next((line for line in lines if line.startswith("{")), "")

    facts = json.loads(until(said, "the simulated arms"))
    config = ARMS.replace("LEADER", facts["calibrations"]["main.leader"])
    config = config.replace("FOLLOWER", facts["calibrations"]["main.follower"])
    machine.write("/root/real.yaml", config)
    machine.run("sh", "-c", "chmod 666 /dev/pts/[0-9]*")
    install(machine, "/root/real.yaml", "--several")
    yield machine
    machine.run("recctl", "service", "uninstall", "real")
    machine.run("systemctl", "stop", "simrobot")


def test_an_unclean_death_applies_the_torque_policy_and_the_restart_drives_nothing(
    arms_outside: Machine,
) -> None:
    machine, unit = arms_outside, "recd@real.service"
    machine.run("systemctl", "start", unit)
    wait_state(machine, "READY", "-i", "real")
    machine.run("recctl", "-i", "real", "arm")

    def motion() -> str:
        told = status(machine, "-i", "real")["arms"]["main"]["motion"]
        return str(told.get("state"))

    until(lambda: motion() == "TELEOP", "TELEOP")
    assert torque(machine) == {True}
    machine.run("kill", "-9", machine.show(unit, "MainPID"))
    until(lambda: "torque policy" in machine.journal(unit), "the stop hook", 60)
    until(lambda: machine.show(unit, "NRestarts") == "1", "a restart", 60)
    wait_state(machine, "READY", "-i", "real")
    assert "main.follower: policy release: torque on at 0 of 6 joints" in machine.journal(unit)
    assert torque(machine) == {False}
    assert motion() == "DISARMED"


def test_several_robots_run_side_by_side_and_end_one_by_one(
    running: Machine, arms_outside: Machine
) -> None:
    running.run("systemctl", "start", "recd@real.service")
    wait_state(running, "READY", "-i", "real")
    wait_state(running, "READY", "-i", "robot")
    running.run("systemctl", "stop", "recd@real.service")
    assert running.run("ls", "/run/recd").split() == ["robot"]
    wait_state(running, "READY", "-i", "robot")
