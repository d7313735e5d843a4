"""The three Parquet tables of a dataset: rows, episodes, tasks, with LeRobot's exact schemas.

Tables are built and read here; where files go and when they become visible is not decided here.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recd.config.errors import DatasetError
from recd.daemon.dataset.schema import (
    ACTION,
    STATE,
    Feature,
    Features,
    unused_column,
)
from recd.daemon.dataset.stats import STAT_KEYS, CameraHistogram, FeatureStats, vector_stats

ROWS_PER_EPISODES_FILE = 50
"""An episodes file is rewritten whole at each save until it has this many rows: cost stays flat."""

IMAGE_BATCH = 256
IMAGE_BATCH_BYTES = 16_000_000
"""Rows with pictures are written in row groups of at most so many, and of few more bytes: writing
one takes about four times its bytes of memory, whatever the episode's length."""
ARROW_TYPES: Mapping[str, pa.DataType] = {"string": pa.string(), "bool": pa.bool_()}


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of one camera of a dataset without video: PNG or JPEG bytes, one a row,
    consumed once; histogram: sampled pixels, or the statistics themselves."""

    encoded: Iterable[bytes]
    histogram: CameraHistogram | FeatureStats


@dataclass(frozen=True, slots=True)
class EpisodeRows:
    """The rows of one episode, before they have numbers.

    state, action: float32 [R, D]; task: one string per row; extra: own columns by name ([R] or
    [R, D], or a list of strings); images: pictures per image key.
    """

    state: NDArray[np.float32]
    action: NDArray[np.float32]
    task: Sequence[str]
    extra: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Pictures] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.task)


def arrow_type(dtype: str) -> pa.DataType:
    """Arrow type of a feature's `dtype`."""
    return ARROW_TYPES.get(dtype) or pa.from_numpy_dtype(np.dtype(dtype))


def _column_type(feature: Feature) -> pa.DataType:
    if feature["dtype"] == "image":
        return pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    shape = tuple(feature["shape"])
    value = arrow_type(feature["dtype"])
    if shape == (1,):
        return value
    if len(shape) == 1:
        return pa.list_(pa.field("element", value), shape[0])
    raise DatasetError(
        f"a feature of shape {list(shape)} cannot be recorded",
        mend="Record into a dataset whose features are scalars, vectors and pictures.",
    )


def _described(feature: Feature) -> dict[str, Any]:
    if feature["dtype"] == "image":
        return {"_type": "Image"}
    value = {"dtype": feature["dtype"], "_type": "Value"}
    if tuple(feature["shape"]) == (1,):
        return value
    return {"feature": value, "length": feature["shape"][0], "_type": "List"}


def data_schema(features: Features, fingerprint: str = "0" * 16) -> pa.Schema:
    """Arrow schema of a data file, with the metadata that the `datasets` library writes."""
    stored = {key: ft for key, ft in features.items() if ft["dtype"] != "video"}
    described = {key: _described(feature) for key, feature in stored.items()}
    metadata = {"info": {"features": described}, "fingerprint": fingerprint}
    return pa.schema(
        [pa.field(key, _column_type(feature)) for key, feature in stored.items()],
        metadata={"huggingface": json.dumps(metadata)},
    )


@dataclass(frozen=True, slots=True)
class Numbering:
    """Where an episode stands in its dataset: number, first global row, task numbers."""

    episode_index: int
    first_row: int
    task_index: Mapping[str, int]


def row_columns(
    rows: EpisodeRows, features: Features, fps: int, numbers: Numbering
) -> dict[str, Any]:
    """All stored columns of an episode but pictures: arrays, or lists of strings.

    DatasetError when a column is missing, has another length, or is unknown to the dataset.
    """
    count = len(rows)
    frame = np.arange(count, dtype=np.int64)
    known: dict[str, Any] = {
        STATE: rows.state,
        ACTION: rows.action,
        "timestamp": (frame / fps).astype(np.float32),
        "frame_index": frame,
        "episode_index": np.full(count, numbers.episode_index, np.int64),
        "index": frame + numbers.first_row,
        "task_index": np.array([numbers.task_index[task] for task in rows.task], np.int64),
        **rows.extra,
    }
    columns = {}
    for key, feature in features.items():
        if feature["dtype"] in ("video", "image"):
            continue
        values = known.pop(key) if key in known else unused_column(key, count, feature)
        columns[key] = _shaped(key, values, feature, count)
    if known:
        raise DatasetError(
            f"column {next(iter(known))!r} is not a feature of this dataset",
            mend="Record with the dataset's own columns (dataset.columns), or into a new dataset.",
        )
    return columns


