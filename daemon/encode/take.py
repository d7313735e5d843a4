"""One episode of one camera: every decided tick becomes exactly one picture and one record.

Rows, pictures in the file and records in the tick ring grow together, or the take has failed. It
knows no link and no process; the worker feeds it frames and time.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from recd.config.streams import TICK_DTYPE, FrameFlag, TickFlag, take_number
from recd.daemon.align.cameras import CameraAligner, CameraRule, Decision, FrameRule, StepAligner
from recd.daemon.align.grid import Grid
from recd.daemon.encode.colour import black_picture
from recd.daemon.encode.pictures import Fate, PictureSource
from recd.daemon.encode.sinks import PictureSink
from recd.daemon.encode.statistics import CameraStatistics
from recd.daemon.encode.thumbnails import Thumbnails
from recd.daemon.spill import SpilledSlot, SpillReader
from recd.shm import RingWriter, Slot
from recd.shm.clock import NEVER_NS, NS_PER_S, now_ns

STEP_PATIENCE_NS = NS_PER_S
"""A step source that owes rows of an ended take, because another one was faster, may be silent for
this long; then rows repeat."""


@dataclass(frozen=True, slots=True)
class TakeSpec:
    """One episode as `begin` describes it.

    t0_ns: time of row 0; step: rows follow the source's own steps; first_row: row that this process
    begins with (0 unless it was restarted); source: what the camera said about its device.
    """

    uid: str
    staging: Path
    grid: Grid
    step: bool = False
    first_row: int = 0
    source: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_begin(cls, message: Mapping[str, Any], *, first_row: int = 0) -> "TakeSpec":
        """From the supervisor's `begin`."""
        grid = Grid(int(message["t0_ns"]), int(message["rate_num"]), int(message["rate_den"]))
        return cls(
            uid=str(message["uid"]),
            staging=Path(message["staging"]),
            grid=grid,
            step=message.get("grid") == "step",
            first_row=first_row,
            source=message.get("source") or {},
        )

    @property
    def rate(self) -> Fraction:
        """Rows per second."""
        return Fraction(self.grid.rate_num, self.grid.rate_den)

    @property
    def owner(self) -> int:
        """Number that marks this take's records in the tick ring (`aux`)."""
        return take_number(self.uid)


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows and frames of one take. kept: rows with a frame of their own; else as TickFlag says.
    lost: frames that the device dropped or the ring overwrote.
    """

    kept: int
    repeated: int
    expected: int
    missing: int
    late: int
    corrupt: int
    lost: int

    @classmethod
    def of(cls, flags: Sequence[int], *, lost: int = 0) -> "Counts":
        """Count the rows that have these flags (TickFlag words)."""
        # By word, of which there are few: row by row a minute of rows held up its end by 5 ms.
        words = Counter(flags)

        def rows(wanted: TickFlag, unless: TickFlag = TickFlag(0)) -> int:  # noqa: B008
            return sum(n for word, n in words.items() if word & wanted and not word & unless)

        return cls(
            kept=len(flags) - rows(TickFlag.REPEAT | TickFlag.MISSING),
            repeated=rows(TickFlag.REPEAT, TickFlag.EXPECTED),
            expected=rows(TickFlag.EXPECTED),
            missing=rows(TickFlag.MISSING),
            late=rows(TickFlag.LATE),
            corrupt=rows(TickFlag.CORRUPT),
            lost=lost,
        )

    def plain(self) -> dict[str, int]:
        """Name -> count."""
        return asdict(self)


def make_aligner(
    spec: TakeSpec, *, camera_period_ns: int, rule: str, shown: int = -1
) -> CameraAligner | StepAligner:
    """The aligner of a take. rule: `hysteresis` or `previous`; shown: ring index of the frame in
    the row before the first one, -1 for none."""
    if spec.step:
        return StepAligner()
    chosen = CameraRule.of(spec.grid, period_ns=camera_period_ns, kind=FrameRule[rule.upper()])
    return CameraAligner(spec.grid, chosen, first_row=spec.first_row, shown=shown)


@dataclass(frozen=True, slots=True)
class _Shown:
    """The last good picture, the slot it came from, and what every row that shows it is flagged."""

    frame: Any
    slot: Slot | SpilledSlot
    flags: TickFlag


class Take:
    """Rows of one take, from `begin` to the last one."""

    def __init__(
        self,
        spec: TakeSpec,
        *,
        aligner: CameraAligner | StepAligner,
        sink: PictureSink,
        pictures: PictureSource,
        ticks: RingWriter,
        spill: SpillReader,
        since: int = -1,
    ) -> None:
        """since: ring index of the first frame that may be a row's; older ones pass by."""
        size = pictures.size
        self.spec = spec
        self.sink = sink
        self.spill = spill
        """Frames that the writer kept while this process stalled."""
        self.size = size
        self.statistics = CameraStatistics(size=size)
        self.thumbnails = Thumbnails()
        self.lost = 0
        """Frames of this take that the device dropped; the worker adds what the ring lost."""
        self.limit: int | None = None
        self.row = spec.first_row
        """The next row to be decided."""
        self._flags: list[int] = []
        self._captures: list[int] = []
        self._indices: list[int] = []
        self._ended_ns = self._heard_ns = 0
        self._since = since
        self._aligner = aligner
        self._pictures = pictures
        self._ticks = ticks
        self._slots: dict[int, Slot | SpilledSlot] = {}
        self._shown: _Shown | None = None
        self._black: Any = None
        self._passed_over = False
        self._record = np.zeros(1, TICK_DTYPE)
        self._last_seq = self._last_index = -1

    # ------------------------------------------------------------------ frames in

    def push(self, slot: Slot | SpilledSlot) -> None:
        """A frame came. Its payload stays in the ring until a row wants it."""
        if slot.index < self._since:
            return
        self._count_gap(slot)
        self._heard_ns = slot.t_publish_ns
        if self._aligner.push(slot.index, slot.t_capture_ns, slot.t_publish_ns):
            self._slots[slot.index] = slot

    def _count_gap(self, slot: Slot | SpilledSlot) -> None:
        """Frames that the device dropped: gaps in its numbers that the ring does not explain."""
        inside = self.spec.step or slot.t_capture_ns > self.spec.grid.t0_ns
        if inside and min(slot.source_seq, self._last_seq) >= 0:
            by_device = slot.source_seq - self._last_seq - 1
            by_ring = slot.index - self._last_index - 1
            self.lost += max(0, by_device - by_ring)
        self._last_seq, self._last_index = slot.source_seq, slot.index

    # ------------------------------------------------------------------ rows out

    def advance(self, horizon_ns: int) -> Sequence[int]:
        """Encode the rows that can be decided when every frame published until `horizon_ns` has
        been pushed. Returns their flags (TickFlag words). Raises SinkError.
        """
        before = len(self._flags)
        while not self.complete and (decision := self._aligner.decide(horizon_ns)) is not None:
            self._encode(decision)
        if self._owes_steps(horizon_ns):
            self._encode(Decision(0, 0, -1, 0, 0, TickFlag.MISSING | TickFlag.LATE))
        return self._flags[before:]

    def _owes_steps(self, now: int) -> bool:
        if not self.spec.step or self.limit is None or self.complete:
            return False
        return now > self._owed_until_ns

    @property
    def _owed_until_ns(self) -> int:
        return max(self._ended_ns, self._heard_ns) + STEP_PATIENCE_NS

    def end(self, ticks: int) -> None:
        """The episode has `ticks` rows: rows 0 to ticks - 1."""
        self.limit = ticks
        self._ended_ns = now_ns()

    @property
    def complete(self) -> bool:
        """True once every row of an ended take is in the file."""
        return self.limit is not None and self.row >= self.limit

    def counts(self) -> Counts:
        """Of the rows that this process encoded and the episode keeps."""
        return Counts.of(self._flags[: self._kept_rows()], lost=self.lost)

    def captures(self) -> tuple[int, int]:
        """(first, last) capture time (ns) among those rows; 0 for none."""
        seen = [at for at in self._captures[: self._kept_rows()] if at]
        return (seen[0], seen[-1]) if seen else (0, 0)

    def first_surplus(self) -> int | None:
        """Ring index of the first step beyond the end, be it a row already or only taken; None
        when there is none."""
        kept = self._kept_rows()
        if kept < len(self._indices):
            return self._indices[kept]
        waiting = self._aligner.needed_from
        return waiting if waiting >= 0 else None

    def _kept_rows(self) -> int:
        end = self.row if self.limit is None else min(self.row, self.limit)
        return max(0, end - self.spec.first_row)

    @property
    def deadline_ns(self) -> int:
        """When `advance` is due even without another frame (CLOCK_MONOTONIC)."""
        if self.spec.step and self.limit is not None:
            return self._owed_until_ns + 1
        return min(self._aligner.deadline_ns, NEVER_NS)

    def _encode(self, decision: Decision) -> None:
        tick_ns = decision.tick_ns if self.spec.step else self.spec.grid.tick_ns(self.row)
        frame, flags = self._picture(decision)
        nbytes = self.sink.encode(frame, self.row - self.spec.first_row)
        self._publish(tick_ns, flags, nbytes)
        self._flags.append(int(flags))
        if (seen := self._pictures.seen(frame)) is not None:
            self.statistics.add(seen, self.row)
            self.thumbnails.add(seen, self.row)
        self.row += 1
        self._let_go()

    def _picture(self, decision: Decision) -> tuple[Any, TickFlag]:
        """What row `decision` shows, and its flags."""
        flags = decision.flags
        slot = self._slots.get(decision.source_index)
        if slot is not None and self._shown is not None and slot.index == self._shown.slot.index:
            return self._shown.frame, flags | self._shown.flags
        frame, fate = (None, Fate.LOST) if slot is None else self._pictures.of(slot, self.spill)
        if fate is Fate.GOOD:
            assert slot is not None
            if self._passed_over:
                flags |= TickFlag.SKIP_BEFORE
            looks = _told(slot) | (TickFlag.BLACK if self._pictures.black(frame) else TickFlag(0))
            self._shown, self._passed_over = _Shown(frame, slot, looks), False
            return frame, flags | looks
        self._passed_over = slot is not None
        flags |= TickFlag.CORRUPT if fate is Fate.CORRUPT else TickFlag.MISSING
        if self._shown is None:
            self._black = self._black or black_picture(*self.size)
            return self._black, flags | TickFlag.MISSING
        flags = flags & ~TickFlag.SKIP_BEFORE | TickFlag.REPEAT
        return self._shown.frame, flags | self._shown.flags

    def _publish(self, tick_ns: int, flags: TickFlag, nbytes: int) -> None:
        encoded_ns = now_ns()
        shown = self._shown.slot if self._shown else None
        self._record[0] = (
            self.row,
            tick_ns,
            shown.index if shown else -1,
            shown.source_seq if shown else -1,
            shown.t_capture_ns if shown else 0,
            shown.t_arrival_ns if shown else 0,
            shown.t_capture_ns - tick_ns if shown else 0,
            encoded_ns,
            nbytes,
            int(flags),
        )
        self._captures.append(shown.t_capture_ns if shown else 0)
        self._indices.append(shown.index if shown else -1)
        self._ticks.write(
            self._record,
            t_capture_ns=tick_ns,
            t_arrival_ns=encoded_ns,
            source_seq=self.row,
            flags=int(flags),
            aux=self.spec.owner,
        )

    def _let_go(self) -> None:
        oldest = self._aligner.needed_from
        if oldest < 0:
            self._slots.clear()
        for index in [i for i in self._slots if i < oldest]:
            del self._slots[index]


def _told(slot: Slot | SpilledSlot) -> TickFlag:
    """What its camera says of a frame, as every row that shows it says it."""
    told = TickFlag.FROZEN if slot.flags & FrameFlag.FROZEN else TickFlag(0)
    return told | TickFlag.ARRIVAL if slot.flags & FrameFlag.STAMP_ARRIVAL else told
