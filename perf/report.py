"""A result as tables for a terminal: percent kept first, the peer's quoted figures beside ours."""

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recd.perf import goals, pass_through
from recd.perf.figures import at_path

PEER = Path(__file__).with_name("peer.toml")

_MB = 2.0**20


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print everything worth reading of one result."""
    console.print(_heading(result))
    for note in result["notes"]:
        console.print(f"[bold red]! {note}[/]")
    for make in (_kept, _cameras, _times, _loops, _floor, _goals, _costs, _floors, budget_table):
        table = make(result)
        if table is not None:
            console.print(table)
    if (told := pass_through.line(result)) is not None:
        console.print(told, soft_wrap=True)
    for line in _findings(result):
        console.print(line)
    for line in _realtime(result):
        console.print(line, soft_wrap=True)
    console.print(_sources(result), soft_wrap=True)


def computer_line(result: Mapping[str, Any]) -> str:
    """What was measured, and on which computer: the first line of every kind of result."""
    machine = result["machine"]
    virtual = ", virtual" if machine.get("virtual") else ""
    return (
        f"\n[bold]recd {result['origin']['recd']}[/] {result['origin']['commit']} on "
        f"{machine['cpu']}, {machine['cores_allowed']} cores{virtual}, Linux {machine['kernel']}\n"
    )


def _heading(result: Mapping[str, Any]) -> str:
    return computer_line(result) + scenario_line(result["scenario"])


def scenario_line(scenario: Mapping[str, Any]) -> str:
    """Cameras, codec, length and control rate: the second line."""
    return (
        f"{scenario['cameras']}x{scenario['width']}x{scenario['height']}"
        f"@{scenario['camera_fps']:g} {scenario['pixels']}, {scenario['vcodec']} "
        f"{scenario['preset'] or '(default preset)'} crf {scenario['crf']} g {scenario['g']}, "
        f"{scenario['runs']} x {scenario['seconds']:g} s, control {scenario['rate_hz']} Hz"
        f"{' of two pairs' if scenario.get('arm_pairs', 1) > 1 else ''}"
    )


def figure(result: Mapping[str, Any], path: str, *, scale: float = 1.0, digits: int = 1) -> str:
    """`median (least..most)` of a figure of the summary; the spread only where there is one."""
    found = result["summary"].get(path)
    if found is None:
        return "-"
    median, least, most = (found[key] / scale for key in ("median", "least", "most"))
    if f"{least:.{digits}f}" == f"{most:.{digits}f}":
        return f"{median:.{digits}f}"
    return f"{median:.{digits}f} ({least:.{digits}f}..{most:.{digits}f})"


def sum_of(result: Mapping[str, Any], key: str) -> str:
    """Sum over cameras of a count, per run: median and range."""
    sums = sorted(sum(c[key] for c in run["cameras"].values()) for run in result["runs"])
    middle = sums[len(sums) // 2]
    return f"{middle}" if sums[0] == sums[-1] else f"{middle} ({sums[0]}..{sums[-1]})"


def worst(result: Mapping[str, Any], path: str) -> str:
    """Worst camera's figure in ms, by its median over the runs."""
    keys = [key for key in result["summary"] if key.startswith("cameras.") and key.endswith(path)]
    if not keys:
        return "-"
    worst = max(keys, key=lambda key: result["summary"][key]["median"])
    return figure(result, worst, digits=2)


def _rows_of(result: Mapping[str, Any]) -> str:
    scenario_rows = result["runs"][0]["rows"]["expected"]
    return f"{figure(result, 'rows.stored', digits=0)} of {scenario_rows}"


def _dataset_of(result: Mapping[str, Any]) -> str:
    """Size of what LeRobot sees, by the number of runs."""
    size = result["dataset"]
    return f"{size['dataset_bytes'] / len(result['runs']) / 1e6:.1f}"


