"""Faults of the wire: what may happen to a reply between the servo and the host.

Each is armed for a number of requests or until a time and then gone. Faults of servos (heat, load,
power) and of the port (unplugging) are not here but in the robot's table of commands.
"""

from dataclasses import dataclass, field
from typing import Literal

from recd.daemon.sim.protocol import checksum

Kind = Literal["late", "silent", "checksum", "garbage", "short", "error"]

KINDS: dict[Kind, str] = {
    "late": "the reply reaches the host `ms` later, and everything behind it too",
    "silent": "the servo neither hears nor answers",
    "checksum": "the last byte of the reply is wrong",
    "garbage": "`size` random bytes come before the reply",
    "short": "the last `size` bytes of the reply never come",
    "error": "the reply carries the error bits `bits`",
}


@dataclass(slots=True)
class WireFault:
    """One armed fault.

    ident: whose reply; None means the first reply of a request (for `silent`: everybody's).
    skip: matching requests that pass untouched first. count: requests it then applies to, None for
    no end. until_ns: when it ends by itself, 0 never. at: for `late`, "host" holds the bytes back
    in the adapter while the line goes on, "servo" keeps the line itself busy.
    """

    kind: Kind
    ident: int | None = None
    count: int | None = 1
    skip: int = 0
    until_ns: int = 0
    ms: float = 0.0
    at: Literal["host", "servo"] = "host"
    size: int = 1
    bits: int = 0
    seed: int = field(default=1)

    def concerns(self, ident: int, *, first: bool) -> bool:
        """Whether the reply of `ident` is meant; `first` says that it opens its request."""
        if self.ident is None:
            return first or self.kind == "silent"
        return self.ident == ident


@dataclass(frozen=True, slots=True)
class Marred:
    """What became of one reply: its bytes and its delays (ns) on the line and in the adapter."""

    data: bytes
    line_ns: int = 0
    host_ns: int = 0
    kinds: tuple[str, ...] = ()


class WireFaults:
    """The armed faults of one bus. `applied` counts replies that were changed or swallowed."""

    def __init__(self) -> None:
        self._armed: list[WireFault] = []
        self.applied = 0

    def arm(self, fault: WireFault) -> None:
        if fault.kind not in KINDS:
            raise ValueError(f"expected one of {', '.join(KINDS)}, got {fault.kind!r}")
        self._armed.append(fault)

    def clear(self, kind: str | None = None) -> None:
        """Disarm all faults, or those of one kind."""
        self._armed = [fault for fault in self._armed if kind and fault.kind != kind]

    def begin(self, idents: list[int], at_ns: int) -> list[WireFault]:
        """Faults that act on a request to `idents` (in order of reply); their counts go down."""
        if not self._armed:
            return []
        acting = []
        for fault in list(self._armed):
            if fault.until_ns and at_ns >= fault.until_ns:
                self._armed.remove(fault)
                continue
            if not any(fault.concerns(ident, first=at == 0) for at, ident in enumerate(idents)):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            acting.append(fault)
            if fault.count is not None:
                fault.count -= 1
                if fault.count <= 0:
                    self._armed.remove(fault)
        return acting

    def mar(self, acting: list[WireFault], ident: int, frame: bytes, *, first: bool) -> Marred:
        """What the host will get instead of `frame`."""
        line_ns = host_ns = 0
        kinds = []
        for fault in acting:
            if fault.kind == "silent" or not fault.concerns(ident, first=first):
                continue
            self.applied += 1
            kinds.append(fault.kind)
            match fault.kind:
                case "late" if fault.at == "servo":
                    line_ns += round(fault.ms * 1e6)
                case "late":
                    host_ns += round(fault.ms * 1e6)
                case "checksum":
                    frame = frame[:-1] + bytes((frame[-1] ^ 0x55,))
                case "garbage":
                    frame = _noise(fault.seed, fault.size) + frame
                case "short":
                    frame = frame[: max(0, len(frame) - fault.size)]
                case "error":
                    body = frame[2:4] + bytes((frame[4] | fault.bits,)) + frame[5:-1]
                    frame = frame[:2] + body + bytes((checksum(body),))
        return Marred(frame, line_ns, host_ns, tuple(kinds))


def is_silenced(acting: list[WireFault], ident: int) -> bool:
    """Whether one of `acting` keeps `ident` from hearing and answering."""
    return any(fault.kind == "silent" and fault.ident in (None, ident) for fault in acting)


def _noise(seed: int, size: int) -> bytes:
    state = seed & 0xFFFFFFFF or 1
    noise = bytearray()
    for _ in range(size):
        state = (state * 1_664_525 + 1_013_904_223) & 0xFFFFFFFF
        noise.append(state >> 24)
    return bytes(noise)
