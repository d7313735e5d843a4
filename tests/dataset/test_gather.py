"""`recctl dataset copy` and `merge`: what comes along, what is refused, killed anywhere."""

import json
import shutil
import threading

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from studio import Studio

from recd.daemon.dataset import DatasetStore, check_format, verify_dataset
from recd.daemon.dataset.gather import FAULT_POINTS, gather
from recd.daemon.dataset.snapshot import Selection, look
from recd.daemon.dataset.verify import fingerprints

LENGTHS = (5, 4, 7, 6)
TASKS = ("pick", "place ü", "pick", "pour")
STORIES = (("good", "success"), ("bad", "success"), ("check", "fail"), ("good", ""))
FRONT = "observation.images.front"
KILLED = -9
SHAPES = ("fresh", "packed", "images", "full", "mixed")


def recording(folder, shape: str = "fresh", *, base: int = 0):
    """Four episodes with a side file, a verdict and a mark each; (root, uids)."""
    studio = Studio(folder, use_videos=shape != "images")
    studio.columns = "full" if shape == "full" else "plain"
    store, uids = studio.open(), []
    for number, (length, task) in enumerate(zip(LENGTHS, TASKS, strict=True)):
        uids.append(studio.record(store, length + base, tasks=(task,)).uid)
        level, label = STORIES[number]
        marks = [{"label": label, "row": 0, "at_s": 0.0}] if label else []
        store.note(uids[-1], {"verdict": {"level": level, "reasons": []}, "marks": marks})
        (store.root / ".recd/episodes" / uids[-1] / "rows.arrows").write_bytes(b"side %d" % number)
        if (shape == "packed" and number == 3) or (shape == "mixed" and number == 1):
            store.pack()
    studio.close()
    return studio.root, uids


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return {shape: recording(tmp_path_factory.mktemp(shape), shape) for shape in SHAPES}


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another station's dataset of the same set-up."""
    return recording(tmp_path_factory.mktemp("other"), base=3)


def everything(root) -> dict:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def without_own(root) -> None:
    """As lerobot left it: nothing of recd's."""
    shutil.rmtree(root / ".recd")


def greens(root, number: int) -> list[int]:
    """Green of every front picture of an episode: it tells which recording it is (studio)."""
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    row = [row for file in files for row in pq.read_table(file).to_pylist()][number]
    place = (row[f"videos/{FRONT}/chunk_index"], row[f"videos/{FRONT}/file_index"])
    path = root / "videos" / FRONT / "chunk-{:03d}/file-{:03d}.mp4".format(*place)
    start = round(row[f"videos/{FRONT}/from_timestamp"] * 30)
    with av.open(str(path)) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [round(float(p[..., 1].mean())) for p in shown[start : start + row["length"]]]


def whole(root, uids) -> None:
    report = verify_dataset(root)
    assert report.findings == ()
    assert dict(report.attached) == {uid: number for number, uid in enumerate(uids)}


@pytest.mark.parametrize("packed", [False, True], ids=["apart", "joined"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_copy_has_rows_pictures_uids_stories_and_side_files_and_the_source_is_untouched(
    recorded, tmp_path, shape, packed
):
    root, uids = recorded[shape]
    before, dest = everything(root), tmp_path / "new/copy"
    report = gather([root], dest, packed=packed)
    assert (report.episodes, report.rows, report.copied) == (4, sum(LENGTHS), 4)
    whole(dest, uids)
    assert fingerprints(dest) == fingerprints(root)
    for number, uid in enumerate(uids):
        own = dest / ".recd/episodes" / uid
        assert (own / "rows.arrows").read_bytes() == b"side %d" % number
        told = [json.loads((r / ".recd/episodes" / uid / "manifest.json").read_text())
                for r in (root, dest)]  # fmt: skip
        for story in told:
            for video in story.pop("videos").values():
                assert video["codec"] == "h264"
        assert told[0] == told[1]
        if shape != "images":
            assert greens(dest, number) == greens(root, number)
    assert [original.tasks for original in look(dest).originals] == [(t,) for t in TASKS]
    assert everything(root) == before
    assert [path.name for path in dest.parent.iterdir()] == ["copy"]


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (("--since", 1), (2, 3)),
        (("--only-success",), (0, 1)),
        (("--exclude-verdict", "bad"), (0, 2, 3)),
        (("--exclude-verdict", "bad", "--exclude-verdict", "check"), (0, 3)),
        (("--only-success", "--exclude-verdict", "bad", "--packed"), (0,)),
    ],
    ids=str,
)
def test_recctl_copies_what_was_selected_numbered_densely(
    recorded, tmp_path, recctl, options, chosen
):
    root, uids = recorded["packed"]
    options = [uids[o][:9] if isinstance(o, int) else o for o in options]
    said = recctl("dataset", "copy", root, tmp_path / "copy", *options, "--json")
    assert said.code == 0
    assert (said.json["episodes"], said.json["copied"]) == (len(chosen), len(chosen))
    whole(tmp_path / "copy", [uids[number] for number in chosen])
    prints = fingerprints(root)
    assert fingerprints(tmp_path / "copy") == [prints[number] for number in chosen]


