"""Commands of `python -m recd.perf` that measure one part: imports, a ring, the ticks of a loop."""

import json
from pathlib import Path
from typing import Any

import click

from recd.perf.cli_bench import JSON, OUTPUT, QUIET, measured_once
from recd.perf.console import EXIT_OVER_BUDGET, console, scenario_of, scenario_options


@click.command()
@scenario_options(seconds=1.0, runs=None)
@OUTPUT
def imports(output: Path | None, **options: Any) -> int:
    """Tell what each process of a daemon imports, and how long that takes.

    Exit codes: 0 no process imports the compiler (numba), 3 one does.
    """
    from recd.perf import imports as importing

    told = measured_once("imports", importing.measure, scenario_of(options), output)
    importing.show(told, console())
    return EXIT_OVER_BUDGET if told["compiler"] else 0


@click.command()
@click.option("--turns", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option("--each", type=click.IntRange(10, 100_000), default=500, show_default=True,
              help="Wakings without and with a ring in each turn, 2 ms apart.")  # fmt: skip
@QUIET
@JSON
def visible(turns: int, each: int, quiet_s: float, as_json: bool) -> int:
    """Measure how long a published record takes to its reader, beyond waking the reader.

    Exit codes: 0 the goal is kept (p99), 3 not.
    """
    from recd.perf import visible as seeing
    from recd.perf.quiet import wait_for_quiet

    silence = wait_for_quiet(quiet_s)
    click.echo(silence.sentence(), err=as_json)
    told = seeing.measure(turns=turns, each=each)
    if as_json:
        click.echo(json.dumps({**told, "silence": silence.plain()}))
    else:
        seeing.show(told, console())
    return 0 if seeing.kept(told) else EXIT_OVER_BUDGET


@click.command()
@scenario_options(seconds=20.0, runs=1)
@OUTPUT
def ticks(output: Path | None, **options: Any) -> int:
    """Tell what a tick of each control loop costs in steady state: objects, page faults, calls.

    System calls need perf and root. Exit codes: 0 goals kept, 3 one was not: a call without a row
    in the list of calls (perf/tick_calls.py), too.
    """
    from recd.perf import ticks as steady

    told = measured_once("ticks", steady.measure, scenario_of(options), output)
    steady.show(told, console())
    return 0 if steady.kept(told) else EXIT_OVER_BUDGET


COMMANDS = (imports, visible, ticks)
