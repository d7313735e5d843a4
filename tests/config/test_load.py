import pytest

from recd.config.checks import bus_tick_us
from recd.config.errors import ConfigError
from recd.config.load import dump, load_robot, parse, preset_names, validate
from recd.daemon.sim.sensor import SimCameraSpec

MINIMAL = """\
name: lab
cameras:
  front:
    source: v4l2
    device: /dev/video0
arms:
  main:
    follower: {port: /dev/ttyACM1}
dataset:
  root: /data/lab
"""


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(parse(text, name="lab.yaml"))
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_loads_and_dumps_to_a_configuration_that_loads_again(preset):
    robot = load_robot(preset)
    assert type(robot).model_validate(dump(robot)) == robot


def test_unknown_key_names_file_line_and_the_key_that_was_probably_meant():
    text = MINIMAL.replace("    device:", "    fp: 30\n    device:")
    assert problems_of(text) == [
        "cameras.front.fp: expected a known key, found 'fp' (lab.yaml:5). Did you mean 'fps'?"
    ]


def test_every_problem_is_told_at_once():
    text = MINIMAL.replace("/dev/video0", "/dev/video0\n    width: wide\n    fps: 0")
    told = problems_of(text)
    assert [line.split(":")[0] for line in told] == ["cameras.front.width", "cameras.front.fps"]
    assert "(lab.yaml:6)" in told[0]
    assert "(lab.yaml:7)" in told[1]


def test_a_key_given_twice_is_refused_with_both_lines():
    told = problems_of(MINIMAL + "name: other\n")
    assert told == [
        "name: expected one entry, found it again (first on line 1) (lab.yaml:11). "
        "Remove or rename one of the two."
    ]


def test_two_cameras_on_one_device_are_refused_by_resolved_path(tmp_path):
    device = tmp_path / "video0"
    device.touch()
    link = tmp_path / "by-id"
    link.symlink_to(device)
    text = MINIMAL.replace("/dev/video0", str(device)).replace(
        "arms:", f"  wrist: {{source: v4l2, device: {link}}}\narms:"
    )
    assert "which is also cameras.front" in problems_of(text)[0]


def test_a_bus_rate_above_what_the_wire_carries_is_refused_with_the_figures():
    text = MINIMAL.replace("main:\n", "main:\n    rate_hz: 900\n")
    assert "1.28 ms on the wire" in problems_of(text)[0]
    assert 1e6 / bus_tick_us(6, follower=True) < 900


def test_slow_line_carries_less():
    text = MINIMAL.replace("{port: /dev/ttyACM1}", "{port: /dev/ttyACM1, baud: 115200}")
    assert "at 115200 baud" in problems_of(text)[0]


def test_rings_larger_than_memory_are_refused_before_anything_starts():
    text = MINIMAL.replace(
        "    device:", "    ring_seconds: 60\n    width: 8192\n    height: 8192\n    device:"
    )
    told = problems_of(text)[0]
    assert told.startswith("cameras.front.ring_seconds")
    assert "half of the free memory" in told


def test_two_pairs_need_the_names_left_and_right():
    text = MINIMAL.replace("dataset:", "  other:\n    follower: {port: /dev/ttyACM2}\ndataset:")
    assert problems_of(text)[0].startswith("arms: expected two pairs named 'left' and 'right'")


@pytest.mark.parametrize(("width", "height", "told"), [
    (144, 240, ["cameras.front.width: expected an even number of at least 160 for a simulated "
                "camera, found 144 (lab.yaml:5). Set width: 160."]),
    (321, 120, ["cameras.front.width: expected an even number of at least 160 for a simulated "
                "camera, found 321 (lab.yaml:5). Set width: 320.",
                "cameras.front.height: expected an even number of at least 160 for a simulated "
                "camera, found 120 (lab.yaml:6). Set height: 160."]),
    (160, 160, None),
])  # fmt: skip
def test_a_simulated_camera_too_small_for_its_stamp_is_refused_and_the_smallest_one_works(
    width, height, told
):
    size = f"source: sim\n    width: {width}\n    height: {height}"
    text = MINIMAL.replace("source: v4l2\n    device: /dev/video0", size)
    if told is not None:
        assert problems_of(text) == told
        return
    camera = validate(parse(text, name="lab.yaml")).cameras["front"]
    spec = SimCameraSpec("front", width=camera.width, height=camera.height)
    assert spec.problem() is None


def test_a_robot_without_arms_is_refused_with_what_is_missing():
    text = MINIMAL.replace("arms:\n  main:\n    follower: {port: /dev/ttyACM1}", "arms: {}")
    assert problems_of(text) == [
        "arms: expected at least one pair: state and action of every row are its, found none "
        "(lab.yaml:6)"
    ]


def test_only_a_file_may_have_a_step_clock_and_then_all_cameras_must():
    assert problems_of(MINIMAL.replace("    device:", "    step: true\n    device:")) == [
        "cameras.front.step: expected false: a v4l2 camera cannot wait, it has no step clock, "
        "found true (lab.yaml:5). Remove step."
    ]
    film = f"source: file, device: {__file__}"
    films = f"  front: {{{film}, step: true}}\n  top: {{{film}}}\n"
    text = MINIMAL.replace("  front:\n    source: v4l2\n    device: /dev/video0\n", films)
    assert problems_of(text) == [
        "cameras.top.step: expected true for every camera when one has a step clock, found false "
        "(lab.yaml:4)"
    ]


def test_h264_as_it_comes_leaves_no_room_for_other_rates_turned_pictures_or_pixels():
    camera = "fourcc: h264\n    fps: 15\n    rotation: 90\n    accept_mismatch: true\n    device:"
    dataset = "  video: false\n  encoder: {vcodec: hevc}\npolicy: {}\n"
    found = problems_of(MINIMAL.replace("device:", camera, 1) + dataset)
    keys = [problem.partition(": expected")[0] for problem in found]
    assert sorted(keys) == [
        "cameras.front.accept_mismatch", "cameras.front.fourcc", "cameras.front.fourcc",
        "cameras.front.fps", "cameras.front.rotation", "dataset.encoder.vcodec",
    ]  # fmt: skip
    assert all("fourcc: auto" in problem for problem in found)
    assert problems_of(MINIMAL.replace("source: v4l2", "source: pyav\n    fourcc: h264")) == [
        "cameras.front.source: expected one of v4l2, http, rtsp, sim for fourcc h264, found pyav "
        "(lab.yaml:4). Or let it be decoded: fourcc: auto."
    ]


def test_overrides_win_and_are_named_as_the_place_of_a_problem():
    robot = load_robot("demo", overrides=["dataset.fps=15", "cameras.wrist=null"])
    assert robot.dataset.fps == 15
    assert list(robot.cameras) == ["front"]
    with pytest.raises(ConfigError, match=r"--set dataset\.fps=fast"):
        load_robot("demo", overrides=["dataset.fps=fast"])


def test_missing_file_offers_the_preset_with_the_nearest_name():
    with pytest.raises(ConfigError, match="Did you mean the preset 'so101'"):
        load_robot("so10")


def test_bimanual_names_follow_lerobot():
    robot = load_robot("bimanual_so101")
    assert robot.robot_type == "bi_so_follower"
    assert robot.feature_joints()[:7] == (
        "left_shoulder_pan.pos",
        "left_shoulder_lift.pos",
        "left_elbow_flex.pos",
        "left_wrist_flex.pos",
        "left_wrist_roll.pos",
        "left_gripper.pos",
        "right_shoulder_pan.pos",
    )
