"""Shared memory: sealed segments, rings of samples, latest-value cells, doorbells.

Names are loaded when they are first used: a client that only needs the clock (`recctl estop`) does
not wait for numpy [0.17 s of 0.45 s].
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recd.shm.cell import CellReader, CellWriter, cell_facts, create_cell
    from recd.shm.doorbell import Doorbell
    from recd.shm.handle import warm
    from recd.shm.ring import RingSpec, RingWriter, create_ring, read_spec, ring_nbytes
    from recd.shm.ring_reader import OBSERVER, Credit, ReaderPolicy, RingReader, Slot
    from recd.shm.segment import Segment

_HOMES = {
    "cell": ("CellReader", "CellWriter", "cell_facts", "create_cell"),
    "doorbell": ("Doorbell",),
    "handle": ("warm",),
    "ring": ("RingSpec", "RingWriter", "create_ring", "read_spec", "ring_nbytes"),
    "ring_reader": ("OBSERVER", "Credit", "ReaderPolicy", "RingReader", "Slot"),
    "segment": ("Segment",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "OBSERVER",
    "CellReader",
    "CellWriter",
    "Credit",
    "Doorbell",
    "ReaderPolicy",
    "RingReader",
    "RingSpec",
    "RingWriter",
    "Segment",
    "Slot",
    "cell_facts",
    "create_cell",
    "create_ring",
    "read_spec",
    "ring_nbytes",
    "warm",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = found
    return found
