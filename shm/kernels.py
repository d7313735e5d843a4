"""The compiled half of rings and cells; docs/shm.md numbers the steps that these functions take.

Each kernel gets the address of its handle's control block (layout.CTL_*) and nothing else. Only
the compiler and the tests import this module; processes call the machine code (aot.py).
"""

from numba import njit

from recd.shm.aot import Kernel
from recd.shm.atomics import (
    fence_acquire,
    fence_release,
    load_acquire,
    load_relaxed,
    store_relaxed,
    store_release,
)
from recd.shm.layout import (
    ABANDONED,
    CTL_ARGUMENT,
    CTL_BASE,
    CTL_DATA,
    CTL_EPOCH,
    CTL_FACTS,
    CTL_FORGIVE,
    CTL_LINE,
    CTL_NEXT,
    CTL_SLOTS,
    CTL_STAGE,
    CTL_STAGE_WORDS,
    CTL_STRIDE,
    DAMAGED,
    DROPPED,
    EPOCH,
    FACTS_WORDS,
    HEAD,
    NOT_RESERVED,
    NOTHING,
    PAYLOAD,
    READER_0,
    READER_JOINED,
    READER_ORIGIN,
    READER_PID,
    READER_POLICY,
    READER_SELECT,
    READER_STRIDE,
    READER_TALLY,
    ROOM_SHIFT,
    SLOT_FACTS,
    SUPERSEDED,
    TALLY_BYTES,
    TALLY_CURSOR,
    TALLY_LOST,
    TALLY_SKIPPED,
    TALLY_TORN,
    WORD,
    WRITER_PID,
)

_part = njit(error_model="numpy", no_cpython_wrapper=True, _nrt=False)


@_part
def _slot(ctl, index):  # type: ignore[no-untyped-def]
    slots = load_relaxed(ctl + CTL_SLOTS)
    return load_relaxed(ctl + CTL_DATA) + (index % slots) * load_relaxed(ctl + CTL_STRIDE)


@_part
def _copy_words(target, source, words):  # type: ignore[no-untyped-def]
    for i in range(words):
        store_relaxed(target + WORD * i, load_relaxed(source + WORD * i))


# --- the writer ---------------------------------------------------------------------------------


@_part
def _begun(ctl):  # type: ignore[no-untyped-def]
    """One past the largest index that any slot word has seen, odd or even."""
    begun = load_relaxed(load_relaxed(ctl + CTL_BASE) + HEAD)
    for i in range(load_relaxed(ctl + CTL_SLOTS)):
        # pairs with store_release in ring_begin, ring_commit and cell_write of the dead writer
        seq = load_acquire(_slot(ctl, i))
        if (seq + 1) >> 1 > begun:
            begun = (seq + 1) >> 1
    return begun


@_part
def _adopt(ctl, publish_abandoned):  # type: ignore[no-untyped-def]
    base = load_relaxed(ctl + CTL_BASE)
    head = load_relaxed(base + HEAD)
    begun = _begun(ctl)  # W1
    store_relaxed(ctl + CTL_NEXT, begun)
    store_relaxed(base + WRITER_PID, load_relaxed(ctl + CTL_ARGUMENT))
    epoch = load_relaxed(base + EPOCH) + 1  # W2
    store_relaxed(ctl + CTL_EPOCH, epoch)
    store_release(base + EPOCH, epoch)  # pairs with load_acquire in the dump: older lines hold
    if begun > head:  # W3
        # pairs with store_release in ring_begin or ring_commit of the dead writer
        whole = load_acquire(_slot(ctl, begun - 1)) == 2 * begun
        if whole or publish_abandoned:
            # pairs with load_acquire in ring_take: an odd word below head is abandoned for good
            store_release(base + HEAD, begun)
        if not whole:
            store_relaxed(base + ABANDONED, load_relaxed(base + ABANDONED) + 1)
    return begun


def ring_adopt(ctl):  # type: ignore[no-untyped-def]
    return _adopt(ctl, True)


def ring_begin(ctl):  # type: ignore[no-untyped-def]
    base = load_relaxed(ctl + CTL_BASE)
    if load_relaxed(base + EPOCH) != load_relaxed(ctl + CTL_EPOCH):  # W4
        return SUPERSEDED
    index = load_relaxed(ctl + CTL_NEXT)
    # pairs with load_acquire in ring_take: a reader of the old payload learns that it goes
    store_release(_slot(ctl, index), 2 * index + 1)  # W5
    fence_release()  # pairs with fence_acquire in ring_take and ring_verify: odd before new bytes
    return index % load_relaxed(ctl + CTL_SLOTS)


