"""What a policy's client gets back, as values: observations, ACKs, and the log of chunks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.errors import RecdError
from recd.config.policy_wire import Buffer, Clock, Status, read_clock
from recd.config.policy_wishes import STATE
from recd.daemon.policy.prefix import along


@dataclass(frozen=True, slots=True)
class Arm:
    """What a pair's motion machine says. permitted: a person lets the lease's holder drive; grants:
    how often so far, so a change means: begin anew; queued_until_ns: of the daemon's clock;
    need_by_ns: by when the next observation is to be asked for, going by the usual latency, so that
    its chunk comes in time; 0 for both: nothing is planned.
    """

    motion: str
    cause: str
    permitted: bool
    grants: int
    held_ns: int
    queued_until_ns: int
    need_by_ns: int = 0


@dataclass(frozen=True, slots=True)
class Prefix:
    """What the arms will be told if no new chunk comes. times_ns: int64 [N], of the daemon's clock,
    growing: when each row is due, as the rows of a chunk are; the first one is what they are told
    now. positions: float64 [N, D] in dataset units, columns as in `state`; NaN where a pair plays
    no plan, or its plan has ended. N is 0 when no pair plays one.
    """

    times_ns: npt.NDArray[np.int64]
    positions: npt.NDArray[np.float64]

    def at(self, times_ns: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Positions at other times, float64 [K, D], linear between the rows, as the arms are told
        them; NaN before the first and after the last row of a pair.

        times_ns: int64 [K] of the daemon's clock; `t_ref_ns + (k + 1) * dt_ns` for the rows of the
        chunk to come.
        """
        return along(np.asarray(times_ns, np.int64), self.times_ns, self.positions)


@dataclass(frozen=True, slots=True)
class Observation:
    """One observation. t_ref_ns: the time that a chunk is anchored to; state: float32 [D] at it,
    NaN where a joint is not known; images: camera -> JPEG bytes (or raw bytes); facts: camera ->
    {t, age_ns, fmt, w, h, flags}; arms: pair -> its state; sent_ns: of the daemon's clock;
    clocks: pair -> what the holder of its lease measured of its own clock, where it did.

    Of what was wished for: pictures: camera -> uint8 RGB [H, W, 3], those of `rgb8`; past: stream
    -> the same for each earlier time, in the order asked; their facts are under `front@-3`;
    telemetry: load (percent), temperature (degrees Celsius), voltage -> float32 [D]; prefix: what
    the arms will be told if no chunk comes, None where it was not wished for.
    """

    number: int
    t_ref_ns: int
    state: npt.NDArray[np.float32]
    images: Mapping[str, bytes]
    facts: Mapping[str, Mapping[str, Any]]
    arms: Mapping[str, Arm]
    task: str
    sent_ns: int
    pictures: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    past: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    telemetry: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    prefix: Prefix | None = None
    clocks: Mapping[str, Clock] = field(default_factory=dict)
    reset: bool = False
    """The first one since a person let the policy drive, or since it began to hold: a policy
    forgets what it had planned."""

    @property
    def permitted(self) -> bool:
        """True when a chunk would be played, not only judged and logged."""
        return bool(self.arms) and all(arm.permitted for arm in self.arms.values())


@dataclass(frozen=True, slots=True)
class Ack:
    """What became of a chunk (`Status`), and why. first_applied: its first row that is played;
    late: rows dropped for their time; clipped: rows beyond the range of a joint; margin_ns: how
    long the plan before it would have lasted, negative when it had run out; facts: the rest.
    """

    status: Status
    reason: str = ""
    mend: str = ""
    first_applied: int = -1
    late: int = 0
    clipped: int = 0
    splice_gap: float = 0.0
    margin_ns: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


class NoObservationError(RecdError):
    """There is no observation now; the message says which stream is in trouble."""

    code = "observation"


@dataclass(frozen=True, slots=True)
class LoggedChunk:
    """One chunk and what became of it. number: of the log, without gaps; told: of its header, its
    ACK, and when it was received and answered (ns of the daemon's clock); values: float32 [T, D] as
    received; offsets_ns: int64 [T] after the observation; state: float32 [D] at that.
    """

    number: int
    told: Mapping[str, Any]
    values: npt.NDArray[np.float32]
    offsets_ns: npt.NDArray[np.int64]
    state: npt.NDArray[np.float32]


def observation_of(header: Mapping[str, Any], buffers: Mapping[str, Buffer]) -> Observation:
    """The observation in a message of the gateway."""
    images, pictures, telemetry = {}, {}, {}
    past: dict[str, tuple[Any, ...]] = {}
    for name, buffer in buffers.items():
        stream, _, back = name.partition("@")
        if back:
            past[stream] = (*past.get(stream, ()), _past_of(stream, buffer))
        elif name.startswith("servo."):
            telemetry[name.removeprefix("servo.")] = buffer.array().copy()
        elif buffer.facts.get("fmt") == "rgb8":
            pictures[name] = buffer.array().copy()
        elif name not in _NO_PICTURES:
            images[name] = bytes(buffer.data)
    arms = {
        pair: Arm(
            said["motion"], said.get("cause", ""), said["permitted"], said.get("grants", 0),
            said.get("held", 0), said.get("queued_until", 0), said.get("need_by", 0),
        )
        for pair, said in header["arms"].items()
    }  # fmt: skip
    return Observation(
        number=header["obs"],
        t_ref_ns=header["t_ref"],
        state=buffers["state"].array().copy(),
        images=images,
        facts={name: buffer.facts for name, buffer in buffers.items()},
        arms=arms,
        task=header.get("task", ""),
        sent_ns=header["tx"],
        pictures=pictures,
        past=past,
        telemetry=telemetry,
        prefix=_prefix_of(buffers),
        clocks=_clocks_of(header),
    )


def logged_of(
    header: Mapping[str, Any], buffers: Mapping[str, Buffer]
) -> tuple[LoggedChunk, ...]:  # fmt: skip
    """The chunks in an answer to `chunks`, oldest first."""
    return tuple(
        LoggedChunk(
            told["seq"],
            told,
            *(buffers[f"{at}.{name}"].array().copy() for name in ("values", "offsets", "state")),
        )
        for at, told in enumerate(header["chunks"])
    )


_NO_PICTURES = ("state", "state_newest", "prefix.t", "prefix.values")


def _prefix_of(buffers: Mapping[str, Buffer]) -> Prefix | None:
    if "prefix.t" not in buffers:
        return None
    times, values = (buffers[f"prefix.{name}"].array() for name in ("t", "values"))
    return Prefix(times.copy(), values.astype(np.float64))


def _clocks_of(header: Mapping[str, Any]) -> dict[str, Clock]:
    found = {pair: read_clock(told) for pair, told in header.get("clock", {}).items()}
    return {pair: clock for pair, clock in found.items() if clock is not None}


def _past_of(stream: str, buffer: Buffer) -> Any:
    """What the present one of the stream would be: an array, or bytes."""
    if stream == STATE or buffer.facts.get("fmt") == "rgb8":
        return buffer.array().copy()
    return bytes(buffer.data)


def ack_of(header: Mapping[str, Any]) -> Ack:
    """The ACK in a message of the gateway."""
    own = ("status", "reason", "mend", "first_applied", "late", "clipped", "splice_gap",
           "margin_ns")  # fmt: skip
    known = {name: header[name] for name in own if name in header}
    facts = {name: value for name, value in header.items() if name not in own}
    return Ack(**{**known, "status": Status(header["status"])}, facts=facts)
