"""A take whose encoder died and came back: its file goes on in parts, joined when it ends.

Each part's name says its first row, so that the rows of a take are known from its folder alone:
by the next encoder, and by recovery when nobody comes back. `<key>.mp4` is the first part until
the joined file replaces it in one rename.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from recd.daemon.encode.images import join_pictures, read_pictures
from recd.daemon.encode.salvage import join, whole_packets

_ROW = re.compile(r"\.row(\d{9})$")


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a take. rows: how many of it are used; first: row of the take it begins with."""

    path: Path
    rows: int
    first: int = 0

    @property
    def end(self) -> int:
        """The row after its last one that is used."""
        return self.first + self.rows


def staged_parts(final: Path, rows_in: Callable[[Path], int]) -> tuple[Part, ...]:
    """Parts of a take in order, without gap or overlap, as far as they reach from row 0.

    rows_in: good rows of one file. What a joined file holds already is not told twice.
    """
    parts: list[Part] = []
    for first, path in _paths(final):
        end = parts[-1].end if parts else 0
        if first > end:
            break  # what led here is gone: a power cut
        rows = rows_in(path)
        if parts and first + rows <= end:
            continue
        if parts:
            parts[-1] = replace(parts[-1], rows=first - parts[-1].first)
        parts.append(Part(path, rows, first))
    return tuple(parts)


def earlier_parts(final: Path, *, sync: bool) -> tuple[Part, ...]:
    """What earlier encoders of this take left. Nothing is decoded; sync: make it durable."""
    parts = staged_parts(final, _rows_in)
    for part in parts if sync else ():
        with part.path.open("rb") as file:
            os.fdatasync(file.fileno())
    return parts


def next_part(final: Path, earlier: Sequence[Part]) -> Path:
    """Where the next encoder of this take writes. What stood there held no row of the take."""
    if not earlier:
        return final
    path = final.with_name(f"{final.stem}.row{earlier[-1].end:09d}{final.suffix}")
    path.unlink(missing_ok=True)
    return path


def _paths(final: Path) -> list[tuple[int, Path]]:
    """(first row, path) of every part that is there, in order."""
    beside = final.parent.glob(f"{final.stem}.row*{final.suffix}")
    named = [(int(found[1]), path) for path in beside if (found := _ROW.search(path.stem))]
    return [(0, final)] * final.exists() + sorted(named)


def _rows_in(path: Path) -> int:
    if path.suffix == ".mp4":
        return whole_packets(path)
    return sum(1 for _ in read_pictures(path))


def join_parts(parts: Sequence[Part], final: Path, *, rate: Fraction) -> str:
    """Replace `final` by all rows of `parts`, durably; its digest. All other parts are removed.

    Raises SalvageError when a part has fewer rows than stated, OSError from the disk.
    """
    joined = final.with_name(f"{final.stem}.joined{final.suffix}")
    joined.unlink(missing_ok=True)
    if final.suffix == ".mp4":
        digest = join([(part.path, part.rows) for part in parts], joined, rate=rate)
    else:
        digest = join_pictures([(part.path, part.rows) for part in parts], joined)
    joined.replace(final)
    for _, path in _paths(final):
        if path != final:
            path.unlink()
    return digest
