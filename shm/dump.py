"""What a ring or cell looks like now, for people: `recctl shm`. Reads only, disturbs nobody."""

from typing import Any

import numpy as np

from recd.shm import layout
from recd.shm.cell import CellReader, cell_facts
from recd.shm.claim import WRITER, is_held, reader_role
from recd.shm.clock import now_ns
from recd.shm.handle import Control
from recd.shm.ring import RingSpec, read_spec
from recd.shm.ring_reader import OBSERVER, ReaderPolicy, RingReader
from recd.shm.segment import Segment


def describe_ring(segment: Segment) -> dict[str, Any]:
    """Everything about a ring in plain values.

    produced: indices published or abandoned since creation; dropped: losses before the ring;
    age_ms: since the newest publish, None before the first; readers: one entry per line in use.
    """
    spec = read_spec(segment)
    observer = RingReader(segment, OBSERVER, policy=ReaderPolicy.LATEST)
    head = observer.peek_head()
    newest = None
    if head:
        observer.seek(head - 1)
        newest = observer.latest()
    return {
        "name": spec.name,
        "kind": spec.kind,
        "slots": spec.slots,
        "slot_bytes": spec.slot_bytes,
        "nbytes": segment.nbytes,
        "meta": spec.meta,
        "produced": head,
        "head": head,
        "epoch": _word(segment, layout.EPOCH),
        "abandoned": _word(segment, layout.ABANDONED),
        "dropped": _word(segment, layout.DROPPED),
        "writer_pid": _word(segment, layout.WRITER_PID),
        "writer_alive": is_held(segment, WRITER),
        "age_ms": None if newest is None else (now_ns() - newest.t_publish_ns) / 1e6,
        "readers": _readers(segment, spec, head),
    }


def _word(segment: Segment, offset: int) -> int:
    return int(segment.bytes[offset : offset + layout.WORD].view(np.int64)[0])


def _readers(segment: Segment, spec: RingSpec, head: int) -> list[dict[str, Any]]:
    control = Control(segment)
    entries = []
    for reader in range(spec.readers):
        line = layout.READER_0 + reader * layout.READER_STRIDE
        if not _word(segment, line + layout.READER_JOINED):
            continue
        control[layout.CTL_LINE] = segment.address + line
        control.kernel("ring_tally")(control.pointer)
        first = layout.CTL_FACTS // layout.WORD
        cursor, lost, torn, skipped = (int(word) for word in control.words[first : first + 4])
        entries.append(
            {
                "reader": reader,
                "pid": _word(segment, line + layout.READER_PID),
                "alive": is_held(segment, reader_role(reader)),
                "policy": ReaderPolicy(_word(segment, line + layout.READER_POLICY)).name,
                "cursor": cursor,
                "lag": max(0, head - cursor),
                "fill": max(0, head - cursor) / spec.slots,
                "kept": cursor - _word(segment, line + layout.READER_ORIGIN) - lost - skipped,
                "lost": lost,
                "torn": torn,
                "skipped": skipped,
            }
        )
    return entries


def describe_cell(segment: Segment) -> dict[str, Any]:
    """Name, version, writer and the present value (fields as plain values) of a cell."""
    name, dtype, meta = cell_facts(segment)
    read = CellReader(segment).read()
    value: Any = None
    if read is not None:
        value = read[1]
        fields = dtype.names
        value = {field: value[field].tolist() for field in fields} if fields else value.item()
    return {
        "name": name,
        "nbytes": segment.nbytes,
        "meta": meta,
        "version": 0 if read is None else read[0],
        "writer_pid": _word(segment, layout.WRITER_PID),
        "writer_alive": is_held(segment, WRITER),
        "value": value,
    }
