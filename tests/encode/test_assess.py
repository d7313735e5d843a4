"""A codec that was named: what it costs here is measured, told and remembered."""

import queue

import pytest

from recd.config.models import RobotConfig
from recd.daemon.encode.assess import FOLDER, Assessment
from recd.daemon.encode.choice import CodecPolicy
from recd.daemon.encode.codecs import CodecSettings

FAST = CodecSettings("h264", preset="ultrafast")
SLOW = {"vcodec": "h264", "preset": "veryslow"}
"""At 1280x720 tens of milliseconds a picture: at 240 a second many cores, whatever the computer."""


@pytest.fixture
def assess(tmp_path, monkeypatch):
    monkeypatch.setenv("RECD_CACHE_DIR", str(tmp_path))

    def run(settings, sizes, *, fps=30):
        done = queue.SimpleQueue()
        assessment = Assessment(settings, sizes, fps=fps)
        assessment.begin(lambda: done.put(True))
        assert done.get(timeout=60)
        return assessment.choice

    return run


def test_what_was_measured_once_is_remembered(assess):
    first = assess(FAST, [(160, 120), (320, 240)])
    again = assess(FAST, [(320, 240), (160, 120)])
    other = assess(FAST, [(160, 120)])

    assert first.chosen.cpu_ms > 0
    assert again.chosen == first.chosen  # to the microsecond: nobody measured again
    assert other.chosen != first.chosen


def test_a_figure_that_cannot_be_read_is_measured_again(assess, tmp_path):
    assess(FAST, [(160, 120)])
    (file,) = (tmp_path / FOLDER).iterdir()
    file.write_text('{"vcodec": "h2')

    assert assess(FAST, [(160, 120)]).chosen.cpu_ms > 0
    assert [*(tmp_path / FOLDER).iterdir()] == [file]


def test_a_codec_that_does_not_work_leaves_no_figure(assess, tmp_path):
    assert assess(CodecSettings("h264", preset="no-such"), [(160, 120)]) is None
    assert not (tmp_path / FOLDER).exists()


def test_an_operator_is_told_that_a_named_codec_is_much_for_this_computer(make_rig):
    side = {"source": "sim", "width": 1280, "height": 720}
    rig = make_rig(others={"side": side, "wrist": side}, fps=240, encoder=SLOW)
    rig.ready()

    told = rig.answer("event", event="machine too small")["fields"]

    assert "within 50% of" in told["expected"]
    assert "ms a picture" in told["found"]
    assert "recctl doctor" in told["mend"]


def test_cameras_recorded_as_sent_are_not_counted():
    cameras = {
        "front": {"source": "sim", "width": 1280, "height": 720, "fourcc": "h264"},
        "side": {"source": "sim", "width": 640, "height": 480, "rotation": 90},
    }
    arms = {"main": {"follower": {"port": "sim"}}}
    dataset = {"root": "data"}
    plain = {"name": "rig", "cameras": cameras, "arms": arms, "dataset": dataset}
    robot = RobotConfig.model_validate(plain)

    policy = CodecPolicy(robot.model_dump(mode="json"), "observation.images.side", (480, 640))

    assert policy.encoded() == {"side": (480, 640)}