def ring_commit(ctl):  # type: ignore[no-untyped-def]
    base = load_relaxed(ctl + CTL_BASE)
    if load_relaxed(base + EPOCH) != load_relaxed(ctl + CTL_EPOCH):  # W7
        return SUPERSEDED
    index = load_relaxed(ctl + CTL_NEXT)
    slot = _slot(ctl, index)
    if load_relaxed(slot) != 2 * index + 1:
        return NOT_RESERVED
    _copy_words(slot + SLOT_FACTS, ctl + CTL_FACTS, FACTS_WORDS)  # W8
    # pairs with load_acquire of this word in ring_take: publishes payload and facts of index
    store_release(slot, 2 * index + 2)  # W9
    # pairs with load_acquire of head in ring_take: below head, no word is older than its index
    store_release(base + HEAD, index + 1)  # W10
    store_relaxed(ctl + CTL_NEXT, index + 1)
    return index


def ring_add_dropped(ctl):  # type: ignore[no-untyped-def]
    word = load_relaxed(ctl + CTL_BASE) + DROPPED
    total = load_relaxed(word) + load_relaxed(ctl + CTL_ARGUMENT)
    store_relaxed(word, total)
    return total


def ring_slowest(ctl):  # type: ignore[no-untyped-def]
    """Smallest cursor of the present readers whose policy is CTL_FACTS; head without any."""
    base = load_relaxed(ctl + CTL_BASE)
    # pairs with store_release in ring_commit
    slowest = load_acquire(base + HEAD)
    for reader in range(load_relaxed(ctl + CTL_ARGUMENT)):
        line = base + READER_0 + READER_STRIDE * reader
        # pairs with store_release in ring_join
        joined = load_acquire(line + READER_JOINED) != 0 and load_relaxed(line + READER_PID) != 0
        if joined and load_relaxed(line + READER_POLICY) == load_relaxed(ctl + CTL_FACTS):
            # pairs with store_release in _settle; an older cursor only makes the answer smaller
            select = load_acquire(line + READER_SELECT)
            tally = line + READER_TALLY + TALLY_BYTES * (select & 1)
            slowest = min(slowest, load_relaxed(tally + TALLY_CURSOR))
    return slowest


def writer_leave(ctl):  # type: ignore[no-untyped-def]
    store_relaxed(load_relaxed(ctl + CTL_BASE) + WRITER_PID, 0)
    return 0


def ring_head(ctl):  # type: ignore[no-untyped-def]
    # pairs with store_release of head in ring_commit
    return load_acquire(load_relaxed(ctl + CTL_BASE) + HEAD)


# --- a reader -----------------------------------------------------------------------------------


@_part
def _tally(line):  # type: ignore[no-untyped-def]
    return line + READER_TALLY + TALLY_BYTES * (load_relaxed(line + READER_SELECT) & 1)


@_part
def _settle(line, cursor, lost, torn, skipped):  # type: ignore[no-untyped-def]
    """Add to the counts and move the cursor, all at once: a kill sees either all or nothing."""
    select = load_relaxed(line + READER_SELECT)
    old = line + READER_TALLY + TALLY_BYTES * (select & 1)
    new = line + READER_TALLY + TALLY_BYTES * ((select + 1) & 1)
    fence_release()  # pairs with fence_acquire in ring_tally: select before what it frees
    store_relaxed(new + TALLY_CURSOR, cursor)
    store_relaxed(new + TALLY_LOST, load_relaxed(old + TALLY_LOST) + lost)
    store_relaxed(new + TALLY_TORN, load_relaxed(old + TALLY_TORN) + torn)
    store_relaxed(new + TALLY_SKIPPED, load_relaxed(old + TALLY_SKIPPED) + skipped)
    # pairs with load_acquire in ring_tally and ring_slowest: the tally it names is complete
    store_release(line + READER_SELECT, select + 1)


@_part
def _pass(ctl, cursor, passed):  # type: ignore[no-untyped-def]
    line = load_relaxed(ctl + CTL_LINE)
    if load_relaxed(ctl + CTL_FORGIVE) != 0:
        _settle(line, cursor, 0, 0, passed)
    else:
        _settle(line, cursor, passed, 0, 0)


