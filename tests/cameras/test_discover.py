import json
import os
import subprocess
import sys

from recd.daemon.cameras.access import users_of

LISTING = """
import json, sys
from pathlib import Path
from recd.daemon.cameras.discover import list_cameras
print(json.dumps([c.to_dict() for c in list_cameras(dev=Path(sys.argv[1]), sys=Path(sys.argv[2]))]))
"""


def list_cameras(dev, sys_root, env):
    out = subprocess.run(
        [sys.executable, "-c", LISTING, str(dev), str(sys_root)],
        env={**os.environ, **env}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return json.loads(out.stdout)


def test_cameras_are_listed_with_stable_names_formats_controls_and_users(webcam, tmp_path):
    cam = webcam()
    dev = cam.path.parent
    by_id = dev / "v4l" / "by-id" / "usb-Sim_Webcam_0001-video-index0"
    by_path = dev / "v4l" / "by-path" / "pci-0000:00:14.0-usb-0:1:1.0-video-index0"
    for link in (by_id, by_path):
        link.parent.mkdir(parents=True)
        link.symlink_to("../../video0")
    program = f"f = open({str(cam.path)!r}); print(flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        holder.stdout.readline()
        (found,) = list_cameras(dev, tmp_path / "sys", cam.environment)
        holder.communicate("\n", timeout=10)

    assert found["device"] == str(by_id)
    assert found["names"] == [str(by_id), str(by_path)]
    assert (found["path"], found["card"], found["driver"]) == (
        str(cam.path), "Simulated Webcam", "uvcvideo",
    )  # fmt: skip
    mjpeg, yuyv = found["formats"]
    assert (mjpeg["pixelformat"], mjpeg["fourcc"]) == ("MJPG", "mjpeg")
    assert {"size": "640x480", "fps": "15 20 25 30"} in mjpeg["sizes"]
    assert yuyv["sizes"][0] == {"size": "640x480", "fps": "15 30"}
    assert found["controls"]["exposure"]["max"] == 2047
    assert [user["pid"] for user in found["users"]] == [holder.pid]


def test_a_node_that_is_no_camera_is_left_out_and_a_broken_one_is_listed(webcam, tmp_path):
    cam = webcam()
    cam.server.unplug()
    (cam.path.parent / "video1").touch()
    sys_name = tmp_path / "sys" / "class" / "video4linux" / "video0" / "name"
    sys_name.parent.mkdir(parents=True)
    sys_name.write_text("Old Webcam\n")
    found = list_cameras(cam.path.parent, tmp_path / "sys", cam.environment)
    assert [camera["path"] for camera in found] == [str(cam.path), str(cam.path.parent / "video1")]
    assert found[0]["card"] == "Old Webcam"
    assert found[0]["problem"] == "No such file or directory"
    assert found[1]["problem"]


def test_no_camera_gives_an_empty_list(tmp_path):
    assert list_cameras(tmp_path, tmp_path, {}) == []


def test_users_of_a_device_are_found_through_links(tmp_path):
    node, link = tmp_path / "video0", tmp_path / "link"
    node.touch()
    link.symlink_to(node)
    with node.open() as held:
        holder = subprocess.Popen(["sleep", "60"], stdin=held)
    try:
        (user,) = users_of(link)
    finally:
        holder.kill()
        holder.wait()
    assert (user.pid, user.name) == (holder.pid, "sleep")


ASKING = """
import json, sys
from recd.daemon.cameras.preflight import refused_cameras
print(json.dumps([[e.key, e.expected, e.found] for e in refused_cameras(json.loads(sys.argv[1]))]))
"""


def test_cameras_are_asked_before_anything_starts_whether_they_can(webcam, tmp_path):
    cam = webcam()
    good = {
        "source": "v4l2", "device": str(cam.path), "width": 640, "height": 480, "fps": 30.0,
        "fourcc": "auto",
    }  # fmt: skip
    cameras = {
        "good": good,
        "fast": {**good, "fps": 90.0},
        "wide": {**good, "width": 1000},
        "deep": {**good, "fourcc": "nv12"},
        "away": {**good, "device": str(tmp_path / "video5")},
        "net": {**good, "source": "http", "device": "http://nowhere/"},
    }
    out = subprocess.run(
        [sys.executable, "-c", ASKING, json.dumps(cameras)],
        env={**os.environ, **cam.environment}, capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    refused = {key: (expected, found) for key, expected, found in json.loads(out.stdout)}
    assert list(refused) == ["cameras.fast.fps", "cameras.wide.width", "cameras.deep.fourcc"]
    assert refused["cameras.fast.fps"][1] == "90"
    assert "MJPG 15 20 25 30" in refused["cameras.fast.fps"][0]
    assert not cam.server.streaming


def test_a_rate_the_camera_does_not_offer_is_told_with_file_and_line(webcam, tmp_path):
    cam = webcam()
    config = tmp_path / "robot.yaml"
    config.write_text(
        "name: bench\n"
        "cameras:\n"
        "  front:\n"
        f"    device: {cam.path}\n"
        "    fps: 90.0\n"
        "arms:\n"
        "  main: {follower: {port: sim}, leader: {port: sim}}\n"
        f"dataset: {{root: {tmp_path / 'data'}}}\n"
    )
    out = subprocess.run(
        [sys.executable, "-m", "recd.daemon.cli", "run", str(config)],
        env={**os.environ, **cam.environment}, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert out.returncode == 2
    assert "cameras.front.fps: expected a rate that" in out.stderr
    assert f"{config}:5" in out.stderr
    assert "Traceback" not in out.stderr
