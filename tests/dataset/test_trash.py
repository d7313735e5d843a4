from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from recd.config.errors import DatasetError
from recd.daemon.dataset import DatasetStore, RowBlock, RowLog, new_uid, survey, verify_dataset


def lerobot_files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".recd" not in path.parts
    }


def test_undo_leaves_every_file_byte_for_byte_as_before_the_episode(studio):
    store = studio.open()
    studio.record(store, 4)
    before = lerobot_files(studio.root)
    result = studio.record(store, 5, tasks=("another",))
    store.undo(result.uid)
    assert lerobot_files(studio.root) == before
    assert store.totals.episodes == 1
    assert [entry.kind for entry in store.trash()] == ["undone"]


def test_undo_of_the_first_episode_leaves_no_dataset_that_lerobot_sees(studio):
    store = studio.open()
    result = studio.record(store, 4)
    store.undo(result.uid)
    assert lerobot_files(studio.root) == {}
    assert studio.record(store, 3).episode_index == 0
    assert verify_dataset(studio.root).good


def test_undelete_with_nothing_between_restores_every_byte(studio):
    store = studio.open()
    studio.record(store, 4)
    result = studio.record(store, 5, tasks=("another",))
    before = lerobot_files(studio.root)
    store.undo(result.uid)
    assert store.undelete(result.uid).episode_index == 1
    assert lerobot_files(studio.root) == before
    assert store.trash() == []
    assert store.last_uid == result.uid
    store.undo(result.uid)
    store.undelete(result.uid)
    assert lerobot_files(studio.root) == before


@pytest.mark.parametrize("mode", ["video", "images", "full"])
def test_undelete_after_another_episode_appends_it_whole(studio, mode):
    studio.use_videos, studio.columns = mode != "images", "full" if mode == "full" else "plain"
    store = studio.open()
    studio.record(store, 4)
    taken = studio.record(store, 5, tasks=("second task", "third task"))
    store.undo(taken.uid)
    studio.record(store, 3, tasks=("meanwhile",))
    result = store.undelete(taken.uid)
    assert (result.episode_index, result.first_row, result.rows) == (2, 7, 5)
    report = verify_dataset(studio.root)
    assert report.findings == ()
    assert report.attached[taken.uid] == 2
    rows = pq.read_table(studio.root / "data/chunk-000/file-002.parquet").to_pylist()
    assert rows[1]["observation.state"] == [1006.0, 1007, 1008, 1009, 1010, 1011]
    tasks = pq.read_table(studio.root / "meta/tasks.parquet")["task"].to_pylist()
    assert [tasks[row["task_index"]] for row in rows] == ["second task"] * 3 + ["third task"] * 2
    assert store.trash() == []


def test_several_last_episodes_can_be_taken_back_one_after_the_other(studio):
    store = studio.open()
    before, uids = [], []
    for length in (3, 4, 5):
        before.append(lerobot_files(studio.root))
        uids.append(studio.record(store, length).uid)
    for uid, files in zip(reversed(uids), reversed(before), strict=True):
        store.undo(uid)
        assert lerobot_files(studio.root) == files
    for uid in uids:
        store.undelete(uid)
    assert verify_dataset(studio.root).attached == {uid: i for i, uid in enumerate(uids)}


def test_an_earlier_episode_is_not_taken_back(studio):
    store = studio.open()
    first = studio.record(store, 3)
    studio.record(store, 3)
    before = lerobot_files(studio.root)
    with pytest.raises(DatasetError, match="no longer the last one"):
        store.undo(first.uid)
    assert lerobot_files(studio.root) == before


def test_an_episode_is_not_taken_back_over_somebody_elses_change(studio):
    store = studio.open()
    result = studio.record(store, 3)
    info = studio.root / "meta/info.json"
    info.write_bytes(info.read_bytes() + b"\n")
    with pytest.raises(DatasetError, match=r"meta/info.json changed since"):
        store.undo(result.uid)
    assert store.totals.episodes == 1


def test_unknown_uids_are_refused(studio):
    store = studio.open()
    with pytest.raises(DatasetError, match="not in this dataset"):
        store.undo("nobody")
    with pytest.raises(DatasetError, match="not in the trash"):
        store.undelete("nobody")
    with pytest.raises(DatasetError, match="no running episode"):
        store.discard("nobody")


def staged_take(studio, store: DatasetStore, count: int, uid: str) -> None:
    studio.stage(store, count, store.totals.episodes, uid)
    rows = studio.rows(store.totals.episodes, count)
    log = RowLog(store.root / ".recd/staging" / uid / "own", store.schema, uid=uid)
    block = RowBlock(0, np.arange(count), rows.state, rows.action, rows.task, {})
    log.append(block)
    log.close()


def test_a_discarded_take_leaves_nothing_and_comes_back_whole(studio):
    store, uid = studio.open(), new_uid()
    studio.record(store, 3)
    before = lerobot_files(studio.root)
    staged_take(studio, store, 6, uid)
    entry = store.discard(uid, rows=6)
    assert (entry.kind, entry.rows) == ("discarded", 6)
    assert lerobot_files(studio.root) == before
    assert not (studio.root / ".recd/staging" / uid).exists()
    result = store.undelete(uid)
    assert (result.episode_index, result.rows) == (1, 6)
    assert verify_dataset(studio.root).findings == ()
    assert store.trash() == []


def test_a_discarded_take_without_rows_stays_in_the_trash(studio):
    store, uid = studio.open(), new_uid()
    store.stage(uid)
    store.discard(uid)
    with pytest.raises(DatasetError, match="no row of the episode is known"):
        store.undelete(uid)
    assert [entry.uid for entry in store.trash()] == [uid]
    assert store.totals.episodes == 0


def test_purging_frees_the_space_and_ends_the_way_back(studio):
    store = studio.open()
    result = studio.record(store, 3)
    store.undo(result.uid)
    assert store.purge(result.uid) > 1000
    assert store.trash() == []
    with pytest.raises(DatasetError, match="not in the trash"):
        store.undelete(result.uid)


def test_episodes_are_listed_with_uid_and_story_also_without_opening(studio):
    store = studio.open()
    result = studio.record(store, 3, tasks=("pick",))
    listed = survey(studio.root)
    assert [(e.episode_index, e.uid, e.tasks) for e in listed] == [(0, result.uid, ("pick",))]
    assert listed[0].manifest["operator"] == "test"
    assert store.episodes() == listed
    store.note(result.uid, {"decoded": 3})
    assert store.episodes()[0].manifest["decoded"] == 3
