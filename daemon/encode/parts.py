"""A take whose encoder died and came back: its file goes on in parts, joined when it ends.

`<key>.mp4` stays the torn first part until the joined file replaces it in one rename: at every
moment the staging folder holds a valid prefix of the episode under that name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from recd.daemon.encode.images import join_pictures, read_pictures
from recd.daemon.encode.salvage import join, whole_packets


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a take and how many of its rows are used."""

    path: Path
    rows: int


def earlier_parts(final: Path) -> tuple[Part, ...]:
    """What earlier encoders of this take left, in order. Nothing is decoded."""
    paths = [final, *sorted(final.parent.glob(f"{final.stem}.part*{final.suffix}"))]
    return tuple(Part(path, _rows_in(path)) for path in paths if path.exists())


def next_part(final: Path, earlier: Sequence[Part]) -> Path:
    """Where the next encoder of this take writes."""
    if not earlier:
        return final
    return final.with_name(f"{final.stem}.part{len(earlier):03d}{final.suffix}")


def _rows_in(path: Path) -> int:
    if path.suffix == ".mp4":
        return whole_packets(path)
    return sum(1 for _ in read_pictures(path))


def join_parts(parts: Sequence[Part], final: Path, *, rate: Fraction) -> str:
    """Replace `final` by all rows of `parts`, durably; its sha256. The parts are removed.

    Raises SalvageError when a part has fewer rows than stated, OSError from the disk.
    """
    joined = final.with_name(f"{final.stem}.joined{final.suffix}")
    joined.unlink(missing_ok=True)
    if final.suffix == ".mp4":
        digest = join([(part.path, part.rows) for part in parts], joined, rate=rate)
    else:
        digest = join_pictures([(part.path, part.rows) for part in parts], joined)
    joined.replace(final)
    for part in parts:
        if part.path != final:
            part.path.unlink()
    return digest
