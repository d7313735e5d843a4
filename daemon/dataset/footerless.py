"""Reads a Parquet file whose writer was killed before it wrote the footer, as lerobot's are then.

Its pages are walked from the front and a footer is written for the row groups that are whole; the
result is read by PyArrow, which checks the rest. Limit: pages in the order of the schema, without
encryption, no value null; what does not add up ends the walk.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recd.daemon.dataset.thrift import ThriftError, read_struct, write_struct

MAGIC = b"PAR1"
DICTIONARY_PAGE = 2
DATA_PAGES = {0: 5, 3: 8}
"""Page type -> field of its own header, whose first field is the number of values."""

SNAPPY = 1
ENCODINGS = (0, 3, 8)
"""PLAIN, RLE, RLE_DICTIONARY: what PyArrow writes; readers do not rely on the list."""


@dataclass(frozen=True, slots=True)
class _Page:
    """start, end: bytes in the file; values: in it; dictionary: it holds no values itself."""

    start: int
    end: int
    values: int
    dictionary: bool
    raw_bytes: int


def has_footer(path: Path) -> bool:
    """Whether the file ends as a finished Parquet file does."""
    size = path.stat().st_size
    if size < 12:
        return False
    with path.open("rb") as file:
        file.seek(size - 8)
        length, magic = struct.unpack("<I4s", file.read(8))
    return bool(magic == MAGIC and length + 12 <= size)


def _pages(data: bytes) -> Iterator[_Page]:
    """Whole pages from the front on, as far as they follow each other."""
    position = len(MAGIC)
    while position < len(data):
        try:
            header, body = read_struct(data, position)
        except ThriftError:
            return
        kind, size, raw = header.get(1), header.get(3), header.get(2)
        if not isinstance(size, int) or not isinstance(raw, int) or size < 0:
            return
        own = header.get(7 if kind == DICTIONARY_PAGE else DATA_PAGES.get(int(kind or 0), 0))
        if not isinstance(own, dict) or body + size > len(data):
            return
        yield _Page(
            position, body + size, int(own[1]), kind == DICTIONARY_PAGE, raw + body - position
        )
        position = body + size


def _take(pages: list[_Page], first: int, values: int) -> int | None:
    """Number of the page behind the column chunk of `values` values that begins at `first`."""
    at = first + (first < len(pages) and pages[first].dictionary)
    while values > 0 and at < len(pages) and not pages[at].dictionary:
        values -= pages[at].values
        at += 1
    return at if values == 0 else None


def _groups(pages: list[_Page], widths: list[int]) -> Iterator[tuple[int, list[list[_Page]]]]:
    """(rows, pages by column) of every whole row group.

    The rows are tried: a first column may end behind each of its pages, and only the right end
    lets all others add up.
    """
    first = 0
    while first < len(pages):
        found = None
        counted, at = 0, first + pages[first].dictionary
        while found is None and at < len(pages) and not pages[at].dictionary:
            counted += pages[at].values
            at += 1
            rows, odd = divmod(counted, widths[0])
            if not odd:
                found = _split(pages, first, [rows * width for width in widths])
        if found is None:
            return
        yield rows, found
        first += sum(len(chunk) for chunk in found)


def _split(pages: list[_Page], first: int, values: list[int]) -> list[list[_Page]] | None:
    chunks, at = [], first
    for wanted in values:
        end = _take(pages, at, wanted)
        if end is None:
            return None
        chunks.append(pages[at:end])
        at = end
    return chunks


def _template(schema: pa.Schema) -> tuple[dict[int, Any], list[tuple[int, list[str]]]]:
    """Footer of an empty file of this schema, and the physical type and path of its leaves."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink, compression="snappy")
    data = sink.getvalue().to_pybytes()
    (length,) = struct.unpack("<I", data[-8:-4])
    footer, _ = read_struct(data, len(data) - 8 - length)
    leaves: list[tuple[int, list[str]]] = []
    elements = iter(footer[2])
    _leaves(next(elements), elements, [], leaves)
    return footer, leaves


def _leaves(
    element: dict[int, Any],
    elements: Iterator[dict[int, Any]],
    path: list[str],
    found: list[tuple[int, list[str]]],
) -> None:
    if 5 not in element:
        found.append((element[1], path))
    for _ in range(element.get(5, 0)):
        child = next(elements)
        _leaves(child, elements, [*path, child[4].decode()], found)


def _footer(
    footer: dict[int, Any],
    leaves: list[tuple[int, list[str]]],
    groups: list[tuple[int, list[list[_Page]]]],
) -> dict[int, Any]:
    described = []
    for rows, chunks in groups:
        columns = []
        for (kind, path), pages in zip(leaves, chunks, strict=True):
            start = pages[0].start
            facts: dict[int, Any] = {
                1: kind,
                2: list(ENCODINGS),
                3: [name.encode() for name in path],
                4: SNAPPY,
                5: _Long(sum(page.values for page in pages if not page.dictionary)),
                6: _Long(sum(page.raw_bytes for page in pages)),
                7: _Long(pages[-1].end - start),
                9: _Long(next(page.start for page in pages if not page.dictionary)),
            }
            if pages[0].dictionary:
                facts[11] = _Long(start)
            columns.append({2: _Long(start), 3: facts})
        nbytes = sum(page.raw_bytes for pages in chunks for page in pages)
        described.append({1: columns, 2: _Long(nbytes), 3: _Long(rows)})
    return {**footer, 3: _Long(sum(rows for rows, _ in groups)), 4: described}


class _Long(int):
    """An i64 of a footer; plain numbers are i32."""


def widths_of(schema: pa.Schema, features: Mapping[str, Any]) -> list[int]:
    """Values a row has in each leaf column of a data file."""
    widths = []
    for name in schema.names:
        picture = features[name]["dtype"] == "image"
        widths += [1, 1] if picture else [prod(features[name]["shape"])]
    return widths


def salvage_table(path: Path, schema: pa.Schema, widths: list[int]) -> pa.Table:
    """The rows of all whole row groups of a file without footer, of the columns in `schema`.

    An empty table where there is none; never raises for what the file holds.
    """
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        return schema.empty_table()
    template, leaves = _template(schema)
    if len(leaves) != len(widths):
        return schema.empty_table()
    groups = list(_groups([page for page in _pages(data) if page.end <= len(data)], widths))
    while groups:
        end = groups[-1][1][-1][-1].end
        footer = write_struct(_footer(template, leaves, groups), long=_Long)
        whole = data[:end] + footer + struct.pack("<I", len(footer)) + MAGIC
        try:
            table = pq.read_table(pa.BufferReader(whole))
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError):
            groups.pop()
            continue
        return table
    return schema.empty_table()