KEPT: tuple[tuple[str, Callable[[Mapping[str, Any]], str], Callable[[Mapping[str, Any]], str]], ...]
KEPT = (
    ("kept, %", lambda r: figure(r, "rows.percent_kept", digits=2),
     lambda p: f"{100 * p['stored'] / p['expected']:.2f}"),
    ("rows", _rows_of, lambda p: f"{p['stored']} of {p['expected']}"),
    ("repeated rows, all cameras", lambda r: sum_of(r, "repeated"), lambda p: str(p["repeated"])),
    ("  beyond camera drift", lambda r: sum_of(r, "beyond_drift"), lambda p: "not told"),
    ("skipped frames", lambda r: sum_of(r, "skipped"), lambda p: str(p["skipped"])),
    ("lost frames", lambda r: sum_of(r, "lost"), lambda p: "not told"),
    ("missing pictures", lambda r: sum_of(r, "missing"), lambda p: "0"),
    ("wrong pictures, unflagged", lambda r: sum_of(r, "unflagged"), lambda p: str(p["wrong"])),
    ("picture-joint skew p50, ms", lambda r: worst(r, "skew.true_ms.p50"),
     lambda p: f"{p['skew_p50_ms']}"),
    ("picture-joint skew p99, ms", lambda r: worst(r, "skew.true_ms.p99"),
     lambda p: f"{p['skew_p99_ms']}"),
    ("  what rows say is off by p50, ms", lambda r: worst(r, "skew.error_ms.p50"),
     lambda p: "rows do not say"),
    ("  what rows say is off by p99, ms", lambda r: worst(r, "skew.error_ms.p99"),
     lambda p: "rows do not say"),
    ("start-up to READY, s", lambda r: f"{r['startup']['to_ready_s']:.2f}",
     lambda p: f"{p['start_s']}"),
    ("start: reply, ms", lambda r: figure(r, "waits.start_reply_ms"), lambda p: "-"),
    ("start: to first row stored, ms", lambda r: figure(r, "waits.start_to_first_row_ms"),
     lambda p: "-"),
    ("stop to durable, ms", lambda r: figure(r, "waits.stop_to_durable_ms"),
     lambda p: f"{p['stop_to_durable_ms']}"),
    ("CPU while recording, cores", lambda r: figure(r, "cpu.total_cores", digits=3),
     lambda p: f"{p['total_cores']}"),
    ("peak memory (PSS), MB", lambda r: figure(r, "memory.peak_pss_bytes", scale=_MB, digits=0),
     lambda p: f"{p['peak_pss_mb']}"),
    ("peak memory (RSS summed), MB",
     lambda r: figure(r, "memory.peak_rss_bytes", scale=_MB, digits=0), lambda p: "not told"),
    ("written per episode, MB",
     lambda r: figure(r, "finish.episode_written_bytes", scale=_MB),
     lambda p: f"{p['written_mb']}"),
    ("dataset per episode, MB", _dataset_of,
     lambda p: f"{p['dataset_mb']}"),
    ("control rate, Hz", lambda r: f"{r['scenario']['rate_hz']}", lambda p: f"{p['control_hz']}"),
)  # fmt: skip
"""The first table: label, ours, the peer's."""


def peer_of(scenario: Mapping[str, Any]) -> dict[str, Any] | None:
    """The quoted peer run with the same load, None where there is none: it ran one pair of arms."""
    if scenario.get("arm_pairs", 1) > 1:
        return None
    for run in tomllib.loads(PEER.read_text())["run"]:
        same = ("cameras", "width", "height", "fps", "vcodec")
        if all(run[key] == scenario[key] for key in same):
            return dict(run)
    return None


def table(title: str, *columns: str) -> Table:
    """An empty table of our style; the first column to the left, figures to the right."""
    made = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for number, column in enumerate(columns):
        made.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    return made


def _kept(result: Mapping[str, Any]) -> Table:
    peer = peer_of(result["scenario"])
    theirs_column = ["lerobot-record 0.6.1 (quoted*)"] if peer else []
    made = table("recording", "", "recd: median (least..most)", *theirs_column)
    for label, ours, theirs in KEPT:
        made.add_row(label, ours(result), *([theirs(peer)] if peer else []))
    return made


