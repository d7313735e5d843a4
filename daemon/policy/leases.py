"""Who may drive which pair of arms: one lease per pair, with an epoch. Pure; time is an argument.

A larger kind takes a lease from a smaller one. A holder that gives no sign of life keeps its lease
for a while, in which nothing of it is played, and then loses it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from recd.config.errors import RecdError
from recd.config.policy_streams import Held
from recd.config.policy_wire import Clock


@dataclass(frozen=True, slots=True)
class Lease:
    """One pair's. epoch grows with every change of holder; ident: the secret that its holder
    names; holder: in words; model: what acts, in words; progress: the holder's own count,
    progress_ns: when it last grew; beat_ns: last sign of life that counted; clock: how the holder's
    clock goes, None where it has not said so.
    """

    epoch: int
    kind: Held = Held.NOBODY
    ident: str = ""
    holder: str = ""
    key: str = ""
    adapter: str = ""
    model: str = ""
    since_ns: int = 0
    beat_ns: int = 0
    progress: int = -1
    progress_ns: int = 0
    clock: Clock | None = None

    def describe(self, now: int) -> dict[str, object]:
        """For people and other clients; never the secret."""
        if self.kind is Held.NOBODY:
            return {"epoch": self.epoch, "kind": "nobody"}
        return {
            "epoch": self.epoch,
            "kind": self.kind.name.lower(),
            "holder": self.holder,
            "key": self.key,
            "adapter": self.adapter,
            "model": self.model,
            "held_s": (now - self.since_ns) / 1e9,
            "silent_ms": (now - self.beat_ns) / 1e6,
            "progress": self.progress,
            **({} if self.clock is None else {"clock": self.clock.told()}),
        }


@dataclass(slots=True)
class Leases:
    """All leases of a robot. keep_ns: how long after its last sign of life a holder is kept;
    stuck_ns: how long signs of life count without progress.
    """

    keep_ns: int
    stuck_ns: int
    by_pair: dict[str, Lease] = field(default_factory=dict)

    @classmethod
    def begin(cls, epochs: Mapping[str, int], *, keep_ns: int, stuck_ns: int) -> "Leases":
        """Nobody holds anything; epochs: the last one of each pair, of an earlier gateway."""
        fresh = {pair: Lease(max(epochs.values()) + 1) for pair in epochs}
        return cls(keep_ns, stuck_ns, fresh)

    def acquire(
        self,
        pairs: Iterable[str],
        kind: Held,
        now: int,
        *,
        ident: str,
        holder: str,
        key: str = "",
        adapter: str = "",
        model: str = "",
    ) -> None:
        """Give all of `pairs` to a holder, or none. RecdError (code `held`) names who is in the
        way: somebody of the same kind or a larger one.
        """
        wanted = list(pairs)
        for pair in wanted:
            lease = self.of(pair)
            if lease.kind >= kind and lease.ident != ident:
                raise RecdError(
                    f"lease of {pair}: held by {lease.holder} ({lease.kind.name.lower()})",
                    mend="Wait until it is released; recctl policy detach takes it back.",
                    code="held",
                )
        epoch = self._next_epoch()
        for pair in wanted:
            if self.by_pair[pair].ident != ident:
                self.by_pair[pair] = Lease(
                    epoch, kind, ident, holder, key, adapter, model, now, now, progress_ns=now
                )

    def _next_epoch(self) -> int:
        return max(lease.epoch for lease in self.by_pair.values()) + 1

    def of(self, pair: str) -> Lease:
        """The lease of a pair. RecdError when there is no such pair."""
        if pair not in self.by_pair:
            raise RecdError(
                f"no pair of arms {pair!r}", mend=f"pairs: {', '.join(self.by_pair)}",
                code="argument",
            )  # fmt: skip
        return self.by_pair[pair]

    def held_by(self, ident: str) -> list[str]:
        """Pairs that this holder has."""
        return [pair for pair, lease in self.by_pair.items() if ident and lease.ident == ident]

    def beat(
        self, ident: str, now: int, *, progress: int | None = None, clock: Clock | None = None
    ) -> list[str]:
        """A sign of life; its pairs. progress: None for a chunk, which is progress itself; clock:
        what the holder measured by now, None: nothing new.

        A holder whose progress stands still is alive and stuck: after a while that counts no more.
        """
        pairs = self.held_by(ident)
        for pair in pairs:
            lease = self.by_pair[pair]
            if progress is None or progress != lease.progress:
                known = lease.progress if progress is None else progress
                lease = replace(lease, progress=known, progress_ns=now)
            if now - lease.progress_ns <= self.stuck_ns:
                lease = replace(lease, beat_ns=now)
            if clock is not None:
                lease = replace(lease, clock=clock)
            self.by_pair[pair] = lease
        return pairs

    def release(self, pairs: Iterable[str]) -> list[str]:
        """Take these leases from whoever has them; returns the pairs that somebody had."""
        freed = [pair for pair in pairs if self.of(pair).kind is not Held.NOBODY]
        epoch = self._next_epoch()
        for pair in freed:
            self.by_pair[pair] = Lease(epoch)
        return freed

    def expire(self, now: int) -> list[str]:
        """Take the leases of holders that have been silent for too long; returns their pairs."""
        return self.release(
            [
                pair
                for pair, lease in self.by_pair.items()
                if lease.kind is not Held.NOBODY and now - lease.beat_ns > self.keep_ns
            ]
        )
