import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recd.config.errors import DatasetError
from recd.daemon.dataset import Camera, CodecPins, DatasetStore, new_uid, verify_dataset
from recd.daemon.dataset.boxes import pictures_on_grid, read_track
from recd.daemon.dataset.parquet import ROWS_PER_EPISODES_FILE
from recd.daemon.dataset.stats import aggregate, stats_from_json, stats_to_json
from recd.daemon.digest import head_last_of


def read_info(root) -> dict:
    return json.loads((root / "meta/info.json").read_text())


def episode_rows(root) -> list[dict]:
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def data_rows(root) -> pa.Table:
    return pa.concat_tables(pq.read_table(f) for f in sorted((root / "data").glob("*/*.parquet")))


def lerobot_files(root) -> dict:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".recd" not in path.parts
    }


def test_every_row_of_every_episode_is_there_with_dense_numbers(studio):
    store = studio.open()
    lengths = (7, 1, 12)
    for length in lengths:
        studio.record(store, length)
    rows = data_rows(studio.root)
    assert rows["index"].to_pylist() == list(range(20))
    assert rows["episode_index"].to_pylist() == [0] * 7 + [1] + [2] * 12
    assert rows["frame_index"].to_pylist() == [*range(7), 0, *range(12)]
    assert rows["timestamp"].to_pylist()[:7] == [float(np.float32(k / 30)) for k in range(7)]
    assert rows["observation.state"].to_pylist()[8] == [2000.0, 2001, 2002, 2003, 2004, 2005]
    info = read_info(studio.root)
    assert (info["total_episodes"], info["total_frames"]) == (3, 20)
    assert info["splits"] == {"train": "0:3"}
    assert [row["length"] for row in episode_rows(studio.root)] == list(lengths)


def test_rows_written_ahead_are_published_as_they_lie_there(studio):
    store, uid = studio.open(), new_uid()
    videos, rows = studio.stage(store, 6, 0, uid), studio.rows(0, 6, ("pick",))
    written = store.write_rows(uid, rows)
    ahead = store.root / ".recd/staging" / uid / "new/data.parquet"
    before, inode = ahead.read_bytes(), ahead.stat().st_ino
    assert store.totals.episodes == 0
    store.commit(uid, rows, videos, manifest={}, written=written)
    (published,) = (studio.root / "data").glob("*/*.parquet")
    assert (published.read_bytes(), published.stat().st_ino) == (before, inode)


def test_rows_written_ahead_get_new_numbers_when_another_episode_came_first(studio):
    store, uid = studio.open(), new_uid()
    videos, rows = studio.stage(store, 6, 1, uid), studio.rows(1, 6, ("place",))
    written = store.write_rows(uid, rows)
    studio.record(store, 5, tasks=("pick",))
    store.commit(uid, rows, videos, manifest={}, written=written)
    table = data_rows(studio.root)
    assert table["index"].to_pylist() == list(range(11))
    assert table["episode_index"].to_pylist() == [0] * 5 + [1] * 6
    assert table["task_index"].to_pylist() == [0] * 5 + [1] * 6


def test_an_episode_with_two_tasks_numbers_each_row_by_its_own(studio):
    store = studio.open()
    studio.record(store, 4, tasks=("pick",))
    studio.record(store, 4, tasks=("place ü", "pick"))
    assert data_rows(studio.root)["task_index"].to_pylist() == [0, 0, 0, 0, 1, 1, 0, 0]
    assert pq.read_table(studio.root / "meta/tasks.parquet")["task"].to_pylist() == [
        "pick",
        "place ü",
    ]
    assert [row["tasks"] for row in episode_rows(studio.root)] == [["pick"], ["place ü", "pick"]]


