"""What a loader sees of a dataset whose edit was killed, before anything has recovered it."""

import errno
import json
import os
import shutil

import pyarrow.parquet as pq
import pytest
from shapes import points_in_shapes
from studio import Studio

from recd.config.errors import DatasetError
from recd.daemon.dataset import DatasetStore, check_format, verify_dataset
from recd.daemon.dataset import exchange as exchanging
from recd.daemon.dataset.edit import DELETE_POINTS, RELABEL_POINTS
from recd.daemon.dataset.exchange import exchange
from recd.daemon.dataset.verify import fingerprints

LENGTHS = (5, 4, 7, 6)
KILLED = -9
SHOWING = ("linked.data", "linked.meta", "exchanged", "settled.data", "settled.meta")
"""Steps between which `data` or `meta` may be a link."""

PACKED_POINTS = ("delete.prepared", "delete.moved.video", "delete.exchanged", "relabel.exchanged")


def recording(folder, *, packed: bool):
    studio = Studio(folder)
    store = studio.open()
    uids = [studio.record(store, n, tasks=(f"task {n}",)).uid for n in LENGTHS]
    if packed:
        store.pack()
    studio.close()
    return studio.root, uids


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return {
        name: recording(tmp_path_factory.mktemp(name), packed=name == "packed")
        for name in ("fresh", "packed")
    }


def seen(root) -> tuple[int, list[str], list[list[str]]]:
    """Episodes, fingerprints and tasks as a loader gets them; every picture decodes."""
    report = check_format(root, decode=True)
    assert report.good, report.findings
    assert report.decoded == 2 * report.rows
    tables = [pq.read_table(file) for file in sorted((root / "meta/episodes").glob("*/*.parquet"))]
    tasks = [told for table in tables for told in table["tasks"].to_pylist()]
    return report.episodes, fingerprints(root), tasks


def after(kind: str, before):
    count, prints, tasks = before
    if kind == "delete":
        return count - 1, [prints[0], *prints[2:]], [tasks[0], *tasks[2:]]
    return count, prints, [tasks[0], ["relabelled"], *tasks[2:]]


@pytest.mark.parametrize(
    ("point", "shape"), points_in_shapes([*DELETE_POINTS, *RELABEL_POINTS], PACKED_POINTS)
)
def test_killed_anywhere_a_loader_sees_the_old_or_the_new_dataset_whole_before_any_recovery(
    crash, copy_of, point, shape
):
    root, uids = copy_of(shape)
    before, kind = seen(root), point.partition(".")[0]
    code = crash(root, kind, uids[1], fault=f"{point}:kill")
    assert code == (0 if (point, shape) == ("delete.moved.video", "fresh") else KILLED)
    done = [*SHOWING[2:], "moved.", "folders_synced", "done", "cleaned"]
    shown = any(point.partition(".")[2].startswith(step) for step in done)
    shown = (shown and point != "delete.moved.video") or code == 0
    assert seen(root) == (after(kind, before) if shown else before)
    crash(root, "recover")
    assert not any((root / name).is_symlink() for name in ("data", "meta"))
    assert verify_dataset(root).findings == ()


@pytest.mark.parametrize("first", [f"delete.{step}" for step in SHOWING])
@pytest.mark.parametrize(
    "second", ["delete.exchanged", pytest.param("delete.settled.data", marks=pytest.mark.soak)]
)
def test_killed_again_while_finishing_the_dataset_is_whole_at_every_moment(
    crash, copy_of, first, second
):
    root, uids = copy_of("fresh")
    before = seen(root)
    assert crash(root, "delete", uids[1], fault=f"{first}:kill") == KILLED
    crash(root, "recover", fault=f"{second}:kill")
    assert seen(root) in (before, after("delete", before))
    crash(root, "recover")
    assert seen(root) == after("delete", before)
    with DatasetStore.open(root) as store:
        assert [entry.uid for entry in store.trash()] == [uids[1]]
    assert verify_dataset(root).findings == ()


@pytest.mark.parametrize("point", [f"delete.{step}" for step in SHOWING])
def test_new_files_lost_after_the_crash_give_the_old_dataset_or_the_new_one(crash, copy_of, point):
    root, uids = copy_of("fresh")
    before = seen(root)
    crash(root, "delete", uids[1], fault=f"{point}:kill")
    shutil.rmtree(root / ".recd/editing/new/data")  # of the new dataset, or else of the old one
    crash(root, "recover")
    shown = point.removeprefix("delete.") in SHOWING[2:]
    assert seen(root) == (after("delete", before) if shown else before)
    assert not any((root / name).is_symlink() for name in ("data", "meta"))
    assert verify_dataset(root).findings == ()


@pytest.mark.parametrize("point", [f"delete.{step}" for step in SHOWING])
def test_what_others_wrote_over_a_killed_delete_stays_and_no_episode_is_lost(
    crash, copy_of, recctl, point
):
    root, uids = copy_of("fresh")
    crash(root, "delete", uids[1], fault=f"{point}:kill")
    info = root / "meta/info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"theirs": True}))
    episodes = seen(root)[0]
    refused = recctl("recover", root)
    assert (refused.code, "data and meta" in refused.err) == (1, True)
    assert recctl("recover", "--set-aside", root).code == 0
    assert json.loads(info.read_text())["theirs"] is True
    assert seen(root)[0] == episodes
    assert not any((root / name).is_symlink() for name in ("data", "meta"))
    with DatasetStore.open(root) as store:
        if episodes == 3:
            store.undelete(uids[1])
        assert {episode.uid for episode in store.episodes()} == set(uids)


@pytest.mark.parametrize("name", ["data", "meta"])
def test_a_dataset_whose_folder_is_a_link_is_not_edited(copy_of, tmp_path, name):
    root, uids = copy_of("fresh")
    (root / name).rename(tmp_path / "elsewhere")
    (root / name).symlink_to(tmp_path / "elsewhere")
    with DatasetStore.open(root) as store, pytest.raises(DatasetError, match="is a link to"):
        store.delete([uids[1]])
    assert (root / name).is_symlink()
    assert verify_dataset(root).findings == ()


def without_links(target, link, **_) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(link))


def test_where_the_file_system_knows_no_links_an_edit_still_ends_whole(copy_of, monkeypatch):
    root, uids = copy_of("packed")
    before = seen(root)
    monkeypatch.setattr(os, "symlink", without_links)
    with DatasetStore.open(root) as store:
        store.delete([uids[1]])
    assert seen(root) == after("delete", before)
    assert verify_dataset(root).findings == ()


def refused_exchange(*_) -> int:
    exchanging.ctypes.set_errno(errno.EINVAL)
    return -1


def test_where_two_folders_cannot_be_exchanged_at_once_three_renames_do_it(
    copy_of, monkeypatch, tmp_path
):
    root, uids = copy_of("fresh")
    before = seen(root)
    monkeypatch.setattr(exchanging, "_renameat2", refused_exchange)
    with DatasetStore.open(root) as store:
        store.delete([uids[1]])
    assert seen(root) == after("delete", before)
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.symlink_to("nowhere")
    exchange(one, other)
    assert (one.is_symlink(), other.is_dir()) == (True, True)
