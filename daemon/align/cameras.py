"""Which picture belongs to which row. Live, one tick at a time, and for whole takes: same results.

Rules and their limits are told in docs/time.md. Every row gets exactly one decision; a decision
never goes back to an older frame than the one before it.
"""

from collections import deque
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from recd.config.streams import TickFlag
from recd.daemon.align import passes
from recd.daemon.align.grid import Grid
from recd.shm import aot
from recd.shm.clock import NEVER_NS, NS_PER_MS

KERNELS = "recd.daemon.align.kernels"
PATIENCE_NS = 500 * NS_PER_MS
"""A picture that comes this late still gets its row. A starved computer delivers late, not never
(load 15 on 2 cores: 200 ms); waiting costs a recording nothing but the end of an episode whose
camera has stopped."""

SETTLE_NS = NS_PER_MS
"""A frame stamped as known just before a deadline is readable this much later at the latest."""

Int64s = npt.NDArray[np.int64]


class FrameRule(IntEnum):
    """How a frame is chosen for a row."""

    HYSTERESIS = passes.HYSTERESIS  # keep the frame-to-tick offset until it is 0.75 period off
    PREVIOUS = passes.PREVIOUS  # the newest frame at or before the tick


@dataclass(frozen=True, slots=True)
class CameraRule:
    """What decides about the frames of one camera.

    period_ns: nominal time between its frames. reach_ns: HYSTERESIS changes its offset when a frame
    is further than this from its tick. tolerance_ns: a row whose frame is further off is MISSING.
    wait_ns: a tick is decided at the latest this long after its time.
    """

    kind: FrameRule
    period_ns: int
    reach_ns: int
    tolerance_ns: int
    wait_ns: int

    @classmethod
    def of(
        cls, grid: Grid, *, period_ns: int = 0, kind: FrameRule = FrameRule.HYSTERESIS
    ) -> "CameraRule":
        """The rule for a camera of this nominal period (ns, 0: that of the grid).

        HYSTERESIS changes at 0.75 of the shorter of both periods, but not below half a camera
        period, since no frame need be nearer, and tolerates a quarter of a period of jitter beyond
        that half. PREVIOUS tolerates an age of 1.5 camera periods.
        """
        camera_ns, tick_ns = period_ns or grid.period_ns, grid.period_ns
        shorter_ns = min(camera_ns, tick_ns)
        reach_ns = max(3 * shorter_ns // 4, camera_ns // 2)
        tolerance_ns = max(reach_ns, camera_ns // 2 + shorter_ns // 4)
        if kind is FrameRule.PREVIOUS:
            tolerance_ns = 3 * camera_ns // 2
        wait_ns = max(PATIENCE_NS, 2 * max(camera_ns, tick_ns))
        return cls(kind, camera_ns, reach_ns, tolerance_ns, wait_ns)

    def words(self, grid: Grid) -> list[int]:
        """The rule on `grid` as the words that passes.py reads."""
        words = [0] * passes.RULE_WORDS
        words[passes.KIND] = int(self.kind)
        words[passes.T0], words[passes.NUM], words[passes.DEN] = (
            grid.t0_ns, grid.rate_num, grid.rate_den
        )  # fmt: skip
        per_tick = grid.period_ns / self.period_ns
        words[passes.REACH], words[passes.TOLERANCE] = self.reach_ns, self.tolerance_ns
        words[passes.PERIOD] = self.period_ns
        words[passes.WAIT] = self.wait_ns
        words[passes.ADVANCE] = max(1, round(per_tick))
        words[passes.MOST] = max(1, int(np.ceil(per_tick - _SAME_RATE)))
        words[passes.SLOWER] = per_tick < 1 - _SAME_RATE
        return words


_SAME_RATE = 5e-4  # nominal rates closer than this are one rate: 29.97 and 30 are not


@dataclass(frozen=True, slots=True)
class Decision:
    """The picture of row k.

    source_index: as it was pushed, -1 none; capture_ns: its capture time, 0 none; error_ns:
    capture_ns - tick_ns; flags: TickFlag bits REPEAT, EXPECTED, MISSING, LATE, SKIP_BEFORE.
    """

    k: int
    tick_ns: int
    source_index: int
    capture_ns: int
    error_ns: int
    flags: TickFlag


class CameraAligner:
    """Live form: push frames as they come, ask for decisions, get rows 0, 1, 2, ... in order.

    Holds the frames that may still be used and no more, given that decisions are taken. first_row,
    shown: go on where another one ended, row `first_row - 1` having got frame `shown` (-1: none);
    pushed from that frame on, the rows are those that the other one would have decided.
    """

    def __init__(
        self, grid: Grid, rule: CameraRule, *, first_row: int = 0, shown: int = -1
    ) -> None:
        self._rule = rule.words(grid)
        self._grid = grid
        self._capture: list[int] = []
        self._known: list[int] = []
        self._index: list[int] = []
        self._last = -1
        self._shown = shown
        self.k = first_row
        """The next row to be decided."""
        self.refused = 0
        """Frames that were not newer than the one before them (duplicates, clock steps)."""
        self._newest = -(2**63)
        self._tick = grid.tick_ns(first_row)

    def push(self, index: int, t_capture_ns: int, t_known_ns: int) -> bool:
        """A usable frame came. index: its number in the ring; t_known_ns: when it was published.

        False when it is not newer than the frame before it: it will not be used.
        """
        if t_capture_ns <= self._newest:
            self.refused += 1
            return False
        in_time = t_known_ns <= self._tick + self._rule[passes.WAIT]
        if self._last < 0 and t_capture_ns <= self._tick and in_time:
            self._forget(len(self._index))  # this one is nearer to every row to come
        if index == self._shown:
            self._forget(len(self._index))
            self._last = 0
        self._newest = t_capture_ns
        self._capture.append(t_capture_ns)
        self._known.append(t_known_ns)
        self._index.append(index)
        return True

    @property
    def deadline_ns(self) -> int:
        """When row k is decided even if no further frame comes (CLOCK_MONOTONIC ns)."""
        return self._tick + self._rule[passes.WAIT] + SETTLE_NS

    @property
    def needed_from(self) -> int:
        """Index of the oldest frame that a later decision may use; -1 while none is held."""
        return self._index[0] if self._index else -1

    def decide(self, now_ns: int) -> Decision | None:
        """Decision of row k if it can be taken at `now_ns`, else None. Call until None."""
        tick, rule = self._tick, self._rule
        visible = len(self._known)
        while visible and self._known[visible - 1] > tick + rule[passes.WAIT]:
            visible -= 1
        at, settled = passes.choose_frame(self._capture, visible, self._last, tick, rule)
        if not settled and now_ns < self.deadline_ns:
            return None
        if at < 0:
            flags = TickFlag.MISSING | TickFlag.LATE
            decision = Decision(self.k, tick, -1, 0, 0, flags)
        else:
            flags = TickFlag(
                passes.frame_flags(self._capture, visible, self._last, at, tick, settled, rule)
            )
            capture = self._capture[at]
            decision = Decision(self.k, tick, self._index[at], capture, capture - tick, flags)
            self._forget(at)
            self._last = 0
        self.k += 1
        self._tick = self._grid.tick_ns(self.k)
        return decision

    def _forget(self, count: int) -> None:
        if count:
            del self._capture[:count], self._known[:count], self._index[:count]


class StepAligner:
    """For a source with its own step clock: every frame is a row, at the frame's own time."""

    def __init__(self) -> None:
        self._waiting: deque[Decision] = deque()
        self._pushed = 0
        self.k = 0
        self.refused = 0

    def push(self, index: int, t_capture_ns: int, t_known_ns: int) -> bool:
        """A step came; its row is decided at once."""
        none = TickFlag(0)
        self._waiting.append(Decision(self._pushed, t_capture_ns, index, t_capture_ns, 0, none))
        self._pushed += 1
        return True

    @property
    def deadline_ns(self) -> int:
        """There is none: a step may take as long as it likes."""
        return NEVER_NS

    @property
    def needed_from(self) -> int:
        """Index of the oldest frame whose row was not handed out yet; -1 for none."""
        return self._waiting[0].source_index if self._waiting else -1

    def decide(self, now_ns: int) -> Decision | None:
        """The next row, or None when there is no further step yet."""
        if not self._waiting:
            return None
        self.k += 1
        return self._waiting.popleft()


@dataclass(frozen=True, slots=True)
class CameraAlignment:
    """Decisions of a whole take, one entry a row: int64 [K] each.

    source_index: position in the frames given, -1 none; error_ns: capture less tick, 0 for none;
    flags: TickFlag bits.
    """

    source_index: Int64s
    error_ns: Int64s
    flags: Int64s


def align_camera(
    capture_ns: Int64s,
    grid: Grid,
    ticks: int,
    *,
    rule: CameraRule,
    known_ns: Int64s | None = None,
) -> CameraAlignment:
    """Decide rows 0 to `ticks - 1` from all frames of a take at once, by compiled code.

    capture_ns, known_ns: int64 [N] in the order of arrival; without known_ns every frame counts as
    known when it was captured. Frames that are not newer than those before them are not used.
    """
    capture = np.ascontiguousarray(capture_ns, dtype=np.int64)
    known = capture if known_ns is None else np.asarray(known_ns, dtype=np.int64)
    newer = np.ones(len(capture), dtype=bool)
    newer[1:] = capture[1:] > np.maximum.accumulate(capture)[:-1]
    positions = np.flatnonzero(newer)
    capture, known = capture[newer], np.ascontiguousarray(known[newer])
    words = np.array(rule.words(grid), dtype=np.int64)
    chosen, error, flags = (np.zeros(ticks, dtype=np.int64) for _ in range(3))
    aot.load(KERNELS)["align_frames"](
        capture.ctypes.data, known.ctypes.data, len(capture), words.ctypes.data, ticks,
        chosen.ctypes.data, error.ctypes.data, flags.ctypes.data,
    )  # fmt: skip
    source = np.full(ticks, -1, dtype=np.int64)
    source[chosen >= 0] = positions[chosen[chosen >= 0]]
    return CameraAlignment(source, error, flags)
