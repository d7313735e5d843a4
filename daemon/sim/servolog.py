"""What happened on the simulated lines: every request, torque change and fault, in order.

Bounded: the oldest entries go first, and the numbers of the rest show how many went. A file, when
asked for, gets everything (JSON lines).
"""

import json
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from recd.daemon.sim.protocol import register_writes
from recd.daemon.sim.registers import BY_ADDRESS

RING_ENTRIES = 120_000
"""About two and a half minutes of one pair at 250 Hz."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log.

    t_ns: when it took effect on the line (CLOCK_MONOTONIC); kind: request, torque, fault, port or
    junk. For a request, frame is the whole frame and heard the ids that acted on it.
    """

    number: int
    t_ns: int
    bus: str
    kind: str
    frame: bytes = b""
    heard: tuple[int, ...] = ()
    fields: dict[str, Any] | None = None

    def plain(self) -> dict[str, Any]:
        """Map for JSON; frames in hex."""
        plain: dict[str, Any] = {
            "n": self.number, "t_ns": self.t_ns, "bus": self.bus, "kind": self.kind,
        }  # fmt: skip
        if self.frame:
            plain |= {"frame": self.frame.hex(" "), "heard": list(self.heard)}
        return plain | (self.fields or {})


@dataclass(frozen=True, slots=True)
class RegisterWrite:
    """One register write that a servo carried out. value: decoded when it is one register."""

    t_ns: int
    bus: str
    ident: int
    address: int
    name: str
    value: int
    data: bytes


def writes_of(entry: Entry) -> list[RegisterWrite]:
    """The register writes behind one logged request, those of servos that heard it."""
    found = []
    for ident, address, data in register_writes(entry.frame) if entry.frame else []:
        targets = entry.heard if ident == 0xFE else (ident,) if ident in entry.heard else ()
        register = BY_ADDRESS.get(address)
        value = register.decode(data) if register and len(data) == register.size else -1
        name = register.name if register else f"address {address}"
        for target in targets:
            found.append(RegisterWrite(entry.t_ns, entry.bus, target, address, name, value, data))
    return found


class ServoLog:
    """Ring of entries of all buses of one simulated robot, optionally copied to a file."""

    def __init__(self, path: Path | None = None, entries: int = RING_ENTRIES) -> None:
        self._ring: deque[Entry] = deque(maxlen=entries)
        self._unsaved: list[Entry] = []
        self._file: IO[str] | None = path.open("a") if path else None
        self.count = 0

    def request(self, t_ns: int, bus: str, frame: bytes, heard: tuple[int, ...]) -> None:
        """Note a request frame and who acted on it."""
        self._add(Entry(self.count, t_ns, bus, "request", frame, heard))

    def note(self, t_ns: int, bus: str, kind: str, **fields: Any) -> None:
        """Note anything else."""
        self._add(Entry(self.count, t_ns, bus, kind, fields=fields))

    def since(self, number: int, limit: int, bus: str = "") -> list[Entry]:
        """Up to `limit` entries with a number of at least `number`, oldest first."""
        if not self._ring:
            return []
        first = self._ring[0].number
        found = []
        for at in range(max(0, number - first), len(self._ring)):
            entry = self._ring[at]
            if not bus or entry.bus == bus:
                found.append(entry)
                if len(found) == limit:
                    break
        return found

    def save(self) -> None:
        """Append what is new to the file."""
        if self._file is not None and self._unsaved:
            lines = [json.dumps(entry.plain(), separators=(",", ":")) for entry in self._unsaved]
            self._file.write("\n".join(lines) + "\n")
            self._file.flush()
            self._unsaved.clear()

    def close(self) -> None:
        self.save()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _add(self, entry: Entry) -> None:
        self._ring.append(entry)
        self.count += 1
        if self._file is not None:
            self._unsaved.append(entry)
