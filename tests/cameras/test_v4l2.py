import errno
import grp
from itertools import pairwise
from pathlib import Path

import pytest

from recd.config.streams import FrameFlag
from recd.daemon.cameras import v4l2_abi as abi
from recd.daemon.sim.v4l2shim.spec import (
    FOCUS_CONTROLS,
    WEBCAM_CONTROLS,
    StampKind,
    V4l2Fault,
    VirtualCamera,
    VirtualFormat,
    VirtualSize,
)


def frames_of(said):
    return [line for line in said if line["ty"] == "frame"]


def v4l2(cam, **fields):
    return {"source": "v4l2", "device": str(cam.path), **fields}


def test_every_frame_comes_once_with_its_number_and_kernel_stamp(webcam, read_source):
    cam = webcam()
    said = read_source(v4l2(cam), frames=8, env=cam.environment)

    assert said[0]["payload"] == "mjpeg"
    assert (said[0]["stamp"], said[0]["frame_ids"]) == ("kernel", True)
    assert said[0]["facts"]["stamped_at"] == "start of exposure"
    frames = frames_of(said)
    assert [frame["seq"] for frame in frames] == list(range(8))
    # The number that the device drew into each picture is the number that the driver gave it.
    assert [int.from_bytes(bytes.fromhex(f["head"])[6:14], "little") for f in frames] == list(
        range(8)
    )
    periods = sorted(b["capture"] - a["capture"] for a, b in pairwise(frames))
    assert periods[0] >= 33_331_000
    assert abs(periods[3] - 33_333_333) < 2_000
    assert all(frame["arrival"] >= frame["capture"] for frame in frames)


def test_a_device_is_found_by_number_path_and_link(webcam, read_source, tmp_path):
    cam = webcam()
    by_id = tmp_path / "dev" / "v4l" / "by-id" / "usb-Sim_Webcam_0001-video-index0"
    by_path = tmp_path / "dev" / "v4l" / "by-path" / "pci-0000:00:14.0-usb-0:1:1.0-video-index0"
    for link in (by_id, by_path):
        link.parent.mkdir(parents=True)
        link.symlink_to("../../video0")
    by_number = {
        "LD_PRELOAD": cam.environment["LD_PRELOAD"],
        "RECD_V4L2_SHIM": f"/dev/video7={cam.server.path}",
    }
    for device, env in (
        (str(cam.path), cam.environment),
        (str(by_id), cam.environment),
        (str(by_path), cam.environment),
        ("7", by_number),
    ):
        said = read_source({"source": "v4l2", "device": device}, frames=2, env=env)
        assert len(frames_of(said)) == 2, said


