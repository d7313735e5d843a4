"""Real processes, stopped, continued and killed at random: nothing torn, nothing uncounted."""

import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torture_actor import BAD, CELL_DTYPE, COMMITTED, KEPT, LIVES, STOP

from recd.config.errors import RecdError
from recd.shm import (
    ReaderPolicy,
    RingReader,
    RingSpec,
    RingWriter,
    Segment,
    create_cell,
    create_ring,
    warm,
)
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns
from recd.shm.dump import describe_ring

ACTOR = Path(__file__).with_name("torture_actor.py")
READERS = 3
START_NS = 60 * NS_PER_S


class Actor:
    """A process that is started again whenever it was killed, and what its lives noted."""

    def __init__(self, kind: str, line: int, ring: Segment, cell: Segment, seed: int) -> None:
        self.kind, self.line, self.ring, self.cell, self.seed = kind, line, ring, cell, seed
        self.notes = Segment.create(f"notes {kind} {line}", 4096)
        self.words = self.notes.bytes[:128].view(np.uint64)
        self.kills = 0
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        fds = (self.ring.fd, self.cell.fd, self.notes.fd)
        numbers = (*fds, self.line, self.seed + self.kills)
        command = [sys.executable, str(ACTOR), self.kind, *map(str, numbers)]
        return subprocess.Popen(command, pass_fds=fds)

    def wait_until_alive(self) -> None:
        deadline_ns = now_ns() + START_NS
        while self.words[LIVES] <= self.kills:
            assert self.process.poll() is None, f"{self.kind} {self.line} ended by itself"
            assert now_ns() < deadline_ns, f"{self.kind} {self.line} did not come up"
            sleep_until_ns(now_ns() + 5 * NS_PER_MS)

    def kill(self) -> None:
        assert self.process.poll() is None, f"{self.kind} {self.line} ended by itself"
        self.process.kill()
        self.process.wait(30)
        self.kills += 1
        self.process = self._start()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def finish(self) -> None:
        self.words[STOP] = 1
        self.signal(signal.SIGCONT)
        assert self.process.wait(60) == 0


def _storm(acts: int, seed: int) -> tuple[list[Actor], dict[str, Any]]:
    """Run it. Returns the actors and what the ring tells of itself afterwards."""
    warm()
    chance = random.Random(seed)
    ring = create_ring(RingSpec("torture", "frame", 6, 32768, READERS))
    cell = create_cell("torture", CELL_DTYPE)
    actors = [Actor("write", 0, ring, cell, seed)]
    actors += [Actor("read", line, ring, cell, seed) for line in range(READERS)]
    for actor in actors:
        actor.wait_until_alive()
    stopped: set[int] = set()
    for act in range(acts):
        who = chance.randrange(len(actors))
        if act % 6 == 5:
            who = act // 6 % len(actors)
            actors[who].signal(signal.SIGCONT)
            actors[who].wait_until_alive()
            if chance.random() < 0.5:  # dies stopped, wherever that was
                actors[who].signal(signal.SIGSTOP)
                sleep_until_ns(now_ns() + 30 * NS_PER_MS)
            actors[who].kill()
            stopped.discard(who)
        elif who in stopped:
            actors[who].signal(signal.SIGCONT)
            stopped.discard(who)
        else:
            actors[who].signal(signal.SIGSTOP)
            stopped.add(who)
        sleep_until_ns(now_ns() + chance.randint(2, 80) * NS_PER_MS)
    for actor in actors:  # the writer first: the readers drain what it leaves
        actor.finish()
    return actors, describe_ring(ring)


def _judge(actors: list[Actor], told: dict[str, Any]) -> None:
    writer, *readers = actors
    # a writer killed between publishing and noting has one index more than it noted
    unnoted = told["produced"] - told["abandoned"] - int(writer.words[COMMITTED])
    assert 0 <= unnoted <= writer.kills
    assert told["abandoned"] <= writer.kills
    assert len(told["readers"]) == len(readers)
    for reader, line in zip(readers, told["readers"], strict=True):
        assert reader.words[BAD] == 0
        assert line["cursor"] == told["produced"]
        assert 0 <= line["kept"] - int(reader.words[KEPT]) <= reader.kills
        assert 0 <= line["torn"] <= line["lost"]
    # it was a storm: every actor was killed, items were kept, readers were lapped
    assert all(actor.kills for actor in actors)
    assert sum(line["kept"] for line in told["readers"]) > 0
    assert sum(line["lost"] for line in told["readers"]) > 0


def test_stopped_continued_and_killed_processes_tear_nothing_and_count_everything():
    _judge(*_storm(60, seed=7))


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_long_storm_tears_nothing_and_counts_everything():
    _judge(*_storm(5000, seed=11))


OPEN_A_SLOT = """
import sys
from recd.shm import RingWriter, Segment
from recd.shm.clock import now_ns, sleep_until_ns
writer = RingWriter(Segment.attach(int(sys.argv[1])))
for _ in range(3):
    writer.write(b"whole", t_capture_ns=0, t_arrival_ns=0)
writer.reserve()[:4] = 7
print("open", flush=True)
sleep_until_ns(now_ns() + 60 * 10**9)
"""


def test_writer_killed_mid_slot_costs_exactly_that_frame():
    ring = create_ring(RingSpec("killed", "frame", 8, 16))
    reader = RingReader(ring, 0, policy=ReaderPolicy.MUST_KEEP)
    command = [sys.executable, "-c", OPEN_A_SLOT, str(ring.fd)]
    with subprocess.Popen(command, pass_fds=[ring.fd], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"open\n"
        first.send_signal(signal.SIGSTOP)
        with pytest.raises(RecdError, match="still alive"):
            RingWriter(ring)
        first.kill()
    assert [slot.index for slot in iter(reader.take, None)] == [0, 1, 2]
    second = RingWriter(ring)
    second.write(b"next", t_capture_ns=0, t_arrival_ns=0)
    slots = list(iter(reader.take, None))
    assert [(slot.index, slot.epoch, slot.payload.tobytes()) for slot in slots] == [(4, 2, b"next")]
    assert reader.tally() == (5, 1, 0, 0)
