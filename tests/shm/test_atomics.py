import re
import threading

import numpy as np
import pytest
from numba import njit

from recd.shm import aot_compile, kernels
from recd.shm.atomics import (
    fence_acquire,
    fence_release,
    load_acquire,
    load_relaxed,
    store_relaxed,
    store_release,
)

AARCH64 = "aarch64-unknown-linux-gnu"

# kernel: at least so many (acquiring loads, releasing stores, load fences, full fences) on aarch64
ORDERED = {
    "ring_adopt": (1, 2, 0, 0),
    "ring_begin": (0, 1, 0, 1),
    "ring_commit": (0, 2, 0, 0),
    "ring_add_dropped": (0, 0, 0, 0),
    "ring_slowest": (3, 0, 0, 0),
    "writer_leave": (0, 0, 0, 0),
    "ring_head": (1, 0, 0, 0),
    "ring_join": (1, 2, 0, 1),
    "ring_leave": (0, 0, 0, 0),
    "ring_take": (3, 1, 1, 1),
    "ring_latest": (3, 1, 1, 1),
    "ring_verify": (0, 1, 1, 1),
    "ring_seek": (1, 1, 0, 1),
    "ring_forgo": (1, 1, 0, 1),
    "ring_tally": (1, 0, 1, 0),
    "cell_adopt": (1, 2, 0, 0),
    "cell_write": (0, 2, 0, 1),
    "cell_read": (2, 0, 1, 0),
}


@pytest.mark.parametrize("name", kernels.AOT)
def test_every_kernel_has_its_barriers_on_aarch64(name: str):
    ir, entry = aot_compile.compile_ir(kernels.AOT[name])
    machine = aot_compile.target_machine(AARCH64)
    text = machine.emit_assembly(aot_compile.lower(ir, entry, machine))
    found = tuple(
        len(re.findall(pattern, text))
        for pattern in (r"\bldap?r\b", r"\bstlr\b", r"\bdmb\s+ishld\b", r"\bdmb\s+ish\b")
    )
    assert all(have >= need for have, need in zip(found, ORDERED[name], strict=True)), found


def test_waiting_loop_in_compiled_code_sees_the_other_thread():
    @njit(nogil=True)
    def wait_for(flag, data):
        while load_acquire(flag) == 0:
            pass
        return load_relaxed(data)

    words = np.zeros(16, np.int64)
    flag, data = int(words.ctypes.data), int(words.ctypes.data) + 64
    words[0] = 1
    assert wait_for(flag, data) == 0  # compiled before the race
    words[0] = 0
    seen = []
    waiting = threading.Thread(target=lambda: seen.append(wait_for(flag, data)))
    waiting.start()
    words[8] = 42
    words[0] = 1
    waiting.join(30)
    assert seen == [42]


def test_accesses_move_whole_words():
    @njit
    def copy(source, target):
        store_release(target, load_acquire(source))
        fence_release()
        store_relaxed(target + 8, load_relaxed(source + 8))
        fence_acquire()

    words = np.array([-1, 2**62 + 3, 0, 0, 77], np.int64)
    address = int(words.ctypes.data)
    copy(address, address + 16)
    assert words.tolist() == [-1, 2**62 + 3, -1, 2**62 + 3, 77]
