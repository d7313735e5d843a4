"""The power fails at every step of a commit, an undo, an edit, a pack and a copy: what was not
synced is gone."""

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from powercut import cuts, disk_of

from recd.daemon.dataset import DatasetStore
from recd.daemon.dataset.commit import FAULT_POINTS as COMMIT_POINTS
from recd.daemon.dataset.edit import DELETE_POINTS, RELABEL_POINTS
from recd.daemon.dataset.gather import FAULT_POINTS as COPY_POINTS
from recd.daemon.dataset.pack import FAULT_POINTS as PACK_POINTS
from recd.daemon.dataset.trash import FAULT_POINTS as UNDO_POINTS
from recd.daemon.dataset.verify import verify_dataset

KILLED = -9
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
LENGTHS, NEXT = (5, 4), 6  # of the fixture `dataset`
by_chance = pytest.mark.parametrize(
    "seeds", [range(1), pytest.param(range(1, 6), marks=pytest.mark.soak)], ids=str
)
SOME = ("commit.synced", "commit.prepared", "commit.moved.data", "commit.folders_synced")


def all_three(root: Path, uids: list[str]) -> None:
    report = verify_dataset(root)
    assert report.good, (root.name, report.findings)
    assert (report.episodes, report.rows) == (3, sum(LENGTHS) + NEXT), root.name
    assert dict(report.attached) == {uid: number for number, uid in enumerate(uids)}
    assert list((root / ".recd/staging").iterdir()) == []


@by_chance
@pytest.mark.parametrize("point", COMMIT_POINTS)
def test_power_cut_in_a_commit_loses_no_episode(crash, dataset, tmp_path, point, seeds):
    root, uids = dataset
    notes = tmp_path / "notes"
    with disk_of(root) as disk:
        assert crash(root, "commit", uids[-1], NEXT, fault=f"{point}:kill", notes=notes) == KILLED
        for left in cuts(disk, notes, tmp_path, seeds):
            crash(left, "recover")
            all_three(left, uids)


@by_chance
@pytest.mark.parametrize("point", UNDO_POINTS)
def test_power_cut_in_an_undo_leaves_the_episode_in_the_dataset_or_in_the_trash(
    crash, dataset, tmp_path, point, seeds
):
    root, uids = dataset
    shutil.rmtree(root / ".recd/staging" / uids[-1])
    notes = tmp_path / "notes"
    with disk_of(root) as disk:
        assert crash(root, "undo", uids[1], fault=f"{point}:kill", notes=notes) == KILLED
        for left in cuts(disk, notes, tmp_path, seeds):
            crash(left, "recover")
            report = verify_dataset(left)
            assert report.good, (left.name, report.findings)
            with DatasetStore.open(left) as store:
                trashed = [entry.uid for entry in store.trash()]
                assert (report.episodes, trashed) in ((2, []), (1, [uids[1]])), left.name


@by_chance
@pytest.mark.parametrize("point", PACK_POINTS)
def test_power_cut_in_a_pack_changes_no_row_and_no_picture(crash, dataset, tmp_path, point, seeds):
    root, uids = dataset
    shutil.rmtree(root / ".recd/staging" / uids[-1])
    notes = tmp_path / "notes"
    with disk_of(root) as disk:
        assert crash(root, "pack", fault=f"{point}:kill", notes=notes) == KILLED
        for left in cuts(disk, notes, tmp_path, seeds):
            crash(left, "recover")
            report = verify_dataset(left)
            assert report.good, (left.name, report.findings)
            assert (report.episodes, report.rows) == (2, sum(LENGTHS)), left.name


@pytest.mark.parametrize("point", DELETE_POINTS)
def test_power_cut_in_a_delete_leaves_the_episode_in_the_dataset_or_in_the_trash(
    crash, dataset, tmp_path, point
):
    root, uids = dataset
    shutil.rmtree(root / ".recd/staging" / uids[-1])
    notes = tmp_path / "notes"
    with disk_of(root) as disk:
        code = crash(root, "delete", uids[0], fault=f"{point}:kill", notes=notes)
        assert code == (0 if point == "delete.moved.video" else KILLED)  # no mp4 is cut here
        for left in cuts(disk, notes, tmp_path):
            crash(left, "recover")
            report = verify_dataset(left)
            assert report.good, (left.name, report.findings)
            with DatasetStore.open(left) as store:
                trashed = [entry.uid for entry in store.trash()]
                assert (report.episodes, trashed) in ((2, []), (1, [uids[0]])), left.name
                if trashed:
                    store.undelete(uids[0])
            assert verify_dataset(left).rows == sum(LENGTHS)


@pytest.mark.parametrize("point", RELABEL_POINTS)
def test_power_cut_in_a_relabel_leaves_the_old_task_or_the_new_one(crash, dataset, tmp_path, point):
    root, uids = dataset
    shutil.rmtree(root / ".recd/staging" / uids[-1])
    notes = tmp_path / "notes"
    with disk_of(root) as disk:
        assert crash(root, "relabel", uids[0], fault=f"{point}:kill", notes=notes) == KILLED
        for left in cuts(disk, notes, tmp_path):
            crash(left, "recover")
            report = verify_dataset(left)
            assert report.good, (left.name, report.findings)
            assert (report.episodes, report.rows) == (2, sum(LENGTHS)), left.name
            (told,) = pq.read_table(left / EPISODES).filter(pc.field("episode_index") == 0)["tasks"]
            assert told.as_py() in ([f"task {LENGTHS[0]}"], ["relabelled"]), left.name


@pytest.mark.parametrize("point", COPY_POINTS)
def test_power_cut_in_a_copy_leaves_the_source_whole_and_the_copy_is_finished_by_the_next_run(
    crash, dataset, tmp_path, point
):
    root, uids = dataset
    shutil.rmtree(root / ".recd/staging" / uids[-1])
    notes, place = tmp_path / "notes", tmp_path / "place"
    place.mkdir()
    with disk_of(place) as disk:
        copy = str(place / "copy")
        assert crash(root, "copy", copy, fault=f"{point}:kill", notes=notes) == KILLED
        for left in cuts(disk, notes, tmp_path):
            if not (left / "copy").exists():
                crash(root, "copy", str(left / "copy"))
            report = verify_dataset(left / "copy")
            assert report.good, (left.name, report.findings)
            assert (report.episodes, report.rows) == (2, sum(LENGTHS)), left.name
            assert sorted(report.attached) == sorted(uids[:2])
            assert [path.name for path in left.iterdir()] == ["copy"]
    assert verify_dataset(root).good


@contextmanager
def mounted(image: Path, at: Path, *options: str):
    at.mkdir(exist_ok=True)
    chosen = ",".join(("loop", *options))
    done = subprocess.run(["mount", "-o", chosen, image, at], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no image can be mounted here: {done.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a file system image")
@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="needs mkfs.ext4")
@pytest.mark.parametrize("point", SOME)
def test_power_cut_of_a_real_ext4_loses_no_episode(crash, dataset, tmp_path, point):
    """The image is copied below the mounted file system: what is only in memory is not in it."""
    material, uids = dataset
    image, cut = tmp_path / "disk.img", tmp_path / "cut.img"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    with mounted(image, tmp_path / "live", "commit=300") as live:
        shutil.copytree(material, live / "dataset")
        subprocess.run(["sync", "-f", live], check=True)
        assert crash(live / "dataset", "commit", uids[-1], NEXT, fault=f"{point}:kill") == KILLED
        shutil.copy(image, cut)
    with mounted(cut, tmp_path / "after") as after:
        crash(after / "dataset", "recover")
        all_three(after / "dataset", uids)
