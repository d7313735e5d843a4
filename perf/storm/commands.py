"""Commands of `python -m recd.perf` about faults: storms, their table, recovery, durability."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from recd.config.errors import RecdError

EXIT_FINDINGS: Final = 3


@click.command("storm")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--faults", "count", type=click.IntRange(1, 100_000), default=60, show_default=True,
              help="At least so many, in whole decks.")  # fmt: skip
@click.option("--first", type=click.IntRange(0), default=0, show_default=True,
              help="Skip the bouts before this number.")  # fmt: skip
@click.option("--bout", "one", type=click.IntRange(0), default=None, help="Only this bout.")
@click.option("--only", multiple=True, help="Only faults whose name contains this.")
@click.option("--disk/--no-disk", default=None, help="Faults of the disk too; default: as root.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False),
              help="Where the faults go, one JSON line each, appended.")  # fmt: skip
@click.option("-d", "--directory", type=click.Path(path_type=Path, file_okay=False),
              help="Keep datasets and logs of failed chapters here.")  # fmt: skip
def storm(seed: int, count: int, first: int, one: int | None, only: tuple[str, ...],
          disk: bool | None, output: Path | None, directory: Path | None) -> int:  # fmt: skip
    """Let faults happen to the real daemon, up to six in one episode, and check everything.

    A failing bout is run again by its seed and number: --seed S --bout N (with the same --only).
    Exit codes: 0 all invariants held, 3 one did not.
    """
    from recd.perf.storm.disks import may_mount
    from recd.perf.storm.matrix import draw_bouts, possible_faults
    from recd.perf.storm.report import append
    from recd.perf.storm.runner import run_storm

    with_disk = not may_mount() if disk is None else disk
    table = possible_faults(disk=with_disk)
    table = tuple(f for f in table if not only or any(word in f.name for word in only))
    if not table:
        raise RecdError(f"--only {only}: no fault has such a name", code="config")
    bouts = draw_bouts(table, seed=seed, count=count, bouts=0 if one is None else one + 1)
    bouts = bouts[first:] if one is None else [bouts[one]]
    folder = directory or Path(tempfile.mkdtemp(prefix="recd-storm-data-"))
    told = run_storm(
        bouts, seed=seed, folder=folder.absolute(), disk=with_disk, say=click.echo,
        done=lambda injection: append(output, injection) if output else None,
    )  # fmt: skip
    failed = sorted({injection.bout for injection in told if not injection.good})
    if directory is None and not failed:
        shutil.rmtree(folder, ignore_errors=True)
    click.echo(f"{len(told)} faults, findings in bouts: {failed or 'none'}")
    return EXIT_FINDINGS if failed else 0


@click.command("storm-table")
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


@click.command("recovery")
@click.option("--seconds", type=click.FloatRange(2, 600), default=60.0, show_default=True,
              help="Length of the torn episode.")  # fmt: skip
@click.option("--episodes", type=click.IntRange(2, 100_000), default=1000, show_default=True,
              help="Of the large dataset.")  # fmt: skip
@click.option("--runs", type=click.IntRange(1, 50), default=5, show_default=True)
def recovery(seconds: float, episodes: int, runs: int) -> int:
    """Measure recovery of a torn episode with 2 cameras, and start-up on a large dataset."""
    from recd.perf.storm.recovery import measure_recovery

    with _folder() as folder:
        for line in measure_recovery(folder, seconds=seconds, episodes=episodes, runs=runs):
            click.echo(line)
    return 0


@click.command("durability")
@click.option("--seconds", type=click.FloatRange(1, 600), default=10.0, show_default=True,
              help="Length of each episode.")  # fmt: skip
@click.option("--pairs", type=click.IntRange(1, 50), default=6, show_default=True,
              help="Episodes with syncs and without, in turn.")  # fmt: skip
def durability(seconds: float, pairs: int) -> int:
    """Measure what the syncs cost: CPU while recording, and stop to durable, with and without.

    Without: a library in the daemon's processes lets every sync return at once (a C compiler).
    """
    from recd.perf.storm.durability import measure_durability

    with _folder() as folder:
        for line in measure_durability(folder, seconds=seconds, pairs=pairs):
            click.echo(line)
    return 0


@contextmanager
def _folder() -> Iterator[Path]:
    """On the disk of the working folder: that is the one that is measured."""
    with tempfile.TemporaryDirectory(prefix="recd-bench-data-", dir=Path.cwd()) as name:
        yield Path(name)


COMMANDS: Final = (storm, storm_table, recovery, durability)
