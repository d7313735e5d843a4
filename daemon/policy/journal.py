"""The newest chunks with what became of them, for whoever logs a policy. Nothing waits for it.

A reader names the last entry that it has and gets those after it; what it was too slow for is gone,
and the numbers tell how many. Texts of a peer are cut before they are kept.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.messages import MessageError
from recd.config.policy_wire import MOST_STEPS, Buffer, raw
from recd.daemon.policy.chunk import told_offsets
from recd.daemon.policy.desk import Answer
from recd.daemon.policy.observe import Seen
from recd.daemon.policy.sockets import Peer

KEPT = 64
"""Entries: two seconds of a policy that answers every picture of 30 a second."""

ANSWER_MOST = 12
"""Entries of one answer; its header stays below what a header may be."""

UNDER_WAY_MOST = 64
VALUES_BYTES_MOST = 64 * 1024
"""A chunk of 256 rows of two arms has 28 KiB; what is larger was refused."""

TEXT_MOST = 200

NO_VALUES: npt.NDArray[np.float32] = np.zeros((0, 0), np.float32)


@dataclass(frozen=True, slots=True)
class Entry:
    """One chunk. told: of its header and its ACK; values: float32 [T, D] as received, none when
    they could not be read; offsets_ns: int64 [T]; state: float32 [D] that the policy was shown.
    """

    number: int
    told: Mapping[str, Any]
    values: npt.NDArray[np.float32]
    offsets_ns: npt.NDArray[np.int64]
    state: npt.NDArray[np.float32]


class Journal:
    """Chunks on their way to an answer, and the newest answered ones."""

    def __init__(self) -> None:
        self.newest = 0
        self._under_way: OrderedDict[tuple[Peer, str], tuple[Buffer | None, int]] = OrderedDict()
        self._kept: deque[Entry] = deque(maxlen=KEPT)

    def heard(
        self, peer: Peer, header: Mapping[str, Any], buffers: Mapping[str, Buffer], now: int
    ) -> None:
        """A chunk came. Its buffer is kept until it is answered, as long as there is room."""
        buffer = buffers.get("actions")
        if buffer is not None and len(buffer.data) > VALUES_BYTES_MOST:
            buffer = None
        self._under_way[peer, _key(header)] = buffer, now
        while len(self._under_way) > UNDER_WAY_MOST:
            self._under_way.popitem(last=False)

    def answered(
        self, answer: Answer, seen: Seen | None, holder: str, now: int, *, adapter: str = ""
    ) -> None:
        """What became of one. seen: the observation that it names, if there is one; adapter: what
        translates for its holder, the `policy` of a chunk that names none.
        """
        header = answer.header
        buffer, received_ns = self._under_way.pop((answer.peer, _key(header)), (None, now))
        self.newest += 1
        values = _values(buffer)
        told = {
            "seq": self.newest, "received": received_ns, "acked": now, "holder": holder,
            "latency_ns": answer.latency_ns, "infer_ns": _inference_ns(header),
            "inputs": {} if seen is None else dict(seen.inputs),
            **{name: _plain(header.get(name)) for name in _OF_HEADER},
            **{name: _plain(answer.told.get(name)) for name in _OF_ACK},
        }  # fmt: skip
        told["policy"] = told["policy"] or adapter[:TEXT_MOST] or None
        state = np.zeros(0, np.float32) if seen is None else seen.state.astype(np.float32)
        entry = Entry(self.newest, told, values, told_offsets(header, len(values)), state)
        self._kept.append(entry)

    def after(self, number: int) -> tuple[dict[str, Any], list[Buffer]]:
        """Header and buffers of an answer with the entries behind `number`, oldest first."""
        entries = [entry for entry in self._kept if entry.number > number][:ANSWER_MOST]
        buffers = []
        for at, entry in enumerate(entries):
            buffers += [raw(f"{at}.values", entry.values), raw(f"{at}.state", entry.state),
                        raw(f"{at}.offsets", entry.offsets_ns)]  # fmt: skip
        return {"newest": self.newest, "chunks": [dict(entry.told) for entry in entries]}, buffers


_OF_HEADER = ("obs", "t_ref", "dt_ns", "rep", "mode", "policy", "task", "prefix_used")
_OF_ACK = ("chunk", "epoch", "status", "reason", "first_applied", "late", "clipped", "splice_gap",
           "margin_ns")  # fmt: skip


def read_after(header: Mapping[str, Any]) -> int:
    """The number in a message `chunks`. MessageError."""
    number = header.get("after", 0)
    if type(number) is not int or not 0 <= number < 2**62:
        raise MessageError(f"after: expected a whole number from 0, found {str(number)[:40]}")
    return number


def _key(header: Mapping[str, Any]) -> str:
    ident = header.get("id")
    return ident[:64] if isinstance(ident, str) else ""


def _plain(value: Any) -> Any:
    """A number or a short text, as whoever sent it meant it; None for anything else."""
    if isinstance(value, str):
        return str(value)[:TEXT_MOST]
    return value if isinstance(value, int | float) else None


def _values(buffer: Buffer | None) -> npt.NDArray[np.float32]:
    if buffer is None or buffer.encoding != "raw" or len(buffer.shape) != 2:
        return NO_VALUES
    # Shapes of no columns cost their sender nothing, however many rows they claim.
    return buffer.array()[:MOST_STEPS].astype(np.float32)


def _inference_ns(header: Mapping[str, Any]) -> int | None:
    """How long the policy says that it took, by its own clock."""
    infer = header.get("infer")
    if not isinstance(infer, Mapping):
        return None
    start, end = infer.get("start"), infer.get("end")
    if type(start) is int and type(end) is int and 0 <= end - start < 2**62:
        return end - start
    return None
