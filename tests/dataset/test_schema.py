import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recd.config.errors import DatasetError
from recd.daemon.dataset import Camera, DatasetSchema
from recd.daemon.dataset.parquet import data_schema, episodes_schema
from recd.daemon.dataset.schema import OWN_COLUMNS, unused_column

FACTS = Path(__file__).parent / "facts"


def fact(name: str) -> dict:
    return json.loads((FACTS / name).read_text())


@pytest.mark.parametrize("mode", ["h264", "av1", "image"])
def test_info_json_equals_the_one_lerobot_wrote_for_the_same_robot(studio, mode):
    studio.use_videos, studio.codec = mode != "image", "av1" if mode == "av1" else "h264"
    studio.record(studio.open(), 3)
    ours = json.loads((studio.root / "meta/info.json").read_text())
    theirs = fact(f"so_follower_{mode}_info.json")
    theirs |= {"total_episodes": 1, "total_frames": 3, "total_tasks": 1}
    theirs["splits"] = {"train": "0:1"}
    assert ours == theirs
    assert list(ours) == list(theirs)
    assert list(ours["features"]) == list(theirs["features"])


@pytest.mark.parametrize("mode", ["h264", "image"])
def test_tables_have_lerobots_columns_types_and_metadata(studio, mode):
    studio.use_videos = mode == "h264"
    studio.record(studio.open(), 3)
    want = fact("so_follower_tables.json")[mode]
    data = pq.read_schema(studio.root / "data/chunk-000/file-000.parquet")
    episodes = pq.read_schema(studio.root / "meta/episodes/chunk-000/file-000.parquet")
    tasks = pq.read_schema(studio.root / "meta/tasks.parquet")
    pandas = json.loads(tasks.metadata[b"pandas"])
    assert [[f.name, str(f.type)] for f in data] == want["data"]
    assert json.loads(data.metadata[b"huggingface"])["info"] == want["huggingface"]
    assert [[f.name, str(f.type)] for f in episodes] == want["episodes"]
    assert [[f.name, str(f.type)] for f in tasks] == want["tasks"]
    assert {key: pandas[key] for key in want["pandas"]} == want["pandas"]


def test_two_armed_robot_has_lerobots_names_in_its_order():
    cameras = [Camera(name, 480, 640) for name in ("left_wrist", "top", "right_wrist")]
    ours = DatasetSchema.for_robot("bi_so_follower", fps=30, cameras=cameras)
    theirs = fact("bi_so_follower_features.json")
    assert json.loads(json.dumps(ours.features)) == theirs
    assert ours.robot_type == "bi_so_follower"


@pytest.mark.parametrize("robot", ["so100_follower", "so101_follower"])
def test_both_so_arms_carry_the_robot_type_of_lerobots_class(robot):
    assert DatasetSchema.for_robot(robot, fps=30, cameras=[]).robot_type == "so_follower"


def test_own_columns_keep_clear_of_what_lerobot_reads_as_policy_input():
    for column in OWN_COLUMNS:
        assert not column.name.startswith(("observation", "action"))
        assert "image" not in column.name
        assert "/" not in column.name
    cameras = [Camera("image_front", 48, 64)]
    full = DatasetSchema.for_robot("so101_follower", fps=30, cameras=cameras, columns="full")
    assert set(full.extra_keys) == {column.name for column in OWN_COLUMNS if column.over != "pairs"}


def test_each_of_several_pairs_has_its_own_columns_in_shapes_that_do_not_change():
    full = DatasetSchema.for_robot(
        "bi_so_follower", fps=30, cameras=[], columns="full", pairs=("left", "right")
    )
    source = full.features["recd.pair_control_source"]
    assert (source["shape"], source["names"]) == ([2], ["left", "right"])
    texts = [name for name in full.features if name.startswith("recd.pair_task")]
    assert texts == ["recd.pair_task.left", "recd.pair_task.right"]
    assert all(full.features[name]["shape"] == [1] for name in texts), (
        "lerobot reads no text vector"
    )
    assert unused_column(texts[0], 2, full.features[texts[0]]) == ["", ""]
    assert full.features["recd.sent"]["shape"] == [12]


def test_full_without_cameras_has_no_empty_camera_columns():
    full = DatasetSchema.for_robot("so101_follower", fps=30, cameras=[], columns="full")
    assert not [key for key in full.features if "camera" in key]
    assert data_schema(full.features).names == list(full.features)
    assert "stats/recd.episode_uid/min" not in episodes_schema(full.features).names


@pytest.mark.parametrize("name", ["a/b", ""])
def test_camera_name_that_lerobot_forbids_is_refused(name):
    with pytest.raises(DatasetError, match="camera name"):
        DatasetSchema.for_robot("so101_follower", fps=30, cameras=[Camera(name, 48, 64)])


def test_unknown_robot_without_names_is_refused_with_the_known_ones():
    with pytest.raises(DatasetError, match="so101_follower"):
        DatasetSchema.for_robot("rover", fps=30, cameras=[])
