"""`python -m recd.perf`: measure, show a result, check that every process has a budget."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import click

from recd.config.errors import RecdError
from recd.config.load import load_robot, preset_names
from recd.perf import budgets, report, result
from recd.perf.cli_bench import COMMANDS
from recd.perf.console import EXIT_OVER_BUDGET, console, scenario_of, scenario_options
from recd.perf.spine import Plan, measure


@click.group()
def perf() -> None:
    """Measure recd on this machine with the simulated robot."""


for _command in COMMANDS:
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
    report.show(result.load(path), console())
    return 0


@perf.command("budgets")
@click.argument("config", nargs=-1)
def check_budgets(config: tuple[str, ...]) -> int:
    """Check that every process and stream of CONFIG (default: all presets) has a budget row."""
    rows = budgets.load_budgets()
    for name in config or preset_names():
        robot = load_robot(name)
        budgets.require_complete(robot, rows)
        click.echo(f"{name}: {len(budgets.subjects_of(robot))} processes and streams, all limited")
    return 0


@perf.command("storm")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--faults", "count", type=click.IntRange(1, 10_000), default=60, show_default=True)
@click.option("--first", type=click.IntRange(0), default=0, show_default=True,
              help="Skip the faults before this number.")  # fmt: skip
@click.option("--only", multiple=True, help="Only faults whose name contains this.")
@click.option("--disk/--no-disk", default=None, help="Faults of the disk too; default: as root.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False),
              help="Where the bouts go, one JSON line each, appended.")  # fmt: skip
@click.option("-d", "--directory", type=click.Path(path_type=Path, file_okay=False),
              help="Keep datasets and logs of failed chapters here.")  # fmt: skip
def storm(seed: int, count: int, first: int, only: tuple[str, ...], disk: bool | None,
          output: Path | None, directory: Path | None) -> int:  # fmt: skip
    """Let faults happen to the real daemon, one after the other, and check everything after each.

    A failing fault is run again by its seed and number: --seed S --first N --faults N+1.
    Exit codes: 0 all invariants held, 3 one did not.
    """
    from recd.perf.storm.disks import DISK_FAULTS, may_mount
    from recd.perf.storm.faults import FAULTS
    from recd.perf.storm.report import append
    from recd.perf.storm.runner import draw_faults, run_storm
    from recd.perf.storm.shims import SHIM_FAULTS, may_preload

    with_disk = not may_mount() if disk is None else disk
    table = [*FAULTS, *(DISK_FAULTS if with_disk else ()), *(() if may_preload() else SHIM_FAULTS)]
    table = [fault for fault in table if not only or any(word in fault.name for word in only)]
    if not table:
        raise RecdError(f"--only {only}: no fault has such a name", code="config")
    drawn = list(enumerate(draw_faults(table, seed=seed, count=count)))[first:]
    folder = directory or Path(tempfile.mkdtemp(prefix="recd-storm-data-"))
    bouts = run_storm(
        drawn, seed=seed, folder=folder.absolute(), disk=with_disk, say=click.echo,
        done=lambda bout: append(output, bout) if output else None,
    )  # fmt: skip
    if directory is None and all(bout.good for bout in bouts):
        shutil.rmtree(folder, ignore_errors=True)
    failed = [bout.number for bout in bouts if not bout.good]
    click.echo(f"{len(bouts)} faults, {len(failed)} with findings{f': {failed}' if failed else ''}")
    return EXIT_OVER_BUDGET if failed else 0


@perf.command("storm-table")
@click.argument("paths", nargs=-1, required=True,
                type=click.Path(path_type=Path, exists=True, dir_okay=False))  # fmt: skip
@click.option("--into", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Replace the table in this file instead of printing it.")  # fmt: skip
def storm_table(paths: tuple[Path, ...], into: Path | None) -> int:
    """Make the table of docs/reliability.md from result files of storms."""
    from recd.perf.storm.report import load, put_into, table

    text = table(load(paths))
    if into is None:
        click.echo(text)
    else:
        put_into(into, text)
    return 0


def main() -> int:
    """Entry: errors that a user can mend are told without a traceback."""
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
