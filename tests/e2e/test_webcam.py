"""A V4L2 webcam, slower than the dataset and mounted on its side, through the whole daemon."""

import json

import av
import numpy as np

from recd.config.streams import TickFlag
from recd.daemon.dataset.sides import read_stream
from recd.daemon.dataset.verify import verify_dataset
from recd.daemon.sim.jpeg import JpegEncoder
from recd.daemon.sim.stamp import Stamp, draw_stamp, read_stamp
from recd.daemon.sim.v4l2shim.spec import (
    FOCUS_CONTROLS,
    WEBCAM_CONTROLS,
    VirtualCamera,
    VirtualFormat,
    VirtualSize,
)
from tests.cameras.conftest import shim, webcam

from .conftest import running, until

__all__ = ["shim", "webcam"]

WIDTH, HEIGHT, HZ = 320, 240, 25
CONTROLS = {"exposure": 120, "focus": 35, "white_balance": 3100, "gain": 33}


def stamped(number, pixelformat, width, height):
    encoder = JpegEncoder(width, height)
    for plane, level in zip(encoder.planes, (110, 128, 128), strict=True):
        plane[:] = level
    draw_stamp(encoder.planes[0], Stamp(0, number, number))
    return encoder.encode()


def numbers(path):
    """(shape, burned-in number) of every picture of a file."""
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [(picture.shape, read_stamp(picture).frame) for picture in pictures]


def test_a_webcam_on_its_side_at_25_hz_gives_its_pictures_expected_repeats_and_settings(
    webcam, tmp_path
):
    size = VirtualSize(WIDTH, HEIGHT, (30, HZ))
    camera = VirtualCamera(
        formats=(VirtualFormat("MJPG", (size,)),), controls={**WEBCAM_CONTROLS, **FOCUS_CONTROLS}
    )
    cam = webcam(camera, pictures=stamped)
    link = cam.path.parent / "v4l" / "by-path" / "pci-0000:00:14.0-usb-0:1:1.0-video-index0"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../video0")
    asked = {"source": "v4l2", "device": link, "width": WIDTH, "height": HEIGHT, "fps": HZ,
             "rotation": 90, **CONTROLS}  # fmt: skip
    overrides = [f"cameras.front.{key}={value}" for key, value in asked.items()]
    with running(tmp_path, "cameras.wrist=null", *overrides, environment=cam.environment) as robot:
        saved = robot.record(60)
        own = robot.own(saved["uid"])
        table, _ = read_stream(own / "ticks.front.arrows")
        ticks = {name: table[name].to_numpy()[: saved["rows"]] for name in ("flags", "source_seq")}
        video = next((robot.root / "videos").rglob("*.mp4"))
        seen = numbers(video)
        manifest = json.loads((own / "manifest.json").read_text())
        thumbs = {place: numbers(next(own.rglob(f"front_{place}.jpg")))[0][1]
                  for place in ("first", "middle", "last")}  # fmt: skip

        def newest():
            (shown,) = robot.client.call("snapshot")["pictures"]
            return numbers(shown["path"])[0][1]

        until(lambda: newest() > seen[-1][1], "a picture newer than the episode")

    assert {shape for shape, _ in seen} == {(WIDTH, HEIGHT, 3)}
    assert [number for _, number in seen] == ticks["source_seq"].tolist()
    repeats = np.diff(ticks["source_seq"], prepend=-1) == 0
    flagged = (ticks["flags"] & TickFlag.REPEAT) != 0
    assert (repeats == flagged).all()
    expected = (ticks["flags"] & TickFlag.EXPECTED) != 0
    late = (ticks["flags"] & (TickFlag.LATE | TickFlag.MISSING)) != 0
    assert not (repeats & ~expected & ~late).any()
    assert (expected | late).sum() >= saved["rows"] // 6 - 2
    assert expected.any()
    assert thumbs["first"] == seen[0][1] < thumbs["middle"] < thumbs["last"]

    facts = manifest["devices"]["front"]
    assert (facts["stamp"], facts["frame_ids"], facts["device"]) == ("kernel", True, str(link))
    stored = facts["facts"]["controls"]
    assert {name: stored[name]["value"] for name in CONTROLS} == CONTROLS
    assert {name: stored[name]["auto"] for name in ("exposure", "focus", "white_balance")} == {
        "exposure": False, "focus": False, "white_balance": False,
    }  # fmt: skip
    assert verify_dataset(robot.root).findings == ()
