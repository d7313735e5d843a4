"""The sidecar's cage and its messages, without lerobot: what it cannot do, what is not believed."""

import json
import os
import socket
import subprocess
import sys
import sysconfig
import threading
from contextlib import closing
from pathlib import Path

import pytest

from recd.clients.adapters.lerobot.confine import Plan
from recd.clients.adapters.lerobot.frames import HEAD, FrameError, receive, send
from recd.clients.adapters.lerobot.wire import LerobotWire
from recd.clients.adapters.profile import load_profile
from recd.clients.adapters.wire import MismatchError, WireError
from recd.config.models import LerobotServerConfig, PolicyServerConfig

PROBE = """
import json, os, socket, sys
def can(deed):
    try:
        deed()
    except OSError as error:
        return error.__class__.__name__
    return True
secret, port = sys.argv[1:]
print(json.dumps({
    "network": can(lambda: socket.create_connection(("127.0.0.1", int(port)))),
    "secret": can(lambda: open(secret)),
    "write": can(lambda: open(os.path.join(sys.base_prefix, "mine"), "w")),
    "tmp": can(lambda: open("/tmp/mine", "w")),
    "users": can(lambda: open("/etc/passwd")),
    "devices": sorted(os.listdir("/dev")),
    "processes": [name for name in os.listdir("/proc") if name.isdigit()],
    "root": os.getuid() == 0,
    "mount": can(lambda: os.chroot("/tmp")),
}))
"""


def caged(folder: Path, *arguments: str) -> dict[str, object]:
    """What the probe finds in a cage. Skips where the computer gives none: recd refuses there."""
    root = folder / "root"
    root.mkdir()
    python = os.path.realpath(sys.executable)
    plan = Plan(
        command=[python, "-S", "-c", PROBE, *arguments],
        shown=[sys.base_prefix, sysconfig.get_path("stdlib")],
        placed={},
        variables={"PATH": "/usr/bin"},
        memory_bytes=2**30,
        root=str(root),
    )
    told, tells = os.pipe()
    with os.fdopen(told, "rb") as heard:
        with os.fdopen(tells, "wb"):
            process = subprocess.Popen(
                [sys.executable, "-m", Plan.__module__, str(tells), plan.dumped()],
                pass_fds=(tells,), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            )  # fmt: skip
        said = json.loads(heard.read())
    out, _ = process.communicate(timeout=30)
    if "refused" in said:
        pytest.skip(f"this computer gives no cage: {said['refused']}")
    assert process.returncode == 0
    return {**json.loads(out), "got": said["got"], "missing": said["missing"]}


def test_what_runs_in_the_cage_has_no_network_no_files_and_no_other_process(tmp_path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    secret.chmod(0o666)
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = caged(tmp_path, str(secret), str(server.getsockname()[1]))
    assert found["network"] is not True
    assert found["secret"] == "FileNotFoundError"
    assert found["write"] in ("OSError", "PermissionError")
    assert found["tmp"] is True
    assert found["users"] == "FileNotFoundError"
    assert found["devices"] == ["null", "random", "urandom", "zero"]
    assert found["processes"] == ([] if any("/proc" in m for m in found["missing"]) else ["1"])
    assert found["root"] is False
    assert found["mount"] == "PermissionError"
    assert list((tmp_path / "root").iterdir()) == []


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_message_arrives_as_it_was_sent(pair) -> None:
    ours, theirs = pair
    send(ours, {"step": 3}, [b"", b"abc"])
    assert receive(theirs, most_bytes=3) == ({"step": 3}, [b"", b"abc"])


@pytest.mark.parametrize(
    "rubbish",
    [
        HEAD.pack(2**31, 0),
        HEAD.pack(2, 1000) + b"{}",
        HEAD.pack(2, 0) + b"[]",
        HEAD.pack(4, 0) + b"{{{{",
        HEAD.pack(2, 1) + b"{}",
        HEAD.pack(17, 1) + b'{"sizes": [2000]}',
        HEAD.pack(15, 1) + b'{"sizes": [-1]}',
        HEAD.pack(17, 1) + b'{"sizes": [true]}',
        HEAD.pack(60_000, 0) + b"[" * 60_000,
    ],
)
def test_what_is_no_message_is_refused_before_anything_is_made_of_it(pair, rubbish) -> None:
    ours, theirs = pair
    ours.sendall(rubbish)
    with pytest.raises(FrameError):
        receive(theirs, most_bytes=1000, timeout_s=5)


def test_a_message_that_trickles_in_ends_with_its_time(pair) -> None:
    ours, theirs = pair
    done = threading.Event()

    def trickle() -> None:
        ours.sendall(HEAD.pack(1000, 0))
        while not done.wait(0.02):
            ours.sendall(b" ")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        with pytest.raises(TimeoutError):
            receive(theirs, most_bytes=10, timeout_s=0.3)
    finally:
        done.set()
        thread.join()


def test_the_other_side_gone_is_an_end_and_no_message(pair) -> None:
    ours, theirs = pair
    ours.sendall(HEAD.pack(10, 0) + b"{}")
    ours.close()
    with pytest.raises(EOFError):
        receive(theirs, most_bytes=10)


def connect(**changes: object) -> None:
    told = LerobotServerConfig(python="/nowhere/bin/python", path="act")
    server = PolicyServerConfig(**{"lerobot": told, **changes})
    with closing(LerobotWire(server, load_profile("", wire="lerobot"))) as wire:
        wire.connect(1)


def test_what_cannot_be_is_told_with_its_mend() -> None:
    with pytest.raises(MismatchError, match=r"policy\.server\.lerobot: expected the policy"):
        connect(lerobot=None)
    with pytest.raises(MismatchError, match="expected HOST:PORT, found 'gpu'"):
        connect(address="gpu")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "{}:{}".format(*server.getsockname())
        with pytest.raises(MismatchError, match=r"expected the interpreter .* /nowhere"):
            connect(address=address)
    with pytest.raises(WireError, match="expected a PolicyServer at"):
        connect(address=address)
