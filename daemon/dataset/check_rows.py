"""Checks the rows of a dataset: every data file, as lerobot's loader joins and casts them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recd.daemon.dataset.check_tables import (
    TIME_TOLERANCE_S,
    UNREADABLE,
    Dataset,
    files_with_rows,
    named_data_file,
)
from recd.daemon.dataset.parquet import arrow_type
from recd.daemon.dataset.schema import BOOKKEEPING

PNG_HEAD, JPEG_HEAD = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"


def check_rows(ds: Dataset, *, decode: bool = False) -> int:
    """Walk all data files once, in path order; returns the pictures decoded."""
    found = ds.found
    paths = files_with_rows(ds)
    if not paths:
        found.add("data.present", "data", "no file")
        return 0
    position = decoded = 0
    holders: dict[int, str] = {}
    tasks_seen: dict[int, set[int]] = {}
    for path in paths:
        name = path.relative_to(ds.root).as_posix()
        table = _readable(ds, path, name)
        if table is None:
            continue
        _check_numbers(ds, name, table, position)
        _note_holders(name, table, holders, tasks_seen)
        position += table.num_rows
        for key in ds.of_kind("image") if decode else ():
            decoded += decode_images(ds, name, key, table[key])
    ds.rows = position
    if position != ds.info.get("total_frames"):
        found.add("data.rows", "data", f"{position} rows, {ds.info.get('total_frames')} announced")
    _check_holders(ds, holders, tasks_seen)
    return decoded


def _readable(ds: Dataset, path: Path, name: str) -> pa.Table | None:
    """The file's columns, cast to their declared types; None when lerobot could not."""
    found = ds.found
    stored = {k: f for k, f in ds.features.items() if f["dtype"] != "video"}
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        if undeclared := sorted(set(names) - set(stored)):
            found.add("data.declared", name, f"undeclared: {', '.join(undeclared[:3])}")
        table = file.read(columns=[n for n in names if n in stored])
    except UNREADABLE as broken:
        found.add("data.readable", name, str(broken))
        return None
    columns = {}
    for key, feature in stored.items():
        if key not in table.column_names:
            found.add("data.missing", name, f"{key} is not there")
            continue
        column = _cast(ds, name, key, table[key], feature)
        if column is None:
            return None
        if column.null_count:
            found.add("data.missing", name, f"{key}: {column.null_count} nulls")
        _check_values(ds, name, key, column, feature)
        columns[key] = column
    if not set(BOOKKEEPING) <= set(columns):
        return None
    return pa.table(columns)


def _cast(
    ds: Dataset, name: str, key: str, column: pa.ChunkedArray, feature: dict[str, Any]
) -> pa.ChunkedArray | None:
    import pyarrow.compute as pc  # 9 MB that the writer, which checks no table, can do without

    shape = feature["shape"]
    if feature["dtype"] in ("image", "language") or len(shape) > 1:
        return column
    kind = arrow_type(feature["dtype"])
    try:
        if shape == [1]:
            return column.cast(kind)
        flat = column.cast(pa.list_(kind))
        wrong = pc.sum(pc.not_equal(pc.list_value_length(flat), shape[0])).as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as broken:
        ds.found.add("data.types", name, f"{key}: {column.type}: {str(broken).splitlines()[0]}")
        return None
    if wrong:
        ds.found.add("data.types", name, f"{key}: {wrong} rows are not of length {shape[0]}")
        return None
    return flat


def _check_values(
    ds: Dataset, name: str, key: str, column: pa.ChunkedArray, feature: dict[str, Any]
) -> None:
    import pyarrow.compute as pc

    if feature["dtype"] == "image":
        _check_images(ds, name, key, column, feature)
        return
    flat = column
    while pa.types.is_list(flat.type) or pa.types.is_fixed_size_list(flat.type):
        flat = pc.list_flatten(flat)
    if pa.types.is_floating(flat.type):
        finite = pc.all(pc.is_finite(flat.drop_null())).as_py()
        if finite is False:
            ds.found.add("data.finite", name, f"{key} holds NaN or infinity")


