"""One process of the torture: `torture_actor.py KIND RING_FD CELL_FD NOTES_FD LINE`.

Notes are words that only this actor writes, read by the test after everybody is dead. A word of a
ring's payload and of the cell's record is a function of index or version: no mixture goes unseen.
"""

import random
import sys

import numpy as np

from recd.shm import CellReader, CellWriter, ReaderPolicy, RingReader, RingWriter, Segment
from recd.shm.clock import NS_PER_MS, now_ns, sleep_until_ns

CELL_DTYPE = np.dtype([("words", "<u8", (40,))])
MARK = 0x9E3779B97F4A7C15
MASK = 2**64 - 1
KEPT, BAD, COMMITTED, LIVES = 0, 1, 2, 3
STOP = 8
"""The test sets this word: everybody finishes."""


def mark_of(number: int) -> int:
    return (number * MARK + 1) & MASK


def write(ring: Segment, cell: Segment, notes: np.ndarray, chance: random.Random) -> None:
    writer, values = RingWriter(ring), CellWriter(cell)
    notes[LIVES] += 1
    while not notes[STOP]:
        for _ in range(chance.choice((1, 1, 2, 4, 30))):
            view = writer.reserve()
            words = chance.randint(1, view.size // 8)
            view[: words * 8].view(np.uint64)[:] = mark_of(writer.head)
            writer.commit(words * 8, t_capture_ns=writer.head, t_arrival_ns=words)
            notes[COMMITTED] += 1
            values.record["words"] = mark_of(writer.head)
            values.publish()
        sleep_until_ns(now_ns() + NS_PER_MS)


def read(ring: Segment, cell: Segment, notes: np.ndarray, line: int, chance: random.Random) -> None:
    policy = (ReaderPolicy.MUST_KEEP, ReaderPolicy.BEST_EFFORT, ReaderPolicy.LATEST)[line]
    reader, values = RingReader(ring, line, policy=policy), CellReader(cell)
    notes[LIVES] += 1
    version = 0
    while True:
        last = bool(notes[STOP])
        slot = reader.latest() if line == 2 else reader.take()
        if slot is None:
            if last:
                return
            sleep_until_ns(now_ns() + NS_PER_MS)
            continue
        expected = mark_of(slot.index)
        words = slot.payload.view(np.uint64)
        if line and chance.random() < 0.2:  # a slow reader, to be overrun while it reads
            sleep_until_ns(now_ns() + 3 * NS_PER_MS)
        right = words.size == slot.t_arrival_ns and bool((words == expected).all())
        if slot.intact():
            notes[KEPT if right and slot.t_capture_ns == slot.index else BAD] += 1
        read = values.read()
        if read is not None:
            notes[BAD] += read[0] < version or np.unique(read[1]["words"]).size != 1
            version = read[0]


def main() -> None:
    kind, *numbers = sys.argv[1:]
    ring_fd, cell_fd, notes_fd, line, seed = map(int, numbers)
    ring, cell, notes = (Segment.attach(fd) for fd in (ring_fd, cell_fd, notes_fd))
    words = notes.bytes[:128].view(np.uint64)
    if kind == "write":
        write(ring, cell, words, random.Random(seed))
    else:
        read(ring, cell, words, line, random.Random(seed))


if __name__ == "__main__":
    main()
