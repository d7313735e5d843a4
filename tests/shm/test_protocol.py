"""The ring protocol against a plain list, in every order of steps that the memory rules allow."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shm_model import SHARED, SOURCE, Actor, Memory, Steps, edited, interleave, stepwise

from recd.shm import layout

PAYLOAD_WORDS = 3
BASE = SHARED
DATA = BASE + 1024
FOREVER = 10**9
STRIDE = layout.PAYLOAD + PAYLOAD_WORDS * layout.WORD


class Ring:
    """A ring in model memory, its actors, and a plain list of what was committed to it."""

    def __init__(self, source: str, slots: int, seed: int) -> None:
        self.kernels = stepwise(source)
        self.slots = slots
        self.memory = Memory()
        self.chance = random.Random(seed)
        self.begun = 0
        self.committed: dict[int, int] = {}  # index -> what each word of payload and facts holds
        self.kept: list[list[int]] = [[], []]

    def writer(self, items: int) -> Steps:
        """One life of a writer: take over, then write `items`."""
        me = self.actor()
        yield from me.run(self.kernels["ring_adopt"](0))
        for _ in range(items):
            index = me.private[layout.CTL_NEXT]
            sequence = DATA + index % self.slots * STRIDE
            assert all(word < 2 * index + 1 for word, _ in self.memory.history(sequence))
            self.begun += 1
            self.committed[index] = mark = self.begun * 1000
            slot = yield from me.run(self.kernels["ring_begin"](0))
            assert slot == index % self.slots
            for i in range(PAYLOAD_WORDS):
                yield
                me.access("store_relaxed", sequence + layout.PAYLOAD + layout.WORD * i, mark)
            for i in range(layout.FACTS_WORDS):
                me.private[layout.CTL_FACTS + layout.WORD * i] = mark
            assert (yield from me.run(self.kernels["ring_commit"](0))) == index

    def actor(self, line: int = 0) -> Actor:
        me = Actor(self.memory, self.chance)
        me.private = {
            layout.CTL_BASE: BASE,
            layout.CTL_SLOTS: self.slots,
            layout.CTL_STRIDE: STRIDE,
            layout.CTL_DATA: DATA,
            layout.CTL_LINE: BASE + layout.READER_0 + line * layout.READER_STRIDE,
        }
        return me

    def reader(self, line: int, script: list[str], *, drain: bool = False) -> Steps:
        """One life of a reader: join, then take, latest or pause as `script` says."""
        me = self.actor(line)
        yield from me.run(self.kernels["ring_join"](0))
        step = 0
        while drain or step < len(script):
            kernel = "ring_take" if drain else script[step]
            step += 1
            index = yield from me.run(self.kernels[kernel](0))
            assert index != layout.DAMAGED
            if index >= 0:
                yield from self._use(me, line, index)
            elif drain:
                return

    def _use(self, me: Actor, line: int, index: int) -> Steps:
        words = [me.private[layout.CTL_FACTS + layout.WORD * i] for i in range(layout.FACTS_WORDS)]
        payload = DATA + index % self.slots * STRIDE + layout.PAYLOAD
        for i in range(PAYLOAD_WORDS):
            yield
            words.append(me.access("load_relaxed", payload + layout.WORD * i))
        me.private[layout.CTL_ARGUMENT] = index
        facts_are_right = set(words[: layout.FACTS_WORDS]) == {self.committed.get(index)}
        assert facts_are_right, f"facts of {index}: {words}"
        if (yield from me.run(self.kernels["ring_verify"](0))):
            assert set(words) == {self.committed[index]}, f"torn {index} accepted: {words}"
            self.kept[line].append(index)

    def tally(self, line: int) -> tuple[int, int, int, int, int]:
        """(origin, cursor, lost, torn, skipped) as stored."""
        at = BASE + layout.READER_0 + line * layout.READER_STRIDE
        select = self.memory.newest(at + layout.READER_SELECT) & 1
        tally = at + layout.READER_TALLY + layout.TALLY_BYTES * select
        words = [self.memory.newest(tally + layout.WORD * i) for i in range(4)]
        return (self.memory.newest(at + layout.READER_ORIGIN), *words)

    def head(self) -> int:
        return self.memory.newest(BASE + layout.HEAD)


SCRIPTS = st.lists(st.sampled_from(["ring_take", "ring_take", "ring_latest"]), max_size=12)
LIVES = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 200)), min_size=1, max_size=4)


def check(ring: Ring, lives: list[tuple[int, int]], scripts: list[list[list[str]]]) -> None:
    """Run writers and readers against each other, then hold the outcome against the list."""
    writers = [(ring.writer(items), steps) for items, steps in lives]
    first = [(ring.reader(0, script), FOREVER) for script in scripts[0]]
    second = [(ring.reader(1, script), ring.chance.randint(0, 150)) for script in scripts[1]]
    killed = interleave([writers, first, second], ring.chance)
    for line, patience in ((0, 0), (1, killed[2])):
        for _ in ring.reader(line, [], drain=True):
            pass
        origin, cursor, lost, torn, skipped = ring.tally(line)
        kept = ring.kept[line]
        assert cursor == ring.head()
        assert skipped == 0
        assert 0 <= torn <= lost
        assert kept == sorted(set(kept))
        # a reader killed between taking and noting has one index more than it noted
        assert 0 <= cursor - origin - lost - len(kept) <= patience
    abandoned = ring.memory.newest(BASE + layout.ABANDONED)
    assert abandoned <= killed[0]
    assert set(range(ring.head())) <= set(ring.committed)  # no index was passed over


@settings(max_examples=60, deadline=None)
@given(
    slots=st.integers(1, 5),
    seed=st.integers(0, 2**32),
    lives=LIVES,
    scripts=st.tuples(st.lists(SCRIPTS, max_size=2), st.lists(SCRIPTS, max_size=3)),
)
def test_no_order_of_steps_tears_an_item_or_loses_count(slots, seed, lives, scripts):
    check(Ring(SOURCE, slots, seed), lives, list(scripts))


def check_keeping_up(ring: Ring, lives: list[tuple[int, int]]) -> None:
    """With a ring that is never lapped, exactly what died with its writer is lost."""
    interleave([[(ring.reader(0, []), FOREVER)]], ring.chance)
    writers = [(ring.writer(items), steps) for items, steps in lives]
    reader = [(ring.reader(0, ["ring_take"] * 40), FOREVER)]
    killed = interleave([writers, reader], ring.chance)
    for _ in ring.writer(1):  # whatever the last one left open is settled by a successor
        pass
    for _ in ring.reader(0, [], drain=True):
        pass
    _, cursor, lost, torn, _ = ring.tally(0)
    assert torn == 0
    assert lost == ring.memory.newest(BASE + layout.ABANDONED) <= killed[0]
    assert len(ring.kept[0]) + lost == cursor == ring.head()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), lives=LIVES)
def test_reader_that_keeps_up_loses_exactly_what_died_with_its_writer(seed, lives):
    check_keeping_up(Ring(SOURCE, 40, seed), lives)


W9 = ("store_release(slot, 2 * index + 2)  # W9", "store_relaxed(slot, 2 * index + 2)")
W10 = ("store_release(base + HEAD, index + 1)  # W10", "store_relaxed(base + HEAD, index + 1)")
R1 = ("head = load_acquire(base + HEAD)  # R1", "head = load_relaxed(base + HEAD)")
R2 = ("seq = load_acquire(slot)  # R2", "seq = load_relaxed(slot)")
PASSED = "            passed += 1\n"
SET_CURSOR = "    store_relaxed(new + TALLY_CURSOR, cursor)\n"

BROKEN: dict[str, list[tuple[str, str]]] = {
    "W1 looking at whole words only": [("(seq + 1) >> 1", "seq >> 1")],
    "W5 without its fence": [
        ("    fence_release()  # pairs with fence_acquire in ring_t", "    #")
    ],
    "W9 and W10 without release": [W9, W10],
    "W10 without release": [W10],
    "R1 and R2 without acquire": [R1, R2],
    "R1 without acquire": [R1],
    "R3 without its fence": [
        ("    fence_acquire()  # pairs with fence_release in ring_begin: a newer fact", "    #")
    ],
    "R5 not counting": [(PASSED, "")],
    "R6 forgetting one": [("passed += resume - cursor", "passed += resume - cursor - 1")],
    "R7 without its fence": [("    fence_acquire()  # R7", "    #")],
    "R7 not looking": [("if load_relaxed(_slot(ctl, index)) == 2 * index + 2:", "if True:")],
    "a cursor stored outside the tally": [
        (SET_CURSOR, SET_CURSOR + SET_CURSOR.replace("new", "old"))
    ],
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_model_notices_a_broken_step(broken: str):
    with pytest.raises(AssertionError):
        _storm(edited(SOURCE, BROKEN[broken]), 600)


def _storm(source: str, seeds: int) -> None:
    takes = ["ring_take"] * 12
    for seed in range(seeds):
        lives = [(8, 100), (8, 130), (8, FOREVER)]
        check_keeping_up(Ring(source, 32, seed), lives)
        lives = [(8, 60), (8, 90), (8, FOREVER)]
        check(Ring(source, 1 + seed % 4, seed), lives, [[takes], [takes, takes, takes]])


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_no_order_of_steps_breaks_it_in_many_more_runs():
    _storm(SOURCE, 3_000)
