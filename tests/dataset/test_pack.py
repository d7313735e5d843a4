import json
import shutil
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mutations import LEROBOT_H264, clip
from studio import Studio

from recd.config.errors import DatasetError
from recd.daemon.dataset import DatasetStore, check_format, verify_dataset
from recd.daemon.dataset.pack import FAULT_POINTS

LENGTHS = (5, 4, 7)
FRONT = "observation.images.front"


def shown(root: Path, key: str = FRONT) -> list[np.ndarray]:
    """Every picture of a camera, in episode order, decoded."""
    table = pa.concat_tables(
        pq.read_table(file) for file in sorted((root / "meta/episodes").glob("*/*.parquet"))
    )
    pictures = []
    for row in table.to_pylist():
        place = (row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"])
        name = "videos/{}/chunk-{:03d}/file-{:03d}.mp4".format(key, *place)
        first = round(row[f"videos/{key}/from_timestamp"] * 30)
        with av.open(str(root / name)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        pictures += frames[first : first + row["length"]]
    return pictures


def files(root: Path, pattern: str) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.glob(pattern))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    studio = Studio(tmp_path_factory.mktemp("recorded"), lead=True)
    store = studio.open()
    for number, length in enumerate(LENGTHS):
        studio.record(store, length, tasks=(f"task {number}",))
    studio.close()
    return studio.root


@pytest.fixture
def root(recorded, tmp_path):
    shutil.copytree(recorded, tmp_path / "dataset")
    return tmp_path / "dataset"


def test_packed_dataset_has_one_file_of_each_kind_and_the_same_pictures_bit_by_bit(root):
    before = {key: shown(root, key) for key in (FRONT, "observation.images.wrist")}
    with DatasetStore.open(root) as store:
        report = store.pack()
    assert (report.data_after, report.videos_before, report.videos_after) == (1, 6, 2)
    assert files(root, "data/*/*") == ["data/chunk-000/file-000.parquet"]
    assert files(root, "meta/episodes/*/*") == ["meta/episodes/chunk-000/file-000.parquet"]
    assert len(files(root, f"videos/{FRONT}/*/*.mp4")) == 1
    for key, pictures in before.items():
        after = shown(root, key)
        assert all(np.array_equal(a, b) for a, b in zip(pictures, after, strict=True))
    verified = verify_dataset(root)
    assert verified.findings == ()
    assert sorted(verified.attached.values()) == [0, 1, 2]
    metadata = pq.read_metadata(root / "data/chunk-000/file-000.parquet")
    assert metadata.num_row_groups == len(LENGTHS)


def test_recording_goes_on_after_a_pack(root, tmp_path):
    with DatasetStore.open(root) as store:
        store.pack()
    studio = Studio(tmp_path)
    result = studio.record(studio.open(), 6)
    assert (result.episode_index, result.first_row) == (3, sum(LENGTHS))
    assert verify_dataset(root).findings == ()
    studio.stores[0].undo(result.uid)
    assert verify_dataset(root).findings == ()
    studio.close()


def test_a_second_pack_has_nothing_to_do(root):
    with DatasetStore.open(root) as store:
        store.pack()
        before = files(root, "**/*")
        assert store.pack().changed is False
    assert files(root, "**/*") == before


def test_an_episode_from_before_a_pack_cannot_be_taken_back_half(root):
    with DatasetStore.open(root) as store:
        store.pack()
        with pytest.raises(DatasetError, match="earlier metadata is gone"):
            store.undo(store.last_uid)
    assert verify_dataset(root).findings == ()


@pytest.mark.parametrize("point", FAULT_POINTS)
def test_pack_killed_anywhere_shows_the_same_episodes_and_can_be_run_again(crash, root, point):
    before = shown(root)
    assert crash(root, "pack", fault=f"{point}:kill") == -9
    strays = {"video.stray", "episodes.data_file", "episodes.own_file"}
    broken = {finding.rule.name for finding in check_format(root).findings} - strays
    assert broken == set()
    assert all(np.array_equal(a, b) for a, b in zip(before, shown(root), strict=True))
    crash(root, "recover")
    crash(root, "pack")
    assert verify_dataset(root).findings == ()
    assert len(files(root, f"videos/{FRONT}/*/*.mp4")) == 1
    assert not (root / ".recd/packing").exists()
    assert all(np.array_equal(a, b) for a, b in zip(before, shown(root), strict=True))


def test_size_and_length_limits_begin_new_files(root, monkeypatch):
    monkeypatch.setattr("recd.daemon.dataset.pack_videos.FLOAT32_SAFE_S", 10 / 30)
    with DatasetStore.open(root) as store:
        report = store.pack()
    assert report.videos_after == 4  # 5 + 4 pictures, then 7, for each camera
    assert verify_dataset(root).findings == ()


def test_an_episode_encoded_otherwise_gets_a_file_of_its_own(root):
    clip(1, 4, options=LEROBOT_H264 | {"g": "10"})(root)
    before = shown(root)
    with DatasetStore.open(root) as store:
        store.pack()
    assert len(files(root, f"videos/{FRONT}/*/*.mp4")) == 3
    assert all(np.array_equal(a, b) for a, b in zip(before, shown(root), strict=True))
    assert verify_dataset(root).findings == ()


def test_a_dataset_with_a_fault_is_refused_untouched(root):
    path = root / f"videos/{FRONT}/chunk-000/file-001.mp4"
    path.write_bytes(path.read_bytes()[:-200])
    before = files(root, "[dmv]*/**/*")
    with DatasetStore.open(root) as store, pytest.raises(DatasetError, match="nothing was changed"):
        store.pack()
    assert files(root, "[dmv]*/**/*") == before


def test_a_full_disk_is_refused_with_figures_before_anything_is_written(root, monkeypatch):
    class NoSpace:
        f_bavail, f_frsize = 1, 512

    monkeypatch.setattr("recd.daemon.dataset.durable.os.statvfs", lambda path: NoSpace)
    with DatasetStore.open(root) as store, pytest.raises(DatasetError, match="MB free, there are"):
        store.pack()
    assert not (root / ".recd/packing").exists()


def test_images_are_packed_with_their_rows(tmp_path):
    studio = Studio(tmp_path, use_videos=False)
    store = studio.open()
    for length in LENGTHS:
        studio.record(store, length)
    store.pack()
    studio.close()
    table = pq.read_table(studio.root / "data/chunk-000/file-000.parquet")
    assert table.num_rows == sum(LENGTHS)
    schema = json.loads(table.schema.metadata[b"huggingface"])
    assert schema["info"]["features"][FRONT] == {"_type": "Image"}
    assert verify_dataset(studio.root).findings == ()


def test_without_renameat2_the_folders_still_change_places(root, monkeypatch):
    import ctypes
    import errno

    def refuse(*_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr("recd.daemon.dataset.exchange._renameat2", refuse)
    with DatasetStore.open(root) as store:
        assert store.pack().changed
    assert verify_dataset(root).findings == ()
