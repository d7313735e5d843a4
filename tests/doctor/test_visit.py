"""The doctor on the computer that runs the tests: what is read and measured is really so."""

import json
import os

import pytest

from recd.config.load import load_robot
from recd.daemon.doctor import clip, machine
from recd.daemon.doctor.disk import filesystem_of, measure_disk
from recd.daemon.doctor.headroom import works
from recd.daemon.encode.codecs import CodecSettings

SMALL = [
    f"--set=cameras.{name}.{key}={value}"
    for name in ("front", "wrist") for key, value in (("width", 320), ("height", 240))
]  # fmt: skip


def group(sys, proc, path, limits):
    """A control group folder for every part of `path`, with (max, current) where given."""
    proc.joinpath("self").mkdir(parents=True)
    proc.joinpath("self", "cgroup").write_text(f"0::{path}\n")
    for folder, (most, used) in limits.items():
        place = sys / "fs" / "cgroup" / folder.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        place.joinpath("memory.max").write_text(f"{most}\n")
        place.joinpath("memory.current").write_text(f"{used}\n")


def test_the_tightest_memory_limit_above_counts(tmp_path):
    sys, proc = tmp_path / "sys", tmp_path / "proc"
    group(sys, proc, "/robots/recd", {"/robots": (1000, 400), "/robots/recd": ("max", 100)})
    assert machine.left_in_group(sys=sys, proc=proc) == 600


def test_without_a_control_group_there_is_no_limit(tmp_path):
    assert machine.left_in_group(sys=tmp_path, proc=tmp_path) is None


def test_governors_are_counted_over_the_cores(tmp_path):
    for core, name in enumerate(("powersave", "powersave", "performance")):
        folder = tmp_path / "devices" / "system" / "cpu" / f"cpu{core}" / "cpufreq"
        folder.mkdir(parents=True)
        folder.joinpath("scaling_governor").write_text(f"{name}\n")
    assert machine.governors(tmp_path) == {"powersave": 2, "performance": 1}


def test_the_disk_is_measured_where_the_dataset_will_be_and_nothing_is_left(tmp_path):
    found = measure_disk(tmp_path / "not" / "yet", 5)
    assert (found.error, found.reserve_bytes) == ("", 5)
    assert found.write_bytes_per_s > 0
    assert all(ms > 0 for ms in found.sync_ms)
    assert found.filesystem == filesystem_of(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_supervisor_needs_a_descriptor_for_every_ring_cell_and_bell():
    demo, two = load_robot("demo"), load_robot("bimanual_so101", check_machine=False)
    assert machine.memory(None).files_needed < machine.memory(demo).files_needed
    assert machine.memory(demo).files_needed < machine.memory(two).files_needed


@pytest.mark.parametrize("payload", ["mjpeg", "yuyv", "nv12", "yuv420p", "bgr24", "rgb24", "gray8"])
def test_every_kind_of_picture_is_really_encoded_and_decoded_again(payload, tmp_path):
    camera = clip.Request("front", payload, 160, 120, 30.0)
    pictures = clip.clip(160, 120, payload)
    told = clip.work(CodecSettings(), camera, tmp_path / "a.mp4", pictures, 0.05)
    assert "refused" not in told
    assert told["cpu_ms"] > 0
    assert told["nbytes"] > 100


def test_a_codec_that_this_computer_lacks_is_refused_in_words_and_leaves_no_file(tmp_path):
    camera = clip.Request("front", "mjpeg", 160, 120, 30.0)
    found = clip.measure(CodecSettings(vcodec="h264_v4l2m2m"), [camera], tmp_path, seconds=0.05)
    assert not works(found)
    assert "h264_v4l2m2m" in found.streams[0].refused
    assert list(tmp_path.iterdir()) == []


def test_recctl_doctor_tells_of_every_check_and_its_exit_code_is_the_worst(recctl, tmp_path):
    said = recctl("doctor", "demo", f"--set=dataset.root={tmp_path / 'set'}", *SMALL, "--json")
    told = json.loads(said.out)
    checks = {finding["check"] for finding in told["findings"]}
    assert checks == {"config", "cpu", "real time", "codec", "disk", "memory", "clock", "kernels"}
    assert said.code == {"ok": 0, "warn": 5, "fail": 1}[told["level"]]
    (codec, *_) = [finding for finding in told["findings"] if finding["check"] == "codec"]
    assert "2 cameras at 320x240@30" in codec["found"]
    assert os.listdir(tmp_path) == []


def test_recctl_doctor_tells_a_bad_configuration_beside_everything_else(recctl, tmp_path):
    bad = tmp_path / "robot.yaml"
    bad.write_text(
        "name: robot\ncameras:\n  front: {device: /dev/recd-none, fsp: 30}\n"
        "arms: {main: {follower: {port: sim}}}\ndataset: {root: set}\n"
    )
    said = recctl("doctor", str(bad), "--quiet")
    assert said.code == 1
    assert "cameras.front.fsp" in said.out
    assert "Did you mean 'fps'?" in said.out
    assert "0 failures" not in said.out
