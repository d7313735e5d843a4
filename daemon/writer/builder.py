"""Rows of a running episode, built as soon as all streams can decide them, and logged at once.

What is committed and what a crash leaves are the same rows: the log is written while recording.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.models import RobotConfig
from recd.daemon.dataset.schema import DatasetSchema, text_column
from recd.daemon.dataset.sides import ROWS_FILE, RowBlock, RowLog
from recd.daemon.writer.episode import Episode
from recd.daemon.writer.rows import GOALS, Bus, PairRows, align_pair, bus_of
from recd.shm.clock import NS_PER_S

CUT = "cut"
NEWEST = 16
"""So many of an arm's newest samples are looked at for one that answers for all joints."""

LOOK_BACK_NS = NS_PER_S
"""How far before a row its samples may lie; older ones are STALE by far."""


class RowBuilder:
    """Builds the rows of one episode in blocks, in order."""

    def __init__(self, robot: RobotConfig, schema: DatasetSchema, episode: Episode) -> None:
        self.uid = episode.uid
        self.blocks: list[RowBlock] = []
        self.state_valid: list[npt.NDArray[np.bool_]] = []
        self._cameras = tuple(robot.cameras)
        self._buses = buses_of(robot)
        self._episode = episode
        self._task = str(episode.facts.get("task") or robot.dataset.task)
        self._from = dict.fromkeys(robot.arms, 0)
        self._schema = schema
        self._pairs = tuple(robot.arms) if len(robot.arms) > 1 else ()
        self._log = RowLog(episode.logs, schema, uid=episode.uid, pairs=self._pairs)

    @property
    def rows(self) -> int:
        """Rows built so far."""
        return self._log.rows

    def decidable(self) -> int:
        """Rows for which every camera has decided and every arm has later samples."""
        count = min(self._episode.rows_so_far(), self._arms_decided())
        return count if self._episode.rows is None else min(count, self._episode.rows)

    def _arms_decided(self) -> int:
        """Rows that no later sample of any arm can change."""
        tracks = {bus: self._episode.tracks[f"arm.{bus.pair}.follower"] for bus in self._buses}
        return self._episode.rows_before(
            min(
                decided_until_ns(track.records[-NEWEST:], track.stream.newest_ns, bus)
                for bus, track in tracks.items()
            )
        )

    def extend(self, upto: int) -> None:
        """Build and log the rows up to (not including) `upto`. What they are made of is handed to
        the kernel before: a kill leaves no row whose records are missing."""
        first = self._log.rows
        if upto <= first:
            return
        self._episode.flush()
        at_ns = self._episode.joint_times(first, upto)
        pairs = [
            align_pair(self._samples(bus.pair, int(at_ns[0])), at_ns, bus) for bus in self._buses
        ]
        tasks = self._tasks(pairs, at_ns)
        block = RowBlock(
            first=first,
            tick_ns=self._episode.row_times(first, upto),
            state=np.hstack([pair.state_values for pair in pairs]),
            action=np.hstack([pair.action_values for pair in pairs]),
            task=[next(filter(None, of_row), self._task) for of_row in zip(*tasks, strict=True)],
            extra=self._own_columns(first, upto, pairs, tasks),
        )
        self._log.append(block)
        self.blocks.append(block)
        self.state_valid.append(np.hstack([pair.state.valid for pair in pairs]))

    def _samples(self, pair: str, first_ns: int) -> Any:
        """Samples that may matter to rows from `first_ns` on."""
        track = self._episode.tracks[f"arm.{pair}.follower"]
        at = self._from[pair]
        times_ns = track.records[at:]["request_ns"]
        passed = int(np.searchsorted(times_ns, first_ns - LOOK_BACK_NS, side="right"))
        at += max(0, passed - 1)
        self._from[pair] = at
        return track.records[at:]

    def _tasks(self, pairs: list[PairRows], at_ns: npt.NDArray[np.int64]) -> list[list[str]]:
        """Of each pair, the task of the chunk that acted in each row, empty where none said one. A
        row's own is that of the first pair with one, else the episode's."""
        found, first = [], 0
        for bus, pair in zip(self._buses, pairs, strict=True):
            among = ((1 << len(bus.joints)) - 1) << first
            found.append(self._episode.chunks.tasks(pair.chunk_id, at_ns, "", among=among))
            first += len(bus.joints)
        return found

    def _own_columns(
        self, first: int, upto: int, pairs: list[PairRows], tasks: list[list[str]]
    ) -> dict[str, Any]:
        columns: dict[str, Any] = {
            "recd.state_error_ns": _furthest(pair.state.error_ns for pair in pairs),
            "recd.state_valid": np.hstack([pair.state.valid for pair in pairs]),
            "recd.action_error_ns": _furthest(pair.action.error_ns for pair in pairs),
            "recd.action_valid": np.hstack([pair.action.valid for pair in pairs]),
            "recd.state_source": pairs[0].state_tick,
            "recd.action_source": pairs[0].action_tick,
            "recd.control_source": pairs[0].control_source,
            "recd.intervention": np.any([pair.intervention for pair in pairs], axis=0),
            "recd.chunk_id": pairs[0].chunk_id,
            "recd.chunk_index": pairs[0].chunk_index,
            **{f"recd.{name}": np.hstack([pair.goals[name] for pair in pairs]) for name in GOALS},
        }
        if self._pairs:
            columns |= {
                f"recd.pair_{name}": np.stack([getattr(pair, name) for pair in pairs], axis=1)
                for name in ("control_source", "intervention", "chunk_id", "chunk_index")
            }
            for pair, of_pair in zip(self._pairs, tasks, strict=True):
                columns[text_column("recd.pair_task", pair)] = np.array(of_pair)
        if self._cameras:
            ticks = [self._episode.ticks_of(camera, first, upto) for camera in self._cameras]
            for name, field in CAMERA_COLUMNS.items():
                columns[name] = np.stack([t[field] for t in ticks], axis=1).astype(np.int64)
        return columns

    def cut(self, rows: int) -> None:
        """The episode ends earlier than what was built: forget the rows from `rows` on."""
        if self.rows <= rows:
            return
        kept = [block for block in self.blocks if block.first < rows]
        kept[-1] = kept[-1].upto(rows)
        self.state_valid = self.state_valid[: len(kept)]
        self.state_valid[-1] = self.state_valid[-1][: rows - kept[-1].first]
        self.blocks = kept
        self._log.close()
        # Written beside and put in place whole: a kill in between costs nothing.
        beside = self._episode.logs / CUT
        beside.mkdir(exist_ok=True)
        log = RowLog(beside, self._schema, uid=self.uid, pairs=self._pairs)
        for block in kept:
            log.append(block)
        log.path = log.path.replace(self._episode.logs / ROWS_FILE)
        beside.rmdir()
        self._log = log

    def sync(self) -> None:
        """Make the rows so far durable."""
        self._log.sync()

    def close(self, *, durable: bool = True) -> None:
        """End the row log. Idempotent."""
        self._log.close(durable=durable)