def test_statistics_file_is_the_aggregate_of_the_episodes_statistics(studio):
    store = studio.open()
    for length in (4, 9):
        studio.record(store, length)
    parts = [
        {
            key: {
                name: np.array(row[f"stats/{key}/{name}"])
                for name in ("min", "max", "mean", "std", "count", "q01", "q50", "q99")
            }
            for key in read_info(studio.root)["features"]
        }
        for row in episode_rows(studio.root)
    ]
    stats = stats_from_json(json.loads((studio.root / "meta/stats.json").read_text()))
    wanted = stats_to_json(aggregate(parts))
    for key, feature in wanted.items():
        for name, value in feature.items():
            np.testing.assert_allclose(stats[key][name], value, rtol=1e-12, err_msg=key)


def test_images_are_kept_as_given_also_beyond_one_batch(studio, monkeypatch):
    monkeypatch.setattr("recd.daemon.dataset.parquet.IMAGE_BATCH", 8)
    studio.use_videos, studio.cameras = False, (Camera("front", 24, 32),)
    studio.record(studio.open(), 20)
    file = studio.root / "data/chunk-000/file-000.parquet"
    column = pq.read_table(file)["observation.images.front"].to_pylist()
    given = list(studio.pictures(studio.cameras[0], 0, 20).encoded)
    assert [cell["bytes"] for cell in column] == given
    assert column[19]["path"] == "frame-000019.png"
    assert read_info(studio.root)["video_path"] is None


def test_full_columns_hold_what_was_given_and_constants_elsewhere(studio):
    studio.columns = "full"
    store, uid = studio.open(), new_uid()
    videos = studio.stage(store, 5, 0, uid)
    extra = {
        "recd.camera_error_ns": np.arange(10).reshape(5, 2),
        "recd.episode_uid": [uid] * 5,
        "recd.intervention": np.array([0, 1, 0, 0, 1], bool),
    }
    store.commit(uid, replace(studio.rows(0, 5), extra=extra), videos, manifest={})
    rows = data_rows(studio.root)
    assert rows["recd.camera_error_ns"].to_pylist()[4] == [8, 9]
    assert rows["recd.intervention"].to_pylist() == [False, True, False, False, True]
    assert rows["recd.chunk_id"].to_pylist() == [-1] * 5
    assert rows["recd.state_valid"].to_pylist()[0] == [True] * 6


def test_one_camera_makes_a_scalar_own_column(studio):
    studio.columns, studio.cameras = "full", (Camera("front", 48, 64),)
    store, uid = studio.open(), new_uid()
    videos = studio.stage(store, 3, 0, uid)
    extra = {"recd.camera_error_ns": np.array([[1], [2], [3]])}
    store.commit(uid, replace(studio.rows(0, 3), extra=extra), videos, manifest={})
    assert data_rows(studio.root)["recd.camera_error_ns"].to_pylist() == [1, 2, 3]


def test_opening_again_continues_the_same_numbers_and_files(studio):
    store = studio.open()
    studio.record(store, 4)
    studio.close()
    store = studio.open()
    result = studio.record(store, 5, tasks=("other",))
    assert (result.episode_index, result.first_row, result.total_rows) == (1, 4, 9)
    assert [r["meta/episodes/file_index"] for r in episode_rows(studio.root)] == [0, 0]
    assert store.totals.tasks == 2


def test_episodes_files_stay_bounded_and_earlier_ones_are_never_written_again(studio):
    studio.cameras = ()
    store = studio.open()
    for _ in range(ROWS_PER_EPISODES_FILE + 1):
        studio.record(store, 2)
    first = studio.root / "meta/episodes/chunk-000/file-000.parquet"
    second = first.with_name("file-001.parquet")
    assert pq.read_metadata(first).num_rows == ROWS_PER_EPISODES_FILE
    before = first.stat()
    studio.record(store, 2)
    assert pq.read_metadata(second).num_rows == 2
    assert (before.st_ino, before.st_mtime_ns) == (first.stat().st_ino, first.stat().st_mtime_ns)