def test_a_dataset_of_lerobot_is_copied_and_its_episodes_get_a_lasting_uid(recorded, tmp_path):
    root = tmp_path / "theirs"
    shutil.copytree(recorded["packed"][0], root)
    without_own(root)
    gather([root], tmp_path / "one")
    gather([root], tmp_path / "two")
    named = [[o.uid for o in look(tmp_path / name).originals] for name in ("one", "two")]
    assert named[0] == named[1]
    assert len(set(named[0])) == 4
    whole(tmp_path / "one", named[0])


@pytest.mark.parametrize("packed", [False, True], ids=["apart", "joined"])
def test_a_merge_keeps_uids_and_side_files_in_the_order_named(
    recorded, other, tmp_path, recctl, packed
):
    parts = [recorded["packed"], other]
    before = [everything(root) for root, _ in parts]
    flags = ["--packed"] if packed else []
    said = recctl("dataset", "merge", other[0], recorded["packed"][0], tmp_path / "all", *flags)
    assert said.code == 0
    assert "8 episodes" in said.out
    whole(tmp_path / "all", [*other[1], *recorded["packed"][1]])
    assert fingerprints(tmp_path / "all") == [
        *fingerprints(other[0]), *fingerprints(recorded["packed"][0])
    ]  # fmt: skip
    side = tmp_path / "all/.recd/episodes" / other[1][2] / "rows.arrows"
    assert side.read_bytes() == b"side 2"
    assert [everything(root) for root, _ in parts] == before


def test_an_episode_that_two_sources_hold_comes_once_and_is_told(recorded, tmp_path, recctl):
    root, uids = recorded["fresh"]
    gather([root], tmp_path / "part", selection=Selection(since=uids[1]))
    said = recctl("dataset", "merge", root, tmp_path / "part", tmp_path / "all", "--json")
    assert sorted(said.json["twice"]) == sorted(uids[2:])
    whole(tmp_path / "all", uids)


def test_datasets_of_another_rate_robot_camera_or_columns_are_not_merged(
    recorded, tmp_path, recctl
):
    root = recorded["fresh"][0]
    others = {
        "fps: expected 30, the dataset has 25": {"fps": 25},
        "robot: expected so_follower, the dataset has bi_so_follower": {
            "robot_type": "bi_so_follower"
        },
        f"feature observation.images.wrist: only in {root}": {"cameras": None},
        "columns: expected plain, the dataset has full": {"columns": "full"},
        "codec expected h264, the dataset has av1": {"codec": "av1"},
    }
    for number, (words, changes) in enumerate(others.items()):
        studio = Studio(tmp_path / str(number), **{k: v for k, v in changes.items() if v})
        studio.folder.mkdir()
        if "cameras" in changes:
            studio.cameras = studio.cameras[:1]
        studio.record(studio.open(), 4)
        studio.close()
        before = everything(studio.root)
        said = recctl("dataset", "merge", root, studio.root, tmp_path / "all")
        assert (said.code, said.out) == (1, "")
        assert words in said.err
        assert "Merge only datasets of the same robot" in said.err
        assert everything(studio.root) == before
    assert not list(tmp_path.glob("*all*"))


@pytest.mark.parametrize("point", [*FAULT_POINTS, "commit.verified", "commit.moved.data",
                                   "pack.exchanged"])  # fmt: skip
def test_killed_anywhere_nothing_is_seen_at_dest_and_the_next_run_goes_on(
    crash, recorded, tmp_path, point
):
    root, uids = recorded["fresh"]
    dest = tmp_path / "copy"
    nth = 2 if point.startswith(("copy.staged", "copy.copied", "copy.episode", "commit")) else 1
    code = crash(root, "copy", str(dest), fault=f"{point}:kill:{nth}")
    assert code == KILLED
    assert dest.exists() is (point == "copy.renamed")
    crash(root, "copy", str(dest))
    whole(dest, uids)
    assert fingerprints(dest) == fingerprints(root)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_what_an_interrupted_copy_has_is_not_copied_again(crash, recorded, tmp_path):
    root, _ = recorded["fresh"]
    crash(root, "copy", str(tmp_path / "copy"), fault="copy.episode:kill:3")
    assert gather([root], tmp_path / "copy", packed=True).copied == 1


def test_other_options_do_not_go_on_with_an_unfinished_copy(crash, recorded, tmp_path, recctl):
    root, uids = recorded["fresh"]
    crash(root, "copy", str(tmp_path / "copy"), fault="copy.gathered:kill")
    said = recctl("dataset", "copy", root, tmp_path / "copy")
    assert said.code == 1
    assert "unfinished copy" in said.err
    assert gather([root], tmp_path / "copy", packed=True).copied == 0
    whole(tmp_path / "copy", uids)


