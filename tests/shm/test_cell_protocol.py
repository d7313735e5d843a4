"""The cell protocol in every order of steps that the memory rules allow, writers dying anywhere."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shm_model import SHARED, SOURCE, Actor, Memory, Steps, edited, interleave, stepwise

from recd.shm import layout
from recd.shm.cell import SLOTS

WORDS = 3
BASE = SHARED
DATA = BASE + 1024
STRIDE = layout.PAYLOAD + WORDS * layout.WORD
STAGE = 512
FOREVER = 10**9


class Cell:
    """A cell in model memory and what every version of it was."""

    def __init__(self, source: str, seed: int) -> None:
        self.kernels = stepwise(source)
        self.memory = Memory()
        self.chance = random.Random(seed)
        self.written: dict[int, int] = {}
        self.published = 0

    def actor(self) -> Actor:
        me = Actor(self.memory, self.chance)
        me.private = {
            layout.CTL_BASE: BASE,
            layout.CTL_SLOTS: SLOTS,
            layout.CTL_STRIDE: STRIDE,
            layout.CTL_DATA: DATA,
            layout.CTL_STAGE: STAGE,
            layout.CTL_STAGE_WORDS: WORDS,
        }
        return me

    def writer(self, values: int) -> Steps:
        me = self.actor()
        yield from me.run(self.kernels["cell_adopt"](0))
        for _ in range(values):
            version = me.private[layout.CTL_NEXT] + 1
            mark = self.chance.getrandbits(40)
            self.written[version] = mark
            me.private |= {STAGE + layout.WORD * i: mark for i in range(WORDS)}
            assert (yield from me.run(self.kernels["cell_write"](0))) == version
            self.published = version

    def reader(self, reads: int) -> Steps:
        me = self.actor()
        before = 0
        for _ in range(reads):
            version = yield from me.run(self.kernels["cell_read"](0))
            if version:
                words = {me.private[STAGE + layout.WORD * i] for i in range(WORDS)}
                assert words == {self.written[version]}, f"torn version {version}"
                assert version >= before
                before = version


def check(cell: Cell, lives: list[tuple[int, int]]) -> None:
    writers = [(cell.writer(values), steps) for values, steps in lives]
    readers = [[(cell.reader(8), FOREVER)] for _ in range(2)]
    interleave([writers, *readers], cell.chance)
    last = cell.actor()
    reading = last.run(cell.kernels["cell_read"](0))
    for steps, _ in enumerate(reading):
        assert steps < 100, "a dead writer left the cell unreadable"
    version = cell.memory.newest(BASE + layout.HEAD)
    assert version >= cell.published
    if version:
        words = {last.private[STAGE + layout.WORD * i] for i in range(WORDS)}
        assert words == {cell.written[version]}


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    lives=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 150)), min_size=1, max_size=4),
)
def test_no_order_of_steps_mixes_two_values_or_hides_the_last_one(seed, lives):
    check(Cell(SOURCE, seed), lives)


C2 = ("store_release(slot, 2 * index + 2)  # C2", "store_relaxed(slot, 2 * index + 2)")
C3 = ("store_release(base + HEAD, index + 1)  # C3", "store_relaxed(base + HEAD, index + 1)")
C4 = ("head = load_acquire(base + HEAD)  # C4", "head = load_relaxed(base + HEAD)")
C5 = ("if load_acquire(slot) == 2 * head:  # C5", "if load_relaxed(slot) == 2 * head:")

BROKEN: dict[str, list[tuple[str, str]]] = {
    "C1 without its fence": [
        ("    fence_release()  # pairs with fence_acquire in cell_read", "    #")
    ],
    "C2 and C3 without release": [C2, C3],
    "C2 before the value": [
        ("store_release(slot, 2 * index + 1)  # C1", "store_release(slot, 2 * index + 2)")
    ],
    "C4 and C5 without acquire": [C4, C5],
    "C5 without its fence": [
        ("            fence_acquire()  # pairs with fence_release in cell_write", "            #")
    ],
    "C6 not looking": [("if load_relaxed(slot) == 2 * head:  # C6", "if True:")],
    "W3 publishing a value that died with its writer": [
        ("_adopt(ctl, False)", "_adopt(ctl, True)")
    ],
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_model_notices_a_broken_step(broken: str):
    with pytest.raises(AssertionError):
        _storm(edited(SOURCE, BROKEN[broken]), 600)


def _storm(source: str, seeds: int) -> None:
    for seed in range(seeds):
        check(Cell(source, seed), [(12, 40 + seed % 20), (12, 90), (seed % 2 * 12, FOREVER)])


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_no_order_of_steps_breaks_it_in_many_more_runs():
    _storm(SOURCE, 3_000)
