"""The command `python -m recd.perf policy`."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from recd.perf import result
from recd.perf.cli_bench import OUTPUT, QUIET, data_folder, show
from recd.perf.console import EXIT_OVER_BUDGET
from recd.perf.policy.bench import (
    ADAPTERS,
    CAMERAS,
    HORIZON,
    LATENCIES_MS,
    Plan,
    measure,
    scenario_of,
)
from recd.perf.policy.document import document


@click.command()
@click.option("--runs", type=click.IntRange(1, 50), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(1, 600), default=3.0, show_default=True,
              help="Of each transport, latency and leg.")  # fmt: skip
@click.option("--cameras", type=click.IntRange(1, 16), default=CAMERAS, show_default=True)
@click.option("--rate", "rate_hz", type=click.IntRange(50, 1000), default=250, show_default=True,
              help="Control rate in Hz.")  # fmt: skip
@click.option("--latency", "latencies_ms", type=click.FloatRange(0, 400), multiple=True,
              default=LATENCIES_MS, show_default=True, metavar="MS",
              help="Of an inference; repeatable.")  # fmt: skip
@click.option("--horizon", type=click.IntRange(2, 256), default=HORIZON, show_default=True,
              help="Rows of a chunk, 30 a second.")  # fmt: skip
@click.option("--adapter", type=click.Choice(ADAPTERS), default="openpi",
              show_default=True, help="Whose process is measured as well.")  # fmt: skip
@click.option("--realtime/--no-realtime", default=True, show_default=True)
@QUIET
@OUTPUT
@click.option("-d", "--directory", type=click.Path(path_type=Path, file_okay=False),
              help="Keep datasets and logs here instead of throwing them away.")  # fmt: skip
def policy(
    output: Path | None, directory: Path | None, quiet_s: float, horizon: int, adapter: str,
    latencies_ms: tuple[float, ...], **options: Any,
) -> int:  # fmt: skip
    """Measure what policies are promised: observations, reactions, tracking, what they cost.

    Exit codes: 0 all budgets kept, 3 one was not, 2 could not measure.
    """
    with ExitStack() as ends:
        folder = directory or ends.enter_context(data_folder())
        plan = Plan(scenario_of(**options), folder.absolute(), latencies_ms, horizon, adapter,
                    quiet_s=quiet_s)  # fmt: skip
        found = document(plan, measure(plan, click.echo))
    if output is not None:
        click.echo(f"written: {result.save(found, output)}")
    show(found)
    over = any(row["kept"] is False for row in found["budgets"])
    return EXIT_OVER_BUDGET if over else 0
