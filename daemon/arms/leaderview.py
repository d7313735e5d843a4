"""What a follower knows of its leader: newest position per joint, and how old it is."""

import struct
from collections.abc import MutableSequence

from recd.daemon.arms.passes import doubles_in
from recd.shm import CellReader, CellWriter

_NOWHERE = float("nan")


FACTS = struct.Struct("<2q4I")
"""A leader's cell up to its positions, in the order of `leader_cell_dtype`."""


def positions_in(cell: CellReader | CellWriter, joints: int) -> MutableSequence[float]:
    """The positions in the record of a leader's cell (units), in its memory."""
    return doubles_in(position_bytes(cell, joints), 0, joints)


def position_bytes(cell: CellReader | CellWriter, joints: int) -> memoryview:
    """Their bytes, which are copied at once [item by item, each becomes an object]."""
    return cell.memory[FACTS.size :][: struct.calcsize(f"{joints}d")]


class LeaderView:
    """Reads the leader's cell. position: units per joint, the newest known of each (NaN before the
    first); sample_ns: time of the newest sample; moved_ns: when it last moved visibly; driven: not
    0 while its own servos hold it; refused: not 0 when they were asked to and could not.
    """

    def __init__(self, cell: CellReader, joints: int, *, stale_ns: int) -> None:
        self._cell = cell
        self._stale_ns = stale_ns
        self._told = positions_in(cell, joints)
        self._told_bytes = position_bytes(cell, joints)
        self._everybody = (1 << joints) - 1
        self._joints = range(joints)
        self._joint_ns: list[int] | None = None  # per joint; None: all at `_oldest_ns`
        self._oldest_ns = 0
        self._version = 0
        self._rested = [_NOWHERE] * joints
        self._position_bytes = memoryview(bytearray(len(self._told_bytes)))
        self.position = doubles_in(self._position_bytes, 0, joints)
        self.position[:] = [_NOWHERE] * joints
        self.sample_ns = 0
        self.moved_ns = 0
        self.driven = self.refused = 0

    def refresh(self) -> None:
        """Take what is new in the cell."""
        version = self._cell.refresh()
        if version == self._version:
            return
        self._version = version
        at_ns, _, valid, _, self.driven, self.refused = FACTS.unpack_from(self._cell.memory)
        self.sample_ns = at_ns
        if valid == self._everybody:
            self._position_bytes[:] = self._told_bytes
            self._joint_ns, self._oldest_ns = None, at_ns
            return
        joint_ns = self._joint_ns or [self._oldest_ns for _ in self._joints]
        for joint, value in enumerate(self._told):
            if valid >> joint & 1:
                self.position[joint] = value
                joint_ns[joint] = at_ns
        self._joint_ns, self._oldest_ns = joint_ns, min(joint_ns)

    def silent(self, at_ns: int) -> bool:
        """True when no joint's position is fresh enough to be followed."""
        return at_ns - self.sample_ns > self._stale_ns

    def partly_silent(self, at_ns: int) -> bool:
        """True when some joint's position is too old; it is held at its last one."""
        return at_ns - self._oldest_ns > self._stale_ns

    def watch_movement(self, at_ns: int, *, tolerance: float = 1.0) -> None:
        """Note in `moved_ns` when any joint has left its resting place by `tolerance` units."""
        pairs = zip(self.position, self._rested, strict=True)
        if any(not abs(here - rested) <= tolerance for here, rested in pairs):
            self._rested = list(self.position)
            self.moved_ns = at_ns