@_part
def _copy_facts(ctl, slot, whole):  # type: ignore[no-untyped-def]
    """True when the facts of a whole slot were copied before anything of it was overwritten."""
    _copy_words(ctl + CTL_FACTS, slot + SLOT_FACTS, FACTS_WORDS)
    fence_acquire()  # pairs with fence_release in ring_begin: a newer fact means a newer word
    return load_relaxed(slot) == whole


def ring_join(ctl):  # type: ignore[no-untyped-def]
    line = load_relaxed(ctl + CTL_LINE)
    if load_relaxed(line + READER_JOINED) == 0:  # R0
        # pairs with store_release in ring_commit
        head = load_acquire(load_relaxed(ctl + CTL_BASE) + HEAD)
        store_relaxed(line + READER_ORIGIN, head)
        _settle(line, head, 0, 0, 0)
        # pairs with load_acquire in ring_slowest: the tally holds
        store_release(line + READER_JOINED, 1)
    store_relaxed(line + READER_POLICY, load_relaxed(ctl + CTL_FACTS))
    store_relaxed(line + READER_PID, load_relaxed(ctl + CTL_ARGUMENT))
    return load_relaxed(_tally(line) + TALLY_CURSOR)


def ring_leave(ctl):  # type: ignore[no-untyped-def]
    store_relaxed(load_relaxed(ctl + CTL_LINE) + READER_PID, 0)
    return 0


def ring_take(ctl):  # type: ignore[no-untyped-def]
    base = load_relaxed(ctl + CTL_BASE)
    cursor = load_relaxed(_tally(load_relaxed(ctl + CTL_LINE)) + TALLY_CURSOR)
    passed = 0
    while True:
        # pairs with store_release in ring_commit and _adopt
        head = load_acquire(base + HEAD)  # R1
        if cursor >= head:
            if passed > 0:
                _pass(ctl, cursor, passed)
            return NOTHING
        slot = _slot(ctl, cursor)
        whole = 2 * cursor + 2
        # pairs with store_release in ring_commit (whole) and ring_begin (overrun)
        seq = load_acquire(slot)  # R2
        if seq == whole:
            if _copy_facts(ctl, slot, whole):  # R3
                _pass(ctl, cursor + 1, passed)  # R4
                return cursor
        elif seq == whole - 1:  # R5: below head and odd: its writer died
            passed += 1
            cursor += 1
        elif seq > whole:  # R6
            # pairs with store_release in ring_commit; newer than what made the word move on
            head = load_acquire(base + HEAD)
            slots = load_relaxed(ctl + CTL_SLOTS)
            resume = max(head - slots + (slots >> ROOM_SHIFT), cursor + 1)
            passed += resume - cursor
            cursor = resume
        else:
            return DAMAGED


def ring_latest(ctl):  # type: ignore[no-untyped-def]
    base = load_relaxed(ctl + CTL_BASE)
    cursor = load_relaxed(_tally(load_relaxed(ctl + CTL_LINE)) + TALLY_CURSOR)
    # pairs with store_release in ring_commit and _adopt
    head = load_acquire(base + HEAD)  # R1
    slots = load_relaxed(ctl + CTL_SLOTS)
    index = head - 1
    while index >= max(cursor, head - slots):
        slot = _slot(ctl, index)
        whole = 2 * index + 2
        # pairs with store_release in ring_commit (whole) and ring_begin (overrun)
        seq = load_acquire(slot)  # R2
        if seq == whole and _copy_facts(ctl, slot, whole):  # R3
            _pass(ctl, head, head - cursor - 1)  # R4
            return index
        if seq == whole - 1:  # R5
            index -= 1
        elif seq < whole:
            return DAMAGED
        else:  # R6: the writer went all round since R1, or has the only slot open
            # pairs with store_release in ring_commit
            newer = load_acquire(base + HEAD)
            index = newer - 1 if newer > head else index - 1
            head = newer
    if head > cursor:
        _pass(ctl, head, head - cursor)
    return NOTHING


