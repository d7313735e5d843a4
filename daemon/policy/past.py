"""Earlier frames and samples, found in the rings by time.

Nothing is kept for it: a ring is the memory, and what it no longer holds is not given.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from recd.shm import RingReader, Slot

STATE_WINDOW_NS = 60_000_000
"""Samples so far on either side of a time say where the joints were."""


def frames_near(reader: RingReader, times_ns: Sequence[int], most_ns: int) -> list[Slot | None]:
    """The frame of a camera nearest to each time, None where none lies within `most_ns` of it.

    Looks from the newest frame back to the earliest of the times, and no further.
    """
    earliest_ns = min(times_ns) - most_ns
    found: list[Slot | None] = [None] * len(times_ns)
    for slot in _backwards(reader):
        for at, time_ns in enumerate(times_ns):
            best = found[at]
            least_ns = most_ns + 1 if best is None else abs(best.t_capture_ns - time_ns)
            if abs(slot.t_capture_ns - time_ns) < least_ns:
                found[at] = slot
        if slot.t_capture_ns < earliest_ns:
            break
    return found


def _backwards(reader: RingReader) -> Iterator[Slot]:
    """Slots from the newest to the oldest that the ring still holds."""
    head = reader.peek_head()
    for index in range(head - 1, max(-1, head - reader.spec.slots), -1):
        reader.seek(index)
        slot = reader.take()
        if slot is not None and slot.index == index:
            yield slot


def samples_near(
    reader: RingReader, dtype: np.dtype[np.void], at_ns: int
) -> npt.NDArray[np.void]:  # fmt: skip
    """Samples of an arm with a reading close to a time, oldest first; none when the ring does not
    hold it.
    """
    reader.seek(_first_published(reader, at_ns - STATE_WINDOW_NS))
    found: list[np.void] = []
    while (slot := reader.take()) is not None:
        record = slot.payload[: dtype.itemsize].copy().view(dtype)[0]
        if not slot.intact():
            continue
        if slot.t_publish_ns > at_ns + 2 * STATE_WINDOW_NS:
            break
        if abs(int(record["sample_ns"]) - at_ns) <= STATE_WINDOW_NS:
            found.append(record)
    return np.array(found, dtype)


def _first_published(reader: RingReader, at_ns: int) -> int:
    """Index of the first slot published at a time or later: a sample is published after it was
    taken, and every tick has one, so their order is that of the indices.
    """
    head = reader.peek_head()
    low, high = max(0, head - reader.spec.slots + 1), head
    while low < high:
        middle = (low + high) // 2
        reader.seek(middle)
        slot = reader.take()
        if slot is None or slot.t_publish_ns >= at_ns:
            high = middle
        else:
            low = max(slot.index, middle) + 1
    return low
