"""How long to sleep before the replies of a read are due. Pure: spans in, a sleep out.

Waking for each servo's packet costs twice the CPU of waking once, shortly before the last one.
"""

from dataclasses import dataclass

WAKE_NS = 60_000
"""Woken this long before the last reply usually comes."""

FORGET_NS = 2_000
"""By how much the usual span may grow per read; it follows the shortest ones."""

OVERSLEPT_NS = 20_000
"""By how much it shrinks when everything was there already on waking."""


SEARCH_SHARE = 4
"""Until it first oversleeps, it comes nearer by this part of the distance: growing from nothing by
FORGET_NS takes minutes where a block is read ten times a second, and each of those reads wakes for
every servo."""


@dataclass(slots=True)
class ReplyPace:
    """Usual time from a request to its last reply byte, learnt from the reads themselves. sleep_ns:
    how long after the request to sleep; not positive: not at all.

    A read that overslept does not know its span: it sees its own waking, not the line. Taking that
    for a span lets a computer that wakes late wait later with every read, until the replies miss
    their period [0.5 ms a second at 250 Hz].
    """

    usual_ns: int = 0
    searching: bool = True
    sleep_ns: int = -WAKE_NS

    def learn(self, span_ns: int, *, overslept: bool) -> None:
        """A whole reading came `span_ns` after its request; overslept: it had to wait for us."""
        if overslept:
            self.searching = False
            self.usual_ns = min(span_ns, self.usual_ns - OVERSLEPT_NS)
        else:
            nearer_ns = (span_ns - self.usual_ns) // SEARCH_SHARE if self.searching else 0
            self.usual_ns = min(span_ns, self.usual_ns + max(FORGET_NS, nearer_ns))
        self.sleep_ns = self.usual_ns - WAKE_NS
