"""The gateway's side of the memory it shares with the arms: leases and plans out, the rest in."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from recd.config.models import RobotConfig
from recd.config.policy_streams import VERDICT_DTYPE, plan_dtype
from recd.config.policy_wire import Buffer, raw
from recd.config.streams import Motion
from recd.daemon.arms.motion import Cause
from recd.daemon.policy.leases import Leases
from recd.daemon.policy.prefix import Queue, prefix_of
from recd.daemon.worker import WorkerContext
from recd.shm.clock import NS_PER_MS, NS_PER_S

SILENT_NS = NS_PER_S
"""A seat that says nothing for so long has no process behind it."""

LEAD_NS = 20 * NS_PER_MS
"""Kept free between a chunk's arrival and the end of the plan before it."""

SHOWN_NS = 5 * NS_PER_S
"""So long after somebody asked for it do the arms tell what they plan."""

MOVES = (Motion.POLICY, Motion.REPLAY)
"""Motions in which a plan is played."""

Limits = Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]


class Seats:
    """One seat per pair of arms. verdicts: their rings; known_limits: of the layout in use;
    usual_ns: from an observation to its chunk, of late, at p99."""

    def __init__(self, ctx: WorkerContext, robot: RobotConfig) -> None:
        pairs = list(robot.arms)
        self.verdicts = {pair: ctx.ring_reader(f"verdicts.{pair}") for pair in pairs}
        self.known_limits: Limits | None = None
        self.usual_ns = 0
        self._plans = {pair: ctx.ring_writer(f"plans.{pair}") for pair in pairs}
        self._slots = {
            pair: self._plans[pair].views(plan_dtype(len(robot.joints(pair)))) for pair in pairs
        }
        self._leases = {pair: ctx.cell_writer(f"lease.{pair}") for pair in pairs}
        self._epochs = {pair: _last_epoch(ctx, pair) for pair in pairs}
        self._seats = {pair: ctx.cell_reader(f"seat.{pair}") for pair in pairs}
        self._queues = {pair: ctx.cell_reader(f"queue.{pair}") for pair in pairs}
        self._widths = {pair: len(robot.joints(pair)) for pair in pairs}
        self._asked_until_ns = 0
        self._told: dict[str, tuple[int, ...]] = {}

    def epochs(self) -> dict[str, int]:
        """The last epoch of each pair that an earlier gateway gave, 0 for none."""
        return dict(self._epochs)

    def tell_leases(self, leases: Leases) -> None:
        """Write every lease into its cell."""
        for pair, lease in leases.by_pair.items():
            record = self._leases[pair].record[0]
            record["epoch"], record["beat_ns"] = lease.epoch, lease.beat_ns
            record["held"] = lease.kind
            self._leases[pair].publish()

    def plan(self, pair: str) -> Any:
        """The next record of a pair's ring of plans, to be filled and `sent`."""
        return self._slots[pair][self._plans[pair].begin()][0]

    def sent(self, pair: str, now: int) -> None:
        """Publish the record that `plan` gave."""
        ring = self._plans[pair]
        ring.commit(ring.spec.slot_bytes, t_capture_ns=now, t_arrival_ns=now)

    def heard(self, pair: str) -> Iterator[Any]:
        """Verdicts of a pair that wait, as VERDICT_DTYPE records."""
        reader = self.verdicts[pair]
        while (slot := reader.take()) is not None:
            record = slot.payload[: slot.nbytes].copy().view(VERDICT_DTYPE)[0]
            if slot.intact():
                yield record

    def limits(self) -> Limits | None:
        """pair -> (low, high) per joint as each follower goes by them, None before all spoke."""
        found = {}
        for pair, seat in self._seats.items():
            if seat.refresh() == 0:
                return None
            record = seat.record[0]
            found[pair] = (tuple(record["low"].tolist()), tuple(record["high"].tolist()))
        return found

    def words(self) -> dict[str, dict[str, Any]]:
        """pair -> state of its arm in words, for answers to clients."""
        return {pair: self._word(pair) for pair in self._seats}

    def _word(self, pair: str) -> dict[str, Any]:
        seat = self._seats[pair]
        if seat.refresh() == 0:
            return {"motion": "STARTING", "permitted": False}
        record = seat.record[0]
        until_ns = int(record["queued_until_ns"])
        return {
            "motion": Motion(record["motion"]).name,
            "cause": Cause(record["cause"]).name.lower(),
            "permitted": bool(record["permitted"]),
            "grants": int(record["grants"]),
            "since": int(record["since_ns"]),
            "held": int(record["held_ns"]),
            "queued_until": until_ns,
            "need_by": until_ns - self.usual_ns - LEAD_NS if until_ns else 0,
            "chunk": int(record["chunk"]),
        }

    def describe(self, now: int) -> dict[str, Any]:
        """The same for people, with the age of what is known."""
        told = {}
        for pair, seat in self._seats.items():
            words = self._word(pair)
            age_ns = now - int(seat.record["at_ns"][0])
            told[pair] = {**words, "age_ms": age_ns / NS_PER_MS, "silent": age_ns > SILENT_NS}
        return told

    def prefix(self, now: int) -> list[Buffer] | None:
        """What every arm will be told if no chunk comes, for an observation; None while an arm has
        not told its plan yet. Asked for once, the arms go on telling for SHOWN_NS.
        """
        if self._asked_until_ns < now + SHOWN_NS // 2:
            self._asked_until_ns = now + SHOWN_NS
            for lease in self._leases.values():
                lease.record[0]["asked_until_ns"] = self._asked_until_ns
                lease.publish()
        queues = {}
        for pair in self._seats:
            queue = self._queue(pair, now)
            if queue is None:
                return None
            if queue.targets_ns.size:
                queues[pair] = queue
        times, places = prefix_of(queues, self._widths)
        return [raw("prefix.t", times), raw("prefix.values", places.astype(np.float32))]

    def _queue(self, pair: str, now: int) -> Queue | None:
        """A pair's plan, without rows when it plays none; None when it is not the newest."""
        cell, seat = self._queues[pair], self._seats[pair]
        known = cell.refresh()  # before the seat: a plan that came in between is seen as missing
        spoken = seat.refresh()
        told, said = cell.record[0], seat.record[0]
        plays = spoken and now - int(said["at_ns"]) <= SILENT_NS and said["motion"] in MOVES
        if plays and (not known or told["plan"] != said["plan"]):
            return None
        rows = int(told["rows"]) if plays else 0
        return Queue(
            due_ns=int(said["due_ns"]),
            goal=said["goal"].copy(),
            targets_ns=told["target_ns"][:rows].copy(),
            rows=told["values"][:rows].copy(),
            velocity=told["velocity"][:rows] != 0,
            until_ns=int(told["until_ns"]),
            low=said["low"].copy(),
            high=said["high"].copy(),
        )

    def changes(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Pairs whose motion, cause or permission changed since the last call."""
        for pair, seat in self._seats.items():
            if seat.refresh() == 0:
                continue
            record = seat.record[0]
            now = tuple(int(record[name]) for name in ("motion", "cause", "permitted", "grants"))
            if self._told.get(pair) != now:
                self._told[pair] = now
                yield pair, self._word(pair)


def _last_epoch(ctx: WorkerContext, pair: str) -> int:
    read = ctx.cell_reader(f"lease.{pair}").read()
    return 0 if read is None else int(read[1]["epoch"])
