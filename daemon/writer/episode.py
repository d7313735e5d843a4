"""One running episode as the writer holds it: its records, its side logs, its way to the end.

Memory is bounded by the longest episode that a dataset allows (1,000 s): about 65 kB a second for
each arm bus.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.daemon.dataset import EpisodeRows
from recd.daemon.dataset.draft import OWN_FOLDER, WrittenRows
from recd.daemon.dataset.durable import remove_tree, sync_all
from recd.daemon.dataset.sides import read_stream
from recd.daemon.session.summary import BusSummary, CameraSummary
from recd.daemon.writer.chunknotes import ChunkNotes
from recd.daemon.writer.history import Recorded
from recd.daemon.writer.sidelog import SideLog, records_of
from recd.daemon.writer.streams import RecordStream
from recd.shm.clock import (
    NEVER_NS,
    NS_PER_S,
    ClockPair,
    clock_pair,
    now_ns,
    tick_at_or_before,
    tick_ns,
)

Records = npt.NDArray[np.void]

WALL_EVERY_NS = 10 * NS_PER_S
"""Wall time is noted this often while recording (DESIGN section 3)."""

BRACKET_NS = NS_PER_S // 10
"""Samples this long before row 0 and after the last row belong to the episode: they bracket it."""

RESUMED = "resumed"
"""Folder in staging where the logs of a resumed episode are written anew before they replace the
ones that a writer left when it died."""

OWNER_HEX_DIGITS = 15
"""Row records carry so much of the episode's uid in `aux` (daemon/encode/take.py)."""

FRAMES_AFTER_NS = NS_PER_S // 4
"""After the last row a frame is still looked for so long, at a low rate; the next one decides."""

KEEP_EVERY_NS = NS_PER_S // 4
"""Rows are built and handed to the kernel this often: a kill costs no more. Measured with once a
second: 500 to 960 ms lost."""

SYNC_EVERY_NS = NS_PER_S
"""Side logs are made durable this often: a power cut costs at most a second."""

