"""When a lossless source may publish its next frame: only for sources that can wait.

The first frame waits until somebody who must keep every frame has joined the ring, so that a
file's first frame is the first row; after that the slowest of them sets the pace.
"""

from recd.shm import Credit, Segment
from recd.shm.clock import NS_PER_MS
from recd.shm.dump import describe_ring


class StepCredit:
    """Credit of one ring. `may_write` costs a few atomic loads once a reader is there."""

    PAUSE_NS = 2 * NS_PER_MS
    """How long to wait before asking again."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._credit = Credit(segment)
        self._joined = False

    def may_write(self) -> bool:
        """True when the next frame overruns nobody who must keep it."""
        if not self._joined:
            readers = describe_ring(self._segment)["readers"]
            self._joined = any(reader["policy"] == "MUST_KEEP" for reader in readers)
        return self._joined and self._credit.free() > 0

    def all_taken(self) -> bool:
        """True once everybody who must keep them has taken all frames published."""
        return self._credit.waiting() <= 0
