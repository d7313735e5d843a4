"""Addresses of the C functions that kernels may call, and room for what they are handed.

Limit: one thread at a time, for the room is shared by all calls.
"""

import ctypes

SELF, CLOCK_GETTIME, CLOCK_NANOSLEEP, PPOLL, READ, WRITE, ERRNO, ROOM = range(8)
_ROOM_WORDS = 3
_NAMES = {
    CLOCK_GETTIME: "clock_gettime",
    CLOCK_NANOSLEEP: "clock_nanosleep",
    PPOLL: "ppoll",
    READ: "read",
    WRITE: "write",
    ERRNO: "__errno_location",
}


def table() -> ctypes.Array[ctypes.c_int64]:
    """A new table of addresses: its own first, then the functions, then the room."""
    library = ctypes.CDLL(None)
    words = (ctypes.c_int64 * (ROOM + _ROOM_WORDS))()
    words[SELF] = ctypes.addressof(words)
    for place, name in _NAMES.items():
        words[place] = ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
    return words
