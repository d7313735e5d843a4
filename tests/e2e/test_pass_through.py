"""A camera's own H.264 in the dataset: real sessions with a simulated camera on the wire."""

import json

import av
import pytest

from recd.config.streams import TickFlag
from recd.daemon.dataset.sides import read_stream
from recd.daemon.dataset.verify import verify_dataset
from recd.daemon.encode.pass_through import is_passed_through
from recd.daemon.sim.stamp import read_stamp

from .conftest import running

H264 = (
    "cameras.wrist=null", "cameras.front.width=320", "cameras.front.height=240",
    "cameras.front.fourcc=h264",
)  # fmt: skip
SENDS_WITHIN_NS = 25_000_000
"""Exposure to arrival of a simulated camera, less than one period: its constant delay is unknown
to the map of its clock (docs/cameras.md)."""


def ticks_of(robot, saved):
    table, _ = read_stream(robot.own(saved["uid"]) / "ticks.front.arrows")
    return table.to_pylist()[: saved["rows"]]


def videos_of(robot):
    return sorted((robot.root / "videos" / "observation.images.front").glob("*/*.mp4"))


def stamps_of(video):
    with av.open(str(video)) as container:
        assert container.streams.video[0].codec.canonical_name == "h264"
        return [read_stamp(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def encoders_of(video):
    """Whose parameter sets each group of pictures was coded with: profile of the key frame's."""
    with av.open(str(video)) as container:
        return [packet.size for packet in container.demux(video=0) if packet.is_keyframe]


@pytest.mark.timeout(240)
def test_the_cameras_own_pictures_are_stored_in_the_rows_whose_time_they_show(tmp_path):
    with running(tmp_path, *H264) as robot:
        saved = [robot.record(60), robot.record(60)]
        robot.end()
    assert verify_dataset(robot.root, decode=True).findings == ()
    info = json.loads((robot.root / "meta" / "info.json").read_text())
    assert is_passed_through(info["features"]["observation.images.front"]["info"])
    for episode, video in zip(saved, videos_of(robot), strict=True):
        ticks, stamps = ticks_of(robot, episode), stamps_of(video)
        print([(t['k'], t['packet_bytes'], t['flags'], (t['capture_ns']-s.t_capture_ns)/1e6 if s else None) for t,s in zip(ticks,stamps)])
        assert len(stamps) == len(ticks) == episode["rows"]
        assert all(stamps)
        for tick, stamp in zip(ticks, stamps, strict=True):
            assert 0 <= tick["capture_ns"] - stamp.t_capture_ns < SENDS_WITHIN_NS
