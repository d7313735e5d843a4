"""What the commands of `recd.perf` share: options of a scenario, the console, exit codes."""

from collections.abc import Callable
from typing import Any

import click
from rich.console import Console

from recd.config.errors import RecdError
from recd.perf.load import LOADS
from recd.perf.scenario import PAIRS, SOURCES, Scenario, calibrated_ms, like_peer

EXIT_OVER_BUDGET = 3
LEAST_COLUMNS, GRID_COLUMNS = 110, 160


def console(least: int = LEAST_COLUMNS) -> Console:
    """Tables need `least` columns; a narrower terminal wraps them, a file gets them whole."""
    # A process called camera:front is no emoji.
    return Console(width=max(least, Console().width), emoji=False, highlight=False)


def scenario_options(
    *, seconds: float, runs: int | None, cameras: int = 2, source: str = "sim", preset: str = "",
) -> Callable[[Any], Any]:  # fmt: skip
    """Options of one scenario, with these defaults; `scenario_of` reads what they give.

    runs: None for a command that records episodes one after another, without runs.
    """
    repeated = (
        click.option("--runs", type=click.IntRange(1, 50), default=runs, show_default=True,
                     help="Runs, at camera phases spread over one period."),
    ) if runs is not None else ()  # fmt: skip
    each = "run" if runs is not None else "episode"
    options = (
        click.option("--seconds", type=click.FloatRange(0.5 if runs is None else 2, 3600),
                     default=seconds, show_default=True, help=f"Length of each {each}."),
        *repeated,
        click.option("--cameras", type=click.IntRange(1, 32), default=cameras, show_default=True),
        click.option("--size", default="640x480", show_default=True, metavar="WxH"),
        click.option("--fps", type=click.IntRange(1, 240), default=30, show_default=True,
                     help="Rows a second."),
        click.option("--camera-fps", type=float, default=None, help="Frames a second; as --fps."),
        click.option("--rate", "rate_hz", type=click.IntRange(10, 1000), default=250,
                     show_default=True, help="Control rate in Hz."),
        click.option("--arm-pairs", type=click.IntRange(1, len(PAIRS)), default=1,
                     show_default=True, help="Leaders with a follower each; 2: bimanual."),
        click.option("--codec", "vcodec", default="h264", show_default=True),
        click.option("--preset", default=preset, show_default=True,
                     help="Encoder preset; empty: the codec's own here."),
        click.option("--crf", type=int, default=30, show_default=True),
        click.option("--gop", "g", type=int, default=2, show_default=True),
        click.option("--threads", type=int, default=1, show_default=True,
                     help="Of each encoder."),
        click.option("--source", type=click.Choice(SOURCES), default=source, show_default=True,
                     help="MJPEG or H.264 over HTTP, or YUYV or MJPEG from simulated V4L2 devices "
                     "(those need a C compiler)."),
        click.option("--like-peer", is_flag=True,
                     help="Pixel format and encoder options of the quoted peer."),
        click.option("--camera-latency-ms", "latency_ms", type=float, default=None,
                     help="The cameras' calibrated delay; 0: not calibrated. Default: what "
                     "calibrating would find, 5 for streams and 0 for V4L2."),
        click.option("--load", type=click.Choice(list(LOADS)), default="none", show_default=True,
                     help="What else the machine does meanwhile."),
        click.option("--realtime/--no-realtime", default=True, show_default=True),
    )  # fmt: skip

    def take(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return take


def scenario_of(options: dict[str, Any]) -> Scenario:
    """The scenario that the options say. RecdError for a size that is none."""
    width, _, height = options.pop("size").partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise RecdError("--size: expected WxH, for example 640x480", code="config")
    peer = options.pop("like_peer")
    options["camera_fps"] = float(options["camera_fps"] or options["fps"])
    if options["latency_ms"] is None:
        options["latency_ms"] = calibrated_ms(options["source"])
    options.setdefault("runs", 1)
    scenario = Scenario(width=int(width), height=int(height), **options)
    return like_peer(scenario) if peer else scenario
