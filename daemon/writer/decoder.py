"""The process that decodes one episode: `python -m recd.daemon.writer.decoder ROOT UID`.

Steps behind everything else and ties its life to the writer's before it loads anything large; a
first empty line on standard output says that this is done. Without UID: what waits to be decoded.
"""

import json
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from recd.daemon import realtime

MOST_CPU_S = 3600
"""A decoder that a broken file keeps busy for longer is ended."""


def step_back() -> None:
    """Behind everything else, and gone when the writer is."""
    realtime.die_with_parent()
    if not realtime.parent_lives():
        sys.exit(0)
    realtime.set_nice(19)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # its reads are idle-class with it
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S))
    print(flush=True)


def main(arguments: Sequence[str]) -> int:
    """One JSON document on standard output. Exit code 2: not possible, with why."""
    step_back()
    import setproctitle

    from recd.daemon import lean

    lean.refuse_pandas()

    from recd.config.errors import RecdError
    from recd.daemon.dataset.decode import decode_episode, waiting

    setproctitle.setproctitle("recd:decode")
    root, *uid = arguments
    try:
        print(json.dumps(decode_episode(Path(root), uid[0]) if uid else waiting(Path(root))))
    except (RecdError, OSError) as error:
        print(error.message if isinstance(error, RecdError) else error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
