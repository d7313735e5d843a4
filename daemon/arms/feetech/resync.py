"""Getting back in step after a missing reply. Pure: time and packets in, decisions out.

Replies carry no number. But the line keeps order: when the reply to a request of a shape that no
other request has comes in, everything owed before it has come too or never will. So: wait until
the line is quiet, send such a marker, accept nothing until its own reply is there.
"""

from dataclasses import dataclass

from recd.shm.clock import NS_PER_MS

QUIET_NS = 2 * NS_PER_MS
"""How long the line must carry nothing before a marker is sent: two servos never answer this far
apart, and a marker sent earlier might meet a reply on the half-duplex line."""

PATIENCE_NS = 20 * NS_PER_MS
LONGEST_PATIENCE_NS = 320 * NS_PER_MS
"""How long a marker is waited for before the next one goes out; doubles while nothing answers."""

MARKER_LENGTHS = tuple(range(5, 15))
"""Reply lengths that no ordinary request asks for (2, 4 and 15 are taken)."""


@dataclass(slots=True)
class Line:
    """Whether the next reply can be trusted to belong to the next request.

    A marker's shape is (servo id, reply length): 60 shapes for six servos, the newest alone counts.
    At full patience one comes back after 19 s, far longer than any adapter holds a reply.
    """

    ids: tuple[int, ...]
    in_step: bool = True
    lost_ns: int = 0
    markers: int = 0
    sent_ns: int = 0
    patience_ns: int = PATIENCE_NS
    marker: tuple[int, int] | None = None

    def lose(self, at_ns: int) -> None:
        """A reply that was due has not come."""
        if self.in_step:
            self.in_step = False
            self.lost_ns = at_ns
            self.marker = None
            self.patience_ns = PATIENCE_NS

    def next_marker(self, at_ns: int, *, last_traffic_ns: int) -> tuple[int, int] | None:
        """(id, length) of the marker to send now, or None: wait for quiet or for the last one."""
        if at_ns - last_traffic_ns < QUIET_NS:
            return None
        if self.marker is not None:
            if at_ns - self.sent_ns < self.patience_ns:
                return None
            self.patience_ns = min(2 * self.patience_ns, LONGEST_PATIENCE_NS)
        rounds, turn = divmod(self.markers, len(self.ids))
        servo, length = self.ids[turn], MARKER_LENGTHS[rounds % len(MARKER_LENGTHS)]
        self.markers += 1
        self.sent_ns = at_ns
        self.marker = servo, length
        return self.marker

    def hear(self, servo: int, length: int) -> bool:
        """A whole reply came in. True when it is the marker's: the line is in step again."""
        if self.marker == (servo, length):
            self.marker = None
            self.in_step = True
            return True
        return False
