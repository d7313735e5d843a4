"""Good and broken datasets, as a table: what is done to a recording, and the verdict it earns.

`expected` is a rule of `recd.daemon.dataset.rules`, or "" where the dataset stays good. The unit
test compares recd's checker with it; `compare_verdicts.py` compares both with the real lerobot.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from studio import Studio, write_clip

LENGTHS = (8, 6, 9, 4)
TASKS = (("pick",), ("pick", "place ü"), ("place ü",), ("pick",))
FRONT = "observation.images.front"
SIZE = (96, 128)

Change = Callable[[Path], None]


@dataclass(frozen=True)
class Mutation:
    """base: which recording it starts from; expected: the rule it breaks, "" none."""

    name: str
    expected: str
    change: Change
    base: str = "h264"


BASES: dict[str, dict] = {
    "h264": {},
    "av1": {"codec": "av1"},
    "images": {"use_videos": False},
    "full": {"columns": "full"},
}


def record_base(folder: Path, base: str) -> Path:
    """A recording of four episodes and two tasks; returns its root."""
    studio = Studio(folder, lead=True, **BASES[base])
    store = studio.open()
    for length, tasks in zip(LENGTHS, TASKS, strict=True):
        studio.record(store, length, tasks=tasks)
    studio.close()
    return studio.root


# -- ways to change files ------------------------------------------------------------------------


def info(**changes: object) -> Change:
    """Set keys of info.json; None removes."""

    def change(root: Path) -> None:
        path = root / "meta/info.json"
        content = json.loads(path.read_text())
        for key, value in changes.items():
            if value is None:
                content.pop(key)
            else:
                content[key] = value
        path.write_text(json.dumps(content))

    return change


def feature(name: str, **changes: object) -> Change:
    """Set parts of one feature in info.json; creates it where it is not."""

    def change(root: Path) -> None:
        path = root / "meta/info.json"
        content = json.loads(path.read_text())
        content["features"].setdefault(name, {}).update(changes)
        path.write_text(json.dumps(content))

    return change


def video_info(**changes: object) -> Change:
    def change(root: Path) -> None:
        path = root / "meta/info.json"
        content = json.loads(path.read_text())
        content["features"][FRONT]["info"].update(changes)
        path.write_text(json.dumps(content))

    return change


def stats(edit: Callable[[dict], None]) -> Change:
    def change(root: Path) -> None:
        path = root / "meta/stats.json"
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return change


def table(name: str, edit: Callable[[pa.Table], pa.Table], **options: object) -> Change:
    """Rewrite one Parquet file."""

    def change(root: Path) -> None:
        path = root / name
        pq.write_table(edit(pq.read_table(path)), path, **options)

    return change


def data(number: int, edit: Callable[[pa.Table], pa.Table], **options: object) -> Change:
    return table(data_name(number), edit, **options)


def episodes(edit: Callable[[pa.Table], pa.Table]) -> Change:
    return table("meta/episodes/chunk-000/file-000.parquet", edit)


def data_name(number: int) -> str:
    return f"data/chunk-000/file-{number:03d}.parquet"


def video_name(number: int, key: str = FRONT) -> str:
    return f"videos/{key}/chunk-000/file-{number:03d}.mp4"


def set_column(name: str, values: Callable[[pa.ChunkedArray], object]):
    """A table edit that replaces one column."""

    def edit(found: pa.Table) -> pa.Table:
        column = values(found[name])
        return found.set_column(found.column_names.index(name), name, column)

    return edit


def set_cell(name: str, row: int, value: object):
    def replace(column: pa.ChunkedArray) -> pa.Array:
        values = column.to_pylist()
        values[row] = value
        return pa.array(values, column.type)

    return set_column(name, replace)


def several(*changes: Change) -> Change:
    def change(root: Path) -> None:
        for step in changes:
            step(root)

    return change


def clip(number: int, length: int, **settings: object) -> Change:
    """Encode the front video of one episode anew, differently."""

    def change(root: Path) -> None:
        path = root / video_name(number)
        path.unlink()
        frames = settings.pop("frames", range(length))
        options = {"size": SIZE, "movflags": "faststart"} | settings
        write_clip(path, episode=number, frames=frames, **options)

    return change


def cut_file(name: str, keep: float) -> Change:
    def change(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: int(len(content) * keep)])

    return change


def remove(name: str) -> Change:
    return lambda root: (root / name).unlink()


def copy(name: str, target: str) -> Change:
    def change(root: Path) -> None:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, root / target)

    return change


def move(name: str, target: str) -> Change:
    def change(root: Path) -> None:
        (root / name).rename(root / target)

    return change


def second_episodes_file(root: Path) -> None:
    """Split the episodes file in two; the second gets a column that the first lacks."""
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    whole = pq.read_table(path)
    pq.write_table(whole.slice(0, 2), path)
    rest = whole.slice(2).append_column("note", pa.array(["a", "b"]))
    pq.write_table(rest, path.with_name("file-001.parquet"))


def split_episodes_file(root: Path) -> None:
    """Two episodes files, each row naming its own."""
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    whole = pq.read_table(path)
    second = whole.slice(2)
    second = set_column("meta/episodes/file_index", lambda c: pa.array([1] * len(c)))(second)
    pq.write_table(whole.slice(0, 2), path)
    pq.write_table(second, path.with_name("file-001.parquet"))


def swapped_rows(found: pa.Table) -> pa.Table:
    order = [0, 2, 1, *range(3, found.num_rows)]
    return found.take(order)


def without_stats(found: pa.Table) -> pa.Table:
    return found.select([name for name in found.column_names if not name.startswith("stats/")])


def plain_lists(found: pa.Table) -> pa.Table:
    for name in ("action", "observation.state"):
        found = set_column(name, lambda c: c.cast(pa.list_(pa.float32())))(found)
    return found.replace_schema_metadata(None)


def wide_types(found: pa.Table) -> pa.Table:
    found = set_column("frame_index", lambda c: c.cast(pa.int32()))(found)
    return set_column("timestamp", lambda c: c.cast(pa.float64()))(found)


def shorter_vectors(column: pa.ChunkedArray) -> pa.Array:
    return pa.array([row[:5] for row in column.to_pylist()], pa.list_(pa.float32()))


def nan_in_state(column: pa.ChunkedArray) -> pa.Array:
    rows = column.to_pylist()
    rows[3][2] = float("nan")
    return pa.array(rows, column.type)


def flat_camera_stats(content: dict) -> None:
    for name, value in content[FRONT].items():
        content[FRONT][name] = np.ravel(value).tolist()


def no_quantile(content: dict) -> None:
    del content["action"]["q99"]


def nan_stats(content: dict) -> None:
    content["action"]["mean"][0] = float("nan")


def float_tasks(found: pa.Table) -> pa.Table:
    return found.replace_schema_metadata(None)


def broken_picture(column: pa.ChunkedArray) -> pa.Array:
    cells = column.to_pylist()
    cells[2]["bytes"] = b"no picture"
    return pa.array(cells, column.type)


def gap_in_numbers(root: Path) -> None:
    """Data and mp4 of the last episode under a later number: gaps are legal."""
    move(data_name(3), data_name(7))(root)
    edit = set_cell("data/file_index", 3, 7)
    episodes(edit)(root)


LEROBOT_H264 = {"g": "2", "crf": "30", "bf": "1", "tune": "film", "preset": "medium"}
"""x264 as lerobot uses it: one B-frame between keyframes, so one frame of decoding delay."""

NOTHING: Change = lambda root: None  # noqa: E731
EXTRA = pa.field("extra", pa.int64())

MUTATIONS: tuple[Mutation, ...] = (
    # good
    Mutation("fresh_h264", "", NOTHING),
    Mutation("fresh_av1", "", NOTHING, base="av1"),
    Mutation("fresh_images", "", NOTHING, base="images"),
    Mutation("fresh_full", "", NOTHING, base="full"),
    Mutation("other_file_in_meta", "", copy("meta/info.json", "meta/provenance.json")),
    Mutation("unknown_info_key", "", info(station="bench 1")),
    Mutation("version_without_v", "", info(codebase_version="3.0")),
    Mutation("version_3_1", "", info(codebase_version="v3.1")),
    Mutation("data_zstd", "", data(1, lambda found: found, compression="zstd")),
    Mutation("data_plain_lists", "", data(1, plain_lists)),
    Mutation("data_other_number_types", "", data(1, wide_types)),
    Mutation("data_small_row_groups", "", data(2, lambda found: found, row_group_size=2)),
    Mutation("data_number_gap", "", gap_in_numbers),
    Mutation("two_episodes_files", "", split_episodes_file),
    Mutation("unused_mp4", "", copy(video_name(3), video_name(9))),
    Mutation("as_lerobot_encodes", "", clip(1, 6, options=LEROBOT_H264)),
    Mutation("long_gop", "", clip(1, 6, options=LEROBOT_H264 | {"g": "250"})),
    # info.json
    Mutation("info_no_fps", "info.readable", info(fps=None)),
    Mutation("info_fps_zero", "info.numbers", info(fps=0)),
    Mutation("info_fps_text", "info.numbers", info(fps="30")),
    Mutation("info_format_2", "info.version", info(codebase_version="v2.1")),
    Mutation("info_cut", "info.readable", cut_file("meta/info.json", 0.5)),
    Mutation("info_one_episode_too_many", "episodes.count", info(total_episodes=5)),
    Mutation("info_one_episode_too_few", "episodes.hidden", info(total_episodes=3)),
    Mutation("info_one_row_too_few", "data.rows", info(total_frames=26)),
    Mutation("info_one_row_too_many", "data.rows", info(total_frames=28)),
    Mutation("info_no_tasks", "tasks.count", info(total_tasks=0)),
    Mutation("info_camera_size", "video.size", feature(FRONT, shape=[120, 160, 3])),
    Mutation("info_camera_names", "info.camera", feature(FRONT, names=None)),
    Mutation("info_codec_vp9", "info.codec", video_info(**{"video.codec": "vp9"})),
    Mutation("info_codec_libx264", "info.codec", video_info(**{"video.codec": "libx264"})),
    Mutation("info_no_video_path", "info.video_path", lambda root: _null_video_path(root)),
    # tasks
    Mutation("tasks_missing", "tasks.present", remove("meta/tasks.parquet")),
    Mutation("tasks_no_pandas", "tasks.index", table("meta/tasks.parquet", float_tasks)),
    Mutation("tasks_swapped", "tasks.order", table("meta/tasks.parquet", lambda t: t.take([1, 0]))),
    # episodes
    Mutation("episodes_unsorted", "episodes.order", episodes(swapped_rows)),
    Mutation("episodes_later_column", "episodes.schema", second_episodes_file),
    Mutation("episodes_cut", "episodes.present", cut_file(
        "meta/episodes/chunk-000/file-000.parquet", 0.9)),
    Mutation("episodes_no_stats", "episodes.stats", episodes(without_stats)),
    Mutation("episodes_no_range", "episodes.columns", episodes(
        lambda found: found.drop_columns(["dataset_from_index"]))),
    Mutation("episodes_no_video_place", "episodes.video_columns", episodes(
        lambda found: found.drop_columns([f"videos/{FRONT}/file_index"]))),
    Mutation("episodes_range_off", "episodes.ranges", episodes(
        set_cell("dataset_from_index", 1, 7))),
    Mutation("episodes_stale_own_file", "episodes.own_file", episodes(
        set_cell("meta/episodes/file_index", 3, 4))),
    Mutation("episodes_wrong_data_file", "episodes.data_file", episodes(
        set_cell("data/file_index", 3, 9))),
    Mutation("episodes_from_one_frame_late", "video.order", several(
        episodes(set_cell(f"videos/{FRONT}/from_timestamp", 1, 1 / 30)),
        episodes(set_cell(f"videos/{FRONT}/to_timestamp", 1, 7 / 30)))),
    Mutation("episodes_to_short", "video.span", episodes(
        set_cell(f"videos/{FRONT}/to_timestamp", 2, 7 / 30))),
    # data
    Mutation("data_cut", "data.readable", cut_file(data_name(1), 0.7)),
    Mutation("data_empty_file", "data.readable", cut_file(data_name(2), 0.0)),
    Mutation("data_missing_file", "data.present", remove(data_name(2))),
    Mutation("data_undeclared", "data.declared", data(0, lambda found: found.append_column(
        EXTRA, pa.array([0] * 8)))),
    Mutation("data_lacks_column", "data.missing", feature(
        "extra.value", dtype="float32", shape=[1], names=None)),
    Mutation("data_wrong_length", "data.types", data(1, set_column("action", shorter_vectors))),
    Mutation("data_scalar_as_list", "data.types", data(1, set_column(
        "frame_index", lambda c: pa.array([[v] for v in c.to_pylist()])))),
    Mutation("data_read_twice", "data.rows", copy(data_name(1), "data/chunk-001/file-000.parquet")),
    Mutation("data_row_lost", "data.rows", data(1, lambda found: found.slice(0, 5))),
    Mutation("data_path_order", "data.index", several(
        move(data_name(0), data_name(8)), episodes(set_cell("data/file_index", 0, 8)))),
    Mutation("data_index_offset", "data.index", data(2, set_column(
        "index", lambda c: pc.add(c, 100)))),
    Mutation("data_capture_time", "data.timestamp", data(2, set_column(
        "timestamp", lambda c: pc.cast(pc.add(c, 0.004), pa.float32())))),
    Mutation("data_frame_shift", "data.numbers", data(2, set_column(
        "frame_index", lambda c: pa.array([0, *range(8)])))),
    Mutation("data_unknown_task", "data.tasks", data(2, set_cell("task_index", 1, 5))),
    Mutation("data_nan", "data.finite", data(1, set_column("observation.state", nan_in_state))),
    Mutation("data_null", "data.missing", data(1, set_cell("observation.state", 2, None))),
    Mutation("data_broken_picture", "data.image", data(1, set_column(FRONT, broken_picture)),
             base="images"),
    # statistics
    Mutation("stats_missing", "stats.present", remove("meta/stats.json")),
    Mutation("stats_flat_camera", "stats.shape", stats(flat_camera_stats)),
    Mutation("stats_no_quantile", "stats.shape", stats(no_quantile)),
    Mutation("stats_nan", "stats.finite", stats(nan_stats)),
    # videos
    Mutation("video_missing", "video.present", remove(video_name(2))),
    Mutation("video_cut", "video.readable", cut_file(video_name(2), 0.6)),
    Mutation("video_frame_lost", "video.pictures", clip(2, 8)),
    Mutation("video_millisecond_stamps", "video.pictures", clip(
        2, 9, time_base=Fraction(1, 1000), pts=[round(k * 1000 / 30) for k in range(9)])),
    Mutation("video_late_start", "video.pictures", clip(2, 9, pts=range(1, 10))),
    Mutation("video_other_size", "video.size", clip(2, 9, size=(48, 64))),
    Mutation("video_other_timescale", "video.join", clip(
        2, 9, time_base=Fraction(1, 90000), pts=[k * 3000 for k in range(9)])),
    Mutation("video_decoded_without_delay", "video.join", clip(2, 9)),
    Mutation("video_decoded_with_more_delay", "video.join", clip(
        2, 9, options={"bf": "3", "g": "12", "tune": "film", "preset": "medium"})),
)  # fmt: skip


def _null_video_path(root: Path) -> None:
    path = root / "meta/info.json"
    content = json.loads(path.read_text()) | {"video_path": None}
    path.write_text(json.dumps(content))
