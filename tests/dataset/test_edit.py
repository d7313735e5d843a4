import json

import av
import pyarrow.parquet as pq
import pytest
from shapes import points_in_shapes
from studio import Studio

from recd.config.errors import DatasetError
from recd.daemon.dataset import DatasetStore, new_uid, verify_dataset
from recd.daemon.dataset.edit import DELETE_POINTS, RELABEL_POINTS

LENGTHS = (5, 4, 7, 6)
TASKS = ("pick", "place ü", "pick", "pour")
FRONT = "observation.images.front"
KILLED = -9
PACKED_POINTS = ("delete.synced", "delete.moved.video", "delete.settled.data", "delete.cleaned")
SHAPES = ("fresh", "packed", "images", "full", "mixed")
"""One file an episode; joined; pictures in the rows; own columns; two packed and two fresh ones."""


def lerobot_files(root) -> dict:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".recd" not in path.parts
    }


def recording(folder, shape: str):
    """Four episodes in a dataset of one of SHAPES; (root, uids)."""
    studio = Studio(folder, use_videos=shape != "images")
    studio.columns = "full" if shape == "full" else "plain"
    store, uids = studio.open(), []
    for number, (length, task) in enumerate(zip(LENGTHS, TASKS, strict=True)):
        uids.append(studio.record(store, length, tasks=(task,)).uid)
        if (shape == "packed" and number == 3) or (shape == "mixed" and number == 1):
            store.pack()
    studio.close()
    return studio.root, uids


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return {shape: recording(tmp_path_factory.mktemp(shape), shape) for shape in SHAPES}


def episode_rows(root) -> list[dict]:
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def greens(root, number: int) -> list[int]:
    """Green of every front picture of an episode: it tells which recording it is (studio)."""
    row = episode_rows(root)[number]
    place = (row[f"videos/{FRONT}/chunk_index"], row[f"videos/{FRONT}/file_index"])
    path = root / "videos" / FRONT / "chunk-{:03d}/file-{:03d}.mp4".format(*place)
    start = round(row[f"videos/{FRONT}/from_timestamp"] * 30)
    with av.open(str(path)) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [round(float(p[..., 1].mean())) for p in shown[start : start + row["length"]]]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gone", [(1,), (0, 2), (3,)], ids=str)
def test_what_stays_after_a_delete_is_whole_dense_and_itself(copy_of, shape, gone):
    root, uids = copy_of(shape)
    before = {n: greens(root, n) for n in range(4)} if shape != "images" else {}
    left = [number for number in range(4) if number not in gone]
    with DatasetStore.open(root) as store:
        entries = store.delete([uids[number] for number in gone])
        assert [(e.kind, e.rows) for e in entries] == [("deleted", LENGTHS[n]) for n in gone]
        assert store.totals.episodes == len(left)
    report = verify_dataset(root)
    assert report.findings == ()
    assert dict(report.attached) == {uids[old]: new for new, old in enumerate(left)}
    rows = episode_rows(root)
    assert [row["length"] for row in rows] == [LENGTHS[number] for number in left]
    assert [row["tasks"] for row in rows] == [[TASKS[number]] for number in left]
    for new, old in enumerate(left if before else ()):
        assert greens(root, new) == before[old]
    info = json.loads((root / "meta/info.json").read_text())
    assert info["total_frames"] == sum(LENGTHS[number] for number in left)
    assert info["splits"] == {"train": f"0:{len(left)}"}
    index = json.loads((root / "meta/stats.json").read_text())["index"]
    assert (index["min"], index["max"]) == ([0], [info["total_frames"] - 1])
    assert index["count"] == [info["total_frames"]]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_deleted_episode_comes_back_as_the_newest_with_rows_pictures_and_story(copy_of, shape):
    root, uids = copy_of(shape)
    pictures = greens(root, 1) if shape != "images" else None
    with DatasetStore.open(root) as store:
        store.note(uids[1], {"decode": {"good": True, "pictures": 8, "findings": []}})
        store.delete([uids[1]])
        result = store.undelete(uids[1])
        assert (result.episode_index, result.rows) == (3, LENGTHS[1])
        assert store.trash() == []
        assert store.episodes()[3].manifest["decode"]["good"] is True
    report = verify_dataset(root)
    assert report.findings == ()
    assert report.attached[uids[1]] == 3
    if pictures is not None:
        assert greens(root, 3) == pictures
    assert episode_rows(root)[3]["tasks"] == ["place ü"]


