"""The policy API on the wire: one header (msgpack map) and raw buffers, as parts of one message.

Arrays are described in the header and checked against it before any view is made: closed list of
types, sizes that cannot overflow, buffers of exactly the described length. Nothing is unpickled.
docs/policy_api.md tells the messages and shows one in bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgpack
import numpy as np
import numpy.typing as npt

from recd.config.messages import Arg, Command, Limits, MessageError, decode

POLICY_VERSION: Final = 1
HEADER_BYTES: Final = 64 * 1024
ACT_BYTES: Final = 1024 * 1024
"""Longest part of a message on `act`; a chunk of 256 steps of 14 float64 is 28 KiB."""

MOST_STEPS: Final = 256
"""Steps of one chunk."""
MOST_QUEUED: Final = 2 * MOST_STEPS
"""Rows that may be queued: what appended chunks have beyond that is cut."""
TASK_BYTES: Final = 256
"""Longest task of a chunk, in UTF-8."""
MODEL_BYTES: Final = 256
"""Longest name of what acts, as a checkpoint's, in UTF-8."""
MOST_PARTS: Final = 65
MOST_ELEMENTS: Final = 2**27

HEADER_LIMITS: Final = Limits(HEADER_BYTES, 4096, 64, 6)

DTYPES: Final[Mapping[str, str]] = {
    "b1": "|b1", "u1": "|u1", "i1": "|i1", "u2": "<u2", "i2": "<i2", "i4": "<i4", "i8": "<i8",
    "f2": "<f2", "f4": "<f4", "f8": "<f8",
}  # fmt: skip
"""Element types that may travel, all little endian. There is no object type and no text type."""


class Status(StrEnum):
    """What became of a chunk. The first three are good news; every other one names a reason."""

    APPLIED = "applied"
    SHADOW = "shadow"  # sound, and logged; nobody lets the policy drive now
    STOPPED = "stopped"  # a chunk of no steps: the queue is empty now, the arm decelerates
    ALL_LATE = "all_late"
    OLD_OBS = "old_obs"
    UNKNOWN_OBS = "unknown_obs"
    BEFORE_HOLD = "before_hold"
    DUPLICATE = "duplicate"
    OUT_OF_ORDER = "out_of_order"
    STALE_EPOCH = "stale_epoch"
    LAYOUT = "layout"
    SEAM = "seam"
    NOT_FINITE = "not_finite"
    MALFORMED = "malformed"
    REFUSED = "refused"  # the key that sent it may not act
    BUSY = "busy"
    LOST = "lost"  # no arm process answered


class Mode(StrEnum):
    """How a chunk joins what is still queued."""

    REPLACE = "replace"
    BLEND = "blend"  # over `blend` steps linearly from the old plan to the new; not the gripper
    APPEND = "append"


class Representation(StrEnum):
    """What the numbers of a chunk are."""

    ABSOLUTE = "abs"
    RELATIVE = "rel_obs"  # added to the state at the observation
    DELTA = "delta"  # each step's change; the first one's from the state at the observation
    VELOCITY = "vel"  # units per second, until the row is due; from what the arm is told by then


@dataclass(frozen=True, slots=True)
class Buffer:
    """One array or file of a message, as the header describes it.

    name: what it is; encoding: `raw` (elements, C order) or `jpeg`; shape: of the elements, empty
    for a file; facts: what else the header says (t, age_ns, format, ...).
    """

    name: str
    encoding: str
    dtype: str
    shape: tuple[int, ...]
    data: Any
    facts: Mapping[str, Any]

    def array(self) -> npt.NDArray[Any]:
        """View of the elements, read-only. MessageError for a file."""
        if self.encoding != "raw":
            raise MessageError(f"{self.name}: expected raw elements, found {self.encoding}")
        return np.frombuffer(self.data, np.dtype(DTYPES[self.dtype])).reshape(self.shape)


