"""Commands of `python -m recd.perf` that record many episodes: waits, memory, growth."""

import os
from contextlib import ExitStack
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import click

from recd.perf import result
from recd.perf.cli_bench import OUTPUT, QUIET, data_folder, show
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


@click.command()
@scenario_options(seconds=0.5, runs=None, cameras=3)
@click.option("--episodes", "count", type=click.IntRange(1, 10_000), default=50, show_default=True)
@QUIET
@OUTPUT
def waits(count: int, quiet_s: float, output: Path | None, **options: Any) -> int:
    """Record many short episodes: how long `start`, its first row and `stop` take.

    Exit codes: 0 all goals kept, 3 one was not.
    """
    from recd.perf import waits as measuring
    from recd.perf.spine import Plan

    with data_folder() as folder:
        plan = Plan(scenario_of(options), folder, quiet_s=quiet_s)
        told = measuring.measure(plan, count=count, say=click.echo)
    if output is not None:
        click.echo(f"written: {result.save(told, output)}")
    show(told)
    return 0 if measuring.kept(told) else EXIT_OVER_BUDGET


@click.command()
@scenario_options(seconds=2.0, runs=None)
@click.option("--grow-to", "sizes", type=click.IntRange(1, 1_000_000), multiple=True,
              metavar="EPISODES",
              help="Size, repeatable. Default: 10 100 1000 3000 10000.")  # fmt: skip
@click.option("--episodes", "count", type=click.IntRange(1, 1000), default=8, show_default=True,
              help="Recorded at each size.")  # fmt: skip
@click.option("--peer/--no-peer", default=True, show_default=True,
              help="lerobot's save_episode on the same dataset; its own environment.")  # fmt: skip
@QUIET
@click.option("-d", "--directory", type=click.Path(path_type=Path, file_okay=False),
              help="Grow the dataset here, keep it, and go on with it.")  # fmt: skip
@click.option("-o", "--output", type=_OUTPUT, default=Path("bench-data/growth.json"),
              show_default=True,
              help="Written after every size; gone on with when it is there.")  # fmt: skip
def growth(
    sizes: tuple[int, ...], count: int, peer: bool, quiet_s: float, directory: Path | None,
    output: Path, **options: Any,
) -> int:  # fmt: skip
    """Grow a dataset and tell what `start` and `stop` cost at each size, with lerobot beside.

    Growing takes 30 ms an episode. Exit codes: 0 both stay the same, 3 one grows.
    """
    from recd.perf import growth as measuring

    before = result.load(output) if output.exists() else None
    with ExitStack() as ends:
        folder = directory or ends.enter_context(data_folder())
        plan = measuring.Plan(scenario_of(options), folder.absolute(),
                              sizes or measuring.SIZES, count, peer, quiet_s)  # fmt: skip
        told = measuring.measure(plan, before, keep=lambda one: save_whole(one, output),
                                 say=click.echo)  # fmt: skip
    show(told)
    click.echo(f"written: {output}")
    return 0 if measuring.kept(told) else EXIT_OVER_BUDGET


COMMANDS = (memory, waits, growth)