def test_a_finished_copy_is_told_and_new_episodes_have_their_mend(recorded, tmp_path, recctl):
    root = tmp_path / "dataset"
    shutil.copytree(recorded["fresh"][0], root)
    uids = recorded["fresh"][1]
    assert recctl("dataset", "copy", root, tmp_path / "copy").code == 0
    before = everything(tmp_path / "copy")
    again = recctl("dataset", "copy", root, tmp_path / "copy")
    assert again.code == 0
    assert "4 were there already" in again.out
    studio = Studio(tmp_path)
    new = studio.record(studio.open(), 3).uid
    studio.close()
    said = recctl("dataset", "copy", root, tmp_path / "copy")
    assert said.code == 1
    assert f"--since {uids[-1][:12]}" in said.err
    assert everything(tmp_path / "copy") == before
    assert recctl("dataset", "copy", root, tmp_path / "rest", "--since", uids[-1][:12]).code == 0
    whole(tmp_path / "rest", [new])


def test_a_copy_made_while_episodes_are_recorded_and_taken_back_holds_whole_ones_only(tmp_path):
    studio = Studio(tmp_path)
    store = studio.open()
    kept = [studio.record(store, 5).uid for _ in range(3)]
    done = threading.Event()

    def record_on() -> None:
        while not done.is_set():
            taken = studio.record(store, 6).uid
            studio.record(store, 4)
            store.undo(store.last_uid)
            store.undo(taken)

    recording_on = threading.Thread(target=record_on)
    recording_on.start()
    try:
        reports = [gather([studio.root], tmp_path / f"copy-{n}") for n in range(3)]
    finally:
        done.set()
        recording_on.join()
    for number, report in enumerate(reports):
        checked = verify_dataset(tmp_path / f"copy-{number}")
        assert checked.findings == ()
        assert checked.episodes == report.episodes >= 3
        assert set(kept) <= set(checked.attached)
    studio.close()


def test_rows_are_read_from_no_file_of_an_episode_that_came_later_and_may_go_again(tmp_path):
    studio = Studio(tmp_path)
    store = studio.open()
    for _ in range(3):
        studio.record(store, 5)
    seen = look(studio.root)
    later = studio.record(store, 6).uid
    rows = seen.tables()
    numbers = [next(rows)[0]]
    store.undo(later)
    assert [*numbers, *(number for number, _ in rows)] == [0, 1, 2]
    studio.close()


def test_an_episode_relabelled_or_undone_between_two_runs_is_so_in_the_copy(
    crash, recorded, tmp_path
):
    root = tmp_path / "dataset"
    shutil.copytree(recorded["fresh"][0], root)
    uids = recorded["fresh"][1]
    crash(root, "copy", str(tmp_path / "copy"), fault="copy.gathered:kill")
    with DatasetStore.open(root) as store:
        store.relabel(uids[1], "stack")
        store.delete([uids[2]])
    crash(root, "copy", str(tmp_path / "copy"))
    report = verify_dataset(tmp_path / "copy")
    assert report.findings == ()
    assert set(report.attached) == {uids[0], uids[1], uids[3]}
    told = {o.uid: o.tasks for o in look(tmp_path / "copy").originals}
    assert told == {uids[0]: ("pick",), uids[1]: ("stack",), uids[3]: ("pour",)}


def test_places_that_cannot_be_are_refused_in_words(recorded, tmp_path, recctl):
    root, uids = recorded["fresh"]
    before = everything(root)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    wrong = [
        (("copy", root, root), "lies in (or is) the source"),
        (("copy", root, root / "copy"), "lies in (or is) the source"),
        (("copy", root, root.parent), "lies in (or is) the source"),
        (("copy", root, tmp_path / "full"), "not empty, expected a new folder"),
        (("copy", tmp_path / "none", tmp_path / "new"), "no dataset with episodes here"),
        (("copy", root, tmp_path / "new", "--since", "nope"), "0 episodes begin with 'nope'"),
        (("copy", root, tmp_path / "new", "--since", uids[-1]), "no episode is selected"),
        (("merge", root, root, tmp_path / "new"), "named twice"),
    ]
    for arguments, words in wrong:
        said = recctl("dataset", *arguments)
        assert (said.code, said.out) == (1, ""), arguments
        assert words in said.err
    assert recctl("dataset", "merge", root, tmp_path / "new").code == 2
    assert recctl("dataset", "copy", root, tmp_path / "file").code == 2
    assert everything(root) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def test_a_damaged_episode_is_named_and_nothing_is_seen_at_dest(recorded, tmp_path, recctl):
    root = tmp_path / "dataset"
    shutil.copytree(recorded["fresh"][0], root)
    video = root / f"videos/{FRONT}/chunk-000/file-002.mp4"
    video.write_bytes(video.read_bytes()[:-900])
    said = recctl("dataset", "copy", root, tmp_path / "copy")
    assert said.code == 1
    assert FRONT in said.err
    assert not (tmp_path / "copy").exists()
    video.unlink()
    said = recctl("dataset", "copy", root, tmp_path / "copy")
    assert said.code == 1
    assert "episode 2 cannot be copied" in said.err
    assert not (tmp_path / "copy").exists()
    shutil.copytree(recorded["fresh"][0], root, dirs_exist_ok=True)
    assert recctl("dataset", "copy", root, tmp_path / "copy").code == 0
    assert check_format(tmp_path / "copy", decode=True).good
    assert np.array_equal(fingerprints(root), fingerprints(tmp_path / "copy"))
