"""recd and the real lerobot-record in turn on the same simulated buses and cameras: one table.

Both are judged by their datasets alone (stranger.py) and by the kernel's counters. Every run has a
fresh process, fresh devices and a fresh dataset; runs alternate. Partial results are kept.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from recd.config.errors import RecdError
from recd.daemon.sim.pose import PoseHistory
from recd.perf import costs, peer_run, recording, stranger
from recd.perf.control import StatusCells
from recd.perf.episode import disk_bytes
from recd.perf.figures import at_path, spread
from recd.perf.machine import fingerprint, origin
from recd.perf.quiet import wait_for_quiet
from recd.perf.report import table
from recd.perf.scenario import Scenario
from recd.perf.skew import Poses, PoseTrack
from recd.perf.subject import running
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns

BESIDE_VERSION = 1
OURS, THEIRS = "recd", "lerobot"

SETTLE_S = 2.0
"""Between following and recording; lerobot gives itself one second of warm-up per camera."""

_MB = 1e6


@dataclass(frozen=True, slots=True)
class Column:
    """One line of the table. path: in a run's figures; scale: divides them."""

    label: str
    path: str
    digits: int = 1
    scale: float = 1.0


COLUMNS = (
    Column("rows kept, %", "percent_kept", 2),
    Column("rows stored", "stored", 0),
    Column("rows with all pictures and joints new", "new", 0),
    Column("repeated pictures, all cameras", "repeated", 0),
    Column("skipped frames, all cameras", "skipped", 0),
    Column("wrong pictures", "wrong", 0),
    Column("stale rows: joints", "stale_joints", 0),
    Column("stale rows: action", "stale_actions", 0),
    Column("skew joints to picture p50, ms", "skew_ms.p50", 2),
    Column("skew joints to picture p99, ms", "skew_ms.p99", 2),
    Column("between cameras p50, ms", "spread_ms.p50", 2),
    Column("save wait, s", "save_s", 3),
    Column("start to first row, s", "start_s", 2),
    Column("CPU while recording, cores", "cores", 3),
    Column("CPU after the end, s", "finish_cpu_s", 2),
    Column("peak memory (PSS), MB", "peak_pss_bytes", 0, 2.0**20),
    Column("written, MB", "written_bytes", 1, _MB),
    Column("dataset, MB", "dataset_bytes", 1, _MB),
)
"""The columns of lerobot's baseline, top to bottom."""


def beside(
    scenario: Scenario, folder: Path, output: Path, *, pairs: int, quiet_s: float,
    say: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """`pairs` times one run of each; `output` is written after every pair and gone on with when it
    is there. RecdError when there is no lerobot, or the file is of another scenario or commit."""
    peer_run.lerobot_python()
    told = _document(scenario, output, folder)
    for _ in range(pairs):
        number = len(told["pairs"]) + 1
        silence = wait_for_quiet(quiet_s)
        say(f"pair {number}: {silence.sentence()}")
        if not silence.quiet:
            told["notes"].append(f"pair {number}: {silence.sentence()}")
        pair: dict[str, Any] = {"silence": silence.plain()}
        for name, run in ((OURS, ours), (THEIRS, theirs)):
            say(f"pair {number}: {name}, {scenario.seconds:g} s")
            pair[name] = run(scenario, folder / f"{name}-{number}")
        told["pairs"].append(pair)
        if "error" in pair[THEIRS]:
            told["notes"].append(f"pair {number}: {pair[THEIRS]['error']}")
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(told, indent=1) + "\n")
    return told


