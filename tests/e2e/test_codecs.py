"""How pictures are stored, by configuration: real sessions, read back from the dataset."""

import io
import json

import av
import pyarrow.parquet as pq
import pytest

from recd.daemon.dataset.sides import read_stream
from recd.daemon.dataset.verify import verify_dataset
from recd.daemon.sim.stamp import read_stamp

from .conftest import running

SMALL = ("cameras.wrist=null", "cameras.front.width=320", "cameras.front.height=240")


def info_of(robot):
    info = json.loads((robot.root / "meta" / "info.json").read_text())
    return info["features"]["observation.images.front"]


def stamps_of(video):
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        assert (stream.codec.canonical_name, stream.pix_fmt) == ("av1", "yuv420p")
        assert stream.frames > 0
        return [read_stamp(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def shown_by(robot, saved):
    """Frame number that each row claims to show."""
    table, _ = read_stream(robot.own(saved["uid"]) / "ticks.front.arrows")
    return [tick["source_seq"] for tick in table.to_pylist()[: saved["rows"]]]


def assert_shows(stamps, claimed):
    """As many pictures as rows; each that can be read is the one that its row names."""
    assert len(stamps) == len(claimed)
    read = [(stamp.frame, said) for stamp, said in zip(stamps, claimed, strict=True) if stamp]
    assert len(read) >= 0.9 * len(stamps)
    assert [said for _, said in read] == [frame for frame, _ in read]


@pytest.mark.timeout(240)
def test_an_av1_dataset_is_continued_in_av1_whatever_a_later_session_configures(tmp_path):
    wanted = {"vcodec": "libsvtav1", "g": 4, "crf": 20, "preset": 11}
    options = [f"dataset.encoder.{key}={value}" for key, value in wanted.items()]
    with running(tmp_path, *SMALL, *options) as robot:
        first = robot.record(20)
        robot.end()
    pinned = info_of(robot)
    told = {key: pinned["info"][f"video.{key}"] for key in ("codec", "g", "crf", "preset")}
    assert told == {"codec": "av1", "g": 4, "crf": 20, "preset": 11}

    with running(tmp_path, *SMALL, "dataset.encoder.vcodec=h264") as robot:
        second = robot.record(20)
        robot.end()
    assert info_of(robot) == pinned
    assert verify_dataset(robot.root).findings == ()
    videos = sorted((robot.root / "videos" / "observation.images.front").glob("*/*.mp4"))
    for saved, video in zip((first, second), videos, strict=True):
        assert_shows(stamps_of(video), shown_by(robot, saved))


def test_image_features_hold_the_picture_of_every_row(tmp_path):
    with running(tmp_path, *SMALL, "dataset.video=false") as robot:
        saved = robot.record(20)
        robot.end()
    assert info_of(robot)["dtype"] == "image"
    assert not (robot.root / "videos").exists()
    assert verify_dataset(robot.root).findings == ()
    (data,) = (robot.root / "data").glob("*/*.parquet")
    cells = pq.read_table(data)["observation.images.front"].to_pylist()
    stamps = []
    for cell in cells:
        with av.open(io.BytesIO(cell["bytes"])) as picture:
            stamps.append(read_stamp(next(picture.decode(video=0)).to_ndarray(format="rgb24")))
    assert_shows(stamps, shown_by(robot, saved))
