"""Chunks between their arrival and their ACK: checked, handed to the arms, answered, logged.

Every chunk is answered exactly once: by the arms, by what is wrong with it, or as `lost` when an
arm process says nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recd.config.models import RobotConfig
from recd.config.policy_streams import MODES, REASON_BYTES, STATUSES, Held, chunk_dtype
from recd.config.policy_wire import MOST_STEPS, Buffer, Representation, Status
from recd.daemon.policy.chunk import (
    Chunk,
    ChunkError,
    absolute,
    fill_plan,
    read_chunk,
    told_offsets,
)
from recd.daemon.policy.layout import ActionLayout
from recd.daemon.policy.leases import Leases
from recd.daemon.policy.observe import Observer, Seen
from recd.daemon.policy.seats import Seats
from recd.daemon.policy.sockets import Peer
from recd.daemon.worker import WorkerContext
from recd.shm.clock import NS_PER_MS, now_ns

PATIENCE_NS = 250 * NS_PER_MS
"""An arm process answers within a period; after this its chunk counts as lost."""

OPEN_MOST = 32
"""Chunks that may wait for the arms: as many as the rings of plans hold."""

GOOD = (Status.APPLIED, Status.SHADOW, Status.STOPPED)
REPRESENTATIONS = tuple(Representation)

REASONS: Mapping[Status, tuple[str, str]] = {
    Status.ALL_LATE: ("all its targets lie in the past", "Infer faster, or plan further ahead."),
    Status.OLD_OBS: ("its observation is too old", "Ask for a new observation for each chunk."),
    Status.BEFORE_HOLD: ("its observation was taken before the arm began to hold",
                         "Ask for a new observation; begin anew from there."),
    Status.DUPLICATE: ("a chunk of this number was judged already", "Number chunks upwards."),
    Status.OUT_OF_ORDER: ("a later chunk was judged already", "Number chunks upwards."),
    Status.STALE_EPOCH: ("the lease is somebody else's by now", "Acquire it again."),
    Status.SEAM: ("it begins too far from where the arm is",
                  "Plan from the newest state; policy.seam is the most."),
    Status.LOST: ("an arm process did not answer", "recctl status tells why."),
}  # fmt: skip
"""What an arm's word means, and what to do."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One ACK. header: of the message that it answers; latency_ns: from the observation to the
    chunk's arrival, 0 unknown."""

    peer: Peer
    header: Mapping[str, Any]
    told: Mapping[str, Any]
    latency_ns: int = 0


@dataclass(slots=True)
class _Open:
    """A chunk that waits for its arms."""

    peer: Peer
    header: Mapping[str, Any]
    buffers: Mapping[str, Buffer]
    chunk: Chunk
    pairs: tuple[str, ...]
    received_ns: int
    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)


