"""`python -m recd.perf`: measure, show a result, check that every process has a budget."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from recd.config.errors import RecdError
from recd.config.load import load_robot, preset_names
from recd.perf import budgets, report, result
from recd.perf.scenario import SOURCES, Scenario, like_peer
from recd.perf.spine import Plan, measure
from recd.perf.storm import commands

EXIT_OVER_BUDGET = 3
LEAST_COLUMNS = 110


@click.group()
def perf() -> None:
    """Measure recd on this machine with the simulated robot."""


@perf.command()
@click.option(
    "--seconds",
    type=click.FloatRange(2, 900),
    default=30.0,
    show_default=True,
    help="Length of each run.",
)
@click.option(
    "--runs",
    type=click.IntRange(1, 50),
    default=3,
    show_default=True,
    help="Runs, at camera phases spread over one period.",
)
@click.option("--cameras", type=click.IntRange(1, 16), default=2, show_default=True)
@click.option("--size", default="640x480", show_default=True, metavar="WxH")
@click.option(
    "--fps", type=click.IntRange(1, 240), default=30, show_default=True, help="Rows a second."
)
@click.option("--camera-fps", type=float, default=None, help="Frames a second; as --fps.")
@click.option(
    "--rate",
    "rate_hz",
    type=click.IntRange(10, 1000),
    default=250,
    show_default=True,
    help="Control rate in Hz.",
)
@click.option("--codec", "vcodec", default="h264", show_default=True)
@click.option("--preset", default="", help="Encoder preset; default: the codec's own here.")
@click.option("--crf", type=int, default=30, show_default=True)
@click.option("--gop", "g", type=int, default=2, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True, help="Of each encoder.")
@click.option(
    "--source",
    type=click.Choice(SOURCES),
    default="sim",
    show_default=True,
    help="MJPEG streams, or YUYV from simulated V4L2 devices (needs a C compiler).",
)
@click.option("--like-peer", is_flag=True, help="Pixel format and encoder options of the peer.")
@click.option(
    "--camera-latency-ms",
    "latency_ms",
    type=float,
    default=5.0,
    show_default=True,
    help="The cameras' calibrated delay; 0: not calibrated.",
)
@click.option("--realtime/--no-realtime", default=True, show_default=True)
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
    console = _console()
    settings = {name: options.pop(name) for name in ("floor_pairs", "floor_s", "quiet_s")}
    scenario = _scenario(options)
    folder = directory or Path(tempfile.mkdtemp(prefix="recd-bench-data-", dir=Path.cwd()))
    say = console.print
    try:
        found = measure(Plan(scenario, folder.absolute(), **settings), lambda text: say(text))
    except BaseException:
        say(f"dataset, configuration and log are left in {folder}")
        raise
    if output is not None:
        say(f"written: {result.save(found, output)}")
    report.show(found, console)
    if directory is None:
        shutil.rmtree(folder)
    return EXIT_OVER_BUDGET if any(row["kept"] is False for row in found["budgets"]) else 0


def _scenario(options: dict[str, Any]) -> Scenario:
    width, _, height = options.pop("size").partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise RecdError("--size: expected WxH, for example 640x480", code="config")
    peer = options.pop("like_peer")
    options["camera_fps"] = float(options["camera_fps"] or options["fps"])
    scenario = Scenario(width=int(width), height=int(height), **options)
    return like_peer(scenario) if peer else scenario


def _console() -> Console:
    """Tables need 110 columns; a narrower terminal wraps them, a file gets them whole."""
    # A process called camera:front is no emoji.
    return Console(width=max(LEAST_COLUMNS, Console().width), emoji=False, highlight=False)


@perf.command("show")
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def show_result(path: Path) -> int:
    """Print a result file again."""
    report.show(result.load(path), _console())
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


for command in commands.COMMANDS:
    perf.add_command(command)


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
