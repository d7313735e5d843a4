"""Opens one source in a process of its own and prints a JSON line per happening.

usage: python reader.py REQUEST_JSON FRAMES
"""

import json
import sys
from fractions import Fraction

import numpy as np

from recd.config.errors import DeviceError
from recd.daemon.cameras.registry import make_source
from recd.daemon.cameras.request import CameraRequest
from recd.daemon.cameras.source import CameraEndedError
from recd.shm.clock import NS_PER_S, now_ns


def say(**fields: object) -> None:
    print(json.dumps(fields, default=str), flush=True)


def main() -> None:
    fields = json.loads(sys.argv[1])
    fields["fps"] = Fraction(fields["fps"])
    request = CameraRequest(name="front", **fields)
    source = make_source(request)
    memory = np.zeros(4 << 20, np.uint8)
    try:
        got = source.open(lambda: True)
        say(
            ty="open", payload=got.payload, width=got.width, height=got.height, fps=got.fps,
            stamp=got.stamp, frame_ids=got.frame_ids, range=got.range, facts=dict(got.facts),
        )  # fmt: skip
        for _ in range(int(sys.argv[2])):
            info = source.next_frame(lambda: memory, now_ns() + 2 * NS_PER_S)
            if info is None:
                say(ty="none")
                continue
            head = memory[: min(info.nbytes, 16)].tobytes().hex()
            say(
                ty="frame", nbytes=info.nbytes, capture=info.t_capture_ns, head=head,
                arrival=info.t_arrival_ns, seq=info.source_seq, flags=info.flags,
                residual=info.residual_ns,
            )  # fmt: skip
    except CameraEndedError:
        say(ty="end")
    except DeviceError as error:
        say(ty="error", code=error.code, text=str(error), kind=type(error).__name__)
    source.close()
    say(ty="closed")


if __name__ == "__main__":
    main()
