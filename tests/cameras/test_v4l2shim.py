import json
import signal
import subprocess
import sys
from itertools import pairwise

import pytest

from recd.daemon.sim.v4l2shim.pictures import numbered_card
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

PERIOD_NS = NS_PER_S / 30


@pytest.mark.parametrize(("held_ms", "dropped"), [(150, False), (1500, True)])
def test_a_camera_that_the_computer_holds_up_keeps_its_own_rate(
    webcam, read_source, held_ms, dropped
):
    """Exposures fall where its clock puts them, however late they are served; those of more than a
    second ago are numbered and lost."""

    def pictures(number, *asked):
        if number == 4:
            sleep_until_ns(now_ns() + held_ms * NS_PER_MS)
        return numbered_card(number, *asked)

    cam = webcam(pictures=pictures)
    cam.server.change(lambda script: setattr(script, "patient", False))
    request = {"source": "v4l2", "device": str(cam.path)}
    said = read_source(request, frames=14, env=cam.environment)

    frames = [line for line in said if line["ty"] == "frame"]
    numbers = [frame["seq"] for frame in frames]
    for before, after in pairwise(frames):
        periods = (after["capture"] - before["capture"]) / PERIOD_NS
        assert periods == pytest.approx(after["seq"] - before["seq"], abs=0.001)
    if dropped:
        assert numbers[:5] == list(range(5))
        assert numbers[5] >= 4 + (held_ms - 1000) * NS_PER_MS // PERIOD_NS
    else:
        assert numbers[:8] == list(range(8))


def test_a_simulated_camera_is_served_as_a_v4l2_device_frame_by_frame(
    sim_camera, read_source, shim, tmp_path
):
    camera = sim_camera("front:320x240@30")
    process = subprocess.Popen(
        [sys.executable, "-m", "recd.daemon.sim.v4l2shim", "--cache", str(shim.parent),
         "--device", f"/dev/video0={camera.url}", "--device", "/dev/video1=card"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        env = json.loads(process.stdout.readline())
        asked = {"source": "v4l2", "width": 320, "height": 240}
        relayed = read_source({**asked, "device": "0"}, frames=10, env=env)
        card = read_source({**asked, "device": "1"}, frames=3, env=env)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0

    frames = [line for line in relayed if line["ty"] == "frame"]
    assert (relayed[0]["width"], relayed[0]["fps"]) == (320, 30.0)
    assert [frame["seq"] for frame in frames] == list(range(10))
    assert all(frame["capture"] <= frame["arrival"] for frame in frames)
    assert [line["seq"] for line in card if line["ty"] == "frame"] == [0, 1, 2]


def test_a_stream_that_is_not_there_is_told_in_words(shim):
    result = subprocess.run(
        [sys.executable, "-m", "recd.daemon.sim.v4l2shim", "--cache", str(shim.parent),
         "--device", "/dev/video0=http://127.0.0.1:9/none"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert "no connection" in result.stderr
    assert "Traceback" not in result.stderr
