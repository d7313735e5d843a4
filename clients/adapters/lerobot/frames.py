"""Messages between recd and the sidecar on one stream socket: a JSON map and raw buffers.

It runs in recd's interpreter and in lerobot's. Every size is checked against
the receiver's own limits before anything is read; nothing here can build an object.
"""

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from recd.shm.clock import NS_PER_S, now_ns

HEAD = struct.Struct("<II")
"""Bytes of the JSON map, number of buffers; the map's `sizes` are those of the buffers."""

HEADER_BYTES = 64 * 1024
MOST_BUFFERS = 32
OBSERVATION_BYTES = 64 * 2**20
ACTIONS_BYTES = 2**20
"""Longest buffer that either side takes: one picture, one chunk."""


class FrameError(Exception):
    """What came is no message of this form; the connection is of no use any more."""


def send(link: socket.socket, header: Mapping[str, Any], buffers: Sequence[bytes] = ()) -> None:
    """One message, whole. OSError (TimeoutError with the socket's own timeout) when it fails."""
    told = json.dumps({**header, "sizes": [len(buffer) for buffer in buffers]}).encode()
    link.sendall(HEAD.pack(len(told), len(buffers)) + told)
    for buffer in buffers:
        link.sendall(buffer)


def receive(
    link: socket.socket, *, most_bytes: int, timeout_s: float | None = None
) -> tuple[dict[str, Any], list[bytes]]:
    """(map, buffers). most_bytes: longest buffer that is taken; timeout_s: for all of it.

    FrameError for what is no message, EOFError when the other side is gone, TimeoutError.
    """
    until_ns = None if timeout_s is None else now_ns() + int(timeout_s * NS_PER_S)
    length, count = HEAD.unpack(_exactly(link, HEAD.size, until_ns))
    if length > HEADER_BYTES or count > MOST_BUFFERS:
        raise FrameError(f"a header of {length} bytes and {count} buffers")
    try:
        header = json.loads(_exactly(link, length, until_ns))
    except (ValueError, RecursionError) as error:
        raise FrameError("a header that is no JSON") from error
    sizes = header.pop("sizes", None) if isinstance(header, dict) else None
    if not isinstance(sizes, list) or len(sizes) != count:
        raise FrameError("a header without the sizes of its buffers")
    if not all(type(size) is int and 0 <= size <= most_bytes for size in sizes):
        raise FrameError(f"a buffer of more than {most_bytes} bytes")
    return header, [_exactly(link, size, until_ns) for size in sizes]


def _exactly(link: socket.socket, size: int, until_ns: int | None) -> bytes:
    found = bytearray(size)
    view, at = memoryview(found), 0
    while at < size:
        if until_ns is not None:
            left_ns = until_ns - now_ns()
            if left_ns <= 0:
                raise TimeoutError("the message did not come whole")
            link.settimeout(left_ns / NS_PER_S)
        got = link.recv_into(view[at:])
        if not got:
            raise EOFError("the other side is gone")
        at += got
    return bytes(found)
