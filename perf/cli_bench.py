"""Commands of `python -m recd.perf` beyond one recording: grids, reports, comparisons, searches."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from recd.config.errors import RecdError
from recd.perf import result
from recd.perf.console import EXIT_OVER_BUDGET, GRID_COLUMNS, console, scenario_of, scenario_options
from recd.perf.scenario import Scenario
from recd.shm.clock import clock_pair, wall_iso

QUIET = click.option("--quiet-for", "quiet_s", type=click.FloatRange(1, 3600), default=60.0,
                     show_default=True, help="Patience for a quiet machine, seconds.")  # fmt: skip
OUTPUT = click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False),
                      help="Where the result (JSON) goes.")  # fmt: skip
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")

_PATH = click.Path(path_type=Path, exists=True)

PARTS = ("imports", "ticks")
"""Kinds of results of `measured_once`, which are no runs of a recording."""


@contextmanager
def data_folder() -> Iterator[Path]:
    """A folder for datasets on the disk of the working directory. Gone afterwards; left, and told,
    when something failed: logs are in it."""
    folder = Path(tempfile.mkdtemp(prefix="recd-bench-data-", dir=Path.cwd()))
    try:
        yield folder.absolute()
    except BaseException:
        click.echo(f"datasets and logs are left in {folder}", err=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _say(as_json: bool) -> Callable[[str], None]:
    """Progress: to standard error when standard output is to be one document."""
    return lambda text: click.echo(text, err=as_json)


@click.command()
@click.argument("grid", default="short")
@click.option("-d", "--directory", type=click.Path(path_type=Path, file_okay=False),
              help="Folder of the results, gone on with when it has some; default: "
              "bench-data/GRID-TIME.")  # fmt: skip
@QUIET
def bench(grid: str, directory: Path | None, quiet_s: float) -> int:
    """Measure every cell of GRID: a file, or one that comes with recd (short, promised, full).

    Exit codes: 0 all cells measured and within budgets, 3 one is over budget, 1 one failed.
    """
    from recd.perf import bench as bench_run
    from recd.perf import grid_report
    from recd.perf.grid import grid_path, load_grid

    plan = load_grid(grid_path(grid))
    time = wall_iso(clock_pair().real_ns)[:19].replace(":", "").replace("-", "")
    folder = directory or Path("bench-data") / f"{plan.name}-{time}"
    cells = bench_run.run_grid(plan, folder.absolute(), quiet_s=quiet_s, say=click.echo)
    index, results = bench_run.load_folder(folder)
    grid_report.show(index, results, console(GRID_COLUMNS))
    if any(cell.error for cell in cells):
        return 1
    over = any(row["kept"] is False for one in results for row in one["budgets"])
    return EXIT_OVER_BUDGET if over else 0


@click.command()
@click.argument("path", type=_PATH)
@click.option("--plots", type=click.Path(path_type=Path, file_okay=False),
              help="Draw plots into this folder (needs matplotlib).")  # fmt: skip
@click.option("--format", "form", type=click.Choice(("png", "svg")), default="png",
              show_default=True)  # fmt: skip
@click.option("--each", is_flag=True, help="Of a bench's folder: also every cell's own tables.")
def report(path: Path, plots: Path | None, form: str, each: bool) -> int:
    """Print the tables of PATH, a result file or a bench's folder, and draw its plots."""
    from recd.perf import beside as side
    from recd.perf import grid_report
    from recd.perf.bench import load_folder
    from recd.perf.plots import draw, require_matplotlib

    if plots is not None:
        require_matplotlib()
    screen = console()
    kind = _kind(path) if path.is_file() else ""
    named: list[tuple[str, Mapping[str, Any]]]
    if kind == "beside":
        named = [(path.stem, side.load(path))]
    elif kind in PARTS:
        named = [(path.stem, json.loads(path.read_text()))]
    elif path.is_dir():
        index, results = load_folder(path)
        named = [(cell["file"].removesuffix(".json"), one) for cell, one in
                 zip((c for c in index["cells"] if c["file"]), results, strict=True)]  # fmt: skip
        grid_report.show(index, results, console(GRID_COLUMNS))
    else:
        named = [(path.stem, result.load(path))]
    for stem, one in named:
        if each or not path.is_dir():
            show(one)
        for written in draw(one, plots, stem=stem, form=form) if plots is not None else ():
            screen.print(f"drawn: {written}")
    return 0


