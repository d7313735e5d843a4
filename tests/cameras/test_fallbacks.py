import os
import subprocess
import sys
from pathlib import Path

import pytest

from recd.config.errors import DeviceError
from recd.config.streams import FrameFlag
from recd.daemon.cameras import registry
from recd.daemon.cameras.request import CameraRequest

RTSP_SERVER = Path(__file__).with_name("rtsp_server.py")


def frames_of(said):
    return [line for line in said if line["ty"] == "frame"]


@pytest.mark.parametrize("source", ["opencv", "pyav"])
@pytest.mark.parametrize(("payload", "nbytes"), [("mjpeg", None), ("yuyv", 640 * 480 * 2)])
def test_fallbacks_deliver_the_same_bytes_with_kernel_stamps_and_no_numbers(
    webcam, read_source, source, payload, nbytes
):
    cam = webcam()
    request = {"source": source, "device": str(cam.path), "payload": payload}
    said = read_source(request, frames=4, env=cam.environment)
    assert said[0]["ty"] == "open", said
    assert (said[0]["payload"], said[0]["frame_ids"]) == (payload, False)
    assert said[0]["facts"]["note"] == "no frame ids"
    frames = frames_of(said)
    assert [frame["seq"] for frame in frames] == [-1] * 4
    heads = [bytes.fromhex(frame["head"]) for frame in frames]
    at = 6 if payload == "mjpeg" else 0
    drawn = [int.from_bytes(head[at : at + 8], "little") for head in heads]
    # Without numbers a busy computer may miss some and nobody knows; none is torn or repeated.
    assert drawn == sorted(set(drawn))
    for frame in frames:
        assert frame["arrival"] - frame["capture"] >= 0
        assert not frame["flags"] & FrameFlag.STAMP_ARRIVAL
        assert nbytes in (None, frame["nbytes"])


@pytest.mark.parametrize("source", ["opencv", "pyav"])
def test_fallbacks_refuse_another_size_and_name_a_missing_device(webcam, read_source, source):
    cam = webcam()
    request = {"source": source, "device": str(cam.path), "width": 800, "height": 600}
    assert read_source(request, frames=1, env=cam.environment)[0]["code"] == "size"
    missing = str(cam.path.with_name("video9"))
    said = read_source({"source": source, "device": missing}, frames=1, env=cam.environment)
    assert said[0]["code"] == "missing"


def test_opencv_without_its_system_library_says_what_to_install(new_reader, tmp_path):
    (tmp_path / "cv2.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file')"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    reader = new_reader({"PYTHONPATH": path})
    reader.ask({"source": "opencv", "device": "0"}, frames=1)
    error = reader.line()
    assert error["code"] == "opencv"
    assert "libGL.so.1" in error["text"]
    assert "apt install libgl1" in error["text"]


def test_an_rtsp_stream_is_decoded_and_stamped_by_its_sender(read_source):
    server = subprocess.Popen(
        [sys.executable, str(RTSP_SERVER), "320", "240", "30", "60"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    asked = {"source": "rtsp", "width": 320, "height": 240}
    with server:
        url = server.stdout.readline().strip()
        said = read_source({**asked, "device": url}, frames=70)
        server.kill()
    assert (said[0]["payload"], said[0]["stamp"]) == ("yuv420p", "foreign")
    luma = [bytes.fromhex(frame["head"])[0] for frame in frames_of(said)]
    # Some go into finding out about the stream, and the decoder may keep the last; none between.
    assert len(luma) > 20
    assert all(abs(value - (luma[0] + 2 * k)) <= 1 for k, value in enumerate(luma))
    assert said[-2]["kind"] == "CameraLostError"


def test_a_source_that_nobody_provides_is_refused_with_the_known_ones():
    with pytest.raises(DeviceError, match="v4l2") as refused:
        registry.factory("kinect")
    assert "kinect" in refused.value.message


def test_other_packages_add_sources_by_entry_point(tmp_path, monkeypatch):
    (tmp_path / "depthcam.py").write_text(
        "class Source:\n    def __init__(self, request):\n        self.request = request\n"
    )
    info = tmp_path / "depthcam-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: depthcam\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[recd.cameras]\ndepth = depthcam:Source\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    request = CameraRequest("front", "depth", "", 640, 480, 30)
    assert registry.make_source(request).request is request
