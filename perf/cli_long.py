"""Commands of `python -m recd.perf` that record many episodes: memory over an hour."""

import os
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import click

from recd.perf import result
from recd.perf.cli_bench import QUIET, data_folder, show
from recd.perf.console import EXIT_OVER_BUDGET, scenario_of, scenario_options

_OUTPUT = click.Path(path_type=Path, dir_okay=False)


def save_whole(told: dict[str, Any], path: Path) -> None:
    """Write a result in place of an earlier part of it; whoever reads finds one of both, whole."""
    fresh = path.with_name(f".{path.name}.new")
    result.save(told, fresh)
    os.replace(fresh, path)


@click.command()
@scenario_options(seconds=30.0, runs=None)
@click.option("--minutes", type=click.FloatRange(0.1, 24 * 60), default=60.0, show_default=True)
@click.option("--look-every", "look_every_s", type=click.FloatRange(0.2, 600), default=10.0,
              show_default=True, metavar="SECONDS", help="How often memory is read.")  # fmt: skip
@QUIET
@click.option("-o", "--output", type=_OUTPUT, default=Path("bench-data/memory.json"),
              show_default=True, help="Written after every episode.")  # fmt: skip
def memory(
    minutes: float, look_every_s: float, quiet_s: float, output: Path, **options: Any
) -> int:
    """Record episode after episode, and tell what memory the daemon takes and whether it grows.

    Interrupted, what was measured so far stays in the output and is printed. Exit codes: 0 all
    goals kept, 3 one was not, or it was interrupted.
    """
    from recd.perf import memory as measuring
    from recd.perf.spine import Plan, require_space

    scenario = scenario_of(options)
    episodes = ceil(minutes * 60.0 / scenario.seconds)
    told: dict[str, Any] = {}

    def keep(found: dict[str, Any]) -> None:
        told.update(found)
        save_whole(found, output)

    with data_folder() as folder:
        require_space(Plan(replace(scenario, runs=episodes), folder, floor_pairs=0))
        plan = measuring.Plan(scenario, folder, minutes, look_every_s, quiet_s)
        try:
            measuring.measure(plan, keep=keep, say=click.echo)
        except KeyboardInterrupt:
            if not told:
                raise
            click.echo("interrupted: this is what was measured so far", err=True)
    show(told)
    click.echo(f"written: {output}")
    return 0 if measuring.kept(told) else EXIT_OVER_BUDGET


COMMANDS = (memory,)