def pack(header: Mapping[str, Any], buffers: Sequence[Buffer] = ()) -> list[Any]:
    """Parts of a message: the header with `arrays` describing the buffers, then their bytes.

    ValueError for a header that is longer than HEADER_BYTES.
    """
    told = {"v": POLICY_VERSION, **header}
    if buffers:
        told["arrays"] = [
            {**b.facts, "n": b.name, "fi": number, "enc": b.encoding, "dt": b.dtype,
             "sh": list(b.shape)}
            for number, b in enumerate(buffers)
        ]  # fmt: skip
    packed = msgpack.packb(told, use_bin_type=True)
    if len(packed) > HEADER_BYTES:
        raise ValueError(f"header of {len(packed)} bytes, at most {HEADER_BYTES}")
    return [packed, *(buffer.data for buffer in buffers)]


def raw(name: str, values: npt.NDArray[Any], **facts: Any) -> Buffer:
    """An array as a buffer. ValueError for a type that may not travel."""
    plain = np.ascontiguousarray(values)
    kind = plain.dtype.str[1:]
    if kind not in DTYPES:
        raise ValueError(f"{name}: type {plain.dtype} does not travel; use {', '.join(DTYPES)}")
    little = plain.astype(DTYPES[kind], copy=False)
    return Buffer(name, "raw", kind, little.shape, little.tobytes(), facts)


def unpack(parts: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Buffer]]:
    """(header, buffers by name). MessageError for anything that is not exactly such a message."""
    if not 1 <= len(parts) <= MOST_PARTS:
        raise MessageError(f"expected 1..{MOST_PARTS} parts, found {len(parts)}")
    header = decode(bytes(parts[0]), HEADER_LIMITS)
    if header.get("v") != POLICY_VERSION:
        raise MessageError(
            f"protocol version: expected {POLICY_VERSION}, found {header.get('v')!r}",
            code="version", mend="Use the client that belongs to this daemon.",
        )  # fmt: skip
    described = header.get("arrays", [])
    frames = parts[1:]
    if not isinstance(described, list) or len(described) != len(frames):
        raise MessageError(f"arrays: expected a list that describes {len(frames)} buffers")
    buffers: dict[str, Buffer] = {}
    for number, told in enumerate(described):
        buffer = _buffer(told, number, frames[number])
        if buffer.name in buffers:
            raise MessageError(f"arrays: {buffer.name!r} stands there twice")
        buffers[buffer.name] = buffer
    return header, buffers


def _buffer(told: Any, number: int, frame: Any) -> Buffer:
    if not isinstance(told, dict) or told.get("fi") != number:
        raise MessageError(f"arrays[{number}]: expected a map with fi {number}")
    name, encoding = told.get("n"), told.get("enc", "raw")
    kind, shape = told.get("dt", "u1"), told.get("sh", [])
    if not isinstance(name, str) or not 0 < len(name) <= 64:
        raise MessageError(f"arrays[{number}].n: expected a name of up to 64 letters")
    if encoding not in ("raw", "jpeg"):
        raise MessageError(f"arrays[{number}].enc: expected raw or jpeg")
    if not isinstance(kind, str) or kind not in DTYPES:
        raise MessageError(f"arrays[{number}].dt: expected one of {', '.join(DTYPES)}")
    if encoding == "raw":
        expected = element_count(shape, number) * np.dtype(DTYPES[kind]).itemsize
        if expected != len(frame):
            raise MessageError(
                f"arrays[{number}]: {kind} {shape} is {expected} bytes, found {len(frame)}"
            )
    else:
        shape = []
    facts = {key: value for key, value in told.items() if key not in _DESCRIBED}
    return Buffer(name, encoding, kind, tuple(shape), frame, facts)


_DESCRIBED = frozenset({"n", "fi", "enc", "dt", "sh"})


def is_task(value: object) -> bool:
    """True for what a chunk may name as its task: one line, not too long; empty says nothing."""
    return is_line(value, TASK_BYTES)


def is_line(value: object, most_bytes: int) -> bool:
    """True for one printable line of at most so many bytes in UTF-8, or an empty one."""
    return (
        isinstance(value, str)
        and value.isprintable()
        and len(value.encode("utf-8", "surrogatepass")) <= most_bytes
    )


