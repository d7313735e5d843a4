"""recctl against one real daemon; the tests build on each other's daemon, not on its episodes."""

import json
import os
import re
import signal
import subprocess
import sys
import termios
from pathlib import Path

import av
import click
import pytest

from recd.shm.clock import NS_PER_S, now_ns
from tests.rig import until

RECCTL = [sys.executable, "-m", "recd.clients.recctl.cli"]
RECORD = [*RECCTL, "record", "--resume", "--reset-time", "0.5"]
ATTACH = [*RECCTL, "attach"]


def test_every_look_at_the_daemon_has_lines_and_one_json_document(robot, recctl, tmp_path):
    for arguments, line in [
        (("status",), "camera front: running"),
        (("top",), "late us"),
        (("shm",), "encoder:front"),
        (("episodes",), ""),
        (("task",), ""),
        (("operator",), ""),
        (("snapshot", "-o", str(tmp_path)), "contact sheet"),
    ]:
        said = recctl(*arguments)
        assert (said.code, said.err) == (0, "")
        assert line in said.out
        assert recctl(*arguments, "--json").json
    with av.open(str(tmp_path / "wrist.jpg")) as picture:
        assert next(picture.decode(video=0)).width == 320


def test_top_has_three_percentiles_of_the_control_loops(robot, recctl):
    follower = recctl("top", "--json").json["arm:main.follower"]
    for name in ("lateness", "work"):
        shares = [follower[name][share] for share in ("p50_ns", "p99_ns", "p999_ns", "max_ns")]
        assert shares == sorted(shares)
        assert shares[0] > 0


def test_top_tells_the_last_seconds_and_how_far_readers_are_behind(robot, recctl):
    def recent():
        told = recctl("top", "--once", "--json").json
        return (
            told if told["arm:main.follower"]["recent"].get("lateness", {}).get("count") else None
        )

    told = until(recent, "samples of the last seconds")
    follower = told["arm:main.follower"]
    assert follower["recent"]["lateness"]["count"] < follower["lateness"]["count"]
    assert told["encoder:front"]["ring_lag"] >= 0
    assert told["sim"]["ring_lag"] is None


def test_top_into_a_pipe_looks_once_and_with_watch_goes_on(robot, recctl):
    assert recctl("top").out.count("restarts") == 1
    command = [*RECCTL, "top", "--watch", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=robot.environment
    ) as watching:
        looks = [json.loads(watching.stdout.readline()) for _ in range(2)]
        watching.terminate()
    assert all("writer" in look for look in looks)


def test_top_names_what_each_process_lost(robot, recctl):
    before = recctl("top", "--json").json["camera:wrist"]["lost"]
    assert recctl("sim", "fault", "wrist", "skip", "frames=3").code == 0
    until(
        lambda: recctl("top", "--json").json["camera:wrist"]["lost"] >= before + 3, "three losses"
    )
    assert "lost" in recctl("top").out.splitlines()[0]


def test_a_refusal_names_the_state_and_what_is_legal_in_words_and_in_json(robot, recctl):
    robot.client.wait_until("READY")
    said = recctl("stop")
    assert said.code == 1
    assert "stop is not possible in READY; legal now: start" in said.err

    error = recctl("stop", "--json").json["error"]
    assert (error["code"], error["state"]) == ("state", "READY")
    assert "start" in error["legal"]


def test_one_episode_by_hand_marked_discarded_and_brought_back_by_its_first_digits(robot, recctl):
    assert recctl("task", "Stack", "the", "cups").code == 0
    assert recctl("operator", "ada").out == "ada\n"
    assert "Stack the cups" in recctl("start").out
    assert recctl("mark", "success").code == 0
    assert "record is not possible in RECORDING" in recctl("record").err
    until(lambda: robot.rows() > 0, "a row")
    uid = recctl("discard", "--json").json["uid"]

    for nobody in ("zz", "", uid + "0"):
        said = recctl("undelete", nobody)
        assert (said.code, said.out) == (1, "")
        assert "recctl episodes" in said.err
    assert uid in recctl("undelete", uid[:6]).out
    told = recctl("episodes").out
    assert "Stack the cups" in told
    assert "success" in told