def show(one: Mapping[str, Any]) -> None:
    """Print the tables of one result, by its kind."""
    from recd.perf import growth, memory, waits
    from recd.perf import report as spine
    from recd.perf.beside import show as beside_show
    from recd.perf.imports import show as imports_show
    from recd.perf.policy import report as policy
    from recd.perf.ticks import show as ticks_show

    match one["kind"]:
        case "beside":
            beside_show(one, console())
        case "imports":
            imports_show(one, console())
        case "ticks":
            ticks_show(one, console())
        case "policy":
            policy.show(one, console(GRID_COLUMNS))
        case memory.MEMORY:
            memory.show(one, console())
        case growth.GROWTH:
            growth.show(one, console())
        case waits.WAITS:
            waits.show(one, console())
        case _:
            spine.show(one, console())


def _kind(path: Path) -> str:
    try:
        told = json.loads(path.read_text())
    except ValueError as error:
        raise RecdError(f"{path}: expected a result file, found: {error}") from error
    return str(told.get("kind", "")) if isinstance(told, dict) else ""


@click.command()
@click.argument("a", type=_PATH)
@click.argument("b", type=_PATH)
@click.option("--noise", multiple=True, type=_PATH, help="A/A results: the band of noise. "
              "At least two.")  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Also what did not change.")
def compare(a: Path, b: Path, noise: tuple[Path, ...], everything: bool) -> int:
    """Compare two results of the same scenario, or two folders of the same grid.

    Exit codes: 0 nothing got worse beyond the noise, 3 something did.
    """
    from recd.perf import compare as comparing

    screen = console()
    if len(noise) == 1:
        raise RecdError("--noise: expected at least two A/A results, found one", code="usage")
    bad = 0
    for name, (one, other) in _paired(a, b).items():
        aa = [_paired(path, path)[name][0] for path in noise]
        notes = comparing.require_same(one, other)
        found = comparing.changes(one, other, aa)
        screen.print(f"\n[bold]{name}[/]: A {one['origin']['commit']}, B "
                     f"{other['origin']['commit']}")  # fmt: skip
        comparing.show(found, notes, screen, everything=everything, banded=bool(aa))
        bad += len(comparing.worse(found))
    return EXIT_OVER_BUDGET if bad else 0


def _paired(a: Path, b: Path) -> dict[str, tuple[Any, Any]]:
    """Results of the same scenario, by its name. RecdError when there are none."""
    from recd.perf.bench import load_folder
    from recd.perf.bench import slug as slug_of

    def read(path: Path) -> dict[str, Any]:
        results = load_folder(path)[1] if path.is_dir() else [result.load(path)]
        told = {}
        for one in results:
            known = {k: v for k, v in one["scenario"].items() if k in Scenario.__slots__}
            told[slug_of(Scenario(**known))] = one
        return told

    ones, others = read(a), read(b)
    if len(ones) == len(others) == 1:
        return {next(iter(ones)): (*ones.values(), *others.values())}
    both = [name for name in ones if name in others]
    if not both:
        raise RecdError(f"{a} and {b}: expected a scenario that both have, found none",
                        mend="Compare benches of the same grid.")  # fmt: skip
    return {name: (ones[name], others[name]) for name in both}


@click.command()
@click.option("--camera", "cameras", multiple=True, default=("640x480@30", "1280x720@30"),
              show_default=True, metavar="WxH@FPS", help="Kind of camera; repeatable.")  # fmt: skip
@click.option("--pixels", multiple=True, type=click.Choice(("mjpeg", "yuyv")), default=("mjpeg",),
              show_default=True, help="What they send; repeatable.")  # fmt: skip
@click.option("--codec", "codecs", multiple=True, show_default=True, metavar="'NAME [PRESET]'",
              default=("h264", "h264 ultrafast", "libsvtav1 12"), help="Repeatable.")  # fmt: skip
