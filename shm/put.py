"""A record into a ring in one call, for kernels that have it ready: begin, commit, doorbells.

The steps are those of kernels.py (docs/shm.md). Only the compiler imports this module (and so
numba).
"""

from numba import njit

from recd.shm.aot_parts import part
from recd.shm.atomics import load_relaxed, store_relaxed
from recd.shm.calls import now, ring_bell
from recd.shm.kernels import ring_begin, ring_commit
from recd.shm.layout import (
    CTL_BELL_COUNT,
    CTL_BELLS,
    CTL_DATA,
    CTL_FACTS,
    CTL_STAGE,
    CTL_STAGE_WORDS,
    CTL_STAGED,
    CTL_STRIDE,
    PAYLOAD,
    WORD,
)

_begin, _commit = part(ring_begin), part(ring_commit)
_AUX = 0


@njit(error_model="numpy", no_cpython_wrapper=True, _nrt=False, forceinline=True)
def ring_put(ctl, calls, capture_ns, arrival_ns, source_seq, flags):  # type: ignore[no-untyped-def]
    """Publish what is staged (RingWriter.stage). Returns its absolute index, or why not
    (layout.SUPERSEDED). ctl: the writer's `pointer`; calls: libc.table()."""
    slot = _begin(ctl)
    if slot < 0:
        return slot
    target = load_relaxed(ctl + CTL_DATA) + slot * load_relaxed(ctl + CTL_STRIDE) + PAYLOAD
    stage = load_relaxed(ctl + CTL_STAGE)
    for k in range(load_relaxed(ctl + CTL_STAGE_WORDS)):  # W6
        store_relaxed(target + WORD * k, load_relaxed(stage + WORD * k))
    store_relaxed(ctl + CTL_FACTS, load_relaxed(ctl + CTL_STAGED))
    store_relaxed(ctl + CTL_FACTS + 1 * WORD, capture_ns)
    store_relaxed(ctl + CTL_FACTS + 2 * WORD, arrival_ns)
    store_relaxed(ctl + CTL_FACTS + 3 * WORD, now(calls))
    store_relaxed(ctl + CTL_FACTS + 4 * WORD, source_seq)
    store_relaxed(ctl + CTL_FACTS + 5 * WORD, flags)
    store_relaxed(ctl + CTL_FACTS + 6 * WORD, _AUX)
    index = _commit(ctl)
    if index >= 0:
        bells = load_relaxed(ctl + CTL_BELLS)
        for k in range(load_relaxed(ctl + CTL_BELL_COUNT)):
            ring_bell(calls, load_relaxed(bells + WORD * k))
    return index