def test_arm_and_resume_say_whether_the_follower_follows_or_what_it_waits_for(robot, recctl):
    for command in ("arm", "hold", "resume", "hold", "teleop"):
        said = recctl(command)
        assert (said.code, said.err) == (0, "")
        if command == "hold":
            assert said.out.startswith("main: HOLD")
        else:
            assert re.match(r"main: (TELEOP|HOLD .*waiting: bring )", said.out), said.out
    assert recctl("disarm", "--policy", "release").code == 0


def test_faults_of_cameras_and_buses_are_made_by_recctl_and_seen_in_status(robot, recctl):
    frozen = robot.client.status()["cameras"]["front"]["frozen"]
    assert recctl("sim", "fault", "front", "freeze").code == 0
    until(lambda: robot.client.status()["cameras"]["front"]["frozen"] > frozen, "a frozen picture")
    assert recctl("sim", "clear").code == 0
    assert recctl("sim", "fault", "main.follower", "silent", "count=1").code == 0
    for wrong in (("front", "melt"), ("left", "freeze"), ("main.follower", "silent", "x=1")):
        said = recctl("sim", "fault", *wrong)
        assert said.code == 1
        assert "--help" in said.err


def test_without_a_terminal_record_prints_one_json_document_per_line(robot):
    done = subprocess.run(
        [*RECORD, "-n", "1", "--episode-time", "1", "--arm", "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=robot.environment,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    episode, plan = (json.loads(line) for line in done.stdout.splitlines())
    assert episode["state"] == "saved"
    assert 30 <= episode["rows"] < 300, "more than a second of rows only where the daemon was late"
    assert (plan["phase"], plan["outcome"]) == ("done", "complete")


def test_a_plan_for_which_the_disk_has_no_room_is_refused_with_the_episodes_that_fit(robot, recctl):
    robot.client.wait_until("READY")
    robot.record(15)
    disk = robot.client.status()["disk"]
    many = int(2 * disk["seconds_left"] / 900) + 1
    said = recctl("record", "-n", many, "--episode-time", 900, "--resume")
    assert said.code == 1
    fit = int(re.search(r"beyond the reserve: (\d+) still fit", said.err).group(1))
    assert 0 <= fit < many
    assert not (robot.client.status()["plan"] or {}).get("active")


class Keyboard:
    """A `recctl record` (or another `command`) on a pseudo-terminal of its own, 80 columns wide.

    whole: everything it ever showed.
    """

    def __init__(self, robot, *arguments, command=RECORD):
        self.robot = robot
        self.ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdin=theirs, stdout=theirs, stderr=theirs, env=robot.environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        os.set_blocking(self.ours, False)
        self.shown = self.whole = b""

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None and self.robot.client.status()["plan"]["active"]:
            self.robot.client.call("plan.key", key="stop")
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)

    def read(self):
        try:
            said = os.read(self.ours, 65536)
            self.shown += said
            self.whole += said
        except (BlockingIOError, OSError):
            return self.shown
        return self.shown

    def sees(self, words):
        until(lambda: words in self.read(), f"{words!r} on the terminal")
        self.shown = self.shown[self.shown.rindex(words) + len(words) :]

    def press(self, key):
        os.write(self.ours, key)


def takes_since(robot, before):
    return [take["state"] for take in robot.client.call("episodes")["episodes"][before:]]


def test_keys_on_a_terminal_do_what_lerobots_do_and_hold_and_mark(robot):
    before = len(robot.client.call("episodes")["episodes"])
    with Keyboard(robot, "-n", "3", "--episode-time", "60") as terminal:
        terminal.sees(b"\a")
        terminal.sees(b"recording 1/3")
        terminal.sees(b"s left")
        until(lambda: robot.rows() > 5, "rows")
        terminal.sees(b"fps")
        terminal.sees(b"Hz")
        terminal.sees(b"disk")
        terminal.press(b"s")
        terminal.sees(b"marked: success")
        terminal.press(b"\x1b[C")
        terminal.sees(b"recording 2/3")
        until(lambda: robot.rows() > 5, "rows")
        terminal.press(b"\x1b[D")
        until(lambda: takes_since(robot, before)[1:2] == ["discarded"], "the take to be discarded")
        until(lambda: robot.rows() > 5, "rows")
        terminal.press(b" ")
        terminal.sees(b"HELD")
        terminal.press(b" ")
        until(lambda: not robot.client.status()["plan"]["held"], "the plan to go on")
        terminal.press(b"\x1b")
        terminal.sees(b"stopped")
        assert terminal.process.wait(30) == 0
    assert takes_since(robot, before) == ["saved", "discarded", "saved"]
    takes = robot.client.call("episodes")["episodes"][before:]
    assert [mark["label"] for mark in takes[0]["marks"]] == ["success"]


def test_a_camera_that_is_lost_is_heard_and_read_while_the_episode_goes_on(robot):
    robot.client.wait_until("READY")
    before = len(robot.client.call("episodes")["episodes"])
    with Keyboard(robot, "-n", "1", "--episode-time", "60") as terminal:
        terminal.sees(b"recording 1/1")
        until(lambda: robot.rows() > 5, "rows")
        terminal.sees(b"fps")
        assert b"\a" not in terminal.read()
        robot.workers()["camera:front"].kill()
        terminal.sees(b"\a")
        terminal.sees(b"camera:front")
        terminal.sees(b"recording 1/1")
        terminal.press(b"q")
        assert terminal.process.wait(30) == 0
    assert takes_since(robot, before) == ["saved"]


@pytest.mark.parametrize(
    ("policy", "kept", "whole", "outcome"),
    [("stop", 1, False, "client lost"), ("finish", 1, True, "client lost"),
     ("continue", 2, True, "complete")],
)  # fmt: skip
def test_a_terminal_that_is_killed_leaves_the_plan_to_do_what_was_asked(
    robot, policy, kept, whole, outcome
):
    robot.client.wait_until("READY")
    before = len(robot.client.call("episodes")["episodes"])
    # A lost client is noticed after 5 s: in the first episode, or of those that go on the second.
    seconds = {"stop": 600, "finish": 9, "continue": 4}[policy]
    asked = ("-n", "2", "--episode-time", str(seconds), "--client-lost", policy)
    with Keyboard(robot, *asked) as terminal:
        terminal.sees(b"recording")
        until(lambda: robot.rows() > 5, "rows")
        terminal.process.send_signal(signal.SIGKILL)
        until(lambda: not robot.client.status()["plan"]["active"], "the plan to end")
    takes = robot.client.call("episodes")["episodes"][before:]
    assert [take["state"] for take in takes] == ["saved"] * kept
    assert robot.client.status()["plan"]["outcome"] == outcome
    for take in takes:
        assert take["rows"] > 5
        assert not whole or 30 * seconds <= take["rows"] < 60 * seconds


def test_a_plan_that_is_left_goes_on_and_two_remotes_that_come_back_share_it(robot):
    robot.client.wait_until("READY")
    with Keyboard(robot, "-n", "2", "--episode-time", "600") as terminal:
        terminal.sees(b"recording")
        until(lambda: robot.rows() > 5, "rows")
        terminal.press(b"d")
        terminal.sees(b"the plan goes on")
        assert terminal.process.wait(30) == 0
    until(lambda: robot.rows() > 40, "more rows after the client left")
    with Keyboard(robot, command=ATTACH) as back, Keyboard(robot, command=ATTACH) as second:
        for remote in (back, second):
            remote.sees(b"recording 1/2")
        second.press(b"q")
        for remote in (back, second):
            remote.sees(b"1 of 2 episodes: stopped")
            assert remote.process.wait(30) == 0


def test_the_live_line_of_a_running_plan_fits_80_columns(robot):
    robot.client.wait_until("READY")
    with Keyboard(robot, "-n", "1", "--episode-time", "600") as terminal:
        terminal.sees(b"recording")
        until(lambda: robot.rows() > 40, "rows")
        terminal.press(b"q")
        terminal.sees(b"1 of 1 episodes")
        shown = terminal.whole.decode()
    lines = [click.unstyle(line) for line in re.split(r"\r\x1b\[2K|\r\n", shown)]
    live = [line for line in lines if line.startswith("recording 1/1")]
    assert max(map(len, live)) < 80
    # What stands behind these on a busy computer is for test_live_line.py.
    assert re.search(r" left  .*\d+ lost", live[-1]), live[-1]


def test_a_watched_status_is_one_document_a_line_until_ctrl_c(robot):
    watch = subprocess.Popen(
        [*RECCTL, "status", "--watch", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=robot.environment,
    )  # fmt: skip
    told = [json.loads(watch.stdout.readline()) for _ in range(3)]
    watch.send_signal(signal.SIGINT)
    rest, complaint = watch.communicate(timeout=30)
    assert all(json.loads(line)["state"] for line in rest.splitlines())
    assert {status["instance"] for status in told} == {"demo"}
    assert (watch.returncode, complaint.strip()) == (130, "")


def test_ctrl_c_while_a_connection_is_being_closed_does_not_hang(robot):
    # pyzmq forgets a socket first and closes it then; a client that waits for all of its sockets
    # to be closed would wait for ever after a KeyboardInterrupt between these two steps.
    script = """
import zmq
from recd.clients.client import RecdClient

def interrupted(context, socket):
    zmq.Context._rm_socket = forget
    forget(context, socket)
    print("between", flush=True)
    raise KeyboardInterrupt

forget = zmq.Context._rm_socket
with RecdClient() as client, client.listening("state"):
    client.status()
    zmq.Context._rm_socket = interrupted
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, env=robot.environment, timeout=30,
    )  # fmt: skip
    assert done.stdout.split() == ["between"]
    assert done.stderr.endswith("KeyboardInterrupt\n")


def test_what_happens_between_a_status_and_a_pause_ends_the_pause(robot):
    client = robot.client
    client.wait_until("READY")
    client.pause(0, "episode")
    uid = client.start(task="Between")["uid"]
    client.stop()
    # Nothing more is told of episodes after this; a pause that listens only from now on ends late.
    assert client.call("episodes")["episodes"][-1]["uid"] == uid
    began_ns = now_ns()
    client.pause(60, "episode")
    assert now_ns() - began_ns < 30 * NS_PER_S


def test_the_example_for_scripts_in_the_documentation_runs(robot):
    robot.client.wait_until("READY")
    page = (Path(__file__).parents[2] / "docs" / "recctl.md").read_text()
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL).group(1)
    done = subprocess.run(
        [sys.executable, "-c", example],
        capture_output=True, text=True, env=robot.environment, timeout=100,
    )  # fmt: skip
    assert done.stderr == ""
    take = robot.client.call("episodes")["episodes"][-1]
    assert done.stdout.split() == [take["uid"][:8], str(take["rows"]), take["verdict"]["level"]]
    assert (take["task"], take["marks"][0]["label"]) == ("Stack the cups", "success")


def test_shutdown_ends_the_daemon_and_later_commands_say_that_none_runs(robot, recctl):
    assert recctl("shutdown").out == "recd has ended\n"
    assert robot.process.wait(60) == 0
    said = recctl("status")
    assert said.code == 4
    assert "recd run" in said.err
