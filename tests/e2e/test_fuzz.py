"""Malformed messages against the real control socket while the simulated robot records."""

import json
import os
import random
import socket as sockets
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from recd.config.messages import decode
from recd.daemon.dataset.verify import verify_dataset
from recd.shm.clock import NS_PER_S, now_ns
from tests.e2e import rubbish
from tests.rig import Robot, running, until

A_CONNECTION = 12
"""Messages sent on one connection: fewer than make the daemon deaf to it, so that each is read."""

RSS_GROWTH_BYTES = 48_000_000
"""Replies kept for retries may grow to 16 MB, and libzmq's queues and malloc's arenas come on top;
a leak of 500 bytes a message would pass it at 100,000 messages."""

ALWAYS, ALL = 3_000, 100_000
SEED = int(os.environ.get("RECD_FUZZ_SEED", "20260801"))


class Fuzzer:
    def __init__(self, endpoint: str, seed: int) -> None:
        self.endpoint = endpoint
        self.context = zmq.Context()
        self.dice = random.Random(seed)
        self.stream = rubbish.messages(seed)
        self.codes: Counter[str] = Counter()
        self.sent = 0

    def connection(self) -> None:
        """A dozen messages and one good one behind them, whose answer says that all were read."""
        with self.context.socket(zmq.DEALER) as peer:
            peer.setsockopt(zmq.LINGER, 0)
            peer.connect(self.endpoint)
            for _ in range(A_CONNECTION):
                peer.send_multipart(next(self.stream))
            last = rubbish.request(self.dice, "hello")
            peer.send(rubbish.pack(last))
            self.sent += A_CONNECTION
            while True:
                assert peer.poll(60_000), f"no answer after {self.sent} messages"
                reply = decode(peer.recv_multipart()[-1])
                if reply["re"] == last["id"]:
                    assert reply["ok"]
                    return
                self.codes["ok" if reply["ok"] else reply["error"]["code"]] += 1

    def disturb(self) -> None:
        """What is no message: too large for the socket, or no ZeroMQ at all."""
        with self.context.socket(zmq.DEALER) as peer:
            peer.setsockopt(zmq.LINGER, 0)
            peer.connect(self.endpoint)
            peer.send(rubbish.too_large(self.dice))
        with sockets.socket(sockets.AF_UNIX) as bare:
            bare.connect(self.endpoint.removeprefix("ipc://"))
            try:
                bare.sendall(rubbish.below_messages(self.dice))
            except OSError:
                pass  # closed on us: what we asked for
        self.sent += 2


def fuzz(folder: Path, count: int) -> dict[str, object]:
    small = [f"cameras.{name}.{key}={value}" for name in ("front", "wrist")
             for key, value in (("width", 320), ("height", 240))]  # fmt: skip
    with running(folder, *small) as robot:
        robot.arm()
        assert robot.client is not None
        assert robot.process is not None
        supervisor = psutil.Process(robot.process.pid)
        fuzzer = Fuzzer(robot.client.endpoint, SEED)
        for _ in range(20):  # what grows once at first use is not counted as a leak
            fuzzer.connection()
        uid = robot.client.start()["uid"]
        before = (supervisor.memory_info().rss, supervisor.num_fds())
        began_ns = now_ns()
        while fuzzer.sent < count:
            fuzzer.connection()
            if fuzzer.sent % 600 < A_CONNECTION:
                fuzzer.disturb()
        seconds = (now_ns() - began_ns) / NS_PER_S
        until(lambda: supervisor.num_fds() <= before[1] + 2, "connections closed")
        grown = supervisor.memory_info().rss - before[0]
        fuzzer.context.destroy(linger=0)

        status = robot.client.status()
        assert (status["state"], status["episode"]["uid"]) == ("RECORDING", uid)
        assert status["processes"].keys() == robot.workers().keys()
        assert robot.motion() == "TELEOP"
        assert status["plan"] is None or not status["plan"].get("active")
        rows = robot.rows()
        until(lambda: robot.rows() > rows + 10, "rows go on")
        episode = robot.client.stop()
        check_episode(robot, episode, uid, seconds)
        assert grown < RSS_GROWTH_BYTES
        assert fuzzer.codes["malformed"] > fuzzer.sent // 3
        log = robot.log.read_text()
        assert "Traceback" not in log
        assert "command failed" not in log
        assert not fuzzer.codes["internal"]
        return {"messages": fuzzer.sent, "seconds": round(seconds), "rss_growth": grown,
                "answers": dict(fuzzer.codes), "rows": episode["rows"]}  # fmt: skip


def check_episode(robot: Robot, episode: dict[str, Any], uid: str, seconds: float) -> None:
    """One saved episode, ended by us, with a row for every tick, and a dataset that is whole."""
    assert (episode["uid"], episode["state"], episode["end_reason"]) == (uid, "saved", "stop")
    assert not episode["restarts"]
    assert episode["rows"] >= int(seconds * 30)
    assert episode["marks"] == []
    assert robot.client is not None
    assert robot.client.status()["dataset"]["episodes"] == 1
    assert verify_dataset(robot.root).findings == ()


def test_three_thousand_malformed_messages_do_not_touch_a_running_episode(tmp_path: Path) -> None:
    fuzz(tmp_path / "robot", ALWAYS)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_malformed_messages_do_not_touch_a_running_episode(
    tmp_path: Path,
) -> None:
    told = fuzz(tmp_path / "robot", ALL)
    print(json.dumps({"seed": SEED, **told}))
