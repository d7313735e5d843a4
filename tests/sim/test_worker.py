import os
import select
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import scservo_sdk as scs

from recd.config.streams import STATUS_DTYPE
from recd.daemon.sim.control import SimControl
from recd.daemon.worker import Link, WorkerSpec
from recd.shm import CellReader, create_cell
from recd.shm.clock import now_ns

S = 1_000_000_000
PATIENCE_NS = 60 * S
ROBOT = {
    "arms": {
        "main": {
            "leader": {"port": "sim", "id": "demo_leader", "calibration": None},
            "follower": {"port": "sim", "id": "demo_follower", "calibration": None},
        }
    },
    "cameras": {
        "front": {"source": "sim", "width": 320, "height": 240, "fps": 30.0, "pattern": "420"},
        "lab": {"source": "v4l2", "width": 320, "height": 240, "fps": 30.0},
    },
}


def answer(link, ty):
    deadline_ns = now_ns() + PATIENCE_NS
    while now_ns() < deadline_ns and not link.closed:
        select.select([link.fd], [], [], 0.1)
        while (message := link.recv()) is not None:
            if message["ty"] == ty:
                return message
    raise AssertionError(f"no message {ty!r} came")


@contextmanager
def worker(tmp_path, config, robot):
    ours, theirs = Link.pair()
    cell = create_cell("status.sim", STATUS_DTYPE)
    spec_read, spec_write = os.pipe()
    spec = WorkerSpec(
        name="sim",
        kind="sim",
        instance="test",
        runtime_dir=str(tmp_path),
        link_fd=theirs.fileno(),
        config=config,
        robot=robot,
        cells={"status.sim": cell.fd},
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "recd.daemon.worker", str(spec_read)],
        pass_fds=(spec_read, *spec.passed_fds()),
    )
    os.close(spec_read)
    theirs.close()
    with os.fdopen(spec_write, "wb") as pipe:
        pipe.write(spec.pack())
    try:
        yield process, ours, CellReader(cell)
    finally:
        ours.close()
        process.kill()
        process.wait()
        cell.close()


def test_the_worker_offers_every_simulated_device_of_a_robot(tmp_path):
    config = {"seed": 3, "demonstration": True, "reply_delay_us": 400}
    with worker(tmp_path, config, ROBOT) as (process, link, status):
        ready = answer(link, "ready")

        paths = {bus: os.path.realpath(path) for bus, path in ready["buses"].items()}
        assert {b: os.path.realpath(path) for b, path in ready["endpoints"].items()} == paths
        assert set(ready["endpoints"]) == {"main.leader", "main.follower"}
        assert Path(ready["calibrations"]["main.leader"]).name == "demo_leader.json"
        port = scs.PortHandler(ready["endpoints"]["main.follower"])
        assert port.openPort()
        port.setPacketTimeout = lambda _: port.setPacketTimeoutMillis(20_000)
        assert scs.PacketHandler(0).ping(port, 1)[1] == scs.COMM_SUCCESS
        port.closePort()
        assert set(ready["cameras"]) == {"front"}
        with urllib.request.urlopen(ready["cameras"]["front"], timeout=10) as stream:
            assert b"\xff\xd8" in stream.read(20_000)
        with SimControl(tmp_path / "sim") as control:
            assert control.describe()["arms"]["main.leader"]["hand"] == "attend"

        link.send("stop")
        assert process.wait(30) == 0
        _, record = status.read()
        assert record["beat_ns"] > 0
        assert record["counters"][0] == 2
    assert not (tmp_path / "sim" / "control.sock").exists()
    assert not (tmp_path / "sim" / "cameras.sock").exists()
    assert not os.path.lexists(ready["endpoints"]["main.follower"])


def test_the_worker_ends_when_its_supervisor_is_gone(tmp_path):
    with worker(tmp_path, {"pairs": {"main": {"follower": {}}}, "cameras": {}}, {}) as (
        process,
        link,
        _,
    ):
        ready = answer(link, "ready")
        assert list(ready["endpoints"]) == ["main.follower"]
        assert ready["cameras"] == {}

        link.close()

        assert process.wait(30) == 0


def test_the_worker_fails_when_its_cameras_are_lost(tmp_path):
    with worker(tmp_path, {}, ROBOT) as (process, link, _):
        answer(link, "ready")
        [child] = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)],
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split()

        os.kill(int(child), 9)

        assert answer(link, "event")["event"] == "simulated cameras ended"
        assert process.wait(30) == 1


def test_a_scene_that_cannot_be_is_refused_in_words(tmp_path):
    config = {"pairs": {"main": {"leader": {"hand": "third"}}}}
    with worker(tmp_path, config, {}) as (process, link, _):
        refused = answer(link, "refused")

        assert refused["code"] == "config"
        assert "sim.main.leader.hand" in refused["message"]
        assert process.wait(30) == 2