def test_metadata_written_by_others_meanwhile_is_seen_before_the_next_save(studio):
    store = studio.open()
    studio.record(store, 4)
    tasks = studio.root / "meta/tasks.parquet"
    info = read_info(studio.root)
    info["license"] = "theirs"
    (studio.root / "meta/info.json").write_text(json.dumps(info))
    result = studio.record(store, 4)
    assert result.changed_outside == ("meta/info.json",)
    assert read_info(studio.root)["license"] == "theirs"
    assert tasks.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fps": 25}, "fps: expected 25, the dataset has 30"),
        ({"robot_type": "bi_so_follower"}, "robot: expected bi_so_follower"),
        ({"cameras": (Camera("front", 96, 128),)}, "wrist: only in the dataset"),
        ({"cameras": (Camera("front", 48, 64), Camera("wrist", 48, 64))}, "front: shape expected"),
        ({"use_videos": False}, "dtype expected image, the dataset has video"),
    ],
)
def test_a_dataset_of_another_set_up_is_refused_untouched(studio, change, words):
    studio.record(studio.open(), 3)
    studio.close()
    before = lerobot_files(studio.root)
    with pytest.raises(DatasetError, match=words) as refused:
        studio.open(**change)
    assert refused.value.mend
    assert lerobot_files(studio.root) == before


def test_a_dataset_folder_that_cannot_be_made_is_told_with_path_and_mend(studio):
    schema = studio.schema()
    with pytest.raises(DatasetError, match=r"/proc/foo/data: .* \(/proc/foo\)") as refused:
        DatasetStore.open_or_create(Path("/proc/foo/data"), schema, repo_id="x")
    assert "dataset.root" in refused.value.mend


def test_another_codec_than_the_datasets_is_refused_and_the_pins_are_told(studio):
    studio.record(studio.open(), 3)
    studio.close()
    pins = studio.open().pins["observation.images.front"]
    assert (pins.codec, pins.pix_fmt, pins.width) == ("h264", "yuv420p", 128)
    studio.close()
    wanted = CodecPins("av1", "yuv420p", 128, 96)
    schema = replace(studio.schema(), pins={"observation.images.front": wanted})
    with pytest.raises(DatasetError, match="codec expected av1, the dataset has h264"):
        DatasetStore.open_or_create(studio.root, schema, repo_id="x")


def test_columns_of_an_existing_dataset_decide(studio):
    studio.columns = "full"
    studio.record(studio.open(), 3)
    studio.close()
    assert studio.open(columns="plain").schema.columns == "full"


def test_a_dataset_that_lerobot_began_is_continued_plain_whatever_was_asked_for(studio):
    studio.record(studio.open(), 3)
    studio.close()
    shutil.rmtree(studio.root / ".recd")  # what is left is what lerobot writes
    store = studio.open(columns="full")
    assert store.schema.columns == "plain"
    assert studio.record(store, 4, tasks=("other",)).episode_index == 1
    assert [(e.uid != "", e.length) for e in store.episodes()] == [(False, 3), (True, 4)]
    assert verify_dataset(studio.root).findings == ()


def test_a_manifest_of_a_newer_recd_is_not_written_over(studio):
    store = studio.open()
    result = studio.record(store, 3)
    path = studio.root / ".recd/episodes" / result.uid / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    before = path.read_bytes()
    with pytest.raises(DatasetError, match="manifest version 99"):
        store.note(result.uid, {"decoded": 1})
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", ["v2.1", "v3.1", "v4.0", "blue"])
def test_another_lerobot_format_is_refused(studio, version):
    studio.record(studio.open(), 3)
    studio.close()
    info = read_info(studio.root) | {"codebase_version": version}
    (studio.root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError, match=version.removeprefix("v")):
        studio.open()


def test_newer_recd_format_is_refused(studio):
    studio.record(studio.open(), 3)
    studio.close()
    identity = studio.root / ".recd/dataset.json"
    identity.write_text(json.dumps(json.loads(identity.read_text()) | {"format": 99}))
    with pytest.raises(DatasetError, match="format 99"):
        studio.open()


