"""`python -m recd.perf`: measure, show a result, check that every process has a budget."""

import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import click

from recd.config.errors import RecdError
from recd.config.load import load_robot, preset_names
from recd.perf import budgets, cli_long, cli_parts, report, result
from recd.perf.cli_bench import COMMANDS, show
from recd.perf.console import EXIT_OVER_BUDGET, console, scenario_of, scenario_options
from recd.perf.policy.cli import policy
from recd.perf.spine import Plan, measure
from recd.perf.storm import commands


@click.group()
def perf() -> None:
    """Measure recd on this machine with the simulated robot."""


for _command in (*COMMANDS, *cli_long.COMMANDS, *cli_parts.COMMANDS, policy):
    perf.add_command(_command)


@perf.command()
@scenario_options(seconds=30.0, runs=3)
@click.option(
    "--floor-pairs",
    type=click.IntRange(0, 20),
    default=2,
    show_default=True,
    help="Control loop against bare loop: how often A B; 0 none.",
)
@click.option(
    "--floor-seconds", "floor_s", type=click.FloatRange(1, 300), default=15.0, show_default=True
)
@click.option(
    "--quiet-for",
    "quiet_s",
    type=click.FloatRange(1, 3600),
    default=60.0,
    show_default=True,
    help="Patience for a quiet machine, seconds.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the result (JSON) goes.",
)
@click.option("-d", "--directory", type=click.Path(path_type=Path, file_okay=False),
              help="Keep dataset and log here instead of throwing them away.")  # fmt: skip
def spine(output: Path | None, directory: Path | None, **options: Any) -> int:
    """Record with the real daemon and the simulated robot, and tell what was kept and what it cost.

    Exit codes: 0 all budgets kept, 3 one was not, 2 could not measure.
    """
    screen = console()
    settings = {name: options.pop(name) for name in ("floor_pairs", "floor_s", "quiet_s")}
    scenario = scenario_of(options)
    folder = directory or Path(tempfile.mkdtemp(prefix="recd-bench-data-", dir=Path.cwd()))
    say = screen.print
    try:
        found = measure(Plan(scenario, folder.absolute(), **settings), lambda text: say(text))
    except BaseException:
        say(f"dataset, configuration and log are left in {folder}")
        raise
    if output is not None:
        say(f"written: {result.save(found, output)}")
    report.show(found, screen)
    if directory is None:
        shutil.rmtree(folder)
    return EXIT_OVER_BUDGET if any(row["kept"] is False for row in found["budgets"]) else 0


@perf.command("show")
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def show_result(path: Path) -> int:
    """Print a result file again."""
    show(result.load(path))
    return 0


@perf.command("budgets")
@click.argument("config", nargs=-1)
def check_budgets(config: tuple[str, ...]) -> int:
    """Check that every process and stream of CONFIG (default: all presets), as it is and with a
    policy's adapter, has a budget row."""
    rows = budgets.load_budgets()
    for name in config or preset_names():
        counts = []
        for overrides in ((), budgets.POLICIES):
            robot = load_robot(name, overrides=overrides)
            budgets.require_complete(robot, rows)
            counts.append(len(budgets.subjects_of(robot)))
        click.echo(f"{name}: {counts[0]} processes and streams, {counts[1]} with an adapter, all "
                   "limited")  # fmt: skip
    return 0


for command in commands.COMMANDS:
    perf.add_command(command)


def main() -> int:
    """Entry: errors that a user can mend are told without a traceback.

    A request to end is an interruption: the daemon under test, in a session of its own, ends too.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return int(perf(standalone_mode=False) or 0)
    except RecdError as error:
        click.echo(click.style("recd.perf: ", fg="red", bold=True) + str(error), err=True)
        return 2
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
