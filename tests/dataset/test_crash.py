import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import crash_child
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from studio import write_clip

from recd.config.errors import DatasetError
from recd.daemon.dataset import DatasetStore, new_uid
from recd.daemon.dataset.boxes import read_track
from recd.daemon.dataset.commit import FAULT_POINTS as COMMIT_POINTS
from recd.daemon.dataset.recover import ExitCode
from recd.daemon.dataset.trash import FAULT_POINTS as UNDO_POINTS
from recd.daemon.dataset.verify import verify_dataset
from recd.daemon.faultpoints import watching

KILLED = -9
LENGTHS, NEXT = (5, 4), 6  # of the fixture `dataset`


def lerobot_files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".recd" not in path.parts
    }


def whole_episodes(root: Path) -> int:
    """How many episodes a loader sees, each proven whole: rows, tasks, pictures."""
    info = json.loads((root / "meta/info.json").read_text())
    total, rows = info["total_episodes"], info["total_frames"]
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    episodes = pa.concat_tables(pq.read_table(file) for file in files).to_pylist()[:total]
    data = pa.concat_tables(pq.read_table(f) for f in sorted((root / "data").glob("*/*.parquet")))
    data = data.slice(0, rows)
    tasks = pq.read_table(root / "meta/tasks.parquet")["task"].to_pylist()
    assert data["index"].to_pylist() == list(range(rows))
    assert sum(row["length"] for row in episodes) == rows
    assert max(data["task_index"].to_pylist()) < len(tasks)
    for row in episodes:
        held = data.slice(row["dataset_from_index"], row["length"])
        assert held["episode_index"].to_pylist() == [row["episode_index"]] * row["length"]
        for key in ("observation.images.front", "observation.images.wrist"):
            track = read_track(root / f"videos/{key}/chunk-000/file-{row['episode_index']:03d}.mp4")
            assert (len(track.pts), track.complete) == (row["length"], True)
    return total


@pytest.mark.parametrize("point", COMMIT_POINTS)
def test_killed_in_a_commit_n_or_n_plus_1_episodes_are_there_and_none_is_lost(
    crash, dataset, point
):
    root, uids = dataset
    assert crash(root, "commit", uids[-1], NEXT, fault=f"{point}:kill") == KILLED
    assert whole_episodes(root) in (2, 3)
    crash(root, "recover")
    report = verify_dataset(root)
    assert report.good, report.findings
    assert (report.episodes, report.rows) == (3, sum(LENGTHS) + NEXT)
    assert dict(report.attached) == {uid: number for number, uid in enumerate(uids)}
    assert list((root / ".recd/staging").iterdir()) == []


@pytest.mark.parametrize("point", UNDO_POINTS)
def test_killed_in_an_undo_n_or_n_minus_1_episodes_are_there_and_it_can_end(crash, dataset, point):
    root, uids = dataset
    shutil.rmtree(root / ".recd/staging" / uids[-1])
    assert crash(root, "undo", uids[1], fault=f"{point}:kill") == KILLED
    assert whole_episodes(root) in (1, 2)
    crash(root, "recover")
    report = verify_dataset(root)
    assert report.good, report.findings
    with DatasetStore.open(root) as store:
        if report.episodes == 2:
            store.undo(uids[1])
        assert [entry.uid for entry in store.trash()] == [uids[1]]
        store.undelete(uids[1])
    assert verify_dataset(root).episodes == 2


@pytest.mark.parametrize(
    "point",
    [
        "recover.begin",
        "recover.measured",
        "recover.cut",
        "commit.prepared",
        "commit.moved.data",
        "commit.done",
        "recover.end",
    ],
)
def test_recovery_killed_anywhere_and_run_again_gives_the_same_dataset(crash, dataset, point):
    root, uids = dataset
    tear(root / ".recd/staging" / uids[-1] / "observation.images.front.mp4", 0.75)
    assert crash(root, "recover", fault=f"{point}:kill") == KILLED
    crash(root, "recover")
    report = verify_dataset(root)
    assert report.good, report.findings
    assert report.episodes == 3
    assert sum(LENGTHS) < report.rows < sum(LENGTHS) + NEXT
    assert list((root / ".recd/staging").iterdir()) == []