@pytest.mark.parametrize(
    ("pixelformat", "payload", "nbytes"),
    [
        ("YUYV", "yuyv", 2 * 320 * 240),
        ("UYVY", "yuyv", 2 * 320 * 240),
        ("NV12", "nv12", 320 * 240 * 3 // 2),
        ("YU12", "yuv420p", 320 * 240 * 3 // 2),
        ("GREY", "gray8", 320 * 240),
        ("BGR3", "bgr24", 3 * 320 * 240),
    ],
)
def test_raw_formats_come_as_they_are(webcam, read_source, pixelformat, payload, nbytes):
    camera = VirtualCamera(formats=(VirtualFormat(pixelformat, (VirtualSize(320, 240),)),))
    cam = webcam(camera)
    said = read_source(v4l2(cam, width=320, height=240), frames=3, env=cam.environment)

    assert said[0]["payload"] == payload
    frames = frames_of(said)
    assert [frame["nbytes"] for frame in frames] == [nbytes] * 3
    heads = [bytes.fromhex(frame["head"])[:8] for frame in frames]
    if pixelformat == "UYVY":
        heads = [
            bytes(b for pair in zip(h[1::2], h[::2], strict=True) for b in pair) for h in heads
        ]
    assert [int.from_bytes(head, "little") for head in heads] == [0, 1, 2]


def test_row_padding_of_the_driver_does_not_reach_the_ring(webcam, read_source):
    camera = VirtualCamera(
        formats=(VirtualFormat("YUYV", (VirtualSize(320, 240),)),), row_padding=64
    )
    cam = webcam(camera)
    said = read_source(v4l2(cam, width=320, height=240), frames=2, env=cam.environment)
    assert [frame["nbytes"] for frame in frames_of(said)] == [2 * 320 * 240] * 2


def test_dropped_frames_show_as_gaps_in_the_numbers(webcam, read_source):
    cam = webcam()
    cam.server.inject(V4l2Fault.DROP, frames=3)
    seqs = [f["seq"] for f in frames_of(read_source(v4l2(cam), frames=4, env=cam.environment))]
    assert seqs == [3, 4, 5, 6]


def test_error_bit_marks_the_frame_and_an_empty_buffer_costs_its_number(webcam, read_source):
    cam = webcam()
    cam.server.inject(V4l2Fault.ERROR, frames=1)
    cam.server.inject(V4l2Fault.EMPTY, frames=1)
    frames = frames_of(read_source(v4l2(cam), frames=3, env=cam.environment))
    # Exposure 0 has both: no byte to publish. The error bit of an exposure with bytes is below.
    assert [frame["seq"] for frame in frames] == [1, 2, 3]
    cam.server.inject(V4l2Fault.ERROR, frames=1)
    frames = frames_of(read_source(v4l2(cam), frames=2, env=cam.environment))
    assert frames[0]["flags"] & FrameFlag.CORRUPT
    assert not frames[1]["flags"] & FrameFlag.CORRUPT


def test_a_driver_that_does_not_number_is_reported_as_such(webcam, read_source):
    cam = webcam()
    cam.server.change(lambda script: setattr(script, "numbered", False))
    frames = frames_of(read_source(v4l2(cam), frames=4, env=cam.environment))
    assert [frame["seq"] for frame in frames] == [0, -1, -1, -1]


def test_wrong_monotonic_stamps_are_not_trusted(webcam, read_source):
    cam = webcam()
    cam.server.change(lambda script: setattr(script, "stamps", StampKind.WRONG))
    for frame in frames_of(read_source(v4l2(cam), frames=3, env=cam.environment)):
        assert frame["flags"] & FrameFlag.STAMP_ARRIVAL
        assert frame["capture"] == frame["arrival"]


def test_stamps_of_another_clock_are_mapped_and_not_trusted_at_first(webcam, read_source):
    cam = webcam()
    cam.server.change(lambda script: setattr(script, "stamps", StampKind.FOREIGN))
    said = read_source(v4l2(cam), frames=3, env=cam.environment)
    assert said[0]["stamp"] == "foreign"
    assert all(frame["flags"] & FrameFlag.STAMP_ARRIVAL for frame in frames_of(said))


def test_a_size_that_is_not_offered_is_refused_with_what_is(webcam, read_source):
    cam = webcam()
    said = read_source(v4l2(cam, width=800, height=600), frames=1, env=cam.environment)
    error = said[0]
    assert (error["ty"], error["code"]) == ("error", "size")
    assert "640x480, 320x240, 1280x720" in error["text"]
    assert "accept_mismatch" in error["text"]


def test_a_rate_that_is_not_offered_is_refused_with_what_is(webcam, read_source):
    cam = webcam()
    error = read_source(v4l2(cam, fps="60"), frames=1, env=cam.environment)[0]
    assert (error["ty"], error["code"]) == ("error", "rate")
    assert "cameras.front.fps" in error["text"]
    assert "MJPG 15 20 25 30" in error["text"]


def test_another_size_and_rate_are_taken_only_when_accepted(webcam, read_source):
    request = {"width": 800, "height": 600, "fps": "60", "accept_mismatch": True}
    cam = webcam()
    said = read_source(v4l2(cam, **request), frames=1, env=cam.environment)
    assert (said[0]["width"], said[0]["height"], said[0]["fps"]) == (640, 480, 30.0)


def test_a_driver_that_sets_another_size_than_it_offers_is_refused(webcam, read_source):
    cam = webcam(VirtualCamera(size_answer=(320, 240)))
    error = read_source(v4l2(cam), frames=1, env=cam.environment)[0]
    assert error["code"] == "size"
    assert "sets instead (320x240)" in error["text"]


def test_a_driver_that_sets_another_rate_than_asked_is_refused(webcam, read_source):
    cam = webcam(VirtualCamera(rate_answer=15))
    error = read_source(v4l2(cam), frames=1, env=cam.environment)[0]
    assert error["code"] == "rate"
    assert "sets instead (15)" in error["text"]


def test_a_format_that_is_not_offered_is_refused_with_the_word_to_write(webcam, read_source):
    cam = webcam()
    error = read_source(v4l2(cam, payload="nv12"), frames=1, env=cam.environment)[0]
    assert error["code"] == "format"
    assert "expected one of mjpeg, yuyv" in error["text"]


def test_controls_are_set_read_back_and_reported(webcam, read_source):
    cam = webcam()
    request = v4l2(cam, exposure=120, gain=33, white_balance=3100)
    controls = read_source(request, frames=1, env=cam.environment)[0]["facts"]["controls"]
    assert (controls["exposure"]["value"], controls["exposure"]["auto"]) == (120, False)
    assert controls["gain"]["value"] == 33
    assert (controls["white_balance"]["value"], controls["white_balance"]["auto"]) == (3100, False)
    assert cam.server.control(abi.CID_EXPOSURE_AUTO) == abi.EXPOSURE_MANUAL
    again = read_source(v4l2(cam, exposure="auto"), frames=1, env=cam.environment)[0]
    assert again["facts"]["controls"]["exposure"]["auto"] is True


def test_focus_is_set_by_hand_only_after_its_automatic_is_off(webcam, read_source):
    cam = webcam(VirtualCamera(controls={**WEBCAM_CONTROLS, **FOCUS_CONTROLS}))
    facts = read_source(v4l2(cam, focus=35), frames=1, env=cam.environment)[0]["facts"]
    focus = facts["controls"]["focus"]
    assert (focus["value"], focus["auto"]) == (35, False)
    assert cam.server.control(abi.CID_FOCUS_ABSOLUTE) == 35
    assert cam.server.control(abi.CID_FOCUS_AUTO) == 0
    again = read_source(v4l2(cam, focus="auto"), frames=1, env=cam.environment)[0]
    assert again["facts"]["controls"]["focus"]["auto"] is True


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("exposure", 9000, "3..2047"), ("focus", 10, "no such control"), ("focus", "auto", "number")],
)
def test_a_control_the_camera_does_not_have_is_refused_by_name(
    webcam, read_source, field, value, words
):
    cam = webcam()
    error = read_source(v4l2(cam, **{field: value}), frames=1, env=cam.environment)[0]
    assert error["code"] == "control"
    assert f"cameras.front.{field}" in error["text"]
    assert words in error["text"]


