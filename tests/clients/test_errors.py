import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from recd.clients.client import NotRunningError, RecdClient
from recd.daemon.supervisor.instance import InstanceLock


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("RECD_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("RECD_TRACEBACK", raising=False)
    monkeypatch.chdir(tmp_path)


WRONG = [
    (("status",), 4, "no recd daemon"),
    (("-i", "other", "status"), 4, "recd run"),
    (("--endpoint", "bogus", "status"), 2, "tcp://"),
    (("--endpoint", "tcp://x", "status"), 2, "tcp://"),
    (("--endpoint", "ipc:///nowhere/ctl.sock", "status"), 4, "/nowhere/ctl.sock"),
    (("--endpoint", "tcp://127.0.0.1:9", "--timeout", "60", "status"), 4, "no recd daemon listens"),
    (("--timeout", "-3", "status"), 2, "--timeout"),
    (("statu",), 2, "'status'"),
    (("mark",), 2, "LABEL"),
    (("record", "-n", "0"), 2, "episodes"),
    (("config", "check", "nope.yaml"), 1, "nope.yaml"),
    (("config", "check", "."), 1, "readable file"),
    (("config", "check", "demo", "--set", "foo"), 1, "key.path=value"),
    (("config", "check", "demo", "--set", "dataset.fps=abc"), 1, "dataset.fps"),
    (("config", "preset", "nope"), 2, "demo"),
    (("verify", "nope"), 1, "nope"),
    (("recover", "nope"), 1, "nope"),
    (("dataset", "info", "nope"), 1, "nope"),
    (("release", "demo", "bogus"), 1, "main.follower"),
    (("sim", "fault", "front", "freeze"), 4, "no recd daemon"),
    (("completion", "ksh"), 2, "bash"),
]


@pytest.mark.parametrize(("arguments", "code", "named"), WRONG, ids=lambda v: " ".join(map(str, v)) if isinstance(v, tuple) else None)  # fmt: skip  # noqa: E501
def test_what_an_operator_gets_wrong_is_told_with_its_exit_code(recctl, arguments, code, named):
    said = recctl(*arguments)
    assert (said.code, said.out) == (code, "")
    assert named in said.err

    told = recctl("--json", *arguments)
    assert told.code == code
    error = told.json["error"]
    assert named in error["message"] + error["mend"]


def test_a_folder_of_something_else_and_a_dataset_of_another_set_up_are_found_by_config_check(
    recctl, tmp_path
):
    root = tmp_path / "dataset"
    asked = ("config", "check", "demo", "--set", f"dataset.root={root}")
    assert recctl(*asked).code == 0
    assert not root.exists()

    (root / "meta").mkdir(parents=True)
    said = recctl(*asked)
    assert said.code == 1
    assert f"{root}: not empty and not a LeRobot dataset" in said.err

    info = root / "meta" / "info.json"
    info.write_text('{"codebase_version": "v3.0", "fps": 15, "features": {}}')
    said = recctl(*asked)
    assert said.code == 1
    assert "fps: expected 30, the dataset has 15" in said.err
    assert list(root.rglob("*")) == [info.parent, info]


def test_a_socket_file_that_a_killed_daemon_left_is_no_daemon(recctl, tmp_path):
    folder = tmp_path / "run" / "left"
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "ctl.sock"))
    said = recctl("stop")
    assert said.code == 4
    assert "ctl.sock" in said.err


def test_a_tcp_address_where_nobody_answers_is_told_from_one_where_nobody_listens(recctl):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        said = recctl("--endpoint", address, "--timeout", "0.3", "status")
        assert said.code == 4
        assert f"no reply within 0.3 s from {address}" in said.err
    said = recctl("--endpoint", address, "status")
    assert said.code == 4
    assert f"no recd daemon listens at {address}" in said.err


def test_a_daemon_that_does_not_listen_yet_is_told_as_starting_with_its_pid(recctl, tmp_path):
    lock = InstanceLock(tmp_path / "run" / "robo", "robo")
    try:
        for arguments in (("status",), ("-i", "robo", "arm")):
            said = recctl(*arguments)
            assert said.code == 4
            assert f"'robo' (process {os.getpid()}) is starting" in said.err
    finally:
        lock.release()
    assert "no recd daemon" in recctl("status").err


def test_a_daemon_that_dies_while_a_reply_is_waited_for_ends_the_wait(tmp_path):
    path = f"/tmp/recd-dies-{os.getpid()}.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(8)

    def die_on_the_first_request() -> None:
        while True:
            peer, _ = listener.accept()
            with peer:
                if peer.recv(64):  # a reachability check connects and says nothing
                    break
        listener.close()

    thread = threading.Thread(target=die_on_the_first_request)
    thread.start()
    try:
        with RecdClient(endpoint=f"ipc://{path}") as client, pytest.raises(NotRunningError) as told:
            client.call("stop", timeout_s=100)
        assert "stop: the daemon ended before it answered" in str(told.value)
    finally:
        thread.join(30)
        os.unlink(path)


def test_a_reader_that_closes_the_pipe_gets_no_complaint():
    process = subprocess.Popen(
        [sys.executable, "-m", "recd.clients.recctl.cli", "config", "show", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 1


def test_a_pedal_that_is_not_there_starts_nothing_and_names_the_mend(recctl):
    from recd.clients.recctl.keys import Pedal
    from recd.config.errors import DeviceError

    with pytest.raises(DeviceError) as told:
        Pedal("/dev/input/by-id/none")
    assert "/dev/input/by-id/none" in told.value.message
    assert told.value.mend


@pytest.mark.parametrize("command", ["recd", "recctl"])
def test_ctrl_c_while_python_still_reads_modules_ends_in_silence(command):
    interrupted = (
        "import os, signal, sys\n"
        "class Now:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'click':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Now())\n"
        "from recd import entry\n"
        f"entry.{command}()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", interrupted], capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout, run.stderr) == (-signal.SIGINT, "", "")