def decided_until_ns(newest: Any, newest_ns: int, bus: Bus) -> int:
    """Until when no sample to come can change a row (ns, CLOCK_MONOTONIC).

    newest: the last arm_sample_dtype records of a follower, in order; newest_ns: `request_ns` of
    the last one; -1 for none. Whoever is silent is waited for as long as a value may be away from
    its row. A sample later than a row in which every joint answered is the nearest on its side for
    each of them, and the requests and goals to come are later than the newest request. [By the
    reach alone the last row waited for 33 ms; in 9 of 39 stops what is made of the rows alone, 8 ms
    of CPU, then came behind the encoders, and in none of 20 with this.]
    """
    all_joints = (1 << len(bus.joints)) - 1
    whole = newest["sample_ns"][(newest["valid"] & all_joints) == all_joints]
    answered_ns = int(whole.max()) if len(whole) else 0
    return max(newest_ns - bus.reach_ns, min(newest_ns, answered_ns) - 1)


CAMERA_COLUMNS = {
    "recd.camera_error_ns": "error_ns",
    "recd.camera_source": "source_seq",
    "recd.camera_flags": "flags",
}
"""Own column -> field of the row records."""


def buses_of(robot: RobotConfig) -> list[Bus]:
    """Alignment rules of every pair, in feature order."""
    return [
        bus_of(
            pair,
            joints=robot.joints(pair),
            rate_hz=arm.rate_hz,
            fps=robot.dataset.fps,
            degrees=arm.use_degrees,
            action=robot.dataset.action,
        )
        for pair, arm in robot.arms.items()
    ]


def _furthest(errors_ns: Iterable[Any]) -> Any:
    """Per row the error with the largest magnitude, sign kept; int64 [R]."""
    all_ns = np.hstack(list(errors_ns))
    return np.take_along_axis(all_ns, np.abs(all_ns).argmax(axis=1)[:, None], axis=1)[:, 0]