class Desk:
    """All chunks that are under way."""

    def __init__(
        self, ctx: WorkerContext, robot: RobotConfig, leases: Leases, observer: Observer,
        seats: Seats,
    ) -> None:  # fmt: skip
        self._leases, self._observer, self._seats = leases, observer, seats
        self._pairs = tuple(robot.arms)
        self._open: dict[tuple[int, int], _Open] = {}
        width = len(robot.feature_joints())
        self._log = ctx.ring_writer("chunks")
        self._log_slots = self._log.views(chunk_dtype(width))

    def take(
        self, peer: Peer, header: Mapping[str, Any], buffers: Mapping[str, Buffer],
        layout: ActionLayout, now: int,
    ) -> Answer | None:  # fmt: skip
        """One chunk. Its answer at once when something is wrong with it, else None for now."""
        chunk: Chunk | None = None
        try:
            chunk = read_chunk(header, buffers, layout)
            pairs = self._check_lease(chunk, layout)
            seen = self._check_observation(chunk)
            positions = absolute(chunk, seen.state)
        except ChunkError as error:
            told = {"status": error.status, "reason": error.message, "mend": error.mend,
                    "chunk": header.get("chunk") if chunk is None else chunk.number,
                    "first_applied": -1, "late": 0, "clipped": 0}  # fmt: skip
            self._write_log(chunk, header, buffers, told, now)
            return Answer(peer, header, told)
        for pair in pairs:
            fill_plan(self._seats.plan(pair), chunk, positions, layout.groups[pair])
            self._seats.sent(pair, now)
        # After the plans: an arm waits for those, and this costs 0.1 ms.
        self._leases.beat(chunk.ident, now)
        self._seats.tell_leases(self._leases)
        waiting = _Open(peer, header, buffers, chunk, pairs, now)
        self._open[chunk.epoch, chunk.number] = waiting
        return None

    def _check_lease(self, chunk: Chunk, layout: ActionLayout) -> tuple[str, ...]:
        """The pairs that the chunk goes to: those that its holder has."""
        pairs = tuple(self._leases.held_by(chunk.ident))
        wrong = [p for p in pairs if self._leases.of(p).epoch != chunk.epoch]
        if not pairs or wrong:
            raise ChunkError(
                Status.STALE_EPOCH, f"lease: {_holders(self._leases)}; yours, of epoch "
                f"{chunk.epoch}, has ended", mend="Acquire it again, and begin anew.",
            )  # fmt: skip
        for pair, part in layout.groups.items():
            if pair not in pairs and chunk.mask[part].any():
                raise ChunkError(
                    Status.STALE_EPOCH, f"the chunk moves {pair}, whose lease you do not hold",
                    mend="Leave its dimensions out by `mask`, or acquire its lease as well.",
                )  # fmt: skip
        if (chunk.epoch, chunk.number) in self._open:
            raise ChunkError(Status.DUPLICATE, REASONS[Status.DUPLICATE][0])
        if len(self._open) >= OPEN_MOST:
            raise ChunkError(
                Status.BUSY, f"more than {OPEN_MOST} chunks wait for the arms",
                mend="Read the ACK of a chunk before sending the next one.",
            )  # fmt: skip
        return pairs

    def _check_observation(self, chunk: Chunk) -> Seen:
        seen = self._observer.seen(chunk.obs)
        if seen is None:
            raise ChunkError(
                Status.UNKNOWN_OBS, f"obs: no observation {chunk.obs} is remembered",
                mend="Echo `obs` and `t_ref` of the observation that the chunk answers.",
            )  # fmt: skip
        if seen.t_ref_ns != chunk.t_ref_ns:
            raise ChunkError(
                Status.UNKNOWN_OBS, f"t_ref: expected {seen.t_ref_ns} of observation {chunk.obs}, "
                f"found {chunk.t_ref_ns}", mend="Echo it as it came.",
            )  # fmt: skip
        return seen

    def answers(self, now: int) -> Iterator[Answer]:
        """ACKs of chunks that all their arms have judged, or that none will judge any more."""
        for pair in self._pairs:
            for record in self._seats.heard(pair):
                waiting = self._open.get((int(record["epoch"]), int(record["chunk"])))
                if waiting is not None:
                    waiting.verdicts[pair] = _words(record)
        for key, waiting in list(self._open.items()):
            whole = len(waiting.verdicts) == len(waiting.pairs)
            if whole or now - waiting.received_ns > PATIENCE_NS:
                del self._open[key]
                yield self._answer(waiting)

    def _answer(self, waiting: _Open) -> Answer:
        missing = {pair: {"status": Status.LOST} for pair in waiting.pairs}
        groups: dict[str, dict[str, Any]] = {**missing, **waiting.verdicts}
        # The worst word counts for the whole; each arm's own stands beside it.
        worst = max(groups.values(), key=lambda told: STATUSES.index(told["status"]))
        status = Status(worst["status"])
        told = {"first_applied": -1, "late": 0, "clipped": 0, **worst, "groups": groups,
                "chunk": waiting.chunk.number, "epoch": waiting.chunk.epoch}  # fmt: skip
        if status not in GOOD:
            told["reason"], told["mend"] = REASONS.get(status, (str(status), ""))
        self._write_log(waiting.chunk, waiting.header, waiting.buffers, told, waiting.received_ns)
        latency_ns = waiting.received_ns - waiting.chunk.t_ref_ns
        return Answer(waiting.peer, waiting.header, told, latency_ns)

    def _write_log(
        self, chunk: Chunk | None, header: Mapping[str, Any], buffers: Mapping[str, Buffer],
        told: Mapping[str, Any], now: int,
    ) -> None:  # fmt: skip
        """One record for the writer: the chunk as received with its answer."""
        record = self._log_slots[self._log.begin()][0]
        fill_record(record, chunk, header, buffers, told)
        record["received_ns"], record["acked_ns"] = now, now_ns()
        self._log.commit(self._log.spec.slot_bytes, t_capture_ns=now, t_arrival_ns=now)


