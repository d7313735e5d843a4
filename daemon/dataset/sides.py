"""The truth in time of an episode, one line per row, readable after kill -9.

An Arrow IPC stream written while recording: grid time, state, action, task and every own column,
whichever columns the dataset itself shows. Recovery rebuilds the rows from it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recd.config.errors import DatasetError
from recd.daemon.dataset.parquet import EpisodeRows, arrow_type
from recd.daemon.dataset.schema import (
    ACTION,
    OWN_COLUMNS,
    OWN_COLUMNS_VERSION,
    STATE,
    DatasetSchema,
    OwnColumn,
    text_column,
)

ROWS_FILE = "rows.arrows"
"""Name of the row stream in an episode's own folder."""

ROWS_VERSION = 3
"""3 has the columns of version 2 of OWN_COLUMNS. Before, streams of several pairs (2) had the
numbers of each of them; those of one pair (1) did not."""

NEWER = "newer_format"
"""Code of the error that a stream of a later version gets."""


def _width(column: OwnColumn, schema: DatasetSchema, pairs: Sequence[str]) -> int:
    """Values per row; 0 for a scalar."""
    return {
        "row": 0,
        "cameras": len(schema.camera_keys),
        "state": len(schema.state_names),
        "action": len(schema.action_names),
        "pairs": len(pairs),
    }[column.over]


def _streamed(
    schema: DatasetSchema, pairs: Sequence[str], version: int
) -> dict[str, tuple[pa.DataType, int]]:
    """Type and width of every column of the row stream but `task`. version: of OWN_COLUMNS."""
    columns: dict[str, tuple[pa.DataType, int]] = {
        "k": (pa.int64(), 0),
        "tick_ns": (pa.int64(), 0),
        STATE: (pa.float32(), len(schema.state_names)),
        ACTION: (pa.float32(), len(schema.action_names)),
    }
    for column in OWN_COLUMNS:
        width = _width(column, schema, pairs)
        if column.dtype == "string":
            if column.over == "pairs" and column.since <= version:
                texts = (text_column(column.name, pair) for pair in pairs)
                columns |= dict.fromkeys(texts, (pa.string(), 0))
            continue
        # The numbers of pairs were in the streams before they were in datasets.
        known = column.since <= version or column.over == "pairs"
        if known and (column.over == "row" or width):
            columns[column.name] = (arrow_type(column.dtype), width)
    return columns


def rows_schema(
    schema: DatasetSchema, uid: str, pairs: Sequence[str] = (), *,
    version: int = OWN_COLUMNS_VERSION,
) -> pa.Schema:  # fmt: skip
    """Arrow schema of the row stream of episode `uid`. pairs: of arms, where there are several;
    version: of OWN_COLUMNS.
    """
    fields = [
        pa.field(name, pa.list_(kind, width) if width else kind)
        for name, (kind, width) in _streamed(schema, pairs, version).items()
    ]
    metadata = {
        "recd.rows_version": str(ROWS_VERSION),
        **({"recd.pairs": ",".join(pairs)} if pairs else {}),
        "recd.columns_version": str(version),
        "recd.uid": uid,
        "recd.fps": str(schema.fps),
        "recd.cameras": ",".join(schema.camera_keys),
    }
    return pa.schema([*fields, pa.field("task", pa.string())], metadata=metadata)


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Some consecutive rows. first: their first k; tick_ns: int64 [n]; state, action: float32
    [n, D]; task: one string a row; extra: own columns by name, those of pairs, too; others get
    their unused value."""

    first: int
    tick_ns: NDArray[np.int64]
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    task: Sequence[str]
    extra: Mapping[str, Any]

    def upto(self, row: int) -> "RowBlock":
        """The part of it before row `row`."""
        n = row - self.first
        return RowBlock(
            self.first, self.tick_ns[:n], self.state[:n], self.action[:n], self.task[:n],
            {name: values[:n] for name, values in self.extra.items()},
        )  # fmt: skip


class RowLog:
    """Writes the row stream of a running episode. Rows must come in order, without gaps."""

    def __init__(
        self, folder: Path, schema: DatasetSchema, *, uid: str, pairs: Sequence[str] = ()
    ) -> None:
        """Begin `rows.arrows` in the episode's own folder. pairs: of arms, if there are several."""
        self.path = folder / ROWS_FILE
        self.rows = 0
        self._columns = _streamed(schema, pairs, OWN_COLUMNS_VERSION)
        self._schema = rows_schema(schema, uid, pairs)
        self._unused: dict[str, int | str] = {c.name: c.unused for c in OWN_COLUMNS}
        self._file = self.path.open("wb", buffering=0)
        self._stream = pa.ipc.new_stream(self._file, self._schema)

    def append(self, block: RowBlock) -> None:
        """Write rows as one batch, handed to the kernel at once. ValueError out of order."""
        if block.first != self.rows:
            raise ValueError(f"row {self.rows} is next, got {block.first}")
        count = len(block.task)
        given = {
            "k": np.arange(block.first, block.first + count, dtype=np.int64),
            "tick_ns": block.tick_ns,
            STATE: block.state,
            ACTION: block.action,
            **block.extra,
        }
        arrays = [
            self._array(given.get(name, self._unused.get(name, "")), count, kind, width)
            for name, (kind, width) in self._columns.items()
        ]
        arrays.append(pa.array(list(block.task), pa.string()))
        self._stream.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self.rows += count

    def _array(self, values: Any, count: int, kind: pa.DataType, width: int) -> pa.Array:
        shape = (count, width) if width else (count,)
        if pa.types.is_string(kind):
            return pa.array(np.broadcast_to(values, shape).tolist(), kind)
        whole = np.asarray(values, dtype=kind.to_pandas_dtype())
        # A vector over one camera may come as a scalar per row, as its dataset column does.
        whole = whole.reshape(shape) if whole.size == count * max(width, 1) else whole
        flat = pa.array(np.broadcast_to(whole, shape).ravel(), kind)
        return pa.FixedSizeListArray.from_arrays(flat, width) if width else flat

    def sync(self) -> None:
        """Make what was appended durable (fdatasync)."""
        os.fdatasync(self._file.fileno())

    def close(self, *, durable: bool = True) -> None:
        """End the stream. Idempotent."""
        if self._file.closed:
            return
        try:
            self._stream.close()
            if durable:
                os.fsync(self._file.fileno())
        finally:
            self._file.close()


