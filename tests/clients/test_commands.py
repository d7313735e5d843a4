"""recctl against one real daemon; the tests build on each other's daemon, not on its episodes."""

import json
import os
import signal
import subprocess
import sys

import av

from recd.clients.client import RecdClient
from tests.rig import until

RECORD = [sys.executable, "-m", "recd.clients.recctl.cli", "record", "--resume", "--reset-time",
          "0.5"]  # fmt: skip


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
    uid = recctl("discard", "--json").json["uid"]

    assert recctl("undelete", "zz").code == 1
    assert uid in recctl("undelete", uid[:6]).out
    told = recctl("episodes").out
    assert "Stack the cups" in told
    assert "success" in told


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
    assert (episode["state"], episode["rows"]) == ("saved", 30)
    assert (plan["phase"], plan["outcome"]) == ("done", "complete")


class Keyboard:
    """A `recctl record` on a pseudo-terminal of its own."""

    def __init__(self, robot, *arguments):
        self.robot = robot
        self.ours, theirs = os.openpty()
        self.process = subprocess.Popen(
            [*RECORD, *arguments],
            stdin=theirs, stdout=theirs, stderr=theirs, env=robot.environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        os.set_blocking(self.ours, False)
        self.shown = b""

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
            self.shown += os.read(self.ours, 65536)
        except (BlockingIOError, OSError):
            return self.shown
        return self.shown

    def sees(self, words):
        until(lambda: words in self.read(), f"{words!r} on the terminal")
        self.shown = self.shown[self.shown.rindex(words) + len(words) :]

    def press(self, key):
        os.write(self.ours, key)


def test_keys_on_a_terminal_do_what_lerobots_do_and_hold_and_mark(robot):
    before = len(robot.client.call("episodes")["episodes"])
    with Keyboard(robot, "-n", "3", "--episode-time", "60") as terminal:
        terminal.sees(b"\a")
        terminal.sees(b"s left")
        until(lambda: robot.rows() > 5, "rows")
        assert b"fps front" in terminal.read()
        assert b"disk" in terminal.read()
        terminal.press(b"s")
        terminal.sees(b"marked: success")
        terminal.press(b"\x1b[C")
        terminal.sees(b"episode 2/3")
        terminal.sees(b"recording")
        until(lambda: robot.rows() > 5, "rows")
        terminal.press(b"\x1b[D")
        terminal.sees(b"1 re-recorded")
        until(lambda: robot.rows() > 5, "rows")
        terminal.press(b" ")
        terminal.sees(b"HELD")
        terminal.press(b" ")
        until(lambda: not robot.client.status()["plan"]["held"], "the plan to go on")
        terminal.press(b"\x1b")
        terminal.sees(b"stopped")
        assert terminal.process.wait(30) == 0
    takes = robot.client.call("episodes")["episodes"][before:]
    assert [take["state"] for take in takes] == ["saved", "discarded", "saved"]
    assert [mark["label"] for mark in takes[0]["marks"]] == ["success"]


def test_a_client_that_is_killed_stops_the_plan_when_it_said_so_and_keeps_the_rows(robot):
    robot.client.wait_until("READY")
    with Keyboard(robot, "-n", "5", "--episode-time", "600", "--client-lost", "stop") as terminal:
        terminal.sees(b"recording")
        until(lambda: robot.rows() > 5, "rows")
        terminal.process.send_signal(signal.SIGKILL)
        until(lambda: not robot.client.status()["plan"]["active"], "the plan to end")
    take = robot.client.call("episodes")["episodes"][-1]
    until(lambda: robot.client.call("episodes")["episodes"][-1]["state"] == "saved", "the episode")
    assert take["rows"] > 5
    assert robot.client.status()["plan"]["outcome"] == "client lost"


def test_a_plan_that_is_left_goes_on_and_another_client_ends_it(robot, recctl):
    robot.client.wait_until("READY")
    with Keyboard(robot, "-n", "2", "--episode-time", "600") as terminal:
        terminal.sees(b"recording")
        until(lambda: robot.rows() > 5, "rows")
        terminal.press(b"d")
        terminal.sees(b"the plan goes on")
        assert terminal.process.wait(30) == 0
    with RecdClient("demo") as second:
        until(lambda: robot.rows() > 40, "more rows after the client left")
        second.call("plan.key", key="stop")
    ended = recctl("attach", "--json")
    assert ended.code == 0
    assert json.loads(ended.out.splitlines()[-1])["outcome"] == "stopped"


def test_shutdown_ends_the_daemon_and_later_commands_say_that_none_runs(robot, recctl):
    assert recctl("shutdown").out == "recd has ended\n"
    assert robot.process.wait(60) == 0
    said = recctl("status")
    assert said.code == 4
    assert "recd run" in said.err
