"""Is the stored picture the one that its row claims? Asked of the stamp burned into each picture.

Every decoded frame is read; what a row says about it (TICK_DTYPE) must agree, or carry a flag that
says so. Only simulated cameras stamp their pictures.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.streams import TickFlag
from recd.daemon.sim.stamp import Stamp, read_stamp
from recd.perf.figures import quantiles
from recd.shm.clock import NS_PER_MS

Records = npt.NDArray[np.void]
Int64s = npt.NDArray[np.int64]


_NO_PICTURE = TickFlag.MISSING | TickFlag.CORRUPT
"""A row with one of these claims no picture of its own."""


class Wrong(StrEnum):
    """How a picture can disagree with its row without a flag that admits it."""

    UNREADABLE = "no stamp can be read"
    CAMERA = "stamp of another camera"
    FRAME = "stamp of another frame than the row names"
    TIME = "taken half a period or more from the time that the row names"
    BACKWARDS = "older than the row before"
    REPEAT_UNFLAGGED = "same frame as the row before, not flagged"
    REPEAT_FALSE = "flagged as a repeat, but a new frame"
    SKIP_UNFLAGGED = "a frame between this row and the last was passed over, not flagged"
    COUNT = "pictures in the file and rows differ in number"


@dataclass(frozen=True, slots=True)
class Finding:
    """One wrong row: its number, what is wrong, and the numbers that show it."""

    row: int
    wrong: Wrong
    shown: str


@dataclass(frozen=True, slots=True)
class PictureTruth:
    """One camera of one episode.

    captured_ns: int64 [K] true capture times by stamp, 0 where none is readable; findings: every
    disagreement; repeated, skipped: frames shown again and passed over, by the stamps' numbers.
    """

    rows: int
    pictures: int
    captured_ns: Int64s
    repeated: int
    skipped: int
    findings: tuple[Finding, ...] = field(default=())

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """bool [K]: rows whose picture has a stamp."""
        return self.captured_ns > 0


def read_stamps(path: Path) -> Iterator[Stamp | None]:
    """The stamp of every picture of a video in order, by decoding all of it (one thread)."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            yield read_stamp(_luma(frame))


def _luma(frame: Any) -> npt.NDArray[np.uint8]:
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: frame.height, : frame.width]


def compare(
    stamps: Sequence[Stamp | None], ticks: Records, *, camera: int, period_ns: int
) -> PictureTruth:
    """Judge every row of one camera. Pure.

    ticks: TICK_DTYPE [K] as recorded; camera: number in its stamps; period_ns: of the camera. A
    claimed capture time within half a period of the stamped one names the same frame.
    """
    findings: list[Finding] = []
    rows = min(len(stamps), len(ticks))
    if len(stamps) != len(ticks):
        shown = f"{len(stamps)} pictures, {len(ticks)} rows"
        findings.append(Finding(rows, Wrong.COUNT, shown))
    captured = np.zeros(len(ticks), np.int64)
    before: Stamp | None = None
    repeated = skipped = 0
    told = TickFlag(0)
    for row in range(rows):
        stamp = stamps[row]
        flags = TickFlag(int(ticks["flags"][row]))
        if stamp is not None:
            captured[row] = stamp.t_capture_ns
            if before is not None:
                repeated += stamp.frame == before.frame
                skipped += max(0, stamp.frame - before.frame - 1)
        wrong = _judge(stamp, before, ticks[row], flags | told, camera=camera, period_ns=period_ns)
        if wrong is not None:
            findings.append(Finding(row, wrong, _shown(stamp, before, ticks[row])))
        before = stamp or before
        # Frames lost in a hole that its own row admits, or was blamed for, need no later mention.
        hole = flags & (_NO_PICTURE | TickFlag.FROZEN)
        told = TickFlag.SKIP_BEFORE if hole or stamp is None else TickFlag(0)
    return PictureTruth(len(ticks), len(stamps), captured, repeated, skipped, tuple(findings))


def _judge(
    stamp: Stamp | None, before: Stamp | None, tick: np.void, flags: TickFlag, *, camera: int,
    period_ns: int,
) -> Wrong | None:  # fmt: skip
    none_claimed = bool(flags & _NO_PICTURE)
    admitted = none_claimed or bool(flags & TickFlag.FROZEN)
    if stamp is None:
        return None if none_claimed else Wrong.UNREADABLE
    if stamp.camera != camera:
        return Wrong.CAMERA
    if not admitted and (wrong := _claim(tick, stamp, period_ns)):
        return wrong
    return None if before is None else _order(stamp, before, flags, admitted=admitted)