def test_recording_undo_pack_and_delete_go_on_after_a_delete(studio):
    store = studio.open()
    uids = [studio.record(store, length).uid for length in LENGTHS]
    store.delete([uids[0]])
    newest = studio.record(store, 3)
    assert newest.episode_index == 3
    before = lerobot_files(studio.root)
    again = studio.record(store, 4)
    store.undo(again.uid)
    assert lerobot_files(studio.root) == before
    store.pack()
    store.delete([uids[2], newest.uid])
    report = verify_dataset(studio.root)
    assert report.findings == ()
    assert dict(report.attached) == {uids[1]: 0, uids[3]: 1}
    assert [entry.uid for entry in store.trash()] == [uids[0], again.uid, uids[2], newest.uid]


def test_the_last_episode_left_and_unknown_ones_are_not_deleted(copy_of):
    root, uids = copy_of("fresh")
    before = lerobot_files(root)
    with DatasetStore.open(root) as store:
        with pytest.raises(DatasetError, match="no episode would be left"):
            store.delete(uids)
        with pytest.raises(DatasetError, match="not in this dataset"):
            store.delete([uids[0], new_uid()])
        with pytest.raises(DatasetError, match="not in this dataset"):
            store.relabel(new_uid(), "x")
        assert store.trash() == []
    assert lerobot_files(root) == before


def test_an_episode_whose_rows_were_changed_elsewhere_is_not_deleted(copy_of):
    root, uids = copy_of("fresh")
    path = root / "data/chunk-000/file-001.parquet"
    table = pq.read_table(path)
    at = table.column_names.index("action")
    shifted = table.set_column(at, table.schema.field(at), table["observation.state"])
    pq.write_table(shifted, path)
    before = lerobot_files(root)
    with DatasetStore.open(root) as store, pytest.raises(DatasetError, match="changed or moved"):
        store.delete([uids[1]])
    assert lerobot_files(root) == before
    with DatasetStore.open(root) as store:
        store.recover()
        assert store.trash() == []
    assert sorted(path.name for path in (root / ".recd").iterdir() if path.name == "editing") == []


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("task", ["stack the cups", "pick"])
def test_a_relabelled_episode_has_one_task_everywhere_and_remembers_the_earlier(
    copy_of, shape, task
):
    root, uids = copy_of(shape)
    with DatasetStore.open(root) as store:
        assert store.relabel(uids[1], task) == 1
        manifest = store.episodes()[1].manifest
    report = verify_dataset(root)
    assert report.findings == ()
    assert dict(report.attached) == {uid: number for number, uid in enumerate(uids)}
    tasks = pq.read_table(root / "meta/tasks.parquet")["task"].to_pylist()
    assert tasks == (["pick", "place ü", "pour"] + ([task] if task not in TASKS else []))
    wanted = [TASKS[0], task, *TASKS[2:]]
    assert [row["tasks"] for row in episode_rows(root)] == [[each] for each in wanted]
    assert (manifest["tasks"], manifest["relabelled"][0]["from"]) == ([task], ["place ü"])
    for row in episode_rows(root):
        number = tasks.index(wanted[row["episode_index"]])
        assert row["stats/task_index/mean"] == [number]


def test_the_way_back_from_a_relabel_is_a_relabel(copy_of):
    root, uids = copy_of("fresh")
    rows = pq.read_table(root / "data/chunk-000/file-001.parquet")
    with DatasetStore.open(root) as store:
        store.relabel(uids[1], "something else")
        store.relabel(uids[1], "place ü")
        assert len(store.episodes()[1].manifest["relabelled"]) == 2
    assert pq.read_table(root / "data/chunk-000/file-001.parquet").equals(rows)


@pytest.mark.parametrize(("point", "shape"), points_in_shapes(DELETE_POINTS, PACKED_POINTS))
def test_killed_in_a_delete_all_episodes_are_there_or_in_the_trash_after_recovery(
    crash, copy_of, point, shape
):
    root, uids = copy_of(shape)
    code = crash(root, "delete", uids[1], fault=f"{point}:kill")
    if point == "delete.moved.video" and shape == "fresh":
        assert code == 0  # no mp4 is replaced where each episode has its own
    else:
        assert code == KILLED
    crash(root, "recover")
    report = verify_dataset(root)
    assert report.findings == ()
    with DatasetStore.open(root) as store:
        if report.episodes == 4:
            assert store.trash() == []
            store.delete([uids[1]])
        assert [entry.uid for entry in store.trash()] == [uids[1]]
        assert store.undelete(uids[1]).episode_index == 3
    report = verify_dataset(root)
    assert report.findings == ()
    assert set(report.attached) == set(uids)
    assert not (root / ".recd/editing").exists()


