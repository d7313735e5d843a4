import os
import pty
import subprocess
import sys

import pytest

READ_KEYS = """
from recd.clients.recctl.keys import Terminal, wait_for_action
with Terminal() as terminal:
    print("ready", flush=True)
    for _ in range({count}):
        print(wait_for_action([terminal], 10), flush=True)
"""


def actions_of(*presses: bytes) -> list[str]:
    ours, theirs = pty.openpty()
    code = READ_KEYS.format(count=len(presses))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=subprocess.PIPE, text=True
    ) as process:
        os.close(theirs)
        assert process.stdout.readline() == "ready\n"
        told = []
        for press in presses:
            os.write(ours, press)
            told.append(process.stdout.readline().strip())
    os.close(ours)
    return told


@pytest.mark.parametrize(
    ("press", "action"),
    [
        (b"\x1b[C", "next"),
        (b"n", "next"),
        (b"\x1b[D", "rerecord"),
        (b"r", "rerecord"),
        (b"q", "stop"),
        (b" ", "hold"),
        (b"x", "None"),
    ],
)
def test_lerobots_keys_mean_what_they_mean_there(press, action):
    assert actions_of(press) == [action]


def test_a_lone_escape_is_stop_and_an_arrow_after_it_is_still_an_arrow():
    assert actions_of(b"\x1b", b"\x1b[C") == ["stop", "next"]


def test_without_a_terminal_there_are_no_keys_and_no_error():
    code = "from recd.clients.recctl.keys import Terminal\nwith Terminal() as t: print(t.available)"
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.stdout == "False\n"
