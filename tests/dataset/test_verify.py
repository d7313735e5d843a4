import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mutations import (
    BASES,
    FRONT,
    MUTATIONS,
    data,
    episodes,
    info,
    record_base,
    set_cell,
    set_column,
)

from recd.config.errors import DatasetError
from recd.daemon.dataset import new_uid
from recd.daemon.dataset.boxes import VideoTrack
from recd.daemon.dataset.check_tables import Dataset
from recd.daemon.dataset.check_videos import check_spans
from recd.daemon.dataset.rules import RULES, Findings
from recd.daemon.dataset.verify import check_format, verify_dataset


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {base: record_base(tmp_path_factory.mktemp(base), base) for base in BASES}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_checker_names_the_broken_rule_and_only_then_says_bad(bases, tmp_path, mutation):
    root = tmp_path / "dataset"
    shutil.copytree(bases[mutation.base], root)
    mutation.change(root)
    report = check_format(root)
    broken = {finding.rule.name for finding in report.findings if finding.bad}
    if mutation.expected:
        assert mutation.expected in broken
    else:
        assert broken == set()
    assert report.exit_code == int(bool(mutation.expected))


def test_the_table_of_mutations_has_at_least_thirty_of_known_rules():
    assert len(MUTATIONS) >= 30
    assert {m.expected for m in MUTATIONS} - {""} <= set(RULES)


def test_every_picture_of_a_good_dataset_is_decoded(bases):
    report = verify_dataset(bases["h264"])
    assert (report.exit_code, report.episodes, report.rows, report.decoded) == (0, 4, 27, 54)


def test_a_folder_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        verify_dataset(tmp_path / "nowhere")


def test_every_picture_of_an_image_dataset_is_decoded(bases, tmp_path):
    report = verify_dataset(bases["images"])
    assert (report.exit_code, report.decoded) == (0, 54)
    root = tmp_path / "dataset"
    shutil.copytree(bases["images"], root)

    def scrambled(column):
        cells = column.to_pylist()
        data = bytearray(cells[1]["bytes"])
        data[60:90] = bytes(30)
        cells[1]["bytes"] = bytes(data)
        return pa.array(cells, column.type)

    data(0, set_column(FRONT, scrambled))(root)
    assert check_format(root).good
    assert verify_dataset(root).counts == {"data.image": 1}


def test_rows_beyond_the_precision_of_float32_seconds_are_told():
    fps, episodes, length = 30, 5, 9000  # 300 s each: lerobot 0.6.1 fails on some rows of these
    ticks = np.arange(episodes * length, dtype=np.int64) * 512
    track = VideoTrack(
        codec="h264", width=64, height=48, timescale=15360, dts=ticks, pts=ticks,
        duration=np.full(len(ticks), 512), offset=ticks, size=ticks,
        keyframe=np.ones(len(ticks), bool), whole=len(ticks), complete=True, fragmented=False,
        has_audio=False, delay=0, setup=b"",
    )  # fmt: skip
    rows = [
        {
            "episode_index": number,
            "length": length,
            "videos/c/from_timestamp": number * length / fps,
            "videos/c/to_timestamp": (number + 1) * length / fps,
        }
        for number in range(episodes)
    ]
    ds = Dataset(Path(), Findings(), info={"fps": fps, "features": {}}, episodes=rows)
    check_spans(ds, "c", "c.mp4", rows, track)
    assert set(ds.found.counts) == {"video.precision"}
    short = Dataset(Path(), Findings(), info={"fps": fps, "features": {}}, episodes=rows[:3])
    part = replace(track, pts=ticks[: 3 * length], whole=3 * length)
    check_spans(short, "c", "c.mp4", rows[:3], part)
    assert short.found.counts == {}


def test_an_unfinished_commit_and_an_unpublished_take_are_told(studio):
    store = studio.open()
    studio.record(store, 3)
    store.stage(new_uid())
    report = verify_dataset(studio.root)
    assert (report.good, dict(report.counts)) == (True, {"own.staging": 1})
    journal = studio.root / ".recd/journal"
    journal.write_bytes(journal.read_bytes() + b"torn")
    assert verify_dataset(studio.root).counts["own.journal"] == 1


def test_an_episode_that_recd_published_and_that_is_gone_is_bad(studio):
    store = studio.open()
    studio.record(store, 3)
    uid = studio.record(store, 4).uid
    studio.close()
    manifest = studio.root / ".recd/episodes" / uid / "manifest.json"
    manifest.unlink()
    assert verify_dataset(studio.root).counts == {"own.sides": 1}
    path = studio.root / "data/chunk-000/file-001.parquet"
    table = pq.read_table(path)
    zeros = pa.array([[0.0] * 6] * 4, table.schema.field("action").type)
    pq.write_table(table.set_column(0, table.schema.field("action"), zeros), path)
    report = verify_dataset(studio.root)
    assert report.counts["own.episode"] == 1
    assert report.exit_code == 1


def test_an_edit_by_lerobot_is_told_as_such_and_is_not_bad(studio):
    store = studio.open()
    studio.record(store, 3)
    second = studio.record(store, 4).uid
    studio.close()
    keep_only_second_episode(studio.root)
    report = verify_dataset(studio.root)
    assert report.good, report.findings
    assert dict(report.attached) == {second: 0}
    assert report.counts["own.elsewhere"] == 2


def keep_only_second_episode(root):
    """What lerobot's delete_episodes makes of episode 0, numbered anew, in place."""
    (root / "data/chunk-000/file-000.parquet").unlink()
    for path in sorted((root / "videos").glob("*/*/file-000.mp4")):
        path.unlink()
    length = 4

    def renumber(table):
        for name, values in (("index", range(length)), ("episode_index", [0] * length)):
            table = set_column(name, lambda _, v=values: pa.array(list(v), pa.int64()))(table)
        return table

    data(1, renumber)(root)
    changes = {"episode_index": 0, "dataset_from_index": 0, "dataset_to_index": length}

    def one_row(table):
        table = table.slice(1)
        for name, value in changes.items():
            table = set_cell(name, 0, value)(table)
        return table

    episodes(one_row)(root)
    info(total_episodes=1, total_frames=length, splits={"train": "0:1"})(root)
