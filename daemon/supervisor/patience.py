"""How much of a peer is borne: rubbish is answered for a while, then the peer is not heard.

Each time is twice as long as the last. Pure: peers are any keys, time is an argument. The least
recently seen of too many peers are forgotten.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from recd.shm.clock import NS_PER_S

STRIKES = 16
"""Malformed messages answered before a peer is not heard for a while."""

FIRST_DEAF_NS, LONGEST_DEAF_NS = NS_PER_S, 60 * NS_PER_S

REQUESTS_PER_S = 1000
BURST = 2000
"""Well-formed requests of one connection: sustained, and at once. Far above what recctl, a plan's
clients or a loop over `status` send."""

PEERS_WATCHED = 256


@dataclass(slots=True)
class _Peer:
    strikes: int = 0
    deaf_until_ns: int = 0
    deaf_ns: int = FIRST_DEAF_NS
    credit: float = BURST
    credited_ns: int = 0
    told_busy_ns: int = 0


class Patience:
    """The accounts of all peers. ignored: messages that nobody looked at."""

    def __init__(self) -> None:
        self._peers: OrderedDict[Hashable, _Peer] = OrderedDict()
        self.ignored = 0

    def _of(self, peer: Hashable, now: int) -> _Peer:
        account = self._peers.pop(peer, None) or _Peer(credited_ns=now)
        self._peers[peer] = account
        while len(self._peers) > PEERS_WATCHED:
            self._peers.popitem(last=False)
        return account

    def ignores(self, peer: Hashable, now: int) -> bool:
        """True, and counted, while `peer` is not heard."""
        if now >= self._of(peer, now).deaf_until_ns:
            return False
        self.ignored += 1
        return True

    def strike(self, peer: Hashable, now: int) -> int:
        """A malformed message. Nanoseconds that the peer is not heard from now on, mostly 0."""
        account = self._of(peer, now)
        account.strikes += 1
        if account.strikes < STRIKES:
            return 0
        deaf_ns = account.deaf_ns
        account.strikes = STRIKES - 1  # the next one is the next lesson
        account.deaf_until_ns = now + deaf_ns
        account.deaf_ns = min(2 * deaf_ns, LONGEST_DEAF_NS)
        return deaf_ns

    def good(self, peer: Hashable, now: int) -> None:
        """A well-formed message makes up for a malformed one, and in the end for all."""
        account = self._of(peer, now)
        account.strikes = max(0, account.strikes - 1)
        if not account.strikes:
            account.deaf_ns = FIRST_DEAF_NS

    def has_credit(self, peer: Hashable, now: int) -> bool:
        """Take one request from the peer's account; False when it asks too often."""
        account = self._of(peer, now)
        earned = (now - account.credited_ns) * REQUESTS_PER_S / NS_PER_S
        account.credit = min(BURST, account.credit + earned)
        account.credited_ns = now
        if account.credit < 1:
            return False
        account.credit -= 1
        return True

    def tell_busy(self, peer: Hashable, now: int) -> bool:
        """True when the peer should be told that it asks too often: once a second."""
        account = self._of(peer, now)
        if now - account.told_busy_ns < NS_PER_S:
            return False
        account.told_busy_ns = now
        return True