TELEMETRY_SYNCS = 5
"""One in so many for the arms' telemetry, of which no row is made: each sync writes the open page
of a log again, and two logs of five records a second are a hundredth of all bytes written."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """What an episode's rows alone decide, done while its encoders still close their files.

    buses: figures of its arms; cameras: of its cameras, had none of them lost a frame; written: its
    data file, None where that holds pictures.
    """

    rows: EpisodeRows
    buses: dict[str, BusSummary]
    cameras: dict[str, CameraSummary]
    written: WrittenRows | None


@dataclass(slots=True)
class Track:
    """Records of one stream inside the episode and the side log they also go to.

    after_ns: records up to this time are there already, or lie before the episode.
    """

    stream: RecordStream
    log: SideLog
    lost_before: int = 0
    after_ns: int = -1
    records: Recorded = field(init=False)

    def __post_init__(self) -> None:
        self.records = Recorded(self.stream.dtype)

    def take_up(self, earlier: Records) -> None:
        """Records that an earlier writer logged."""
        self.log.extend(earlier)
        if not self.stream.bulky:
            self.records.extend(earlier)
        if len(earlier):
            self.after_ns = int(earlier[-1][self.stream.time_field])

    def add(self, record: Any) -> None:
        if not self.stream.bulky:
            self.records.append(record)
        self.log.append(record)

    @property
    def lost(self) -> int:
        """Records lost in the ring since the episode began."""
        return self.stream.lost - self.lost_before


class Episode:
    """State of one episode from `begin` to its commit.

    t0_ns: time of row 0; rate: rows per second as (num, den); rows: number of rows once `end` came.
    logged: streams that only go into side files. resumed: another writer had it open and died.
    What that one logged is taken up; the logs are written anew in a folder beside, until `settle`
    puts them in place.
    """

    def __init__(
        self, begin: Mapping[str, Any], *, arms: list[RecordStream], logged: list[RecordStream],
        cameras: list[RecordStream], resumed: bool = False,
    ) -> None:  # fmt: skip
        self.uid = str(begin["uid"])
        self.facts = dict(begin)
        self.staging = Path(begin["staging"])
        self.t0_ns = int(begin["t0_ns"])
        self.rate_num, self.rate_den = int(begin["rate_num"]), int(begin["rate_den"])
        self.rows: int | None = None
        self.seal: dict[str, Any] | None = None
        self.ahead: Ahead | None = None
        """What is made of its rows alone, once all are built; None before."""
        self.ended_ns = 0
        self.clocks: list[ClockPair] = [clock_pair()]
        self._synced_ns = self._kept_ns = now_ns()
        self._syncs = 0
        self.own = self.staging / OWN_FOLDER
        self.own.mkdir(parents=True, exist_ok=True)
        self.logs = self.own
        if resumed:
            self.logs = self.staging / RESUMED
            remove_tree(self.logs)
            self.logs.mkdir()
        self._owner = int(self.uid[:OWNER_HEX_DIGITS], 16)
        self.chunks = ChunkNotes()
        self.tracks = {stream.name: self._track(stream) for stream in (*arms, *logged, *cameras)}
        self.cameras = [stream.name for stream in cameras]
        self.back = bool(begin.get("back"))
        """True when it began in the past."""
        self.steps = begin.get("grid") == "step" and bool(cameras)
        """True when rows follow a source's own steps, not the grid."""
        self._came_ns: list[int] = []
        for stream in (*arms, *logged):
            self._take_up(stream)

    def _track(self, stream: RecordStream) -> Track:
        name = f"{stream.name}.arrows"
        log = SideLog(
            self.logs / name, stream.dtype, metadata={"recd.uid": self.uid}, compressed=stream.bulky
        )
        track = Track(stream, log, lost_before=stream.lost)
        if self.logs != self.own and (self.own / name).exists():
            table, _ = read_stream(self.own / name)
            if table.num_rows:
                earlier = records_of(table, stream.dtype)
                track.take_up(earlier)
                self._note(stream, earlier)
        return track

    def settle(self) -> None:
        """Put the logs of a resumed episode in the place of the earlier ones, durably. Each is
        replaced by one that holds at least as much, so a kill at any moment costs nothing."""
        if self.logs == self.own:
            return
        for track in self.tracks.values():
            track.log.sync()
        for path in sorted(self.logs.iterdir()):
            path.replace(self.own / path.name)
        sync_all([self.own, self.staging])
        self.logs.rmdir()
        self.logs = self.own

    def _take_up(self, stream: RecordStream) -> None:
        """Records just before t0 bracket the first row."""
        track = self.tracks[stream.name]
        for record in stream.since(self.t0_ns):
            if record[stream.time_field] > track.after_ns:
                track.add(record)
        if stream.bulky:  # what acts in row 0 may have come long before
            known = stream.since(0)
            self._note(stream, known[known[stream.time_field] > track.after_ns])
        if not track.log.rows:
            track.after_ns = self.t0_ns - BRACKET_NS

    def _note(self, stream: RecordStream, records: Iterable[Any]) -> None:
        if stream.bulky:
            for record in records:
                self.chunks.add(record)

    def consume(self, stream: str, record: Any, owner: int = 0) -> None:
        """One record of a stream; owner: `aux` of its slot, which tells whose row it is."""
        track = self.tracks[stream]
        if stream not in self.cameras:
            at_ns = int(record[track.stream.time_field])
            if not self._is_beyond(at_ns) and at_ns > track.after_ns:
                track.add(record)
                self._note(track.stream, [record])
        elif self._is_next_row(track, record, owner):
            track.add(record)

    def _is_next_row(self, track: Track, record: Any, owner: int) -> bool:
        k = int(record["k"])
        if k != len(track.records) or owner != self._owner:
            return False
        if self.steps:
            return int(record["encoded_ns"]) > self._asked_ns
        return int(record["tick_ns"]) == self.tick_ns(k)

    @property
    def _asked_ns(self) -> int:
        """No earlier than the request for this episode: row 0 lies a period after that."""
        return self.t0_ns - NS_PER_S * self.rate_den // self.rate_num - 1

    def tick_ns(self, k: int) -> int:
        """Time of row k (ns, CLOCK_MONOTONIC)."""
        return tick_ns(self.t0_ns, k, self.rate_num, self.rate_den)

    @property
    def fps(self) -> float:
        return self.rate_num / self.rate_den

    def _is_beyond(self, at_ns: int) -> bool:
        """True for samples that are of no use to the last row any more."""
        return self.rows is not None and at_ns > self._last_row_ns() + BRACKET_NS

    @property
    def frames_until_ns(self) -> int:
        """Capture time (ns) after which no frame is of use to it: the next one decides its last
        row. Never while it runs."""
        return NEVER_NS if self.rows is None else self._last_row_ns() + FRAMES_AFTER_NS

    def _last_row_ns(self) -> int:
        """When the last row of an ended episode has its joints; as late as can be while its step
        has not come."""
        assert self.rows is not None
        if not self.steps:
            return self.tick_ns(self.rows - 1)
        came = self._steps_came()
        return came[self.rows - 1] if len(came) >= self.rows else max(self.ended_ns, now_ns())

    def end(self, rows: int) -> None:
        """The episode has `rows` rows; what is still missing of them will come."""
        self.rows = rows
        self.ahead = None
        self.ended_ns = now_ns()
        self.clocks.append(clock_pair())

    def due(self, at_ns: int) -> bool:
        """True four times a second: time to build rows and to hand everything to the kernel."""
        if at_ns - self._kept_ns < KEEP_EVERY_NS:
            return False
        self._kept_ns = at_ns
        return True

    def sync_due(self, at_ns: int) -> bool:
        """True once a second: time to make it durable as well."""
        if at_ns - self._synced_ns < SYNC_EVERY_NS:
            return False
        self._synced_ns = at_ns
        if at_ns - self.clocks[-1].mono_ns >= WALL_EVERY_NS:
            self.clocks.append(clock_pair())
        return True

    def flush(self) -> None:
        """Hand the side logs to the kernel."""
        for track in self.tracks.values():
            track.log.flush()

    def sync(self) -> None:
        """Hand the side logs to the disk, those of telemetry now and then."""
        self._syncs += 1
        for name, track in self.tracks.items():
            if not name.startswith("telemetry.") or self._syncs % TELEMETRY_SYNCS == 0:
                track.log.sync()

    def rows_so_far(self) -> int:
        """Rows that every camera has decided; without cameras, by the time that has passed."""
        if not self.cameras:
            # The last row of an episode may still lie ahead when `end` comes.
            passed = self.rows_before(now_ns())
            return passed if self.rows is None else min(passed, self.rows)
        return min(len(self.tracks[name].records) for name in self.cameras)

    def row_times(self, first: int, upto: int) -> npt.NDArray[np.int64]:
        """Times of rows [first, upto): of the grid, or of the source's own steps. int64 ns."""
        if self.steps:
            steps = self.tracks[self.cameras[0]].records[first:upto]
            return np.array(steps["tick_ns"], np.int64)
        return np.array([self.tick_ns(k) for k in range(first, upto)], np.int64)

    def joint_times(self, first: int, upto: int) -> npt.NDArray[np.int64]:
        """When rows [first, upto) have their joints: at their own time, and a step when it came.

        A step's own clock says nothing of ours. int64 ns, CLOCK_MONOTONIC.
        """
        if self.steps:
            return np.array(self._steps_came()[first:upto], np.int64)
        return self.row_times(first, upto)

    def _steps_came(self) -> list[int]:
        """When the last camera had each step here, int64 ns, never decreasing. A step that waited
        in the ring for this episode came with its row 0."""
        came, tracks = self._came_ns, [self.tracks[name].records for name in self.cameras]
        for k in range(len(came), min(len(records) for records in tracks)):
            arrival_ns = max(int(records[k]["arrival_ns"]) for records in tracks)
            came.append(max(arrival_ns, came[-1] if came else self.t0_ns))
        return came

    def rows_before(self, at_ns: int) -> int:
        """Number of rows whose joints are those at or before `at_ns`."""
        if self.steps:
            return bisect_right(self._steps_came(), at_ns)
        return max(0, tick_at_or_before(self.t0_ns, at_ns, self.rate_num, self.rate_den) + 1)

    def ticks_of(self, camera: str, first: int = 0, upto: int | None = None) -> Records:
        """Row records (TICK_DTYPE) of one camera: rows [first, upto), all without `upto`."""
        ticks: Records = self.tracks[f"ticks.{camera}"].records[first:upto]
        return ticks

    def covered(self, arms: list[RecordStream], *, patience_ns: int) -> bool:
        """True once every arm stream has a sample past the last row, or patience has run out."""
        last_ns = self._last_row_ns()
        if all(stream.newest_ns > last_ns for stream in arms):
            return True
        late_ns = self.ended_ns if self.steps else max(last_ns, self.ended_ns)
        return now_ns() > late_ns + patience_ns

    def close_logs(self, *, durable: bool = True) -> list[Path]:
        """End all side logs; returns their files."""
        for track in self.tracks.values():
            track.log.close(durable=durable)
        return [track.log.path for track in self.tracks.values()]

    def abandon(self) -> None:
        """Let go of all side logs as the disk has them."""
        for track in self.tracks.values():
            with suppress(OSError):
                track.log.close(durable=False)