def test_a_folder_of_something_else_is_refused(studio):
    studio.root.mkdir()
    (studio.root / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(DatasetError, match="not a LeRobot dataset"):
        studio.open()
    assert sorted(path.name for path in studio.root.iterdir()) == ["holiday.jpg"]


def test_a_file_in_place_of_the_folder_is_refused(studio):
    studio.root.write_text("x")
    with pytest.raises(DatasetError, match="is a file"):
        studio.open()


@pytest.mark.skipif(os.getuid() == 0, reason="root writes anywhere")
def test_a_folder_without_permission_is_refused(studio):
    studio.root.mkdir(mode=0o500)
    with pytest.raises(DatasetError, match="not writable"):
        studio.open()


def test_a_second_process_is_refused_and_told_who_holds_the_dataset(studio):
    studio.open()
    code = (
        "import sys; from pathlib import Path; from recd.daemon.dataset import DatasetStore;"
        "DatasetStore.open(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(studio.root)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode != 0
    assert f"pid {os.getpid()}" in done.stderr


def test_more_pictures_than_rows_is_refused_and_nothing_is_published(studio):
    store, uid = studio.open(), new_uid()
    videos = studio.stage(store, 6, 0, uid)
    with pytest.raises(DatasetError, match="expected 5 pictures, one a row; the file holds 6"):
        store.commit(uid, studio.rows(0, 5), videos, manifest={})
    assert lerobot_files(studio.root) == {}
    assert (studio.root / ".recd/staging" / uid / "observation.images.front.mp4").exists()


def test_the_same_episode_commits_once_its_fault_is_mended(studio):
    store, uid = studio.open(), new_uid()
    videos = studio.stage(store, 6, 0, uid)
    with pytest.raises(DatasetError):
        store.commit(uid, studio.rows(0, 5), videos, manifest={})
    assert store.commit(uid, studio.rows(0, 6), videos, manifest={}).episode_index == 0


def test_videos_of_one_or_two_pictures_are_stored_so_that_their_rate_is_told_right(studio):
    store = studio.open()
    for count in (1, 2):
        studio.record(store, count)
        for path in (studio.root / "videos").rglob("*.mp4"):
            with av.open(str(path)) as container:
                assert container.streams.video[0].base_rate == 30


def test_manifest_and_side_files_lie_with_the_episode_under_its_uid(studio):
    store, uid = studio.open(), new_uid()
    videos = studio.stage(store, 4, 0, uid)
    outside = studio.folder / "notes.txt"
    outside.write_text("kept")
    inside = studio.root / ".recd/staging" / uid / "own/joints.arrows"
    inside.write_bytes(b"native")
    facts = {"station": "bench 1", "operator": "ada", "verdict": "good"}
    store.commit(uid, studio.rows(0, 4), videos, manifest=facts, sides=[outside, inside])
    own = studio.root / ".recd/episodes" / uid
    manifest = json.loads((own / "manifest.json").read_text())
    assert (own / "notes.txt").read_text() == "kept"
    assert (own / "joints.arrows").read_bytes() == b"native"
    assert manifest["operator"] == "ada"
    assert manifest["length"] == 4
    (video,) = (studio.root / "videos/observation.images.front").rglob("*.mp4")
    assert manifest["videos"]["observation.images.front"]["digest"] == head_last_of(video)
    assert not (studio.root / ".recd/staging" / uid).exists()


@pytest.fixture
def synced(monkeypatch) -> list[str]:
    """Names of the files and folders of which the disk was told, in order."""
    names, sync = [], os.fsync

    def noting(fd):
        sync(fd)
        names.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))

    monkeypatch.setattr(os, "fsync", noting)
    return names


