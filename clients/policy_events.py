"""What happens to leases, arms and chunks, as the gateway publishes it: for whoever only listens.

Nothing is sent again: who does not read loses events, and sees it by a jump in their numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import zmq

from recd.clients.entry import use_key
from recd.config.endpoints import Endpoint
from recd.config.keys import Pair
from recd.config.messages import decode
from recd.shm.clock import NS_PER_MS, now_ns

QUEUED = 256


@dataclass(frozen=True, slots=True)
class Event:
    """One event. topic: `lease`, `motion` or `chunk`; name: what happened (docs/policy_api.md);
    number: without gaps in one session of the gateway; at_ns: of the daemon's clock; facts: the
    rest, as `pair`, `holder`, `motion`, `cause`, `status`, `reason`.
    """

    topic: str
    name: str
    number: int
    session: str
    at_ns: int
    facts: Mapping[str, Any]


class Listener:
    """A connection to the events of one gateway. It hears what happens once it is connected, which
    takes a moment after it was made. Not for several threads."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", door: Endpoint, pair: Pair | None
    ) -> None:
        """door: of the gateway's requests; pair: the key of a door that asks for one."""
        self._socket = context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, QUEUED)
        use_key(self._socket, pair)
        self._socket.subscribe("")
        self._socket.connect(door.events)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._socket.close()

    def next(self, *topics: str, timeout_s: float = 0.0) -> Event | None:
        """The next event of these topics, any when none is named; None when none came in time.
        Those of other topics are thrown away. MessageError for what no gateway sends.
        """
        until_ns = now_ns() + round(timeout_s * 1000) * NS_PER_MS
        while self._socket.poll(max(0, until_ns - now_ns()) // NS_PER_MS):
            event = event_of(*self._socket.recv_multipart())
            if not topics or event.topic in topics:
                return event
        return None


def event_of(topic: bytes, packed: bytes) -> Event:
    """The event in a message of the gateway."""
    told = decode(packed)
    facts = {key: value for key, value in told.items() if key not in _HEAD}
    return Event(topic.decode(), told["event"], told["seq"], told["sid"], told["t_ns"], facts)


_HEAD = frozenset({"v", "sid", "seq", "t_ns", "event"})
