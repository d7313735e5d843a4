"""Configurations that people really write wrong: each is refused with its key, line and mend."""

import os

import pytest

from recd.config.errors import ConfigError
from recd.config.load import apply_overrides, parse, read_source, validate

GOOD = """\
name: robo
cameras:
  front: {source: sim, fps: 30}
  wrist:
    source: sim
arms:
  main:
    leader: {port: sim, id: l}
    follower:
      port: sim
dataset:
  root: ROOT
  fps: 30
"""
CAMERA = "source: sim, fps: 30"
FOLLOWER = "      port: sim\n"
V4L2 = "source: v4l2, device"

BAD = [
    # what stands in the file -> what stands there instead, key and line told, words told
    (CAMERA, "source: sim, fsp: 30", "cameras.front.fsp", 3, "Did you mean 'fps'"),
    (CAMERA, "source: v4l", "cameras.front.source", 3, "'v4l2'"),
    (CAMERA, "source: sim, fps: thirty", "cameras.front.fps", 3, "expected a number"),
    (CAMERA, 'source: sim, fps: "30"', "cameras.front.fps", 3, "Remove the quotes"),
    (CAMERA, "source: sim, fps: .nan", "cameras.front.fps", 3, "finite"),
    (CAMERA, "source: sim, fps: 300", "cameras.front.fps", 3, "1..240"),
    (CAMERA, "source: sim, width: 640.5", "cameras.front.width", 3, "a whole number"),
    (CAMERA, "source: sim, width: true", "cameras.front.width", 3, "a whole number"),
    (CAMERA, "source: sim, width: 641", "cameras.front.width", 3, "Set width: 640"),
    (CAMERA, "source: sim, rotation: 45", "cameras.front.rotation", 3, "0, 90, 180 or 270"),
    (CAMERA, "source: sim, exposure: dark", "cameras.front.exposure", 3, "'auto' or a whole"),
    (CAMERA, f"{V4L2}: /dev/video0, step: true", "cameras.front.step", 3, "no step clock"),
    (CAMERA, "source: v4l2", "cameras.front.device", 3, "recctl devices"),
    (CAMERA, "source: file, device: /no.mp4", "cameras.front.device", 3, "no file /no.mp4"),
    (CAMERA, "source: http, device: cam/1", "cameras.front.device", 3, "http://HOST"),
    (CAMERA, "source: rtsp, device: cam/1", "cameras.front.device", 3, "rtsp://HOST"),
    ("front: {", "Front-Cam: {", "cameras.Front-Cam", 3, "small letters"),
    ("front: {", "on: {", "cameras", 2, "use another name"),
    ("  front: {source: sim, fps: 30}", "  front:", "cameras.front", 3, "found nothing"),
    ("  wrist:\n", "  front:\n", "cameras.front", 4, "first on line 3"),
    ("    source: sim\n", "\tsource: sim\n", "(file)", 5, "not with tabs"),
    ("    source: sim\n", "    source:sim\n", "cameras.wrist", 4, "space after every colon"),
    ("fps: 30}", "fps: 30", "(file)", 4, "Close the bracket"),
    ("id: l}", "id: !!python/name:os.system l}", "(file)", 8, "Remove the tag"),
    ("name: robo", "name: my robot", "name", 1, "small letters"),
    ("    follower:\n      port: sim\n", "", "arms.main.follower", 7, "Add the key"),
    (FOLLOWER, FOLLOWER + "      baud: 0\n", "arms.main.follower.baud", 11, "38400"),
    (FOLLOWER, FOLLOWER + "      baud: 115200\n", "arms.main.rate_hz", 7, "124 Hz"),
    ("name: robo", "name: robo\nrealtime: {gateway_priority: 2}", "realtime.gateway_priority", 2,
     "less than serial_priority"),
    (FOLLOWER, FOLLOWER + "    rate_hz: 900\n", "arms.main.rate_hz", 11, "on the wire"),
    (FOLLOWER, FOLLOWER + "      max_relative_target: -3\n",
     "arms.main.follower.max_relative_target", 11, "greater than 0"),
    (FOLLOWER, FOLLOWER + "    park: {elbow: 3}\n", "arms.main.park.elbow", 11, "elbow_flex"),
    (FOLLOWER, FOLLOWER + "    limits: {temperature_warn_c: 80}\n",
     "arms.main.limits.temperature_warn_c", 11, "less than temperature_release_c"),
    ("  fps: 30\n", "  fps: 29.97\n", "dataset.fps", 13, "a whole number"),
    ("root: ROOT", 'root: ""', "dataset.root", 12, "not empty"),
    ("root: ROOT", "root: /etc/passwd", "dataset.root", 12, "which is a file"),
    ("root: ROOT", "root:", "dataset.root", 12, "found nothing"),
    ("  fps: 30\n", "  repo_id: x\n", "dataset.repo_id", 13, "USER/NAME"),
    ("  fps: 30\n", "  encoder: {vcodec: h265}\n", "dataset.encoder.vcodec", 13, "'hevc'"),
    ("  fps: 30\n", "  encoder: {vcodec: h264, preset: 12}\n", "dataset.encoder.preset", 13,
     "veryfast"),
    ("  fps: 30\n", "  encoder: {extra_options: {crf: 3}}\n", "dataset.encoder.extra_options.crf",
     13, "Set dataset.encoder.crf"),
    ("dataset:", 'control: {endpoint: "udp://0.0.0.0:5"}\ndataset:', "control.endpoint", 11,
     "tcp://127.0.0.1"),
    ("dataset:", f"control: {{runtime_dir: /{'x' * 120}}}\ndataset:", "control.runtime_dir", 11,
     "shorter folder"),
    ("dataset:", "realtime: {arm_cpus: [9999]}\ndataset:", "realtime.arm_cpus.0", 11, "cores of"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "key", "line", "words"), BAD, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_bad_file_is_refused_once_with_key_line_and_words(
    tmp_path, before, after, key, line, words
):
    assert before in GOOD
    text = GOOD.replace(before, after, 1).replace("ROOT", str(tmp_path / "new" / "data"))
    with pytest.raises(ConfigError) as told:
        validate(parse(text, name="robo.yaml"))
    (problem,) = told.value.problems
    assert (problem.key, problem.where) == (key, f"robo.yaml:{line}")
    assert words in str(problem)
    assert "found found" not in str(problem)


@pytest.mark.parametrize("text", ["", "# nothing\n", "hello\n", "- a\n- b\n"])
def test_a_file_without_sections_says_how_to_begin(text):
    with pytest.raises(ConfigError, match="recctl config preset so101"):
        parse(text, name="robo.yaml")


def test_an_alias_within_itself_is_no_fault_of_recd():
    with pytest.raises(ConfigError, match="an alias within itself"):
        parse("hooks: &a\n  start: *a\n", name="robo.yaml")


def test_a_file_that_is_no_text_is_told_as_such(tmp_path):
    (tmp_path / "robo.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        read_source(tmp_path / "robo.yaml")


def test_a_camera_index_may_be_a_number():
    text = GOOD.replace(CAMERA, "source: v4l2, device: 0").replace("ROOT", "/tmp/data")
    assert validate(parse(text, name="robo.yaml")).cameras["front"].device == "0"


def test_a_section_that_only_an_override_makes_is_told_with_the_override():
    source = parse(GOOD.replace("ROOT", "/tmp/data"), name="robo.yaml")
    apply_overrides(source, ["camera.front.fps=10", "cameras.third.fps=3"])
    with pytest.raises(ConfigError) as told:
        validate(source)
    assert [problem.where for problem in told.value.problems] == ["--set camera.front.fps=10"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_dataset_folder_that_may_not_be_written_is_refused():
    with pytest.raises(ConfigError, match="may not write"):
        validate(parse(GOOD.replace("ROOT", "/usr/data"), name="robo.yaml"))