def ring_verify(ctl):  # type: ignore[no-untyped-def]
    index = load_relaxed(ctl + CTL_ARGUMENT)
    fence_acquire()  # R7: pairs with fence_release in ring_begin: a newer byte means a newer word
    if load_relaxed(_slot(ctl, index)) == 2 * index + 2:
        return 1
    line = load_relaxed(ctl + CTL_LINE)
    _settle(line, load_relaxed(_tally(line) + TALLY_CURSOR), 1, 1, 0)  # R8
    return 0


def ring_seek(ctl):  # type: ignore[no-untyped-def]
    line = load_relaxed(ctl + CTL_LINE)
    cursor = load_relaxed(_tally(line) + TALLY_CURSOR)
    # pairs with store_release in ring_commit
    head = load_acquire(load_relaxed(ctl + CTL_BASE) + HEAD)
    target = max(0, min(load_relaxed(ctl + CTL_ARGUMENT), head))
    _settle(line, target, 0, 0, target - cursor)
    return target


def ring_forgo(ctl):  # type: ignore[no-untyped-def]
    line = load_relaxed(ctl + CTL_LINE)
    cursor = load_relaxed(_tally(line) + TALLY_CURSOR)
    # pairs with store_release in ring_commit
    head = load_acquire(load_relaxed(ctl + CTL_BASE) + HEAD)
    target = max(cursor, min(load_relaxed(ctl + CTL_ARGUMENT), head))
    _pass(ctl, target, target - cursor)
    return target


def ring_tally(ctl):  # type: ignore[no-untyped-def]
    """Copy a consistent tally of the reader line CTL_LINE into CTL_FACTS."""
    line = load_relaxed(ctl + CTL_LINE)
    while True:
        # pairs with store_release in _settle
        select = load_acquire(line + READER_SELECT)
        source = line + READER_TALLY + TALLY_BYTES * (select & 1)
        _copy_words(ctl + CTL_FACTS, source, TALLY_BYTES // WORD)
        fence_acquire()  # pairs with fence_release in _settle: a newer count, a newer select
        if load_relaxed(line + READER_SELECT) == select:
            return select


# --- a cell -------------------------------------------------------------------------------------


def cell_adopt(ctl):  # type: ignore[no-untyped-def]
    return _adopt(ctl, False)


def cell_write(ctl):  # type: ignore[no-untyped-def]
    base = load_relaxed(ctl + CTL_BASE)
    if load_relaxed(base + EPOCH) != load_relaxed(ctl + CTL_EPOCH):
        return SUPERSEDED
    index = load_relaxed(ctl + CTL_NEXT)
    slot = _slot(ctl, index)
    # pairs with load_acquire in cell_read: a reader of the old value learns that it goes
    store_release(slot, 2 * index + 1)  # C1
    fence_release()  # pairs with fence_acquire in cell_read: odd before new bytes
    _copy_words(slot + PAYLOAD, load_relaxed(ctl + CTL_STAGE), load_relaxed(ctl + CTL_STAGE_WORDS))
    # pairs with load_acquire of this word in cell_read: publishes the value
    store_release(slot, 2 * index + 2)  # C2
    # pairs with load_acquire of head in cell_read
    store_release(base + HEAD, index + 1)  # C3
    store_relaxed(ctl + CTL_NEXT, index + 1)
    return index + 1


def cell_read(ctl):  # type: ignore[no-untyped-def]
    base = load_relaxed(ctl + CTL_BASE)
    while True:
        # pairs with store_release in cell_write
        head = load_acquire(base + HEAD)  # C4
        if head == 0:
            return 0
        slot = _slot(ctl, head - 1)
        # pairs with store_release in cell_write
        if load_acquire(slot) == 2 * head:  # C5
            _copy_words(
                load_relaxed(ctl + CTL_STAGE), slot + PAYLOAD, load_relaxed(ctl + CTL_STAGE_WORDS)
            )
            fence_acquire()  # pairs with fence_release in cell_write
            if load_relaxed(slot) == 2 * head:  # C6
                return head


AOT = {
    function.__name__: Kernel(function, arguments=("address",))
    for function in (
        ring_adopt,
        ring_begin,
        ring_commit,
        ring_add_dropped,
        ring_slowest,
        writer_leave,
        ring_head,
        ring_join,
        ring_leave,
        ring_take,
        ring_latest,
        ring_verify,
        ring_seek,
        ring_forgo,
        ring_tally,
        cell_adopt,
        cell_write,
        cell_read,
    )
}
"""Name -> kernel, compiled together into one cached file."""
