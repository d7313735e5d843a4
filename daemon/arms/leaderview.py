"""What a follower knows of its leader: newest position per joint, and how old it is."""

import numpy as np

from recd.shm import CellReader


class LeaderView:
    """Reads the leader's cell. position: float64 units [n], the newest known of each joint (NaN
    before the first); sample_ns: time of the newest sample; moved_ns: when it last moved visibly.
    """

    def __init__(self, cell: CellReader, joints: int, *, stale_ns: int) -> None:
        self._cell = cell
        self._stale_ns = stale_ns
        self._record = cell.record
        self._source = cell.record["position"][0]
        self._bits = 1 << np.arange(joints, dtype=np.uint32)
        self._joint_ns = np.zeros(joints, dtype=np.int64)
        self._valid = np.zeros(joints, dtype=bool)
        self._version = 0
        self._rested = np.full(joints, np.nan)
        self.position = np.full(joints, np.nan)
        self.sample_ns = 0
        self.moved_ns = 0

    def refresh(self) -> None:
        """Take what is new in the cell."""
        version = self._cell.refresh()
        if version == self._version:
            return
        self._version = version
        record = self._record[0]
        self.sample_ns = int(record["sample_ns"])
        np.not_equal(self._bits & record["valid"], 0, out=self._valid)
        np.copyto(self.position, self._source, where=self._valid)
        np.copyto(self._joint_ns, self.sample_ns, where=self._valid)

    def silent(self, at_ns: int) -> bool:
        """True when no joint's position is fresh enough to be followed."""
        return at_ns - self.sample_ns > self._stale_ns

    def partly_silent(self, at_ns: int) -> bool:
        """True when some joint's position is too old; it is held at its last one."""
        return at_ns - int(self._joint_ns.min()) > self._stale_ns

    def watch_movement(self, at_ns: int, *, tolerance: float = 1.0) -> None:
        """Note in `moved_ns` when any joint has left its resting place by `tolerance` units."""
        away = np.abs(self.position - self._rested) > tolerance
        if away.any() or np.isnan(self._rested).any():
            np.copyto(self._rested, self.position)
            self.moved_ns = at_ns