def as_line(text: str, most_bytes: int) -> str:
    """The same as such a line: what cannot be printed is a space, what is too long is cut."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line.encode("utf-8", "replace")[:most_bytes].decode("utf-8", "ignore")


@dataclass(frozen=True, slots=True)
class Clock:
    """How a client's clock goes, as it measured itself, in ns: the daemon's CLOCK_MONOTONIC is the
    client's clock plus `offset_ns`, give or take `bound_ns`."""

    offset_ns: int
    bound_ns: int

    @classmethod
    def measured(cls, *, sent_ns: int, rx_ns: int, tx_ns: int, back_ns: int) -> "Clock":
        """Of one round trip: sent_ns, back_ns by the client's clock, rx_ns, tx_ns the other."""
        offset_ns = (rx_ns + tx_ns - sent_ns - back_ns) // 2
        return cls(offset_ns, (back_ns - sent_ns - (tx_ns - rx_ns) + 1) // 2)

    def told(self) -> dict[str, int]:
        """As it stands in a message."""
        return {"offset_ns": self.offset_ns, "bound_ns": self.bound_ns}


def read_clock(value: object) -> Clock | None:
    """The `clock` of a message, None where there is none. MessageError for anything else."""
    if value is None:
        return None
    told = value if isinstance(value, Mapping) else {}
    offset_ns, bound_ns = told.get("offset_ns"), told.get("bound_ns")
    if (
        type(offset_ns) is int
        and type(bound_ns) is int
        and abs(offset_ns) < 2**62
        and 0 <= bound_ns < 2**62
    ):
        return Clock(offset_ns, bound_ns)
    raise MessageError("clock: expected whole numbers offset_ns and bound_ns (from 0) of ns, found "
                       f"{str(value)[:60]}")  # fmt: skip


def element_count(shape: object, number: int = 0) -> int:
    """Product of a shape from the wire, multiplied only while it stays small. MessageError else."""
    if not isinstance(shape, list) or len(shape) > 4:
        raise MessageError(f"arrays[{number}].sh: expected a list of at most 4 sizes")
    count = 1
    for size in shape:
        if type(size) is not int or not 0 <= size <= MOST_ELEMENTS:
            raise MessageError(f"arrays[{number}].sh: expected sizes of 0..{MOST_ELEMENTS}")
        count *= size
        if count > MOST_ELEMENTS:
            raise MessageError(f"arrays[{number}].sh: more than {MOST_ELEMENTS} elements")
    return count


_PAIRS_ARG = Arg("name", "one pair of arms; all when left out")
_LEASE_ARG = Arg("uid", "the holder's own secret, 32 hex digits, new for each run")

REQUESTS: Final[dict[str, Command]] = {
    command.name: command
    for command in (
        Command("describe", "observe", "Session id, action layout, cameras, timers, versions."),
        Command("clock", "observe", "Two stamps of the daemon's clock around this request.", {
            "t_client": Arg("text", "the client's own stamp, given back"),
        }),
        Command("lease.acquire", "policy", "Become the one whose chunks count.", {
            "lease": Arg("uid", _LEASE_ARG.doc, required=True),
            "kind": Arg("text", "what acts", choices=("policy", "teleop", "replay")),
            "name": Arg("text", "who it is, in words", required=True),
            "adapter": Arg("text", "what translates for it, noted with its episodes"),
            "model": Arg("text", f"what acts, as a checkpoint's name, at most {MODEL_BYTES} bytes; "
                         "noted with its episodes"),
            "pair": _PAIRS_ARG,
        }),
        Command("lease.release", "policy", "Give the lease back; the arm holds.", {
            "lease": Arg("uid", _LEASE_ARG.doc, required=True),
        }),
        Command("stats", "observe", "Leases, chunks by what became of them, latencies."),
    )
}  # fmt: skip
"""Requests of the gateway, in the form of the control API (docs/control_api.md)."""
