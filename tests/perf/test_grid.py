import click
import pytest

from recd.config.errors import ConfigError
from recd.perf.bench import slug
from recd.perf.console import scenario_of, scenario_options
from recd.perf.grid import GRIDS, grid_path, load_grid
from recd.perf.scenario import robot_of, write_configuration


def grid(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_grid(path)


def test_a_cell_with_lists_stands_for_every_combination(tmp_path):
    told = grid(
        tmp_path,
        "seconds: 5\nrepeats: 2\ncells:\n  - {cameras: [1, 2], size: [320x240, 640x480], codec: "
        "[h264 ultrafast, av1 12], control_hz: 100}\n",
    )
    assert len(told.cells) == 8
    assert {(c.cameras, c.width, c.vcodec, c.preset) for c in told.cells} == {
        (n, width, *codec)
        for n in (1, 2) for width in (320, 640) for codec in (("h264", "ultrafast"), ("av1", "12"))
    }  # fmt: skip
    assert {(c.seconds, c.runs, c.rate_hz) for c in told.cells} == {(5.0, 2, 100)}


def test_two_pairs_are_two_pairs_of_the_daemon_each_with_files_of_its_own(tmp_path):
    (one, two) = grid(tmp_path, "cells: [{arm_pairs: [1, 2], control_hz: 100}]\n").cells
    assert slug(two) == f"{slug(one)}-2pairs"
    write_configuration(two, tmp_path / "bench.yaml", instance="x", root=tmp_path / "data")
    robot = robot_of(tmp_path / "bench.yaml")
    assert list(robot.arms) == ["left", "right"]
    assert {arm.rate_hz for arm in robot.arms.values()} == {100}
    ids = [side.id for arm in robot.arms.values() for side in (arm.leader, arm.follower)]
    assert len(set(ids)) == 4


def test_each_pixel_format_has_its_source_and_its_known_delay(tmp_path):
    told = grid(tmp_path, "cells: [{pixels: [mjpeg, h264, yuyv, mjpeg_v4l2]}]\n")
    assert [(c.source, c.fourcc, c.latency_ms) for c in told.cells] == [
        ("sim", "MJPG", 5.0), ("sim-h264", "H264", 5.0), ("v4l2", "YUYV", 0.0),
        ("v4l2-mjpeg", "MJPG", 0.0),
    ]  # fmt: skip
    assert len({slug(cell) for cell in told.cells}) == 4


def test_a_camera_that_delivers_h264_is_recorded_as_it_comes(tmp_path):
    (cell,) = grid(tmp_path, "cells: [{pixels: h264}]\n").cells
    assert cell.as_sent
    write_configuration(cell, tmp_path / "bench.yaml", instance="x", root=tmp_path / "data")
    cameras = robot_of(tmp_path / "bench.yaml").cameras.values()
    assert {(camera.source, camera.fourcc) for camera in cameras} == {("sim", "h264")}


@pytest.mark.parametrize("codec", ["h264_vaapi", "h264_nvenc", "h264_qsv", "h264_v4l2m2m"])
def test_an_encoder_of_hardware_may_be_named_in_a_cell(tmp_path, codec):
    (cell,) = grid(tmp_path, f"cells: [{{codec: {codec}}}]\n").cells
    write_configuration(cell, tmp_path / "bench.yaml", instance="x", root=tmp_path / "data")
    assert robot_of(tmp_path / "bench.yaml").dataset.encoder.vcodec == codec


def test_the_same_scenario_in_two_cells_is_measured_once(tmp_path):
    told = grid(tmp_path, "cells: [{cameras: [1, 2]}, {cameras: 2}]\n")
    assert [c.cameras for c in told.cells] == [1, 2]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("cells: [{camera: 2}]\n", ["cells[0].camera", "cameras, size"]),
        ("cell: []\n", ["cell", "seconds, repeats"]),
        ("cells: [{cameras: two}]\n", ["cells[0].cameras", "whole number", "'two'"]),
        ("cells: [{cameras: 0}]\n", ["1..16"]),
        ("cells: [{size: 640}]\n", ["640x480"]),
        ("cells: [{load: much}]\n", ["none, half_core"]),
        ("cells: [{pixels: png}]\n", ["mjpeg, h264, yuyv"]),
        ("cells: [{codec: h264 very fast}]\n", ["cells[0].codec"]),
        ("cells: [{codec: h265x}]\n", ["cells[0].codec", "h264_vaapi", "'h265x'"]),
        ("cells: [{pixels: h264, codec: av1}]\n", ["codec h264 with pixels h264", "av1"]),
        ("floor: {pair: 1}\ncells: [{}]\n", ["floor.pair", "pairs, seconds"]),
        ("seconds: 0.1\ncells: [{}]\n", ["seconds", "2..3600"]),
        ("cells: []\n", ["a list of cells"]),
        ("cells: [2]\n", ["a map of axes"]),
        ("[1, 2]\n", ["a map with"]),
        ("cells: [{\n", ["a readable YAML file"]),
    ],
)
def test_what_cannot_be_is_named_with_what_was_expected(tmp_path, text, named):
    with pytest.raises(ConfigError) as error:
        grid(tmp_path, text)
    for words in named:
        assert words in str(error.value)


def test_all_problems_of_a_file_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError) as error:
        grid(tmp_path, "second: 5\ncells: [{camera: 2}, {size: big}]\n")
    assert [problem.key for problem in error.value.problems] == [
        "second", "cells[0].camera", "cells[1].size",
    ]  # fmt: skip


@pytest.mark.parametrize("name", sorted(path.stem for path in GRIDS.glob("*.yaml")))
def test_the_grids_that_come_with_recd_can_be_read_by_name(name):
    assert load_grid(grid_path(name)).cells


def test_make_bench_asks_for_less_than_ten_minutes():
    assert load_grid(grid_path("short")).seconds < 600


def test_an_unknown_grid_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigError, match=r"full, promised, short"):
        grid_path("nothing")


@pytest.mark.parametrize(
    ("arguments", "latency_ms"),
    [("", 5.0), ("--source v4l2", 0.0), ("--source v4l2 --camera-latency-ms 2", 2.0)],
)
def test_a_camera_is_calibrated_as_its_source_needs(arguments, latency_ms):
    found = []

    @click.command()
    @scenario_options(seconds=2.0, runs=1)
    def command(**options):
        found.append(scenario_of(options))

    command.main(arguments.split(), standalone_mode=False)
    assert [one.latency_ms for one in found] == [latency_ms]
