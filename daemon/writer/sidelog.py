"""Native-rate records of a running episode in an Arrow IPC *stream* file.

A stream (not a file) because its whole batches are readable after kill -9; Parquet and IPC files
are not without their footer. Records are appended in batches; `sync()` makes them durable.
"""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recd.config.errors import DatasetError
from recd.config.streams import JOINED, STREAMS_VERSION
from recd.daemon.dataset.sides import NEWER


def arrow_schema(dtype: np.dtype[np.void], metadata: dict[str, str] | None = None) -> pa.Schema:
    """Arrow schema of a structured dtype: scalars as they are, vectors as fixed-size lists."""
    assert dtype.names is not None
    fields = []
    for name in dtype.names:
        base, shape = dtype[name].base, dtype[name].shape
        kind = pa.from_numpy_dtype(base)
        fields.append(pa.field(name, pa.list_(kind, shape[0]) if shape else kind))
    stamped = {"recd.streams_version": str(STREAMS_VERSION), **(metadata or {})}
    return pa.schema(fields, metadata=stamped)


def record_batch(records: npt.NDArray[np.void], schema: pa.Schema) -> pa.RecordBatch:
    """Structured records as one Arrow batch (copies)."""
    columns = []
    for field in schema:
        values = np.ascontiguousarray(records[field.name])
        array = pa.array(values.reshape(-1))
        if pa.types.is_fixed_size_list(field.type):
            array = pa.FixedSizeListArray.from_arrays(array, field.type.list_size)
        columns.append(array)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def records_of(table: pa.Table, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    """An Arrow table as structured records (copies); vectors from fixed-size lists.

    Fields that the file's version did not have get their unused value. DatasetError when it is of a
    newer version, or lacks a field that its version has.
    """
    version = int((table.schema.metadata or {}).get(b"recd.streams_version", b"0"))
    if version > STREAMS_VERSION:
        raise DatasetError(
            f"side file of streams version {version}: this recd knows 1 to {STREAMS_VERSION}; "
            "nothing was touched",
            mend="Update recd.", code=NEWER,
        )  # fmt: skip
    records = np.zeros(table.num_rows, dtype)
    assert dtype.names is not None
    for name in dtype.names:
        if name not in table.column_names:
            joined, unused = JOINED.get(name, (0, 0))
            if version >= joined:
                raise DatasetError(f"side file of streams version {version}: has no `{name}`")
            records[name] = unused
            continue
        column = table[name].combine_chunks()
        shape = dtype[name].shape
        values = column.flatten() if shape else column
        records[name] = values.to_numpy(zero_copy_only=False).reshape(-1, *shape)
    return records


class SideLog:
    """Append-only Arrow IPC stream of one record type."""

    def __init__(
        self, path: Path, dtype: np.dtype[np.void], *, metadata: dict[str, str] | None = None,
        batch_rows: int = 64, compressed: bool = False,
    ) -> None:  # fmt: skip
        self.path = path
        self.rows = 0
        self._schema = arrow_schema(dtype, metadata)
        self._batch = np.zeros(batch_rows, dtype)
        self._filled = 0
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - lives as long as the episode
        options = pa.ipc.IpcWriteOptions(compression="zstd" if compressed else None)
        self._stream = pa.ipc.new_stream(self._file, self._schema, options=options)

    def append(self, record: np.void | npt.NDArray[np.void]) -> None:
        """Copy one record in; written with its batch."""
        self._batch[self._filled] = record
        self._filled += 1
        self.rows += 1
        if self._filled == len(self._batch):
            self.flush()

    def extend(self, records: npt.NDArray[np.void]) -> None:
        """Write many records as one batch."""
        self.flush()
        if len(records):
            self._stream.write_batch(record_batch(records, self._schema))
            self.rows += len(records)

    def flush(self) -> None:
        """Hand what is buffered to the kernel as one batch."""
        if self._filled:
            self._stream.write_batch(record_batch(self._batch[: self._filled], self._schema))
            self._filled = 0

    def sync(self) -> None:
        """Flush and make durable (fdatasync)."""
        self.flush()
        os.fdatasync(self._file.fileno())

    def close(self, *, durable: bool = True) -> None:
        """End the stream. Idempotent."""
        if self._file.closed:
            return
        try:
            self.flush()
            self._stream.close()
            if durable:
                os.fsync(self._file.fileno())
        finally:
            self._file.close()