@pytest.mark.parametrize(
    ("request_number", "code", "word"),
    [
        (abi.STREAMON, errno.ENOSPC, "usb_bandwidth"),
        (abi.S_FMT, errno.EBUSY, "busy"),
        (abi.QUERYCAP, errno.ENOTTY, "not_a_camera"),
        (abi.REQBUFS, errno.EIO, "device"),
    ],
)
def test_errors_of_the_driver_become_sentences(webcam, read_source, request_number, code, word):
    cam = webcam()
    cam.server.change(lambda script: script.errors.update({request_number: code}))
    error = read_source(v4l2(cam), frames=1, env=cam.environment)[0]
    assert (error["ty"], error["code"]) == ("error", word)


def test_a_missing_device_names_what_is_connected(webcam, read_source):
    cam = webcam()
    other = cam.path.with_name("video9")
    error = read_source({"source": "v4l2", "device": str(other)}, frames=1, env=cam.environment)[0]
    assert (error["code"], error["kind"]) == ("missing", "CameraLostError")
    assert f"connected: {cam.path}" in error["text"]


@pytest.mark.parametrize("request_number", [abi.DQBUF, abi.QBUF])
def test_an_unplugged_device_is_lost_at_once(webcam, read_source, new_reader, request_number):
    cam = webcam()
    reader = new_reader(cam.environment)
    reader.ask(v4l2(cam), frames=1000, shim=cam.environment["RECD_V4L2_SHIM"])
    assert [reader.line()["ty"] for _ in range(3)] == ["open", "frame", "frame"]
    cam.server.change(lambda script: script.errors.update({request_number: errno.ENODEV}))
    said = [reader.line()]
    while said[-1]["ty"] != "closed":
        said.append(reader.line())
    error = said[-2]
    assert (error["code"], error["kind"]) == ("unplugged", "CameraLostError")
    assert len(said) <= 4


def test_a_plain_file_is_not_a_camera(read_source, tmp_path):
    path = Path(tmp_path / "video0")
    path.touch()
    error = read_source({"source": "v4l2", "device": str(path)}, frames=1)[0]
    assert error["code"] == "not_a_camera"


def test_a_forbidden_device_names_the_group_to_join(webcam, read_source):
    cam = webcam()
    cam.server.change(lambda script: setattr(script, "open_error", errno.EACCES))
    error = read_source(v4l2(cam), frames=1, env=cam.environment)[0]
    assert error["code"] == "permission"
    assert f"group {grp.getgrgid(cam.path.stat().st_gid).gr_name}" in error["text"]
    assert "usermod -aG" in error["text"]


def test_a_busy_device_names_who_holds_it(webcam, read_source, new_reader):
    cam = webcam()
    holder = new_reader(cam.environment)
    holder.ask(v4l2(cam), frames=100_000, shim=cam.environment["RECD_V4L2_SHIM"])
    assert holder.line()["ty"] == "open"
    error = read_source(v4l2(cam), frames=1, env=cam.environment)[0]
    assert error["code"] == "busy"
    assert f"(pid {holder.process.pid})" in error["text"]
