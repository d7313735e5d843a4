"""`python daemon_under_test.py CONFIG MANNERS_JSON`: the real daemon with stand-in workers.

MANNERS: {process: {...}} goes to the workers; `timing` changes the table, `forks: false` starts all
of them by exec.
"""

import json
import sys
from dataclasses import replace
from typing import Any

from recd.config.errors import RecdError
from recd.config.load import load_robot
from recd.daemon import log
from recd.daemon.supervisor.forks import Forks
from recd.daemon.supervisor.processes import Process, process_table
from recd.daemon.supervisor.restarts import RestartPolicy
from recd.daemon.supervisor.supervisor import Supervisor

MS = 1_000_000


def adapted(row: Process, script: dict[str, Any]) -> Process:
    timing = script.get("timing", {}).get(row.name, {})
    manners = replace(
        row.manners,
        restart=RestartPolicy(most=script.get("most", 2), first_ns=10 * MS, cap_ns=20 * MS),
        **{key: value * MS for key, value in timing.items()},
    )
    config = {**row.config, "manners": script.get(row.name, {})}
    return replace(
        row, manners=manners, config=config, configured=config, module="stand_in_worker",
        realtime={},
    )  # fmt: skip


def main() -> int:
    log.configure(process="supervisor")
    script = json.loads(sys.argv[2])
    forks = Forks() if script.get("forks", True) else None
    try:
        robot = load_robot(sys.argv[1], overrides=script.get("set", []))
        rows = tuple(adapted(row, script) for row in process_table(robot))
        rows = tuple(row for row in rows if row.name not in script.get("without", []))
        return Supervisor(robot, rows=rows, forks=forks).run()
    except RecdError as error:
        print(f"recd: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