def _each_camera(result: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, run in enumerate(result["runs"], 1):
        for name, camera in run["cameras"].items():
            yield f"{number} {name}", camera


def _cameras(result: Mapping[str, Any]) -> Table:
    made = table(
        "pictures: every one decoded, its stamp read", "run, camera", "phase", "rows", "own",
        "repeated", "skipped", "drift allows", "missing", "lost", "unflagged",
    )  # fmt: skip
    for label, camera in _each_camera(result):
        made.add_row(
            label, _number(at_path(camera, "times.phase"), 2), str(camera["truth"]["pictures"]),
            str(camera["fresh"]), str(camera["repeated"]), str(camera["skipped"]),
            str(camera["allowed_by_drift"]), str(camera["missing"]), str(camera["lost"]),
            str(camera["unflagged"]),
        )  # fmt: skip
    return made


def _times(result: Mapping[str, Any]) -> Table:
    made = table(
        "time of pictures and joints, ms: p50 / p99", "run, camera", "picture from row",
        "row's claim off by", "skew to joints", "row's skew off by", "joints off by",
    )  # fmt: skip
    paths = ("times.from_row_ms", "times.claim_error_ms", "skew.true_ms", "skew.error_ms",
             "skew.joint_error_ms")  # fmt: skip
    for label, camera in _each_camera(result):
        made.add_row(label, *(_pair(camera, path) for path in paths))
    return made


def _loops(result: Mapping[str, Any]) -> Table:
    made = table(
        "control loops while recording, us: p50 / p99 / p99.9", "run, loop", "Hz",
        "skipped (by the bus)", "lateness", "work (longest)", "leader to goal",
    )  # fmt: skip
    for number, run in enumerate(result["runs"], 1):
        for name, loop in run["control"].items():
            made.add_row(
                f"{number} {name}", _number(loop["hz"], 2),
                f"{loop['skipped']} ({loop.get('skipped_by_bus', '-')})",
                _three(loop["lateness_us"]),
                f"{_three(loop['work_us'])} ({_number(loop.get('work_longest_us'), 0)})",
                _three(loop["leader_to_goal_us"]),
            )  # fmt: skip
    return made


def _floor(result: Mapping[str, Any]) -> Table | None:
    floor = result["floor"]
    if not floor:
        return None
    made = table(
        "lateness against a bare loop (A B A B, same load), us: p50 / p99 / p99.9", "loop", "ours",
        "bare", "ratio", "ticks skipped: ours, bare",
    )  # fmt: skip
    for name, facts in floor["processes"].items():
        ratios = {key: facts[f"ratio_{key}"] for key in ("p50", "p99", "p99_9")}
        made.add_row(
            name, _three(facts["ours_lateness_us"]), _three(facts["bare_lateness_us"]),
            _three(ratios, digits=2), _skipped(facts),
        )  # fmt: skip
    return made


def _skipped(facts: Mapping[str, Any]) -> str:
    if "bare_skipped" not in facts:  # a result of an older version
        return "-"
    return ", ".join(str(sum(facts[f"{kind}_skipped"])) for kind in ("ours", "bare"))


def _goals(result: Mapping[str, Any]) -> Table | None:
    rows = goals.judged(result)
    if not rows:
        return None
    made = table("against the goals", "goal", "found", "at most", "")
    for loop, goal, found, limit in rows:
        made.add_row(f"{loop}: {goal.label}", goals.number(found, goal.unit),
                     goals.number(limit, goal.unit), kept_word(found, limit))  # fmt: skip
    return made


def limits(title: str, rows: Iterable[goals.Limit], run: Mapping[str, Any]) -> Table:
    """Goals of a run as a whole against what was found."""
    made = table(title, "goal", "found", "at most", "")
    for row in rows:
        found = row.found(run)
        told = "-" if found is None else f"{found:.1f} {row.unit}".rstrip()
        made.add_row(row.label, told, f"{row.most:g} {row.unit}".rstrip(),
                     kept_word(found, row.most))  # fmt: skip
    return made


def kept_word(found: float | None, limit: float | None) -> str:
    """Whether a goal of at most `limit` is kept, for people."""
    kept = None if found is None or limit is None else found <= limit
    return {None: "not measured", True: "[green]kept[/]", False: "[red]MISSED[/]"}[kept]


def _floors(result: Mapping[str, Any]) -> Table | None:
    """What the same work costs without recd, and what recd takes beside it."""
    floors = result.get("floors")
    if not floors:
        return None
    disk, wire = floors["disk"], floors["wire_us"]
    made = table("floors, measured after the runs under the same load", "", "floor", "recd")
    paced = floors.get("code_paced")
    if paced:  # results of older versions have none, and a floor of key frames alone for JPEGs
        made.add_row("CPU a picture at the cameras' pace, ms", _steps(paced),
                     figure(result, "against_floors.pictures_ms", digits=2))  # fmt: skip
        made.add_row("  of the floor, times (goal: 1.25)", "1",
                     figure(result, "against_floors.pictures_ratio", digits=2))  # fmt: skip
        made.add_row("  statistics and thumbnails, ms (not in the line above)", "-",
                     figure(result, "against_floors.statistics_ms", digits=2))  # fmt: skip
    made.add_row("CPU a picture, one after another, ms", _steps(floors["code"]), "-")
    made.add_row("  with statistics and verification, ms", "-",
                 figure(result, "against_floors.pipeline_ms", digits=2))  # fmt: skip
    made.add_row("  of the floor, times (goal: 1.25)", "1",
                 figure(result, "against_floors.pipeline_ratio", digits=2))  # fmt: skip
    made.add_row("  all of recd, ms a picture", "-",
                 figure(result, "against_floors.all_ms", digits=2))  # fmt: skip
    made.add_row("copy of a frame, us", f"{floors['memcpy_us']:.0f}", "-")
    made.add_row("wire time of a cycle, leader / follower, us",
                 f"{wire['leader']:.0f} / {wire['follower']:.0f}", "see the goals")  # fmt: skip
    made.add_row(f"disk ({disk['filesystem']}): MB/s; sync p50, max, ms",
                 f"{disk['mb_per_s']:.0f}; {_number(disk['sync_p50_ms'], 1)}, "
                 f"{_number(disk['sync_max_ms'], 1)}", "-")  # fmt: skip
    return made


def _steps(code: Mapping[str, Any]) -> str:
    """Decoding, converting, encoding and their sum."""
    steps = " + ".join(f"{code[f'{step}_ms']:.2f}" for step in ("decode", "convert", "encode"))
    return f"{steps} = {code['cpu_ms']:.2f}"


def _realtime(result: Mapping[str, Any]) -> list[str]:
    """What each process asked for and was granted."""
    return [
        f"real time, {name}: "
        + escape(", ".join(f"{one}: {word}" for one, word in told.items()) or "nothing asked for")
        for name, told in result["realtime"].items()
    ]


def _costs(result: Mapping[str, Any]) -> Table:
    made = table("cost of each process while recording", "process", "cores", "peak PSS, MB")
    memory: dict[str, int] = {}
    for run in result["runs"]:
        for name, size in run["memory"]["pss_bytes"].items():
            memory[name] = max(memory.get(name, 0), size)
    for name in result["runs"][0]["cpu"]["cores"]:
        size = f"{memory[name] / _MB:.0f}" if name in memory else "-"
        made.add_row(name, figure(result, f"cpu.cores.{name}", digits=3), size)
    total = figure(result, "cpu.total_cores", digits=3)
    peak = figure(result, "memory.peak_pss_bytes", scale=_MB, digits=0)
    made.add_row("[bold]all of recd[/]", total, peak, end_section=True)
    simulated = sum(result["runs"][0]["cpu"]["simulator_cores"].values())
    load = figure(result, "memory.peak_simulator_pss_bytes", scale=_MB, digits=0)
    made.add_row("(simulated robot, apart)", f"{simulated:.3f}", load)
    return made


def budget_table(result: Mapping[str, Any]) -> Table:
    """What is over budget, and why the limit is there."""
    over = [row for row in result["budgets"] if row["kept"] is False]
    judged = [row for row in result["budgets"] if row["kept"] is not None]
    title = f"budgets: {len(judged) - len(over)} of {len(judged)} kept"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    if not over:
        table.add_column("all within budgets.toml")
        return table
    for column in ("over budget", "metric", "value", "limit", "why that limit"):
        table.add_column(column)
    for row in over:
        table.add_row(row["subject"], row["metric"], f"{row['value']:.3g} {row['unit']}",
                      f"{row['limit']:g}", row["reason"])  # fmt: skip
    return table


def _findings(result: Mapping[str, Any]) -> list[str]:
    lines = []
    for number, run in enumerate(result["runs"], 1):
        for name, camera in run["cameras"].items():
            found = camera["truth"]["findings"]
            lines += [f"[red]run {number} {name}: {escape(told)}[/]" for told in found]
        for told in run["rows"]["differences"]:
            lines.append(f"[red]run {number}: {escape(told)} differ[/]")
    return lines


def _sources(result: Mapping[str, Any]) -> str:
    peer = peer_of(result["scenario"])
    lines = [
        "lateness is known to half an octave (status cells); a skew is joint time less picture "
        "time, true by the stamps and the simulator's poses."
    ]
    if peer:
        source = tomllib.loads(PEER.read_text())["source"]
        lines.append(f"* not measured here: {peer['name']}: {source}")
    return "\n".join(lines)


def _number(value: Any, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _pair(data: Mapping[str, Any], path: str, *, digits: int = 2) -> str:
    return " / ".join(_number(at_path(data, f"{path}.{key}"), digits) for key in ("p50", "p99"))


def _three(figures: Mapping[str, Any], *, digits: int = 0) -> str:
    return " / ".join(_number(figures.get(key), digits) for key in ("p50", "p99", "p99_9"))