@dataclass(frozen=True, slots=True)
class LoggedRows:
    """A row stream read back. tick_ns: int64 [R]; closed: its writer ended it."""

    rows: EpisodeRows
    tick_ns: NDArray[np.int64]
    closed: bool


def read_stream(path: Path) -> tuple[pa.Table, bool]:
    """All whole batches of an Arrow IPC stream, and whether it was closed.

    A stream cut inside its schema gives an empty table without columns.
    """
    batches: list[pa.RecordBatch] = []
    with path.open("rb") as file:
        try:
            reader = pa.ipc.open_stream(file)
        except (pa.ArrowInvalid, OSError):
            return pa.table({}), False
        try:
            for batch in reader:
                batches.append(batch)
            closed = True
        except (pa.ArrowInvalid, OSError):
            closed = False
        size = path.stat().st_size
        closed = closed and file.tell() == size and _ends_stream(path, size)
    return pa.Table.from_batches(batches, schema=reader.schema), closed


def _ends_stream(path: Path, size: int) -> bool:
    """A closed stream ends with the marker; a cut at a batch border looks ended but lacks it."""
    with path.open("rb") as file:
        file.seek(max(0, size - 8))
        return file.read(8) == b"\xff\xff\xff\xff\x00\x00\x00\x00"


def read_rows(path: Path, schema: DatasetSchema) -> LoggedRows:
    """Rows of a running or finished episode, up to the last whole batch.

    DatasetError when there is no row, or the stream belongs to another set-up or a newer recd.
    """
    if not path.exists():
        raise DatasetError(f"{path.name}: not there; no row of the episode is known")
    table, closed = read_stream(path)
    if not table.num_rows:
        raise DatasetError(f"{path.name}: holds no whole row")
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    if int(metadata.get("recd.rows_version", "0")) > ROWS_VERSION:
        raise DatasetError(
            f"{path.name}: written by a newer recd; nothing was touched",
            mend="Update recd.",
            code=NEWER,
        )
    uid = metadata.get("recd.uid", "")
    pairs = [pair for pair in metadata.get("recd.pairs", "").split(",") if pair]
    version = int(metadata.get("recd.columns_version", "1"))
    expected = rows_schema(schema, uid, pairs, version=version).remove_metadata()
    if not table.schema.remove_metadata().equals(expected):
        raise DatasetError(f"{path.name}: its columns are not those of this dataset")
    numbers = table["k"].to_numpy()
    if not np.array_equal(numbers, np.arange(len(numbers))):
        raise DatasetError(f"{path.name}: rows are not 0..{len(numbers) - 1} in order")
    rows = EpisodeRows(
        state=_matrix(table[STATE]),
        action=_matrix(table[ACTION]),
        task=table["task"].to_pylist(),
        extra=_extra(table, schema, uid),
    )
    return LoggedRows(rows, table["tick_ns"].to_numpy(), closed)


def _matrix(column: pa.ChunkedArray) -> NDArray[Any]:
    whole = column.combine_chunks()
    if not pa.types.is_fixed_size_list(whole.type):
        return np.asarray(whole.to_numpy(zero_copy_only=False))
    values = whole.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values).reshape(len(whole), whole.type.list_size)


def _extra(table: pa.Table, schema: DatasetSchema, uid: str) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    for key in schema.extra_keys:
        if key == "recd.episode_uid":
            extra[key] = [uid] * table.num_rows
        elif key in table.column_names:
            texts = pa.types.is_string(table.schema.field(key).type)
            extra[key] = table[key].to_pylist() if texts else _matrix(table[key])
    return extra


def cut_rows(rows: EpisodeRows, count: int) -> EpisodeRows:
    """The first `count` rows."""
    return EpisodeRows(
        state=rows.state[:count],
        action=rows.action[:count],
        task=list(rows.task[:count]),
        extra={key: values[:count] for key, values in rows.extra.items()},
        images=rows.images,
    )
