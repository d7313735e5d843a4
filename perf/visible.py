"""From publishing a record in a ring to a reader that has it, against waking that reader alone.

A writer and a reader process, the real ring and doorbell; in turn the same doorbell without a ring
(the floor). Limit: both are of ordinary priority; what a busy machine adds is in both.

`python -m recd.perf.visible RING BELL BACK PIPE TURNS EACH` is the reader, descriptors inherited.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from recd.config.errors import RecdError
from recd.perf.figures import percentile, quantiles
from recd.perf.report import kept_word, table
from recd.shm import Doorbell, ReaderPolicy, RingReader, RingSpec, RingWriter, Segment, create_ring
from recd.shm.clock import NS_PER_MS, NS_PER_S, NS_PER_US, now_ns, sleep_until_ns

LIMIT_US = 50.0
"""Beyond the floor, p99."""

FRAME_BYTES = 640 * 480 * 2
SLOTS = 60
PERIOD_NS = 2 * NS_PER_MS
WAIT_NS = 10 * NS_PER_S

Times = npt.NDArray[np.int64]


def measure(*, turns: int, each: int) -> dict[str, Any]:
    """`turns` times `each` wakings without a ring, then `each` with one. RecdError when the reader
    ends or misses one."""
    segment = create_ring(RingSpec("visible", "frame", SLOTS, FRAME_BYTES))
    bell, back, (heard, tells) = Doorbell.create(), Doorbell.create(), os.pipe()
    fds = (segment.fd, bell.fd, back.fd, tells)
    command = [sys.executable, "-m", "recd.perf.visible", *map(str, (*fds, turns, each))]
    reader = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL)
    os.close(tells)
    with os.fdopen(heard, "rb") as answers:
        try:
            if answers.read(1) != b"r":
                raise RecdError("the reader process ended before it began")
            sent = _send(RingWriter(segment), bell, back, turns=turns, each=each)
            seen = np.frombuffer(answers.read(), np.int64)
        finally:
            if reader.poll() is None and sys.exc_info()[0] is not None:
                reader.kill()
            reader.wait()
    bell.close()
    back.close()
    if len(seen) != len(sent):
        raise RecdError(f"expected {len(sent)} wakings, the reader saw {len(seen)}")
    took = (seen - sent).reshape(turns, 2, each)
    return judged(took[:, 0], took[:, 1])


def _send(writer: RingWriter, bell: Doorbell, back: Doorbell, *, turns: int, each: int) -> Times:
    """Wake the reader, one time after the other has been answered: rings of a bell add up."""
    sent = np.zeros((turns, 2, each), np.int64)
    for turn in range(turns):
        for kind in (0, 1):
            for number in range(each):
                sleep_until_ns(now_ns() + PERIOD_NS)
                if kind:
                    writer.reserve()
                sent[turn, kind, number] = now = now_ns()
                if kind:
                    writer.commit(FRAME_BYTES, t_capture_ns=now, t_arrival_ns=now)
                bell.ring()
                if not back.wait(WAIT_NS):
                    raise RecdError(f"turn {turn}, waking {number}: the reader does not answer")
    return sent.reshape(-1)


def judged(floor_ns: Times, ring_ns: Times) -> dict[str, Any]:
    """Figures of both, int64 [turns, each], and what the ring adds. Pure."""
    beyond = [
        ((percentile(ours, 0.99) or 0.0) - (percentile(bare, 0.99) or 0.0)) / NS_PER_US
        for bare, ours in zip(floor_ns, ring_ns, strict=True)
    ]
    floor = quantiles(floor_ns.reshape(-1), scale=NS_PER_US)
    ring = quantiles(ring_ns.reshape(-1), scale=NS_PER_US)
    return {
        "floor_us": floor,
        "ring_us": ring,
        "beyond_us": {name: (ring[name] or 0.0) - (floor[name] or 0.0) for name in ("p50", "p99")},
        "beyond_p99_each_turn_us": beyond,
        "beyond_p99_us": float(np.median(beyond)),
    }


def show(told: Mapping[str, Any], console: Console) -> None:
    """Print what `measure` found."""
    made = table("us from publishing to the reader's having it", "", "p50", "p99", "p99.9", "max")
    for label, name in (("doorbell alone", "floor_us"), ("ring and doorbell", "ring_us")):
        figures = told[name]
        made.add_row(label, *(f"{figures[q]:.0f}" for q in ("p50", "p99", "p99_9", "max")))
    console.print(made)
    each = told["beyond_p99_each_turn_us"]
    word = kept_word(told["beyond_p99_us"], LIMIT_US)
    console.print(
        f"p99 beyond the floor: {told['beyond_p99_us']:.1f} us, median of {len(each)} turns "
        f"({min(each):.1f}..{max(each):.1f}); goal: at most {LIMIT_US:g}: {word}"
    )


def kept(told: Mapping[str, Any]) -> bool:
    """True when the ring adds no more than it may."""
    return bool(told["beyond_p99_us"] <= LIMIT_US)


def _read(fds: Sequence[int], *, turns: int, each: int) -> None:
    """The reader: stamp every waking, after the record was taken and found intact where one is."""
    ring_fd, bell_fd, back_fd, tells_fd = fds
    segment, bell, back = Segment.attach(ring_fd), Doorbell(bell_fd), Doorbell(back_fd)
    reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    seen = np.zeros((turns, 2, each), np.int64)
    os.write(tells_fd, b"r")
    for turn in range(turns):
        for kind in (0, 1):
            for number in range(each):
                if not bell.wait(WAIT_NS):
                    raise RecdError("the writer rang no more")
                if kind:
                    slot = reader.take()
                    if slot is None or not slot.intact():
                        raise RecdError(f"turn {turn}, record {number}: expected it in the ring")
                seen[turn, kind, number] = now_ns()
                back.ring()
    with os.fdopen(tells_fd, "wb") as answer:
        answer.write(seen.tobytes())


if __name__ == "__main__":
    *_fds, _turns, _each = map(int, sys.argv[1:7])
    _read(_fds, turns=_turns, each=_each)
