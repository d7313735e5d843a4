"""Shared memory: sealed segments, rings of samples, latest-value cells, doorbells."""

from recd.shm.cell import CellReader, CellWriter, cell_facts, create_cell
from recd.shm.doorbell import Doorbell
from recd.shm.handle import warm
from recd.shm.ring import RingSpec, RingWriter, create_ring, read_spec, ring_nbytes
from recd.shm.ring_reader import OBSERVER, Credit, ReaderPolicy, RingReader, Slot
from recd.shm.segment import Segment

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
