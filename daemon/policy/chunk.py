"""An action chunk as received: checked in full, then made absolute in value and time. Pure.

Every number is a claim until it was compared with the layout, the observation and the limits of
this page. What does not fit is refused with a word of `Status` and the reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from recd.config.errors import RecdError
from recd.config.policy_streams import MODES
from recd.config.policy_wire import (
    MOST_STEPS,
    TASK_BYTES,
    Buffer,
    Mode,
    Representation,
    Status,
    is_task,
)
from recd.daemon.policy.layout import ActionLayout
from recd.shm.clock import NS_PER_S

DT_NS = (NS_PER_S // 1000, NS_PER_S)
"""Shortest and longest step of a chunk."""

HORIZON_NS = 30 * NS_PER_S
"""A target further ahead than that is a mistake in somebody's units."""

EVER_NS = 2**62
MOST_BLEND = MOST_STEPS
Floats = npt.NDArray[np.float64]


class ChunkError(RecdError):
    """A chunk that is refused. `status` is the word of its ACK."""

    def __init__(self, status: Status, message: str, *, mend: str = "") -> None:
        super().__init__(message, mend=mend, code=str(status))
        self.status = status


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk whose form is sound. values: float64 [T, D] as received; offsets_ns: int64 [T] from
    the observation's time; mask: bool [D], False where the policy leaves a dimension alone;
    valid_ns: after the observation, None: as long as its targets; task: what the policy was at;
    prefix_used: how many of its rows go on from the prefix, -1: it did not say.
    """

    number: int
    ident: str
    epoch: int
    obs: int
    t_ref_ns: int
    layout: str
    representation: Representation
    mode: Mode
    blend: int
    dt_ns: int
    valid_ns: int | None
    offsets_ns: npt.NDArray[np.int64]
    values: Floats
    mask: npt.NDArray[np.bool_]
    task: str
    prefix_used: int = -1

    @property
    def steps(self) -> int:
        return len(self.offsets_ns)

    @property
    def age_limit_ns(self) -> int:
        """How old its observation may be when it comes: twice its horizon, at most a second."""
        horizon_ns = int(self.offsets_ns[-1]) + self.dt_ns if self.steps else 0
        return min(NS_PER_S, 2 * horizon_ns)


def read_chunk(
    header: Mapping[str, Any], buffers: Mapping[str, Buffer], layout: ActionLayout
) -> Chunk:
    """The chunk in a message `act`. ChunkError for whatever is not sound."""
    number, lease = _whole(header, "chunk"), header.get("lease")
    if not isinstance(lease, Mapping):
        raise ChunkError(Status.MALFORMED, f"lease: expected {{id, epoch}}, found {_said(lease)}")
    if header.get("layout") != layout.layout_id:
        raise ChunkError(
            Status.LAYOUT,
            f"layout: expected {layout.layout_id}, found {_said(header.get('layout'))}",
            mend="Ask `describe` again: joints, units or limits are not those the policy knew.",
        )
    values = _values(buffers, layout.width)
    dt_ns, offsets_ns = _times(header, len(values))
    mask = _mask(header.get("mask"), layout.width)
    if not np.isfinite(values).all() and (unknown := ~np.isfinite(values[:, mask])).any():
        row, column = (int(at) for at in np.argwhere(unknown)[0])
        name = np.array(layout.names)[mask][column]
        raise ChunkError(
            Status.NOT_FINITE, f"actions: expected finite numbers, found one that is not at step "
            f"{row}, {name} ({int(unknown.sum())} in all)",
            mend="Leave a joint out by `mask`; NaN has no meaning here.",
        )  # fmt: skip
    return Chunk(
        number=number,
        ident=_text(lease.get("id"), "lease.id"),
        epoch=_whole(lease, "epoch"),
        obs=_whole(header, "obs"),
        t_ref_ns=_whole(header, "t_ref"),
        layout=layout.layout_id,
        representation=_word(header, "rep", Representation, Representation.ABSOLUTE),
        mode=_word(header, "mode", Mode, Mode.REPLACE),
        blend=_whole(header, "blend", most=MOST_BLEND, default=0),
        dt_ns=dt_ns,
        valid_ns=None
        if header.get("valid_ns") is None
        else _whole(header, "valid_ns", most=2 * HORIZON_NS),
        offsets_ns=offsets_ns,
        values=values,
        mask=mask,
        task=_task(header.get("task", "")),
        prefix_used=-1
        if header.get("prefix_used") is None
        else _whole(header, "prefix_used", most=MOST_STEPS),
    )


def _values(buffers: Mapping[str, Buffer], width: int) -> Floats:
    """float64 [T, D] of the buffer `actions`."""
    buffer = buffers.get("actions")
    if buffer is None or len(buffers) != 1:
        raise ChunkError(
            Status.MALFORMED, f"arrays: expected `actions` alone, found {sorted(buffers) or 'none'}"
        )
    if buffer.encoding != "raw" or buffer.dtype not in ("f4", "f8"):
        raise ChunkError(
            Status.MALFORMED, f"actions: expected raw f4 or f8, found {buffer.encoding} "
            f"{buffer.dtype}",
        )  # fmt: skip
    if len(buffer.shape) != 2 or buffer.shape[1] != width or buffer.shape[0] > MOST_STEPS:
        raise ChunkError(
            Status.LAYOUT if len(buffer.shape) == 2 else Status.MALFORMED,
            f"actions: expected shape [0..{MOST_STEPS}, {width}], found {list(buffer.shape)}",
            mend="A chunk has one column for each name of `describe`; leave joints out by `mask`.",
        )
    return buffer.array().astype(np.float64)


def _times(header: Mapping[str, Any], steps: int) -> tuple[int, npt.NDArray[np.int64]]:
    """(step, offsets): from `offsets_ns`, or k + 1 steps of `dt_ns` for row k."""
    dt_ns = _whole(header, "dt_ns", least=DT_NS[0], most=DT_NS[1])
    given = header.get("offsets_ns")
    if given is None:
        offsets = dt_ns * np.arange(1, steps + 1, dtype=np.int64)
    else:
        sound = isinstance(given, list) and len(given) == steps and all(
            type(at) is int and -HORIZON_NS <= at <= HORIZON_NS for at in given
        )  # fmt: skip
        if not sound:
            raise ChunkError(
                Status.MALFORMED,
                f"offsets_ns: expected {steps} whole numbers within {HORIZON_NS // NS_PER_S} s",
            )
        offsets = np.array(given, np.int64)
        if (np.diff(offsets) <= 0).any():
            raise ChunkError(
                Status.MALFORMED, "offsets_ns: expected each later than the one before"
            )
    if steps and offsets[-1] > HORIZON_NS:
        raise ChunkError(
            Status.MALFORMED, f"expected targets within {HORIZON_NS // NS_PER_S} s of the "
            f"observation, found {offsets[-1] / NS_PER_S:.1f} s",
        )  # fmt: skip
    return dt_ns, offsets


def told_offsets(header: Mapping[str, Any], steps: int) -> npt.NDArray[np.int64]:
    """When each row is due after the observation, int64 [steps], as `read_chunk` says; zeros
    where what is told is not sound."""
    given, dt_ns = header.get("offsets_ns"), header.get("dt_ns")
    if isinstance(given, list) and len(given) == steps and all(type(at) is int for at in given):
        return np.array(np.clip(given, -(2**62), 2**62), np.int64)
    if type(dt_ns) is not int or not 0 < dt_ns < 2**40:
        return np.zeros(steps, np.int64)
    return dt_ns * np.arange(1, steps + 1, dtype=np.int64)


def _mask(given: Any, width: int) -> npt.NDArray[np.bool_]:
    if given is None:
        return np.ones(width, np.bool_)
    if (
        not isinstance(given, list)
        or len(given) != width
        or not all(type(item) is bool for item in given)
    ):
        raise ChunkError(Status.MALFORMED, f"mask: expected {width} times true or false")
    return np.array(given, np.bool_)


def absolute(chunk: Chunk, state: Floats) -> Floats:
    """Positions in dataset units, float64 [T, D], NaN where a dimension is left alone. Velocities
    stay what they are: they go on from wherever the arm is told to be.

    state: float64 [D], the state at the chunk's observation, NaN where it was not known. ChunkError
    when a relative chunk needs what was not known.
    """
    values = chunk.values.copy()
    if chunk.representation in (Representation.RELATIVE, Representation.DELTA):
        if not np.isfinite(state[chunk.mask]).all():
            raise ChunkError(
                Status.UNKNOWN_OBS, "a joint's position was not known at the observation",
                mend="Use observations whose state is whole, or absolute positions.",
            )  # fmt: skip
        if chunk.representation is Representation.DELTA:
            values = np.cumsum(values, axis=0)
        values = values + state
    values[:, ~chunk.mask] = np.nan
    return values


def fill_plan(record: Any, chunk: Chunk, positions: Floats, part: slice) -> None:
    """Write one pair's share of a chunk into a `plan_dtype` record."""
    steps = chunk.steps
    until_ns = EVER_NS if chunk.valid_ns is None else chunk.t_ref_ns + chunk.valid_ns
    record["chunk"], record["epoch"] = chunk.number, chunk.epoch
    record["obs_ns"], record["dt_ns"] = chunk.t_ref_ns, chunk.dt_ns
    record["valid_until_ns"], record["age_limit_ns"] = until_ns, chunk.age_limit_ns
    record["steps"], record["blend"] = steps, chunk.blend
    record["mode"] = MODES.index(chunk.mode)
    record["target_ns"][:steps] = chunk.t_ref_ns + chunk.offsets_ns
    record["velocity"] = chunk.representation is Representation.VELOCITY
    record["values"][:steps] = positions[:, part]


def _whole(
    header: Mapping[str, Any], name: str, *, least: int = 0, most: int = EVER_NS,
    default: int | None = None,
) -> int:  # fmt: skip
    value = header.get(name, default)
    if type(value) is not int or not least <= value <= most:
        raise ChunkError(
            Status.MALFORMED, f"{name}: expected a whole number of {least}..{most}, found "
            f"{_said(value)}",
        )  # fmt: skip
    return value


def _task(value: Any) -> str:
    if not is_task(value):
        raise ChunkError(Status.MALFORMED, f"task: expected one line of at most {TASK_BYTES} bytes")
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 64:
        raise ChunkError(Status.MALFORMED, f"{name}: expected up to 64 letters")
    return value


W = TypeVar("W", Mode, Representation)


def _word(header: Mapping[str, Any], name: str, kind: type[W], default: W) -> W:
    value = header.get(name, default)
    if not isinstance(value, str) or value not in list(kind):
        raise ChunkError(
            Status.MALFORMED, f"{name}: expected one of {', '.join(kind)}, found {_said(value)}"
        )
    return kind(value)


def _said(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