@pytest.mark.parametrize("point", ["commit.prepared", "commit.moved.data", "commit.moved.stats"])
def test_rolling_forward_killed_again_still_ends_whole(crash, dataset, point):
    root, uids = dataset
    crash(root, "commit", uids[-1], NEXT, fault=f"{point}:kill")
    assert crash(root, "recover", fault="recover.before_roll:kill") == KILLED
    crash(root, "recover", fault="commit.moved.episodes:kill")
    crash(root, "recover")
    assert verify_dataset(root).good


def test_an_input_output_error_before_the_renames_leaves_the_store_usable(crash, dataset):
    root, uids = dataset
    assert crash(root, "commit", uids[-1], NEXT, fault="commit.synced:error") == 70
    assert whole_episodes(root) == 2
    crash(root, "commit", uids[-1], NEXT)
    assert verify_dataset(root).episodes == 3


def tear(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def test_a_torn_episode_is_cut_to_what_all_its_streams_hold(dataset):
    root, uids = dataset
    staging = root / ".recd/staging" / uids[-1]
    tear(staging / "observation.images.front.mp4", 0.75)
    with DatasetStore.open(root) as store:
        report = store.recover()
    (episode,) = report.recovered
    assert report.exit_code == ExitCode.LOST
    assert 0 < episode.rows < NEXT
    assert episode.had["rows"] == NEXT
    assert episode.lost == NEXT - episode.rows
    manifest = json.loads((root / ".recd/episodes" / uids[-1] / "manifest.json").read_text())
    assert manifest["recovered"] is True
    assert manifest["recovered_from"]["observation.images.wrist"] == NEXT
    assert verify_dataset(root).good


def split(final: Path, *firsts: int) -> list[Path]:
    """The file of a take becomes those of encoders that died but for the last: each begins with
    its row of `firsts` and ends with the head of a fragment that never came."""
    paths = [final, *(final.with_name(f"{final.stem}.row{k:09d}.mp4") for k in firsts[1:])]
    for path, first, end in zip(paths, firsts, (*firsts[1:], NEXT), strict=True):
        write_clip(path, episode=2, frames=range(first, end), size=(96, 128))
        with path.open("ab") as file:
            file.write(b"\0\0\2\0moof\0\0")
    return paths


def shown(video: Path) -> list[int]:
    """Numbers of the pictures, by their blue."""
    with av.open(str(video)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [round(float(pixels[..., 2].mean()) / 5) for pixels in pictures]


@pytest.mark.parametrize("firsts", [(0, 3), (0, 2, 4), (0, 0, 4)])
def test_an_episode_whose_encoder_died_before_the_crash_is_recovered_with_all_its_parts(
    dataset, firsts
):
    root, uids = dataset
    front = root / ".recd/staging" / uids[-1] / "observation.images.front.mp4"
    split(front, *firsts)
    with DatasetStore.open(root) as store:
        (episode,) = store.recover().recovered
    assert (episode.rows, episode.lost) == (NEXT, 0)
    assert verify_dataset(root).good
    published = root / "videos/observation.images.front/chunk-000/file-002.mp4"
    assert shown(published) == list(range(NEXT))


def test_parts_after_a_gap_are_not_rows_of_the_episode(dataset):
    root, uids = dataset
    front = root / ".recd/staging" / uids[-1] / "observation.images.front.mp4"
    split(front, 0, 2, 4)[1].unlink()
    with DatasetStore.open(root) as store:
        (episode,) = store.recover().recovered
    assert episode.rows == 2
    assert shown(root / "videos/observation.images.front/chunk-000/file-002.mp4") == [0, 1]


def test_parts_left_beside_their_joined_file_are_not_rows_twice(dataset):
    root, uids = dataset
    front = root / ".recd/staging" / uids[-1] / "observation.images.front.mp4"
    whole = front.read_bytes()
    split(front, 0, 2, 4)
    front.write_bytes(whole)  # killed between the rename and the removal of the parts
    with DatasetStore.open(root) as store:
        (episode,) = store.recover().recovered
    assert (episode.rows, episode.lost) == (NEXT, 0)
    assert verify_dataset(root).good


def test_an_untorn_staged_episode_is_published_with_nothing_lost(dataset):
    root, uids = dataset
    with DatasetStore.open(root) as store:
        report = store.recover()
        assert (report.exit_code, report.recovered[0].lost) == (ExitCode.NOTHING_LOST, 0)
        assert store.last_uid == uids[-1]
        assert store.recover().recovered == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "own/rows.arrows").unlink(), "no row of the episode is known"),
        (lambda folder: tear(folder / "own/rows.arrows", 0.1), "holds no whole row"),
        (lambda folder: (folder / "observation.images.front.mp4").unlink(), "is not there"),
        (lambda folder: tear(folder / "observation.images.front.mp4", 0.1), "holds 0 whole rows"),
    ],
)
def test_what_cannot_be_proven_is_put_aside_whole_with_the_reason(dataset, damage, words):
    root, uids = dataset
    damage(root / ".recd/staging" / uids[-1])
    with DatasetStore.open(root) as store:
        report = store.recover()
    assert report.exit_code == ExitCode.NOTHING_RECOVERABLE
    assert words in report.quarantined[0].reason
    aside = root / ".recd/quarantine" / uids[-1]
    assert words in json.loads((aside / "reason.json").read_text())["reason"]
    assert (aside / "observation.images.wrist.mp4").exists()
    report = verify_dataset(root)
    assert (report.good, report.episodes) == (True, 2)


