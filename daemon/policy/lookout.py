"""The door for observations: requests in, observations out when there is something newer.

Who asks for pictures in another form waits beside the loop (shaper.py); everybody else is answered
in the turn that the frame came.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from recd.config.policy_wire import Buffer, pack
from recd.config.policy_wishes import EDGE_PIXELS, Encoding, Fit
from recd.daemon.policy.journal import Journal, read_after
from recd.daemon.policy.observe import NotNow, Observation, Observer
from recd.daemon.policy.shaper import Shaper
from recd.daemon.policy.sockets import Peer, Sockets
from recd.daemon.policy.waiting import Wanted, read_wanted
from recd.shm import Doorbell
from recd.shm.clock import now_ns

WAITING_MOST = 64
"""Observations that may be waited for at once, one per connection."""


class Lookout:
    """All requests for observations. words: what every answer says beside its own: session, leases,
    arms; count: a counter of the gateway's status; task: of the observations from now on; prefix:
    what the arms plan, None while one has not told it.
    """

    def __init__(
        self, observer: Observer, sockets: Sockets, journal: Journal, *, task: str, row_ns: int,
        words: Callable[[], Mapping[str, Any]], count: Callable[[str, int], None],
        prefix: Callable[[int], Sequence[Buffer] | None],
    ) -> None:  # fmt: skip
        self._observer, self._sockets, self._journal = observer, sockets, journal
        self.task, self._row_ns = task, row_ns
        self._words, self._count, self._prefix = words, count, prefix
        self._sources = observer.sources()
        self._wanted: dict[Peer, Wanted] = {}
        self._shaper = Shaper()
        self._shaping: set[Peer] = set()

    @property
    def waiting(self) -> int:
        """Requests that have no answer yet."""
        return len(self._wanted) + len(self._shaping)

    @property
    def shaped_fd(self) -> int:
        """Readable when a picture is done."""
        return self._shaper.fd

    def bells(self) -> list[Doorbell | None]:
        """Doorbells of what is waited for."""
        return [reader.doorbell for reader in self._observer.readers()] if self._wanted else []

    def describe(self) -> dict[str, Any]:
        """What may be wished for, for `describe`."""
        return {
            "encodings": list(Encoding),
            "fits": list(Fit),
            "edge": list(EDGE_PIXELS),
            "row_ns": self._row_ns,
            "prefix": True,
            "reach_ns": {name: source.reach_ns for name, source in self._sources.items()},
        }

    def hear(self, peer: Peer, header: Mapping[str, Any], now: int) -> None:
        """A message at the door. MessageError for what is none."""
        if header.get("ty") == "chunks":
            told, buffers = self._journal.after(read_after(header))
            told |= {"ty": "chunks", "re": ident_of(header), "tx": now}
            self._sockets.send(peer, pack(told, buffers))
            return
        wanted = read_wanted(header, self._observer.cameras, now, sources=self._sources,
                             row_ns=self._row_ns)  # fmt: skip
        older = self._wanted.pop(peer, None)
        if older is not None:
            self.refuse(peer, older.ident, "asked again before it was answered")
        elif self.waiting >= WAITING_MOST:
            self.refuse(peer, wanted.ident, "too many wait for observations")
            return
        self._wanted[peer] = wanted

    def serve(self) -> None:
        """Answer whom something can be told by now."""
        self._send_shaped()
        for peer, wanted in list(self._wanted.items()):
            if peer in self._shaping:
                continue
            now = now_ns()
            seen = self._observer.seen(wanted.after)
            after_ns = max(wanted.newer_than_ns, 0 if seen is None else seen.t_ref_ns)
            found = self._look(wanted, now, after_ns)
            if isinstance(found, NotNow):
                if now >= wanted.until_ns:
                    del self._wanted[peer]
                    self.refuse(peer, wanted.ident, found.reason, stream=found.stream)
                continue
            del self._wanted[peer]
            if (buffers := found.buffers) is not None:
                self._send(peer, wanted.ident, found, buffers)
                continue
            self._shaping.add(peer)
            self._shaper.submit((peer, wanted.ident, found), found.arrays)

    def _look(self, wanted: Wanted, now: int, after_ns: int) -> Observation | NotNow:
        found = self._observer.look(wanted.cameras, now, after_ns=after_ns, wishes=wanted.wishes)
        if not wanted.wishes.prefix or isinstance(found, NotNow):
            return found
        prefix = self._prefix(now)
        if prefix is None:
            return NotNow("waiting: an arm has not told its plan yet")
        return replace(found, arrays=(*found.arrays, *prefix))

    def _send_shaped(self) -> None:
        """Observations whose pictures are ready by now."""
        for made in self._shaper.done():
            peer, ident, found = made.job
            self._shaping.discard(peer)
            if made.error is not None:
                self.refuse(peer, ident, made.error.message, stream=made.stream)
                continue
            self._send(peer, ident, found, made.buffers)

    def _send(
        self, peer: Peer, ident: str, found: Observation, buffers: Sequence[Buffer]
    ) -> None:  # fmt: skip
        told = {
            "ty": "obs", "re": ident, "obs": found.number, "t_ref": found.t_ref_ns,
            "tx": found.at_ns, "task": self.task, **self._words(),
        }  # fmt: skip
        parts = pack(told, buffers)
        if self._sockets.send(peer, parts):
            self._count("observations", 1)
            self._count("bytes", sum(len(part) for part in parts))

    def refuse(self, peer: Peer, re: str, reason: str, **fields: Any) -> None:
        """Tell why there is no observation."""
        told = {"ty": "none", "re": re, "reason": reason, "tx": now_ns(), **fields, **self._words()}
        self._sockets.send(peer, pack(told))

    def close(self) -> None:
        """End what runs beside the loop. Idempotent."""
        self._shaper.close()


def ident_of(header: Mapping[str, Any]) -> str:
    """The id that an answer repeats; empty when it is none."""
    found = header.get("id")
    return found if isinstance(found, str) and len(found) <= 64 else ""
