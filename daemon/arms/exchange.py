"""One request and its replies, from throwing old input away to the last reply that is due.

Called as Python, or as machine code in the control loop (kernels.py), where the operating system's
five calls below are C functions called by their addresses. What is not the next reply that is due
is left to the SDK.
"""

import errno
import os
import select
from typing import Any

from recd.daemon.arms.passes import fill_words, take_replies
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns

# Words (int64) of a port, for its whole life. Given: FD, ECHO (1: the adapter sends back what it is
# given), SLEEP_NS (from the request on, not positive: not at all), PATIENCE_NS (from the request
# on, for all replies). Found: the others; DROPPED, RECEIVED and WAITED_NS count up, ERROR is an
# errno or 0, HELD: bytes in the inbox.
(
    FD, ECHO, SLEEP_NS, PATIENCE_NS, ECHO_DUE, REQUEST_NS, DEADLINE_NS, LAST_BYTE_NS, DROPPED,
    RECEIVED, WAITED_NS, HELD, LOOKED_LATE, OVERSLEPT, ERROR,
) = range(15)  # fmt: skip
WORDS = 15

INBOX_BYTES = 4096
_AGAIN, _HANG_UP = errno.EAGAIN, errno.EIO


# --- five calls of the operating system, as Python -----------------------------------------------


def now(_calls: Any) -> int:
    """CLOCK_MONOTONIC, ns."""
    return now_ns()


def sleep_until(_calls: Any, at_ns: int) -> None:
    """Sleep until a time of CLOCK_MONOTONIC."""
    sleep_until_ns(at_ns)


def wait_input(_calls: Any, fd: int, for_ns: int) -> int:
    """1 when there is something to read, or comes within `for_ns`; else 0."""
    return int(bool(select.select([fd], (), (), for_ns / NS_PER_S)[0]))


def read_some(_calls: Any, fd: int, target: Any, at: int, most: int) -> int:
    """Read into `target` from `at` on. How many bytes, 0 at a hang-up, or -errno."""
    try:
        data = os.read(fd, most)
    except OSError as error:
        return -(error.errno or _HANG_UP)
    target[at : at + len(data)] = data
    return len(data)


def write_some(_calls: Any, fd: int, packet: Any, size: int) -> int:
    """Write a packet. How many bytes, or -errno."""
    try:
        return os.write(fd, bytes(packet[:size]))
    except OSError as error:
        return -(error.errno or _HANG_UP)


# --- the exchange --------------------------------------------------------------------------------


def receive(calls: Any, words: Any, inbox: Any, held: int) -> int:
    """Take what can be read now behind the `held` bytes of the inbox, without an adapter's echo.
    Returns how many it holds then; an error is in `words`."""
    got = read_some(calls, words[FD], inbox, held, INBOX_BYTES - held)
    if got == 0 - _AGAIN:
        return held
    if got <= 0:
        words[ERROR] = 0 - got if got < 0 else _HANG_UP
        return held
    words[LAST_BYTE_NS] = now(calls)
    own = min(words[ECHO_DUE], got)
    if own > 0:
        words[ECHO_DUE] -= own
        for k in range(got - own):
            inbox[held + k] = inbox[held + own + k]
    words[RECEIVED] += got - own
    return held + got - own


def send(calls: Any, words: Any, packet: Any, size: int) -> int:
    """Hand a packet over and note when. Returns the bytes taken; an error is in `words`."""
    if words[ECHO] != 0:
        words[ECHO_DUE] += size
    words[REQUEST_NS] = now(calls)
    sent = write_some(calls, words[FD], packet, size)
    if sent < 0:
        if sent != 0 - _AGAIN:
            words[ERROR] = 0 - sent
        return 0
    return sent


def receive_until(calls: Any, words: Any, inbox: Any, held: int, wanted: int) -> int:
    """`receive` until `wanted` bytes are held, asleep, or the deadline has passed.

    Bytes that are there when it has passed are taken, once: a process that was woken late must not
    call the line late.
    """
    while held < wanted and held < INBOX_BYTES and words[ERROR] == 0:
        at_ns = now(calls)
        left_ns = words[DEADLINE_NS] - at_ns
        if left_ns > 0:
            came = wait_input(calls, words[FD], left_ns)
            words[WAITED_NS] += now(calls) - at_ns
        elif words[LOOKED_LATE] != 0:
            break
        else:
            words[LOOKED_LATE] = 1
            came = wait_input(calls, words[FD], 0)
        if came != 0:
            held = receive(calls, words, inbox, held)
    return held


def exchange(
    calls: Any, words: Any, request: Any, request_bytes: int, inbox: Any, due: Any, count: int,
    size: int, data: Any, errors: Any,
) -> int:  # fmt: skip
    """Throw old input away, send a request, sleep, take replies while each is the next one due.

    How many of the `count` replies (`size` bytes each) came so; due, data, errors: as
    passes.take_replies has them. What else came is in the inbox from the bytes of those on.
    """
    words[ERROR], words[LOOKED_LATE], words[OVERSLEPT], words[HELD] = 0, 0, 0, 0
    while words[ERROR] == 0 and wait_input(calls, words[FD], 0) != 0:
        words[DROPPED] += receive(calls, words, inbox, 0)
    if words[ERROR] != 0:
        return 0
    if send(calls, words, request, request_bytes) == request_bytes:
        words[DEADLINE_NS] = now(calls) + words[PATIENCE_NS]
    if words[ERROR] != 0:
        return 0
    begun_ns = now(calls)
    sleep_until(calls, words[REQUEST_NS] + words[SLEEP_NS])
    words[WAITED_NS] += now(calls) - begun_ns
    held = 0
    if words[SLEEP_NS] > 0 and wait_input(calls, words[FD], 0) != 0:
        held = receive(calls, words, inbox, 0)
        words[OVERSLEPT] = 1 if held >= count * size else 0
    taken = 0
    while words[ERROR] == 0:
        taken = take_replies(inbox, held, due, count, size, data, errors)
        wanted = (taken + 1) * size
        if taken == count or held >= wanted:
            break
        held = receive_until(calls, words, inbox, held, wanted)
        if held < wanted:
            break
    words[HELD] = held
    return taken


def send_words(
    calls: Any, words: Any, packet: Any, first: int, size: int, joints: int, steps: Any
) -> int:
    """A sync write of one word of each servo (passes.fill_words), which nobody answers."""
    words[ERROR] = 0
    fill_words(packet, first, size, steps, joints)
    return send(calls, words, packet, size)