def test_rows_of_a_newer_recd_stay_in_staging_untouched(dataset, monkeypatch):
    root, uids = dataset
    staging = root / ".recd/staging" / uids[-1]
    before = {path: path.read_bytes() for path in staging.rglob("*") if path.is_file()}
    monkeypatch.setattr("recd.daemon.dataset.sides.ROWS_VERSION", 0)
    with DatasetStore.open(root) as store:
        report = store.recover()
    assert (report.quarantined, report.exit_code) == ([], ExitCode.NOTHING_RECOVERABLE)
    assert "newer recd" in report.waiting[0].reason
    assert {path: path.read_bytes() for path in staging.rglob("*") if path.is_file()} == before


def test_a_foreign_write_after_the_crash_is_noticed_and_nothing_rolled_over(crash, dataset):
    root, uids = dataset
    crash(root, "commit", uids[-1], NEXT, fault="commit.moved.data:kill")
    info = root / "meta/info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"theirs": True}))
    before = lerobot_files(root)
    with pytest.raises(DatasetError, match=r"another program has written meta/info.json"):
        DatasetStore.open(root)
    assert lerobot_files(root) == before


def test_setting_aside_takes_ours_back_and_publishes_it_after_theirs(crash, dataset):
    root, uids = dataset
    crash(root, "commit", uids[-1], NEXT, fault="commit.moved.data:kill")
    info = root / "meta/info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"theirs": True}))
    with DatasetStore.open(root, set_aside=True) as store:
        assert store.totals.episodes == 2
        assert store.recover().recovered[0].rows == NEXT
    assert json.loads(info.read_text())["theirs"] is True
    assert verify_dataset(root).good


def test_recctl_names_the_mend_for_a_foreign_write_and_the_mend_saves_everything(
    crash, dataset, recctl
):
    root, uids = dataset
    crash(root, "commit", uids[-1], NEXT, fault="commit.moved.data:kill")
    info = root / "meta/info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"theirs": True}))
    refused = recctl("recover", root)
    assert refused.code == 1
    assert f"recctl recover --set-aside {root}" in refused.err
    said = recctl("recover", "--set-aside", root)
    assert said.code == 0
    assert "taken out of the way" in said.out
    assert f"episode 2 ({uids[-1][:8]}): {NEXT} rows recovered" in said.out
    assert json.loads(info.read_text())["theirs"] is True
    assert dict(verify_dataset(root).attached) == {uid: number for number, uid in enumerate(uids)}
    assert recctl("recover", root).out == "nothing to recover\n"


