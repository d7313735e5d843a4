"""Opens sources in a process of its own and prints a JSON line per happening.

One JSON object a line on standard input: {"request": {...}, "frames": n, "shim": map of devices}.
"own" of a frame: most bytes that Python and numpy held beside what they had before it.
Every answer ends with a line {"ty": "closed"}.
"""

import json
import os
import sys
import tracemalloc
from fractions import Fraction

import numpy as np

from recd.config.errors import DeviceError
from recd.daemon.cameras.registry import make_source
from recd.daemon.cameras.request import CameraRequest
from recd.daemon.cameras.source import CameraEndedError
from recd.shm.clock import NS_PER_S, now_ns

MEMORY = np.zeros(4 << 20, np.uint8)


def say(**fields: object) -> None:
    print(json.dumps(fields, default=str), flush=True)


def read(fields: dict[str, object], frames: int) -> None:
    source = make_source(
        CameraRequest(**{"name": "front", **fields, "fps": Fraction(str(fields["fps"]))})
    )
    try:
        got = source.open(lambda: True)
        say(
            ty="open", payload=got.payload, width=got.width, height=got.height, fps=got.fps,
            stamp=got.stamp, frame_ids=got.frame_ids, range=got.range, facts=dict(got.facts),
        )  # fmt: skip
        for _ in range(frames):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            info = source.next_frame(lambda: MEMORY, now_ns() + 2 * NS_PER_S)
            own = tracemalloc.get_traced_memory()[1] - before
            if info is None:
                say(ty="none")
                continue
            head = MEMORY[: min(info.nbytes, 16)].tobytes().hex()
            say(
                ty="frame", nbytes=info.nbytes, capture=info.t_capture_ns, head=head,
                arrival=info.t_arrival_ns, seq=info.source_seq, flags=info.flags,
                residual=info.residual_ns, own=own,
            )  # fmt: skip
    except CameraEndedError:
        say(ty="end")
    except DeviceError as error:
        say(ty="error", code=error.code, text=str(error), kind=type(error).__name__)
    source.close()
    say(ty="closed")


if __name__ == "__main__":
    tracemalloc.start()
    for line in sys.stdin:
        asked = json.loads(line)
        os.environ["RECD_V4L2_SHIM"] = asked["shim"]
        read(asked["request"], asked["frames"])
