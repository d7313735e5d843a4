"""Rows and episodes of a dataset, written anew with episodes left out, renumbered or relabelled.

Only files that change are written; the others are linked. Nothing here is visible to a loader.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recd.daemon.dataset.durable import keep_copy, make_folders
from recd.daemon.dataset.layout import FileIndex
from recd.daemon.dataset.pack import episode_tables
from recd.daemon.dataset.parquet import read_table, write_table
from recd.daemon.dataset.state import files_of_kind
from recd.daemon.dataset.stats import vector_stats

Row = dict[str, Any]
"""One row of the episodes table."""


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of the episodes, by their present number.

    gone: those that leave; task: number of the task that all rows of an episode get; texts: of all
    tasks afterwards; places: new values of `videos/...` columns.
    """

    gone: frozenset[int] = frozenset()
    task: Mapping[int, int] = field(default_factory=dict)
    texts: Sequence[str] = ()
    places: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)


def new_numbers(rows: Sequence[Row], gone: frozenset[int]) -> dict[int, tuple[int, int]]:
    """present number -> (number, first row) afterwards, of the episodes that stay."""
    found: dict[int, tuple[int, int]] = {}
    first = 0
    for row in rows:
        if row["episode_index"] not in gone:
            found[row["episode_index"]] = (len(found), first)
            first += row["length"]
    return found


def write_rows(
    root: Path, target: Path, rows: Sequence[Row], change: Change, *, aside: Callable[[int], Path]
) -> None:
    """Write or link every data file below `target`; aside: where the rows of a gone episode go."""
    numbers = new_numbers(rows, change.gone)
    by_file: dict[FileIndex, list[Row]] = {}
    for row in rows:
        place = FileIndex(row["data/chunk_index"], row["data/file_index"])
        by_file.setdefault(place, []).append(row)
    for place, path in files_of_kind(root, "data", ".parquet").items():
        new = target / path.relative_to(root)
        held = by_file.get(place, [])
        if not any(_touched(row, numbers, change) for row in held):
            make_folders(new.parent)
            keep_copy(path, new)
            continue
        schema = pq.read_schema(path)
        staying: list[pa.Table] = []
        for table in episode_tables([path], schema):
            number = table["episode_index"][0].as_py()
            if number in change.gone:
                make_folders(aside(number).parent)
                pq.write_table(table, aside(number), compression="snappy")
            else:
                staying.append(renumbered(table, *numbers[number], change.task.get(number)))
        if staying:
            make_folders(new.parent)
            with pq.ParquetWriter(new, schema, compression="snappy", use_dictionary=True) as writer:
                for table in staying:
                    writer.write_table(table)


def _touched(row: Row, numbers: Mapping[int, tuple[int, int]], change: Change) -> bool:
    number = row["episode_index"]
    same = numbers.get(number) == (number, row["dataset_from_index"])
    return not same or number in change.task


def renumbered(table: pa.Table, number: int, first: int, task: int | None = None) -> pa.Table:
    """The rows of one episode under another number, from global row `first` on."""
    rows = table.num_rows
    new: dict[str, Any] = {
        "episode_index": np.full(rows, number),
        "index": np.arange(first, first + rows),
    }
    if task is not None:
        new["task_index"] = np.full(rows, task)
    for name, values in new.items():
        at = table.column_names.index(name)
        field_ = table.schema.field(at)
        table = table.set_column(at, field_, pa.array(values, field_.type))
    return table


def write_episodes(root: Path, target: Path, rows: Sequence[Row], change: Change) -> None:
    """Write the episodes files below `target`, all with the columns of the first one."""
    numbers = new_numbers(rows, change.gone)
    schema: pa.Schema | None = None
    for path in files_of_kind(root, "meta/episodes", ".parquet").values():
        table = read_table(path)
        schema = schema or table.schema
        staying = [
            _edited(row, numbers[row["episode_index"]], change)
            for row in table.to_pylist()
            if row["episode_index"] in numbers
        ]
        if staying:
            new = target / path.relative_to(root)
            make_folders(new.parent)
            write_table(new, pa.Table.from_pylist(staying, schema=schema))


def _edited(row: Row, numbers: tuple[int, int], change: Change) -> Row:
    number, first = numbers
    present, length = row["episode_index"], row["length"]
    row |= {
        "episode_index": number,
        "dataset_from_index": first,
        "dataset_to_index": first + length,
        **change.places.get(present, {}),
    }
    row |= _stats("episode_index", np.full(length, number), row)
    row |= _stats("index", np.arange(first, first + length), row)
    task = change.task.get(present)
    if task is not None:
        row["tasks"] = [change.texts[task]]
        row |= _stats("task_index", np.full(length, task), row)
    return row


def _stats(key: str, values: Any, row: Row) -> Row:
    """Statistics columns of `key` that the table has."""
    found = {f"stats/{key}/{name}": value.tolist() for name, value in vector_stats(values).items()}
    return {name: value for name, value in found.items() if name in row}