def _check_images(
    ds: Dataset, name: str, key: str, column: pa.ChunkedArray, feature: dict[str, Any]
) -> None:
    height, width = feature["shape"][:2]
    for number, cell in enumerate(_cells(column)):
        size = _png_size(cell)
        if size is None and not cell.startswith((JPEG_HEAD, b"II*\0", b"MM\0*")):
            ds.found.add("data.image", name, f"{key}: row {number} holds no picture")
        elif size is not None and size != (width, height):
            ds.found.add(
                "data.image", name, f"{key}: row {number} is {size}, declared {width}x{height}"
            )


def decode_images(ds: Dataset, name: str, key: str, column: pa.ChunkedArray) -> int:
    """Decode every picture of an image column of the data file `name`; returns how many did."""
    import av

    count = 0
    for number, cell in enumerate(_cells(column)):
        kind = "png" if cell.startswith(PNG_HEAD) else "mjpeg"
        if not cell.startswith((PNG_HEAD, JPEG_HEAD)):
            continue
        try:
            count += len(av.CodecContext.create(kind, "r").decode(av.Packet(cell)))
        except av.FFmpegError as broken:
            ds.found.add("data.image", name, f"{key}: row {number} does not decode: {broken}")
    return count


def _cells(column: pa.ChunkedArray) -> Iterator[bytes]:
    for cell in column:
        value = cell.as_py() or {}
        yield value.get("bytes") or b""


def _png_size(data: bytes) -> tuple[int, int] | None:
    if not data.startswith(PNG_HEAD) or len(data) < 24 or not data.endswith(b"IEND\xaeB`\x82"):
        return None
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def _check_numbers(ds: Dataset, name: str, table: pa.Table, position: int) -> None:
    """Numbering of one file that begins at global row `position`."""
    found = ds.found
    index, episode, frame, task = (
        table[c].to_numpy() for c in ("index", "episode_index", "frame_index", "task_index")
    )
    time = table["timestamp"].to_numpy()
    wanted = np.arange(position, position + table.num_rows)
    if (wrong := index != wanted).any():
        at = int(wrong.argmax())
        found.add("data.index", name, f"row {position + at} has index {index[at]}")
    late = np.abs(time - (frame / ds.fps).astype(np.float32)) > TIME_TOLERANCE_S
    if late.any():
        at = int(late.argmax())
        found.add("data.timestamp", name, f"row {position + at}: {time[at]}, frame {frame[at]}")
    if ((task < 0) | (task >= max(len(ds.tasks), 1))).any():
        found.add("data.tasks", name, f"task_index up to {task.max()}, {len(ds.tasks)} tasks")
    starts = np.array([row["dataset_from_index"] for row in ds.episodes] or [0])
    ends = np.array([row["dataset_to_index"] for row in ds.episodes] or [0])
    known = (episode >= 0) & (episode < len(ds.episodes))
    held = np.where(known, episode, 0)
    off = ~known | (frame != wanted - starts[held]) | (wanted >= ends[held])
    if off.any():
        at = int(off.argmax())
        text = f"row {position + at} says episode {episode[at]}, frame {frame[at]}"
        found.add("data.numbers", name, text)


def _note_holders(
    name: str, table: pa.Table, holders: dict[int, str], tasks: dict[int, set[int]]
) -> None:
    episode, task = table["episode_index"].to_numpy(), table["task_index"].to_numpy()
    for number in np.unique(episode):
        holders.setdefault(int(number), name)
        tasks.setdefault(int(number), set()).update(np.unique(task[episode == number]).tolist())


def _check_holders(ds: Dataset, holders: dict[int, str], tasks: dict[int, set[int]]) -> None:
    for row in ds.episodes:
        number = row["episode_index"]
        where = f"episode {number}"
        if number not in holders:
            ds.found.add("data.present", where, "no row of it in data/")
            continue
        if holders[number] != named_data_file(row):
            text = f"lies in {holders[number]}, said to be in {named_data_file(row)}"
            ds.found.add("episodes.data_file", where, text)
        texts = {ds.tasks[t] for t in tasks[number] if 0 <= t < len(ds.tasks)}
        if texts != set(row["tasks"] or ()):
            ds.found.add("episodes.tasks", where, f"rows {sorted(texts)}, listed {row['tasks']}")