@QUIET
@JSON
def machine(cameras: tuple[str, ...], pixels: tuple[str, ...], codecs: tuple[str, ...],
            quiet_s: float, as_json: bool) -> int:  # fmt: skip
    """Tell what this computer can carry, before you buy cameras: about ten seconds a line."""
    from recd.perf import carry
    from recd.perf.floors import disk
    from recd.perf.machine import fingerprint
    from recd.perf.quiet import wait_for_quiet

    say = _say(as_json)
    wanted = [_camera(text, payload) for payload in pixels for text in cameras]
    settings = [_codec(text) for text in codecs]
    silence = wait_for_quiet(quiet_s)
    say(silence.sentence())
    with data_folder() as folder:
        facts, speed = fingerprint(folder), disk(folder)
        rows = []
        for row in carry.survey(settings, wanted, folder):
            say(f"{row.width}x{row.height}@{row.fps:g} {row.payload}, {row.codec}: "
                f"{row.refused or f'{row.cameras} cameras'}")  # fmt: skip
            rows.append(row)
    told = {"machine": facts, "disk": speed, "silence": silence.plain(),
            "carried": [row.plain() for row in rows]}  # fmt: skip
    if as_json:
        click.echo(json.dumps(told))
        return 0
    screen = console()
    screen.print(f"\n{facts['cpu']}, {facts['cores_allowed']} cores, {facts['memory_mb']} MB; disk "
                 f"({speed['filesystem']}) writes {speed['mb_per_s']:.0f} MB/s, syncs in "
                 f"{speed['sync_p50_ms']:.1f} ms")  # fmt: skip
    if not silence.quiet:
        screen.print(f"[bold red]! {silence.sentence()}[/]")
    carry.show(rows, screen)
    return 0


def _camera(text: str, payload: str) -> Any:
    from recd.daemon.doctor.clip import Request

    size, _, fps = text.partition("@")
    width, _, height = size.partition("x")
    if not (width.isdigit() and height.isdigit() and fps.isdigit() and int(fps) > 0):
        raise RecdError(f"--camera: expected WxH@FPS, for example 640x480@30, found {text!r}",
                        code="usage")  # fmt: skip
    return Request("camera1", payload, int(width), int(height), float(fps))


def _codec(text: str) -> Any:
    from recd.daemon.encode.codecs import CodecSettings

    name, _, preset = text.partition(" ")
    settings = CodecSettings(
        vcodec=name, preset=int(preset) if preset.isdigit() else preset or None
    )
    settings.row  # noqa: B018 (RecdError for an unknown name, before anything is measured)
    return settings


@click.command()
@scenario_options(seconds=20.0, runs=1)
@click.option("--most", type=click.IntRange(1, 32), default=16, show_default=True)
@click.option("--peer", is_flag=True, help="Search for lerobot-record instead of recd.")
@QUIET
@OUTPUT
def largest(most: int, peer: bool, quiet_s: float, output: Path | None, **options: Any) -> int:
    """Find the most cameras of this kind that are still recorded whole. --cameras: where to begin.

    Exit codes: 0 found, 3 not even one camera.
    """
    from dataclasses import replace

    from recd.perf import largest as searching
    from recd.perf.machine import fingerprint, origin
    from recd.perf.peer_run import lerobot_python

    scenario = scenario_of(options)
    if peer:
        lerobot_python()
    first = scenario.cameras
    with data_folder() as folder:

        def trial(cameras: int) -> Any:
            wanted = replace(scenario, cameras=cameras)
            own = folder / f"{cameras}"
            if peer:
                done = searching.lerobot_trial(wanted, own)
            else:
                done = searching.recd_trial(wanted, own, quiet_s=quiet_s, say=lambda text: None)
            word = "whole" if done.whole else "NOT whole"
            click.echo(f"{cameras} cameras: {word}: {done.told}")
            return done

        trials = searching.search(trial, most=most, first=first)
        answer = searching.largest(trials)
        told = {"kind": "largest", "recorder": "lerobot-record" if peer else "recd",
                "origin": origin(), "machine": fingerprint(folder),
                "scenario": scenario.plain(), "largest": answer,
                "trials": [{"cameras": t.cameras, "whole": t.whole, "told": t.told}
                           for t in trials]}  # fmt: skip
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(told, indent=1) + "\n")
    click.echo(f"largest whole load of {told['recorder']}: {answer} cameras of "
               f"{scenario.width}x{scenario.height}@{scenario.camera_fps:g}")  # fmt: skip
    return 0 if answer else EXIT_OVER_BUDGET