def _order(stamp: Stamp, before: Stamp, flags: TickFlag, *, admitted: bool) -> Wrong | None:
    step = stamp.frame - before.frame
    if step < 0:
        return Wrong.BACKWARDS
    if step == 0:
        return None if admitted or flags & TickFlag.REPEAT else Wrong.REPEAT_UNFLAGGED
    if flags & TickFlag.REPEAT:
        return Wrong.REPEAT_FALSE
    if step > 1 and not flags & (TickFlag.SKIP_BEFORE | TickFlag.FROZEN):
        return Wrong.SKIP_UNFLAGGED
    return None


def _claim(tick: np.void, stamp: Stamp, period_ns: int) -> Wrong | None:
    """Does the row's record name the frame of this stamp, by number and by time? A time that is
    said to be of arrival claims nothing."""
    number = int(tick["source_seq"])
    if number >= 0 and number != stamp.frame:
        return Wrong.FRAME
    if int(tick["flags"]) & TickFlag.ARRIVAL:
        return None
    off_ns = abs(int(tick["capture_ns"]) - stamp.t_capture_ns)
    return Wrong.TIME if off_ns >= period_ns // 2 else None


def _shown(stamp: Stamp | None, before: Stamp | None, tick: np.void) -> str:
    seen = "none" if stamp is None else f"camera {stamp.camera} frame {stamp.frame}"
    last = "none" if before is None else f"frame {before.frame}"
    off_ms = 0.0 if stamp is None else (int(tick["capture_ns"]) - stamp.t_capture_ns) / NS_PER_MS
    flags = TickFlag(int(tick["flags"]))
    claimed = f"frame {int(tick['source_seq'])}, {off_ms:+.2f} ms off, flags {flags!r}"
    return f"picture: {seen}; before: {last}; row: {claimed}"


def times_of(truth: PictureTruth, ticks: Records, *, period_ns: int) -> dict[str, Any]:
    """Figures in time of one camera: how far its pictures are from their rows, true and as said.

    from_row_ms: |true capture - row|; claim_error_ms: |claimed capture - true capture|;
    claim_bias_ms: median of claimed less true; phase: true capture after its row, in camera
    periods, mean direction over the rows, 0..1 (what a sweep over camera phases sweeps).
    """
    fresh = truth.readable & ((ticks["flags"] & (TickFlag.REPEAT | TickFlag.MISSING)) == 0)
    true_ns, row_ns = truth.captured_ns[fresh], ticks["tick_ns"][fresh]
    claim_ns = ticks["capture_ns"][fresh] - true_ns
    return {
        "rows_compared": int(fresh.sum()),
        "from_row_ms": quantiles(np.abs(true_ns - row_ns), scale=NS_PER_MS),
        "claim_error_ms": quantiles(np.abs(claim_ns), scale=NS_PER_MS),
        "claim_bias_ms": float(np.median(claim_ns)) / NS_PER_MS if len(claim_ns) else None,
        "phase": _phase(true_ns - row_ns, period_ns),
    }


def _phase(offset_ns: Int64s, period_ns: int) -> float | None:
    """Mean direction: the offsets lie on a circle of one period."""
    if not len(offset_ns):
        return None
    angle = 2j * np.pi * (offset_ns % period_ns) / period_ns
    mean = np.angle(np.exp(angle).mean()) / (2 * np.pi)
    return round(float(mean % 1.0), 6)


def plain(truth: PictureTruth, *, shown: int = 20) -> dict[str, Any]:
    """Counts and the first findings, for JSON."""
    kinds: dict[str, int] = {}
    for finding in truth.findings:
        kinds[finding.wrong.name.lower()] = kinds.get(finding.wrong.name.lower(), 0) + 1
    return {
        "pictures": truth.pictures,
        "rows": truth.rows,
        "readable": int(truth.readable.sum()),
        "repeated": truth.repeated,
        "skipped": truth.skipped,
        "wrong": len(truth.findings),
        "kinds": kinds,
        "findings": [f"row {f.row}: {f.wrong}: {f.shown}" for f in truth.findings[:shown]],
    }