def test_staged_file_lost_after_the_crash_rolls_the_commit_back(crash, dataset):
    root, uids = dataset
    before = lerobot_files(root)
    crash(root, "commit", uids[-1], NEXT, fault="commit.moved.episodes:kill")
    (root / ".recd/staging" / uids[-1] / "new/stats.json").unlink()
    with DatasetStore.open(root) as store:
        assert store.totals.episodes == 2
        assert lerobot_files(root) == before
        assert store.recover().recovered[0].rows == NEXT
    assert verify_dataset(root).good


def test_a_commit_paused_between_two_renames_is_not_disturbed_by_a_second_process(dataset):
    root, uids = dataset
    environment = os.environ | {"RECD_FAULT": "commit.moved.data:pause"}
    command = [sys.executable, crash_child.__file__, str(root), "commit", uids[-1], str(NEXT)]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        with pytest.raises(DatasetError, match=f"pid {child.pid}"):
            DatasetStore.open(root)
        assert whole_episodes(root) == 2
    finally:
        os.kill(child.pid, 18)
        assert child.wait(timeout=30) == 0
    assert verify_dataset(root).episodes == 3


BEFORE_PREPARE = COMMIT_POINTS[: COMMIT_POINTS.index("commit.prepared")]
AFTER_PREPARE = COMMIT_POINTS[COMMIT_POINTS.index("commit.prepared") : -1]


def failing_once(monkeypatch, point: str) -> None:
    """The next pass of `point` in this process is an input/output error."""
    passing = watching(f"{point}:error")
    for module in ("commit", "draft", "transaction"):
        monkeypatch.setattr(f"recd.daemon.dataset.{module}.fault_point", passing)


@pytest.mark.parametrize("point", BEFORE_PREPARE)
def test_an_error_before_prepare_costs_nothing_and_the_same_store_goes_on(
    studio, monkeypatch, point
):
    store = studio.open()
    studio.record(store, 3)
    uid = new_uid()
    videos = studio.stage(store, 4, 1, uid)
    before = lerobot_files(studio.root)
    failing_once(monkeypatch, point)
    with pytest.raises(OSError, match="fault point"):
        store.commit(uid, studio.rows(1, 4), videos, manifest={})
    assert lerobot_files(studio.root) == before
    assert store.commit(uid, studio.rows(1, 4), videos, manifest={}).episode_index == 1
    assert verify_dataset(studio.root).findings == ()


@pytest.mark.parametrize("point", AFTER_PREPARE)
def test_an_error_after_prepare_still_ends_with_the_episode_saved(studio, monkeypatch, point):
    store = studio.open()
    studio.record(store, 3)
    failing_once(monkeypatch, point)
    assert studio.record(store, 4).episode_index == 1
    assert studio.record(store, 2).episode_index == 2
    assert verify_dataset(studio.root).findings == ()


def test_a_disk_that_stays_broken_after_prepare_is_told_and_the_next_opening_saves(
    studio, monkeypatch
):
    store = studio.open()
    studio.record(store, 3)

    def broken(*_: object) -> None:
        raise OSError(28, "no space left on device")

    uid = new_uid()
    videos = studio.stage(store, 4, 1, uid)
    monkeypatch.setattr("recd.daemon.dataset.transaction.folders_of", broken)
    with pytest.raises(DatasetError, match=r"is safe but not yet in the dataset: .*no space"):
        store.commit(uid, studio.rows(1, 4), videos, manifest={})
    monkeypatch.undo()
    studio.close()
    assert [episode.uid for episode in studio.open().episodes()][-1] == uid
    assert verify_dataset(studio.root).good


def test_the_same_episode_is_never_published_twice(studio):
    store = studio.open()
    result = studio.record(store, 3)
    with pytest.raises(DatasetError, match="already in the dataset"):
        studio.record(store, 3, uid=result.uid)
    assert store.totals.episodes == 1