@click.command()
@scenario_options(seconds=30.0, runs=1, cameras=3, source="v4l2", preset="ultrafast")
@click.option("--pairs", type=click.IntRange(1, 50), default=3, show_default=True,
              help="Runs of each, in turn.")  # fmt: skip
@QUIET
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False),
              default=Path("bench-data/beside.json"), show_default=True,
              help="Written after every pair; gone on with when it is there.")  # fmt: skip
def beside(pairs: int, quiet_s: float, output: Path, **options: Any) -> int:
    """Run the real lerobot-record 0.6.1 and recd in turn on the same devices: one table.

    Needs lerobot's environment ('make interop' makes it) and a C compiler.
    """
    from recd.perf import beside as side
    from recd.perf.peer_run import lerobot_python

    scenario = scenario_of(options)
    if scenario.streamed:
        raise RecdError("--source: lerobot opens V4L2 devices only; expected v4l2 or v4l2-mjpeg, "
                        f"found {scenario.source}", code="usage")  # fmt: skip
    if scenario.arm_pairs > 1:
        raise RecdError("--arm-pairs: lerobot is run with one pair here; expected 1, found "
                        f"{scenario.arm_pairs}", code="usage")  # fmt: skip
    lerobot_python()
    with data_folder() as folder:
        told = side.beside(scenario, folder, output, pairs=pairs, quiet_s=quiet_s, say=click.echo)
    side.show(told, console())
    click.echo(f"written: {output}")
    return 0


@click.command()
@click.option("--repeats", type=click.IntRange(1, 1000), default=21, show_default=True)
@QUIET
@JSON
def align(repeats: int, quiet_s: float, as_json: bool) -> int:
    """Compare the alignment kernel with pandas merge_asof: 10 minutes of 250 Hz onto 30 Hz."""
    from recd.perf import align as aligning
    from recd.perf.quiet import wait_for_quiet

    silence = wait_for_quiet(quiet_s)
    _say(as_json)(silence.sentence())
    told = aligning.measure(repeats=repeats)
    if as_json:
        click.echo(json.dumps({**told, "silence": silence.plain()}))
    else:
        aligning.show(told, console())
    return 0


@click.command()
@scenario_options(seconds=600.0, runs=1)
@QUIET
@OUTPUT
def honesty(quiet_s: float, output: Path | None, **options: Any) -> int:
    """Record ten minutes and tell whether rows keep real time. --runs: over camera phases.

    Exit codes: 0 every row was stored, 3 not.
    """
    from recd.perf import honesty as truth
    from recd.perf.spine import Plan, measure

    with data_folder() as folder:
        plan = Plan(scenario_of(options), folder, quiet_s=quiet_s, floor_pairs=0, floors=False)
        found = measure(plan, click.echo)
    if output is not None:
        click.echo(f"written: {result.save(found, output)}")
    truth.show(found, console())
    whole = all(stored == expected for stored, expected in truth.rows(found))
    return 0 if whole else EXIT_OVER_BUDGET


def measured_once(
    kind: str, measure: Callable[[Scenario, Path], dict[str, Any]], scenario: Scenario,
    output: Path | None,
) -> dict[str, Any]:  # fmt: skip
    """What `measure` tells of one daemon, with where and of what; also written to `output`."""
    from recd.perf.machine import fingerprint, origin

    with data_folder() as folder:
        told = {"kind": kind, "origin": origin(), "machine": fingerprint(folder),
                "scenario": scenario.plain(), **measure(scenario, folder)}  # fmt: skip
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(told, indent=1) + "\n")
    return told


COMMANDS = (bench, report, compare, machine, largest, beside, align, honesty)