def _shaped(key: str, values: Any, feature: Feature, count: int) -> Any:
    if feature["dtype"] == "string":
        if len(values) != count:
            raise DatasetError(f"column {key}: {len(values)} values for {count} rows")
        return list(values)
    array = np.asarray(values, dtype=feature["dtype"])
    width = feature["shape"][0]
    want = (count,) if width == 1 else (count, width)
    if width == 1 and array.shape == (count, 1):
        array = array[:, 0]
    if array.shape != want:
        raise DatasetError(f"column {key}: shape {array.shape}, expected {want}")
    return np.ascontiguousarray(array)


def _as_arrow(values: Any, kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        flat = pa.array(np.ravel(values), kind.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    return pa.array(values, kind)


def _picture_groups(
    images: Mapping[str, Pictures], count: int
) -> Iterator[tuple[int, dict[str, list[bytes]]]]:
    """(first row, pictures of each camera) of one row group after the other."""
    sources = {key: iter(pictures.encoded) for key, pictures in images.items()}
    first, nbytes = 0, 0
    group: dict[str, list[bytes]] = {key: [] for key in sources}
    for row in range(count):
        for key, source in sources.items():
            if (data := next(source, None)) is None:
                raise DatasetError(f"{key}: pictures end at row {row}, before the rows do")
            group[key].append(data)
            nbytes += len(data)
        full = row + 1 - first >= IMAGE_BATCH or nbytes >= IMAGE_BATCH_BYTES
        if full or row + 1 == count:
            yield first, group
            first, nbytes = row + 1, 0
            group = {key: [] for key in sources}
    for key, source in sources.items():
        if next(source, None) is not None:
            raise DatasetError(f"{key}: more pictures than the {count} rows")


def _picture_cells(pictures: Sequence[bytes], first: int, kind: pa.DataType) -> pa.Array:
    names = [f"frame-{first + number:06d}.png" for number in range(len(pictures))]
    return pa.array(
        [{"bytes": data, "path": name} for data, name in zip(pictures, names, strict=True)], kind
    )


def write_data(
    path: Path, columns: Mapping[str, Any], images: Mapping[str, Pictures], schema: pa.Schema
) -> None:
    """Write one episode as one data file: one row group, with pictures several (IMAGE_BATCH)."""
    count = len(columns["index"])
    whole = {name: _as_arrow(values, schema.field(name).type) for name, values in columns.items()}
    with pq.ParquetWriter(path, schema, compression="snappy", use_dictionary=True) as writer:
        if not images:
            writer.write_batch(
                pa.record_batch([whole[name] for name in schema.names], schema=schema)
            )
            return
        for first, group in _picture_groups(images, count):
            size = len(next(iter(group.values())))
            arrays = [
                _picture_cells(group[name], first, schema.field(name).type)
                if name in group
                else whole[name].slice(first, size)
                for name in schema.names
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _stats_type(feature: Feature, stat: str) -> pa.DataType:
    if stat == "count":
        return pa.list_(pa.field("element", pa.int64()))
    kind: pa.DataType = pa.list_(pa.field("element", pa.float64()))
    if feature["dtype"] in ("video", "image"):
        kind = pa.list_(pa.field("element", pa.list_(pa.field("element", kind))))
    return kind


def episodes_schema(features: Features) -> pa.Schema:
    """Arrow schema of an episodes file, columns in lerobot's order."""
    number, text = pa.int64(), pa.list_(pa.field("element", pa.string()))
    fields = [pa.field("episode_index", number), pa.field("tasks", text)]
    for name in ("length", "data/chunk_index", "data/file_index"):
        fields.append(pa.field(name, number))
    fields += [pa.field("dataset_from_index", number), pa.field("dataset_to_index", number)]
    for key, feature in features.items():
        if feature["dtype"] == "video":
            for name in ("chunk_index", "file_index"):
                fields.append(pa.field(f"videos/{key}/{name}", number))
            for name in ("from_timestamp", "to_timestamp"):
                fields.append(pa.field(f"videos/{key}/{name}", pa.float64()))
    for key, feature in features.items():
        if feature["dtype"] not in ("string", "language"):
            for stat in STAT_KEYS:
                fields.append(pa.field(f"stats/{key}/{stat}", _stats_type(feature, stat)))
    fields.append(pa.field("meta/episodes/chunk_index", number))
    fields.append(pa.field("meta/episodes/file_index", number))
    return pa.schema(fields)


def episode_row(row: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """One episode as a table of `schema`: columns it lacks are null, others of `row` are left."""
    taken = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name in schema.names
        for value in (row.get(name),)
    }
    return pa.Table.from_pylist([taken], schema=schema)


_SMALL = {"compression": "snappy", "use_dictionary": False, "write_statistics": False}
"""What a hundred columns of a few rows gain nothing from costs a quarter of the time [107 columns,
33 rows: 3.5 ms of CPU and 58 kB with dictionaries and statistics, 2.6 and 46 without]."""


def write_table(path: Path, table: pa.Table) -> None:
    """Write a small table as one row group."""
    pq.write_table(table, path, **_SMALL)


def warm_up(features: Features) -> None:
    """Write small tables into memory: the first Parquet file of a process costs 50 ms and more,
    which would otherwise be paid while an operator waits for the first episode."""
    pa.array(vector_stats(np.zeros((2, 2)))["mean"])  # imports numpy.ma, 100 ms on a busy machine
    rows = pa.Table.from_pylist([{}], schema=data_schema(features))
    for table in (rows, episode_row({}, episodes_schema(features)), tasks_table(["warm"])):
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **_SMALL)
        pq.read_metadata(pa.BufferReader(sink.getvalue()))


def _pandas_field(
    name: str | None, kind: str, numpy_type: str, extra: Any = None
) -> dict[str, Any]:
    return {
        "name": name,
        "field_name": name,
        "pandas_type": kind,
        "numpy_type": numpy_type,
        "metadata": extra,
    }


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """tasks.parquet: number and text, with the pandas index that lerobot cannot do without."""
    description = {
        "index_columns": ["task"],
        "column_indexes": [_pandas_field(None, "unicode", "object", {"encoding": "UTF-8"})],
        "columns": [
            _pandas_field("task_index", "int64", "int64"),
            _pandas_field("task", "unicode", "object"),
        ],
        "attributes": {},
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.3.3",
    }
    schema = pa.schema(
        [pa.field("task_index", pa.int64()), pa.field("task", pa.string())],
        metadata={"pandas": json.dumps(description)},
    )
    return pa.table(
        {"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks)},
        schema=schema,
    )


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of one file, only `columns` when given. Raises OSError and pa.ArrowInvalid, also for
    a column that is not there.

    pyarrow's own read_table asks for the meaning of the path's folders first: 5 ms a file, and
    pandas is imported where it is installed (0.3 s, 30 MB).
    """
    with pq.ParquetFile(path) as file:
        if missing := sorted(set(columns or ()) - set(file.schema_arrow.names)):
            raise pa.ArrowInvalid(
                f"expected a column {missing[0]}, found {file.schema_arrow.names}"
            )
        return file.read(columns=None if columns is None else list(columns))


def read_tasks(path: Path) -> list[str]:
    """Task strings by position. DatasetError when numbers and positions differ."""
    table = read_table(path)
    name = "task" if "task" in table.column_names else "__index_level_0__"
    if name not in table.column_names or "task_index" not in table.column_names:
        raise DatasetError(f"{path.name}: columns {table.column_names}, expected task_index, task")
    if table["task_index"].to_pylist() != list(range(table.num_rows)):
        raise DatasetError(
            f"{path.name}: task numbers are not 0..{table.num_rows - 1} in order",
            mend="LeRobot looks tasks up by position and would give wrong texts.",
        )
    return [str(task) for task in table[name].to_pylist()]