def test_who_waits_is_told_once_all_but_the_thumbnails_is_durable(studio, synced):
    store, uid = studio.open(), new_uid()
    videos = studio.stage(store, 4, 0, uid)
    own = studio.root / ".recd/staging" / uid / "own"
    picture = studio.folder / "front_first.jpg"
    picture.write_bytes(b"jpeg")
    known = []

    def story():
        (own / "joints.arrows").write_bytes(b"native")
        return {"operator": "ada"}

    result = store.commit(
        uid, studio.rows(0, 4), videos, manifest=story, sides=[picture],
        tell=lambda told: known.extend([told, *synced]),
    )  # fmt: skip

    told, *before = known
    assert told == result
    assert {
        "data.parquet", "episodes.parquet", "tasks.parquet", "stats.json", "info.json",
        "manifest.json", "joints.arrows", *(path.path.name for path in videos.values()),
    } <= set(before)  # fmt: skip
    assert picture.name not in before
    assert picture.name in synced
    kept = studio.root / ".recd/episodes" / uid
    assert {path.name for path in kept.iterdir()} == {
        picture.name, "joints.arrows", "manifest.json",
    }  # fmt: skip
    assert json.loads((kept / "manifest.json").read_text())["operator"] == "ada"


def test_a_refused_episode_is_saved_by_the_next_attempt_with_every_new_file_durable(studio, synced):
    store, uid = studio.open(), new_uid()
    videos, rows = studio.stage(store, 4, 0, uid), studio.rows(0, 4)
    written = store.write_rows(uid, rows)

    def story():
        raise DatasetError("the disk took no more of its side files")

    with pytest.raises(DatasetError, match="side files"):
        store.commit(uid, rows, videos, manifest=story, written=written)
    synced.clear()
    assert store.commit(uid, rows, videos, manifest={}, written=written).episode_index == 0
    assert {"episodes.parquet", "stats.json", "info.json", "manifest.json"} <= set(synced)
    assert verify_dataset(studio.root).good


def test_missing_statistics_are_rebuilt_from_the_episodes_before_going_on(studio):
    store = studio.open()
    for length in (4, 9):
        studio.record(store, length)
    studio.close()
    path = studio.root / "meta/stats.json"
    wanted = json.loads(path.read_text())
    path.unlink()
    studio.record(studio.open(), 2)
    assert json.loads(path.read_text())["action"]["count"] == [15]
    assert json.loads(path.read_text())["action"]["min"] == wanted["action"]["min"]


def test_statistics_of_a_wrong_shape_are_refused_before_they_spread(studio):
    studio.record(studio.open(), 3)
    studio.close()
    path = studio.root / "meta/stats.json"
    content = json.loads(path.read_text())
    content["observation.images.front"]["mean"] = [0.1, 0.2, 0.3]
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"mean of observation.images.front has shape \(3,\)"):
        studio.open()


def test_the_newest_episodes_story_is_at_hand_for_comparing(studio):
    store, uid = studio.open(), new_uid()
    assert store.last_manifest() == {}
    videos = studio.stage(store, 3, 0, uid)
    facts = {"calibration_sha256": {"main.follower": "ab" * 32}}
    store.commit(uid, studio.rows(0, 3), videos, manifest=facts)
    assert store.last_manifest()["calibration_sha256"] == facts["calibration_sha256"]


@pytest.mark.parametrize(("first", "delay"), [(True, 512), (False, 0)])
def test_later_videos_get_the_decoding_delay_of_the_dataset_so_that_all_can_be_joined(
    studio, first, delay
):
    for lead in (first, not first, first):
        studio.lead = lead
        studio.record(studio.open(), 5)
        studio.close()
    tracks = [read_track(path) for path in sorted((studio.root / "videos").rglob("*.mp4"))]
    assert [track.delay for track in tracks] == [delay] * 6
    assert all(pictures_on_grid(track, 30) is None for track in tracks)
    assert verify_dataset(studio.root).findings == ()
