"""A simulated SO-101 without the daemon: prints the paths of its ports and runs until stopped."""

import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from recd.config.errors import RecdError
from recd.daemon import realtime
from recd.daemon.sim import loop
from recd.daemon.sim.control import ControlServer
from recd.daemon.sim.hand import HANDS
from recd.daemon.sim.robot import SimRobot, arms_of_pairs


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--leader", is_flag=True, help="A leader arm on the bus `leader`.")
@click.option("--follower", is_flag=True, help="A follower arm on the bus `follower`.")
@click.option("--pair", "pairs", multiple=True, help="A leader and a follower; repeatable.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where ports appear.")
@click.option("--hand", type=click.Choice(list(HANDS)), default="demo", help="What leads leaders.")
@click.option("--seed", default=1, help="Of the demonstration.")
@click.option("--log", "log_path", type=click.Path(path_type=Path), help="Copy of the servo log.")
@click.option("--priority", default=loop.DEVICE_PRIORITY, help="SCHED_FIFO, where allowed; 0 none.")
@click.option("--attached", is_flag=True, help="End with the process that started it.")
@click.option("--set", "settings", multiple=True, help="BUS.KEY=JSON, any setting of an arm.")
def main(
    *,
    leader: bool,
    follower: bool,
    pairs: tuple[str, ...],
    directory: Path | None,
    hand: str,
    seed: int,
    log_path: Path | None,
    priority: int,
    attached: bool,
    settings: tuple[str, ...],
) -> None:
    """Simulated SO-101 arms on pseudo-terminals.

    Prints one JSON line with the paths of ports and LeRobot calibration files once everything
    answers; ends on SIGTERM or SIGINT.
    """
    if attached:
        realtime.die_with_parent()
    sides = {"leader": {"hand": hand, "seed": seed}, "follower": {}}
    wanted: dict[str, dict[str, Any]] = {name: json.loads(json.dumps(sides)) for name in pairs}
    alone = {name: sides[name] for name, asked in (("leader", leader), ("follower", follower))
             if asked}  # fmt: skip
    if alone or not wanted:
        wanted[""] = alone or sides
    for setting in settings:
        _apply(setting, wanted)
    where = directory or Path(tempfile.mkdtemp(prefix="recd-sim-"))
    try:
        arms = arms_of_pairs(wanted)
        control = ControlServer(where)
        robot = SimRobot(arms, where, log_path=log_path)
    except RecdError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    stops: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: stops.append(got))
    try:
        facts = {
            "dir": str(where), "endpoints": robot.endpoints, "calibrations": robot.calibrations,
        }  # fmt: skip
        click.echo(json.dumps(facts))
        loop.run(robot, control, lambda: bool(stops), priority=priority)
    finally:
        control.close()
        robot.close()


def _apply(setting: str, wanted: dict[str, dict[str, Any]]) -> None:
    key, _, value = setting.partition("=")
    bus, _, name = key.rpartition(".")
    pair, _, side = bus.rpartition(".")
    try:
        wanted[pair][side][name] = json.loads(value)
    except (KeyError, ValueError) as error:
        raise click.BadParameter(
            f"expected BUS.KEY=JSON of an arm asked for, got {setting!r}"
        ) from error


if __name__ == "__main__":
    main()