def _document(scenario: Scenario, output: Path, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    fresh: dict[str, Any] = {
        "format": BESIDE_VERSION, "kind": "beside", "origin": origin(),
        "machine": fingerprint(folder), "scenario": scenario.plain(), "lerobot": peer_run.VERSION,
        "pairs": [], "notes": [],
    }  # fmt: skip
    if not output.exists():
        return fresh
    told = load(output)
    for what in ("scenario", "machine"):
        if told[what] != fresh[what]:
            raise RecdError(
                f"{output}: expected a result of the same {what} to add to, found another",
                mend="Name another --output.",
            )
    if told["origin"]["commit"] != fresh["origin"]["commit"]:
        told["notes"].append(f"from pair {len(told['pairs']) + 1} on: commit "
                             f"{fresh['origin']['commit']}")  # fmt: skip
    return told


def ours(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """One run of recd: its own daemon, one episode."""
    folder.mkdir(parents=True, exist_ok=True)
    with running(replace(scenario, runs=1), folder) as subject:
        armed_s = subject.arm()
        sleep_until_ns(now_ns() + round(SETTLE_S * NS_PER_S))
        idle = recording.idle_cores(subject, seconds=1.0)
        track = PoseTrack(subject.pose_path, folder / "poses")
        with StatusCells(subject.pid, []) as cells:
            recorded = recording.record(
                subject, cells, seconds=scenario.seconds, row_period_ns=scenario.row_period_ns,
                start_at_ns=now_ns(), track=track, idle_cores=idle,
            )  # fmt: skip
        everything = costs.read_ledger(subject.tree())
        waits, start_s, root = recorded.waits, subject.start_s + armed_s, subject.root
    finishing = recorded.finishing
    return {
        **_judged(
            scenario,
            folder,
            root,
            bus=scenario.follower,
            index=int(recorded.saved["episode_index"]),
        ),
        "start_s": start_s + (waits.t0_ns - waits.asked_ns) / NS_PER_S,
        "save_s": (waits.durable_ns - waits.stopping_ns) / NS_PER_S,
        "cores": sum(recorded.recording.cpu_s.values()) / recorded.recording.span_s,
        "finish_cpu_s": max(0.0, sum(finishing.cpu_s.values()) - idle * finishing.span_s),
        "peak_pss_bytes": recorded.memory["peak_pss_bytes"],
        "written_bytes": sum(
            one.written_bytes for one in everything.accounts.values() if not one.process.simulated
        ),
    }


def theirs(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """One run of lerobot-record; `error` when it began to record and gave up."""
    try:
        watched = peer_run.record(scenario, folder)
    except RecdError as error:
        if error.code != peer_run.GAVE_UP:
            raise
        # It is a result: nothing was kept, and why is told.
        shutil.rmtree(folder)
        return {"error": error.message, "percent_kept": 0.0, "stored": 0}
    return watched | _judged(scenario, folder, folder / "dataset", bus=peer_run.BUS, index=0)


def _judged(
    scenario: Scenario, folder: Path, root: Path, *, bus: str, index: int
) -> dict[str, Any]:
    poses = Poses([PoseHistory(copy) for copy in sorted((folder / "poses").iterdir())])
    told = stranger.judge(
        root, index, scenario.camera_names, poses, bus=bus, expected=scenario.expected_rows
    )
    told |= disk_bytes(root)
    shutil.rmtree(folder)
    return told


def load(path: Path) -> dict[str, Any]:
    """Read such a result; RecdError when it is none."""
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RecdError(f"{path}: expected a side-by-side result, found: {error}") from error
    if told.get("kind") != "beside" or told.get("format") != BESIDE_VERSION:
        raise RecdError(
            f"{path}: expected a side-by-side result of format {BESIDE_VERSION}, found "
            f"{told.get('kind')!r} of format {told.get('format')!r}"
        )
    return dict(told)


def show(told: Mapping[str, Any], console: Console) -> None:
    """The one table: recd beside lerobot, median (least..most) over the pairs."""
    scenario, machine = told["scenario"], told["machine"]
    console.print(
        f"\n[bold]recd {told['origin']['commit']} beside lerobot-record {told['lerobot']}[/] on "
        f"{machine['cpu']}, {machine['cores_allowed']} cores\n{scenario['cameras']}x"
        f"{scenario['width']}x{scenario['height']}@{scenario['camera_fps']:g} "
        f"{scenario['pixels']}, {scenario['vcodec']} {scenario['preset'] or '(default preset)'} "
        f"crf {scenario['crf']} g {scenario['g']}, {len(told['pairs'])} x {scenario['seconds']:g} s"
        f" in turn; control: recd {scenario['rate_hz']} Hz, lerobot {scenario['fps']} Hz"
    )
    for note in told["notes"]:
        console.print(f"[bold red]! {note}[/]")
    made = table("same simulated buses and cameras, both judged by their datasets alone", "",
                 f"{OURS}: median (least..most)", f"{THEIRS}-record")  # fmt: skip
    for column in COLUMNS:
        made.add_row(column.label, *(_cell(told, name, column) for name in (OURS, THEIRS)))
    console.print(made)
    console.print(
        "rows kept: stored of rate x seconds. skew: |when the simulated arm stood as the row says "
        "- exposure by stamp|. lerobot: streaming encoding, 2 encoder threads.",
        soft_wrap=True,
    )


def _cell(told: Mapping[str, Any], name: str, column: Column) -> str:
    found = spread(at_path(pair[name], column.path) for pair in told["pairs"])
    if found is None:
        return "-"
    median, least, most = (
        f"{value / column.scale:.{column.digits}f}"
        for value in (found.median, found.least, found.most)
    )
    return median if least == most else f"{median} ({least}..{most})"
