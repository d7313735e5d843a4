"""The floor of an observation: a plain zmq REP socket that answers with as many bytes, at once.

`python -m recd.perf.policy.echo ADDRESS [KEY]` prints where it listens and serves until its input
ends. A request `sizes: [...]` (JSON) says how long the parts of all further answers are.
"""

import json
import os
import sys
from pathlib import Path

import zmq

from recd.config.keys import read_pair
from recd.daemon import realtime

SIZES = b"sizes:"


def serve(address: str, key: str = "") -> None:
    """Answer until standard input ends. key: file of the pair of a CURVE server, "" for none."""
    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        if key:
            pair = read_pair(Path(key))
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode())
            socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())
        socket.bind(address)
        print(socket.getsockopt_string(zmq.LAST_ENDPOINT), flush=True)
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(sys.stdin.fileno(), zmq.POLLIN)
        parts: list[bytes] = [b""]
        while sys.stdin.fileno() not in (ready := dict(poller.poll())):
            if socket not in ready:
                continue
            asked = socket.recv_multipart()[0]
            if asked.startswith(SIZES):
                parts = [os.urandom(size) for size in json.loads(asked.removeprefix(SIZES))]
                socket.send(b"")
            else:
                socket.send_multipart(parts)


if __name__ == "__main__":
    realtime.die_with_parent()
    serve(*sys.argv[1:])
