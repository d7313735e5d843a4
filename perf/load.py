"""Work that others do on the machine while a scenario is measured: the background load.

Each kind is a row; `running` starts it as ordinary processes that end with the block.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from recd.config.errors import RecdError
from recd.daemon import realtime
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

LOADS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "none": (),
    "half_core": ({"busy": 0.5},),
    "core": ({"busy": 1.0},),
    "disk": ({"mb_per_s": 20.0},),
    "core_and_disk": ({"busy": 1.0}, {"mb_per_s": 20.0}),
}
"""Name -> processes. busy: share of one core, ordinary priority; mb_per_s: written and synced."""

DISK_CORES = 0.3
"""What the writing process and the kernel behind it may take."""

_SLICE_NS = 20 * NS_PER_MS
_BLOCK_BYTES = 1 << 20
_WRAP_BLOCKS = 64


def cores_of(name: str) -> float:
    """Cores that a load takes, at the most."""
    return sum(float(work.get("busy", DISK_CORES)) for work in LOADS[name])


@contextmanager
def running(name: str, folder: Path) -> Iterator[None]:
    """The load called `name`; files go into `folder` and are gone afterwards. RecdError for a name
    that is not in the table."""
    if name not in LOADS:
        raise RecdError(f"load: expected one of {', '.join(LOADS)}, found {name!r}", code="config")
    with ExitStack() as stack:
        for work in LOADS[name]:
            fields = json.dumps({**work, "folder": str(folder)})
            process = subprocess.Popen(
                [sys.executable, "-m", "recd.perf.load", fields], stdin=subprocess.DEVNULL
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
        yield


def busy(share: float) -> None:
    """Compute for `share` of every 20 ms, for ever."""
    while True:
        began = now_ns()
        while now_ns() - began < share * _SLICE_NS:
            pass
        if share < 1:
            sleep_until_ns(began + _SLICE_NS)


def write(mb_per_s: float, folder: Path) -> None:
    """Write `mb_per_s` into a nameless file and sync every megabyte, for ever."""
    block = os.urandom(_BLOCK_BYTES)
    every_ns = round(NS_PER_S / mb_per_s)
    with tempfile.TemporaryFile(dir=folder) as file:
        due, number = now_ns(), 0
        while True:
            os.pwrite(file.fileno(), block, number % _WRAP_BLOCKS * _BLOCK_BYTES)
            os.fdatasync(file.fileno())
            number += 1
            due = max(due + every_ns, now_ns())
            sleep_until_ns(due)


def main(argv: list[str]) -> int:
    """Entry of the process; ends by SIGTERM or with its parent."""
    realtime.die_with_parent()
    task = json.loads(argv[0])
    if "busy" in task:
        busy(task["busy"])
    write(task["mb_per_s"], Path(task["folder"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
