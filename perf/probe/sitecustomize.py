"""Every Python process of a daemon under `recd.perf ticks` begins with this: it listens for looks.

SIGUSR2 appends one line to a file of this process: blocks of the small-object allocator in use,
collections so far, whether collection is on. Nothing runs between two looks.
"""

import gc
import os
import signal
import sys

FOLDER = "RECD_TICKS_FOLDER"
"""Variable with the folder of the files; each is called by its process id."""


def _look(*_: object) -> None:
    blocks = sys.getallocatedblocks()
    collections = sum(generation["collections"] for generation in gc.get_stats())
    line = f"{blocks} {collections} {int(gc.isenabled())}\n".encode()
    file = os.open(
        os.path.join(os.environ[FOLDER], str(os.getpid())), os.O_WRONLY | os.O_APPEND | os.O_CREAT
    )
    os.write(file, line)
    os.close(file)


if os.environ.get(FOLDER):
    signal.signal(signal.SIGUSR2, _look)