@pytest.mark.parametrize("point", RELABEL_POINTS)
def test_killed_in_a_relabel_the_episode_has_one_task_or_the_other(crash, copy_of, point):
    root, uids = copy_of("packed")
    assert crash(root, "relabel", uids[1], fault=f"{point}:kill") == KILLED
    crash(root, "recover")
    report = verify_dataset(root)
    assert report.findings == ()
    assert set(report.attached) == set(uids)
    with DatasetStore.open(root) as store:
        episode = store.episodes()[1]
    assert episode.tasks in (("place ü",), ("relabelled",))
    assert list(episode.tasks) == episode.manifest["tasks"]


def test_recctl_looks_at_edits_and_brings_back_by_the_first_digits(copy_of, recctl):
    root, uids = copy_of("fresh")
    told = recctl("dataset", "info", root)
    assert told.code == 0
    assert "4 episodes, 22 rows" in told.out
    assert uids[2][:8] in told.out
    page = recctl("dataset", "show", root, uids[1][:10])
    assert f"episode 1 ({uids[1]}): 4 rows" in page.out
    assert "pictures: not decoded yet" in page.out
    assert "manifest.json" in page.out

    assert "3 episodes, 18 rows are left" in recctl("dataset", "delete", root, uids[1][:10]).out
    assert uids[1] in recctl("dataset", "trash", root).out
    assert recctl("dataset", "info", root, "--json").json["dataset"]["trashed"] == 1
    assert recctl("dataset", "undelete", root, uids[1][:10]).out == "episode 3 is back: 4 rows\n"
    said = recctl("dataset", "relabel", root, uids[1][:10], "--task", "stack")
    assert said.out == f"episode 3 ({uids[1][:8]}): place ü -> stack\n"
    assert recctl("dataset", "verify", root).code == 0


def test_recctl_refuses_in_words_with_exit_code_one(copy_of, recctl):
    root, uids = copy_of("fresh")
    wrong = [
        (("delete", root, "nope"), "no episode 'nope'"),
        (("show", root, "nope"), "no episode 'nope'"),
        (("undelete", root, uids[0]), "no episode"),
        (("purge", root, uids[0]), "no episode"),
        (("delete", root, *uids), "no episode would be left"),
        (("delete", root, ""), "no episode ''"),
        (("relabel", root, uids[0], "--task", " "), "the task is empty"),
    ]
    for arguments, words in wrong:
        said = recctl("dataset", *arguments)
        assert (said.code, said.out) == (1, ""), arguments
        assert words in said.err
    before = lerobot_files(root)
    with DatasetStore.open(root):
        for arguments in (("delete", root, uids[0]), ("relabel", root, uids[0], "--task", "x")):
            said = recctl("dataset", *arguments)
            assert said.code == 1
            assert "in use" in said.err
        assert recctl("dataset", "info", root).code == 0
    assert lerobot_files(root) == before


def test_the_trash_is_emptied_by_uid_or_by_age_and_by_nothing_else(copy_of, recctl):
    root, uids = copy_of("fresh")
    recctl("dataset", "delete", root, *uids[:3])
    assert recctl("dataset", "purge", root).code == 2
    assert "0 episodes removed" in recctl("dataset", "purge", root, "--older-than", 1).out
    told = recctl("dataset", "purge", root, uids[0][:9], "--json").json
    assert told["purged"] == [uids[0]]
    assert told["freed_bytes"] > 1000
    note = root / ".recd/trash" / uids[1] / "trash.json"
    content = json.loads(note.read_text())
    content["real_ns"] -= 31 * 86_400_000_000_000
    note.write_text(json.dumps(content))
    told = recctl("dataset", "purge", root, "--older-than", 30, "--json").json
    assert told["purged"] == [uids[1]]
    left = recctl("dataset", "trash", root, "--json").json["trash"]
    assert [entry["uid"] for entry in left] == [uids[2]]
    assert verify_dataset(root).findings == ()


def test_a_dataset_that_had_a_fault_before_can_be_edited_and_has_no_other_afterwards(copy_of):
    root, uids = copy_of("fresh")
    stats = root / "meta/stats.json"
    content = json.loads(stats.read_text())
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    for file in files:  # as lerobot's first releases wrote them: without quantiles
        table = pq.read_table(file)
        pq.write_table(table.drop_columns([n for n in table.column_names if "/q" in n]), file)
    for feature in content.values():
        for name in [name for name in feature if name.startswith("q")]:
            del feature[name]
    stats.write_text(json.dumps(content))
    before = set(verify_dataset(root).counts)
    with DatasetStore.open(root) as store:
        store.delete([uids[1]])
    assert set(verify_dataset(root).counts) <= before | {"own.elsewhere"}
    assert verify_dataset(root).episodes == 3
