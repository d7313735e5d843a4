"""Datasets as a killed lerobot leaves them, repaired by `recctl recover` or named as lost."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from powercut import cuts, disk_of
from studio import Studio, write_clip

from recd.daemon.dataset import DatasetStore, check_format, verify_dataset
from recd.daemon.dataset.repair import FAULT_POINTS, repair
from recd.daemon.dataset.verify import fingerprints

LENGTHS = (5, 4, 7, 6)
TASKS = ("pick", "place ü", "pick", "pour")
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
KEYS = ("observation.images.front", "observation.images.wrist")
MP4 = "videos/{}/chunk-000/file-000.mp4"
KILLED = -9


def recording(folder, **kind):
    """As lerobot lays it out: one data file with a row group an episode, one mp4 a camera."""
    studio = Studio(folder, **kind)
    store = studio.open()
    for length, task in zip(LENGTHS, TASKS, strict=True):
        studio.record(store, length, tasks=(task,))
    store.pack()
    studio.close()
    shutil.rmtree(studio.root / ".recd")
    table = pq.read_table(studio.root / EPISODES)
    for key in KEYS if studio.use_videos else ():  # lerobot's first mp4 is number 0 of chunk 0
        videos = studio.root / "videos" / key
        shutil.rmtree(videos / "chunk-000", ignore_errors=True)
        (videos / "chunk-001").rename(videos / "chunk-000")
        at = table.column_names.index(f"videos/{key}/chunk_index")
        zeros = pa.array([0] * len(LENGTHS), pa.int64())
        table = table.set_column(at, table.schema.field(at), zeros)
    pq.write_table(table, studio.root / EPISODES)
    assert check_format(studio.root).findings == ()
    return studio.root


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return {
        "video": recording(tmp_path_factory.mktemp("video"), lead=True),
        "images": recording(tmp_path_factory.mktemp("images"), use_videos=False),
        "full": recording(tmp_path_factory.mktemp("full"), columns="full"),
    }


@pytest.fixture(params=["video", "images", "full"])
def every(recorded, tmp_path, request):
    return shutil.copytree(recorded[request.param], tmp_path / "dataset")


@pytest.fixture
def root(recorded, tmp_path):
    return shutil.copytree(recorded["video"], tmp_path / "dataset")


def unended(path, rows_of=None) -> None:
    """The file as its writer has it on the disk when it is killed: everything but the footer.

    rows_of: so many episodes (data), or rows (episodes file), of what is there.
    """
    table = pq.read_table(path)
    with pq.ParquetFile(path) as file:
        groups = [file.read_row_group(group) for group in range(file.num_row_groups)]
    if path.name in EPISODES and len(groups) == 1:
        groups = [table]
    if rows_of is not None:
        groups = groups[:rows_of] if len(groups) > 1 else [table.slice(0, rows_of)]
    held = path.with_name("held")
    writer = pq.ParquetWriter(held, table.schema, compression="snappy", use_dictionary=True)
    for group in groups:
        writer.write_table(group)
    path.write_bytes(held.read_bytes())
    writer.close()
    held.unlink()
    assert path.read_bytes()[-4:] != b"PAR1"


def killed_early(root) -> None:
    unended(root / DATA)
    shutil.rmtree(root / "meta/episodes")


def killed_late(root) -> None:
    unended(root / DATA)
    unended(root / EPISODES, 2)


def never_finalized(root) -> None:
    shutil.rmtree(root / "meta/episodes")


def only_the_episodes_file(root) -> None:
    unended(root / EPISODES)


STATES = (killed_early, killed_late, never_finalized, only_the_episodes_file)
"""Section "lifecycle" of the format: how the process ended -> what is on the disk."""


def everything(root) -> dict:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name not in ("lock", "journal")
    }


def rows_of(root) -> list[dict]:
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def places(root) -> list[dict]:
    """All of the episodes table but statistics of pictures, which are sampled anew."""
    return [
        {k: v for k, v in row.items() if not k.startswith("stats/observation.images")}
        for row in rows_of(root)
    ]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_everything_saved_comes_back_as_it_was_with_nothing_lost(every, state, recctl):
    prints, before = fingerprints(every), places(every)
    data = pq.read_table(every / DATA)
    state(every)
    broken = everything(every)
    assert not check_format(every).good
    said = recctl("recover", every)
    assert said.code == 0, said.out + said.err
    assert "repaired: 4 episodes, 22 rows load again" in said.out
    assert fingerprints(every) == prints
    assert pq.read_table(every / DATA).equals(data)
    assert places(every) == before
    report = verify_dataset(every)
    assert (report.findings, report.episodes) == ((), 4)
    (kept,) = (every / ".recd/quarantine").iterdir()
    assert everything(kept / "before") == {
        name: content for name, content in broken.items() if name.startswith(("data", "meta"))
    }
    assert recctl("recover", every).out == "nothing to recover\n"


def test_new_statistics_of_pictures_are_those_of_the_pictures(root):
    before = rows_of(root)
    killed_early(root)
    repair(root)
    for old, new in zip(before, rows_of(root), strict=True):
        for key in KEYS:
            mean = f"stats/{key}/mean"
            assert new[mean][1][0][0] == pytest.approx(old[mean][1][0][0], abs=0.03)
    stats = json.loads((root / "meta/stats.json").read_text())
    assert stats["index"]["max"] == [sum(LENGTHS) - 1]


def test_a_session_that_was_resumed_and_killed_keeps_the_earlier_and_the_later_episodes(
    root, recctl
):
    first = rows_of(root)
    table = pq.read_table(root / DATA)
    for number, numbers in enumerate(((0, 1), (2, 3))):
        part = table.filter(pa.compute.is_in(table["episode_index"], pa.array(numbers)))
        path = root / f"data/chunk-000/file-{number:03d}.parquet"
        with pq.ParquetWriter(path, table.schema, compression="snappy") as writer:
            for episode in numbers:
                writer.write_table(part.filter(pa.compute.equal(part["episode_index"], episode)))
    for key in KEYS:  # lerobot goes on in a new mp4
        for number, numbers in enumerate(((0, 1), (2, 3))):
            size = (96, 128) if key == KEYS[0] else (48, 64)
            frames = range(sum(LENGTHS[n] for n in numbers))
            path = root / f"videos/{key}/chunk-000/file-{number:03d}.mp4"
            write_clip(path, episode=number, frames=frames, size=size, movflags="")
    episodes = pq.read_table(root / EPISODES)
    pq.write_table(episodes.slice(0, 2), root / EPISODES)
    unended(root / "data/chunk-000/file-001.parquet")
    said = recctl("recover", root, "--json")
    assert said.code == 0
    assert said.json["repaired"]["rebuilt"] == [2, 3]
    rows = rows_of(root)
    assert rows[0]["stats/action/mean"] == first[0]["stats/action/mean"]
    assert [row["data/file_index"] for row in rows] == [0, 0, 1, 1]
    starts = [row[f"videos/{KEYS[0]}/from_timestamp"] for row in rows]
    assert starts == [0.0, LENGTHS[0] / 30, 0.0, LENGTHS[2] / 30]
    assert [row[f"videos/{KEYS[1]}/file_index"] for row in rows] == [0, 0, 1, 1]
    assert verify_dataset(root).findings == ()


@pytest.mark.parametrize(("kept", "lost"), [(3, 1), (1, 3)])
def test_rows_that_never_reached_the_disk_are_named_and_all_before_them_saved(
    root, recctl, kept, lost
):
    prints = fingerprints(root)
    with pq.ParquetFile(root / DATA) as file:
        ends = [
            max(
                column.data_page_offset + column.total_compressed_size
                for column in map(file.metadata.row_group(group).column, range(7))
            )
            for group in range(4)
        ]
    killed_early(root)
    torn = (root / DATA).read_bytes()[: ends[kept] - 90]
    (root / DATA).write_bytes(torn)
    said = recctl("recover", root)
    assert said.code == 3
    for number in range(kept, 4):
        assert f"lost: episode {number}: no rows" in said.out
    assert said.out.count("lost:") == lost
    assert fingerprints(root) == prints[:kept]
    report = verify_dataset(root)
    assert (report.good, report.episodes) == (True, kept)


def test_rows_whose_pictures_were_never_encoded_are_named_and_kept_aside(root, recctl):
    prints = fingerprints(root)
    killed_early(root)
    for key, size in zip(KEYS, ((96, 128), (48, 64)), strict=True):
        write_clip(
            root / MP4.format(key), episode=0, frames=range(sum(LENGTHS[:3])), size=size,
            movflags="",
        )  # fmt: skip
    said = recctl("recover", root)
    assert said.code == 3
    assert f"episode 3: 6 rows whose pictures of {', '.join(KEYS)} are not proven" in said.out
    assert fingerprints(root) == prints[:3]
    assert verify_dataset(root).findings == ()
    (kept,) = (root / ".recd/quarantine").iterdir()
    assert (kept / "before" / DATA).exists()
    assert "not proven" in json.loads((kept / "reason.json").read_text())["lost"][0]


def test_an_mp4_whose_pictures_do_not_add_up_proves_no_episode_and_nothing_is_touched(root, recctl):
    killed_early(root)
    write_clip(
        root / MP4.format(KEYS[1]), episode=0, frames=range(sum(LENGTHS) - 3), size=(48, 64),
        movflags="",
    )  # fmt: skip
    before = everything(root)
    said = recctl("recover", root)
    assert (said.code, said.out) == (1, "")
    assert "nothing can be recovered; nothing was touched" in said.err
    assert f"episode 0: 5 rows whose pictures of {KEYS[1]} are not proven" in said.err
    assert everything(root) == before


def test_the_episode_an_encoder_had_open_is_named_and_put_aside(root, recctl):
    killed_early(root)
    (root / "tmpk3j2").mkdir()
    (root / "tmpk3j2" / f"{KEYS[0]}_streaming.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"\0" * 64)
    said = recctl("recover", root)
    assert said.code == 3
    assert "lost: tmpk3j2: an episode that was still being recorded" in said.out
    assert not (root / "tmpk3j2").exists()
    assert list((root / ".recd/quarantine").glob("*/tmpk3j2/*.mp4"))
    assert verify_dataset(root).findings == ()


def test_words_of_tasks_that_are_gone_are_named_and_the_rows_saved(root, recctl):
    killed_early(root)
    (root / "meta/tasks.parquet").write_bytes(b"PAR1")
    said = recctl("recover", root)
    assert said.code == 3
    assert said.out.count("its words") == 3
    assert verify_dataset(root).findings == ()


@pytest.mark.parametrize("point", FAULT_POINTS)
def test_a_repair_killed_anywhere_and_run_again_ends_the_same_with_the_same_exit_code(
    crash, root, recctl, point
):
    prints = fingerprints(root)
    killed_late(root)
    (root / "tmpx").mkdir()
    (root / "tmpx/open.mp4").write_bytes(b"no end")
    broken = everything(root)
    assert crash(root, "repair", fault=f"{point}:kill") == KILLED
    said = recctl("recover", root)
    assert said.code == 3, said.out + said.err
    assert fingerprints(root) == prints
    assert verify_dataset(root).findings == ()
    (kept,) = (root / ".recd/quarantine").iterdir()
    assert (kept / "before" / DATA).read_bytes() == broken[DATA]
    assert (kept / "reason.json").exists()
    assert not (root / ".recd/repairing").exists()
    assert recctl("recover", root).code == 0
    with DatasetStore.open(root) as store:
        assert store.totals.episodes == 4


@pytest.mark.parametrize("point", FAULT_POINTS)
def test_a_power_cut_in_a_repair_costs_nothing_that_could_be_proven(crash, root, tmp_path, point):
    prints = fingerprints(root)
    killed_late(root)
    notes, left_over = tmp_path / "notes", tmp_path / "left"
    left_over.mkdir()
    with disk_of(root) as disk:
        assert crash(root, "repair", fault=f"{point}:kill", notes=notes) == KILLED
        for left in cuts(disk, notes, left_over):
            repair(left)
            crash(left, "recover")
            assert fingerprints(left) == prints, left.name
            assert verify_dataset(left).findings == (), left.name


HOLDS = """
import sys, signal
file = open(sys.argv[1], sys.argv[2])
print("open", flush=True)
signal.pause()
"""


@contextmanager
def held_open(path: Path, mode: str) -> Iterator[int]:
    """Another process that has a file open; its pid."""
    command = [sys.executable, "-c", HOLDS, str(path), mode]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        yield holder.pid
    finally:
        os.kill(holder.pid, 9)
        holder.communicate()


def test_a_dataset_that_another_process_only_reads_is_repaired(root, recctl):
    killed_early(root)
    with held_open(root / DATA, "rb"):
        assert recctl("recover", root).code == 0


def test_a_dataset_that_another_process_still_writes_is_left_alone(root, recctl):
    killed_early(root)
    before = everything(root)
    with held_open(root / DATA, "ab") as writer:
        said = recctl("recover", root)
    assert said.code == 1
    assert f"process {writer} has it open" in said.err
    assert everything(root) == before
    assert not (root / ".recd").exists()
    assert recctl("recover", root).code == 0


def test_a_whole_dataset_is_not_touched_by_a_repair(root):
    before = everything(root)
    assert repair(root) is None
    assert everything(root) == before
    assert not (root / ".recd").exists()


def test_recording_goes_on_in_a_repaired_dataset(root):
    killed_early(root)
    repair(root)
    studio = Studio(root.parent, lead=True)
    assert studio.record(studio.open(), 3).episode_index == 4
    studio.close()
    assert verify_dataset(root).findings == ()