def fill_record(
    record: Any, chunk: Chunk | None, header: Mapping[str, Any], buffers: Mapping[str, Buffer],
    told: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write a chunk as received and its ACK into a `chunk_dtype` record. chunk: None for one whose
    form is not sound: then what can be read of it.
    """
    record["status"] = STATUSES.index(Status(told["status"]))
    for name in ("first_applied", "late", "clipped", "splice_gap", "margin_ns"):
        record[name] = told.get(name, 0)
    record["first_goal_ns"] = told.get("first_goal", 0)
    record["reason"] = str(told.get("reason", "")).encode("utf-8", "replace")[:REASON_BYTES]
    lease, infer = (_map(header, name) for name in ("lease", "infer"))
    record["chunk"] = _number(header, "chunk", none=-1)
    record["epoch"] = _number(lease, "epoch")
    record["obs"], record["obs_ns"] = _number(header, "obs"), _number(header, "t_ref")
    record["dt_ns"], record["valid_ns"] = _number(header, "dt_ns"), _number(header, "valid_ns", -1)
    record["infer_start_ns"] = _number(infer, "start")
    record["infer_end_ns"] = _number(infer, "end")
    record["representation"] = _place(REPRESENTATIONS, header.get("rep"))
    record["mode"] = _place(MODES, header.get("mode"))
    blend = _number(header, "blend")
    record["blend"] = blend if 0 <= blend <= MOST_STEPS else 0
    record["mask"] = 0
    record["task"], record["prefix_used"] = b"", -1
    _fill_values(record, header, buffers.get("actions"))
    if chunk is not None:
        record["mask"] = int(sum(1 << k for k in np.flatnonzero(chunk.mask)))
        record["task"], record["prefix_used"] = chunk.task.encode(), chunk.prefix_used
        record["offset_ns"][: chunk.steps] = chunk.offsets_ns


def _fill_values(record: Any, header: Mapping[str, Any], buffer: Buffer | None) -> None:
    record["values"], record["offset_ns"] = 0, 0
    record["steps"] = record["columns"] = 0
    if buffer is None or buffer.encoding != "raw" or len(buffer.shape) != 2:
        return
    record["steps"], record["columns"] = buffer.shape
    kept = buffer.array().reshape(-1)[: len(record["values"])]
    with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite there
        record["values"][: len(kept)] = kept.astype(np.float32)
    rows = min(buffer.shape[0], MOST_STEPS)
    record["offset_ns"][:rows] = told_offsets(header, rows)


def _number(header: Mapping[str, Any], name: str, none: int = 0) -> int:
    """A whole number as it came; `none` for anything else."""
    value = header.get(name)
    return value if type(value) is int and abs(value) < 2**62 else none


def _map(header: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = header.get(name)
    return value if isinstance(value, Mapping) else {}


def _place(words: tuple[Any, ...], word: object) -> int:
    """Number of a word, 0 (the default of each) for what is none."""
    return words.index(word) if isinstance(word, str) and word in words else 0


def _words(record: Any) -> dict[str, Any]:
    return {
        "status": STATUSES[int(record["status"])],
        "first_applied": int(record["first_applied"]),
        "late": int(record["late"]),
        "clipped": int(record["clipped"]),
        "splice_gap": float(record["splice_gap"]),
        "margin_ns": int(record["margin_ns"]),
        "first_goal": int(record["first_goal_ns"]),
        "judged": int(record["at_ns"]),
    }


def _holders(leases: Leases) -> str:
    said = [
        f"{pair} is held by {lease.holder or 'nobody'} (epoch {lease.epoch})"
        if lease.kind is not Held.NOBODY
        else f"{pair} is held by nobody"
        for pair, lease in leases.by_pair.items()
    ]
    return ", ".join(said)
