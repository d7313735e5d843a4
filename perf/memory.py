"""Memory of the whole tree while one episode after another is recorded: peak, and does it grow?

Every look reads the kernel's account of each process (PSS), its descriptors, and the segments of
shared memory that anybody still holds. Slopes are of means over an episode, after the warm-up.
Limit: what grows by less than the uncertainty that is told cannot be seen; longer runs see more.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from recd.config.errors import RecdError
from recd.perf import costs, result
from recd.perf.figures import at_path
from recd.perf.goals import Limit
from recd.perf.machine import fingerprint, origin
from recd.perf.quiet import CpuClock, Silence, wait_for_quiet
from recd.perf.report import computer_line, limits, scenario_line, table
from recd.perf.scenario import Scenario
from recd.perf.subject import Subject, await_state, running
from recd.perf.trend import Trend, means_by, trend
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns

MEMORY = "memory"

WARM_UP_SHARE = 1 / 6
"""Of the run; what comes before is not in the slopes. Allocators reach what they keep within the
first episodes, after the first commit and the first verification."""

PAUSE_S = 2.0
"""Between `stop` and the next `start`, as an operator would need at the least."""

FAILURES = 5
"""So many episodes in a row that cannot be recorded end the measurement."""

READY_S = 60.0

LIMITS = (
    Limit("memory of all of recd, peak", "memory.peak_mb", "MB", 400.0),
    Limit("its slope, less what is uncertain", "slopes_mb.all.at_least", "MB/h", 1.0),
    Limit("open descriptors, the same", "slopes.descriptors.at_least", "1/h", 1.0),
    Limit("shared memory segments, the same", "slopes.segments.at_least", "1/h", 1.0),
    Limit("episodes not recorded", "episodes.failed", "", 0.0),
)
"""A slope counts as far as it is sure; one MB, one descriptor an hour is where a leak begins."""

_MB = 2.0**20

Say = Callable[[str], None]
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """scenario: its `seconds` are the length of an episode; look_every_s: memory is read so often
    (a millisecond a process); quiet_s: patience for a quiet machine."""

    scenario: Scenario
    directory: Path
    minutes: float
    look_every_s: float = 10.0
    quiet_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Look:
    """All processes at one time. at_s: since the first episode; pss: process -> bytes, simulators
    apart; descriptors: process -> how many are open; segments: of shared memory, each once."""

    at_s: float
    episode: int
    pss: Mapping[str, int]
    simulator_pss: int
    descriptors: Mapping[str, int]
    segments: int


@dataclass(slots=True)
class History:
    """What was seen so far. failed: why an episode was not recorded, one entry each; in_a_row: of
    those, without one that was recorded in between."""

    began_ns: int
    looks: list[Look] = field(default_factory=list)
    stop_ms: list[float] = field(default_factory=list)
    saved: int = 0
    failed: list[str] = field(default_factory=list)
    in_a_row: int = 0
    pids: dict[str, set[int]] = field(default_factory=dict)

    def seconds(self) -> float:
        """Since it began."""
        return (now_ns() - self.began_ns) / NS_PER_S


def look(processes: Iterable[costs.Process], *, at_s: float, episode: int) -> Look:
    """Read all of `processes` now; one that ended meanwhile is left out."""
    pss: dict[str, int] = {}
    descriptors: dict[str, int] = {}
    segments: set[int] = set()
    simulated = 0
    tree = list(processes)
    for memory in costs.read_memory(tree):
        name = memory.process.name
        if memory.process.simulated:
            simulated += memory.pss_bytes
        else:
            pss[name] = pss.get(name, 0) + memory.pss_bytes
    for process in tree:
        opened, held = _opened(process.pid)
        segments |= held
        if not process.simulated:
            descriptors[process.name] = descriptors.get(process.name, 0) + opened
    return Look(at_s, episode, pss, simulated, descriptors, len(segments))


def _opened(pid: int) -> tuple[int, set[int]]:
    """(how many descriptors are open, inodes of the segments held by one or by a mapping)."""
    found: set[int] = set()
    opened = 0
    with suppress(OSError):  # ended meanwhile
        for name in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{name}"
            with suppress(OSError):
                opened += 1
                if os.readlink(path).startswith("/memfd:"):
                    found.add(os.stat(path).st_ino)
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            words = line.split(maxsplit=5)
            if len(words) == 6 and words[5].startswith("/memfd:"):
                found.add(int(words[4]))
    return opened, found


def measure(plan: Plan, *, keep: Callable[[Document], None], say: Say) -> Document:
    """Record for `plan.minutes` and return the result. keep: is given the result so far after
    every episode, so that an interruption costs one. RecdError when nothing can be recorded."""
    plan.directory.mkdir(parents=True, exist_ok=True)
    say(plan.scenario.title())
    silence = wait_for_quiet(plan.quiet_s)
    say(silence.sentence())
    with running(plan.scenario, plan.directory) as subject:
        armed_s = subject.arm()
        startup = {"to_ready_s": subject.start_s, "to_teleop_s": subject.start_s + armed_s}
        machine, before = CpuClock.read(), costs.read_ledger(subject.tree())
        history = History(now_ns())
        told: Document = {}
        while history.seconds() < plan.minutes * 60.0:
            _episode(plan, subject, history)
            # Only now: a message in the middle of an episode would be work of ours.
            busy = CpuClock.read().since(machine).busy_cores
            used = costs.used_between(before, costs.read_ledger(subject.tree()))
            others = busy - used.plain()["total_cores"] - sum(
                used.plain()["simulator_cores"].values()
            )  # fmt: skip
            told = _document(plan, silence, startup, history, subject, others=others)
            keep(told)
            say(_progress(told))
    return told


def _progress(told: Document) -> str:
    (run,) = told["runs"]
    slope = at_path(run, "slopes_mb.all")
    grows = f", {slope['slope']:+.1f} ± {slope['plus_minus']:.1f} MB/h" if slope else ""
    return (
        f"{run['minutes']:5.1f} min, {run['episodes']['saved']} episodes, "
        f"{run['memory']['last_mb']:.0f} MB{grows}"
    )


def _episode(plan: Plan, subject: Subject, history: History) -> None:
    """Record one and look meanwhile, and in the pause behind it. RecdError after too many that
    could not be recorded."""
    try:
        started = subject.client.start()
        _look_until(plan, subject, history, int(started["t0_ns"]) + _ns(plan.scenario.seconds))
        stopping = now_ns()
        subject.client.stop()
        history.stop_ms.append((now_ns() - stopping) / 1e6)
        history.saved, history.in_a_row = history.saved + 1, 0
    except RecdError as error:
        history.failed.append(f"after {history.seconds() / 60.0:.1f} min: {error.message}")
        history.in_a_row += 1
        if history.in_a_row == FAILURES:
            raise
        await_state(
            subject.client, lambda status: {str(status["state"])}, {"READY"}, timeout_s=READY_S
        )
    _look_until(plan, subject, history, now_ns() + _ns(PAUSE_S))


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


def _look_until(plan: Plan, subject: Subject, history: History, until_ns: int) -> None:
    """Looks on a fixed raster of time, wherever in an episode they fall."""
    every_ns = _ns(plan.look_every_s)
    while True:
        due_ns = history.began_ns + (len(history.looks) + 1) * every_ns
        sleep_until_ns(min(until_ns, max(due_ns, now_ns())))
        if now_ns() >= until_ns:
            return
        tree = subject.tree()
        for process in tree:
            history.pids.setdefault(process.name, set()).add(process.pid)
        episode = history.saved + len(history.failed)
        history.looks.append(look(tree, at_s=history.seconds(), episode=episode))


def figures(history: History, *, minutes: float) -> dict[str, Any]:
    """What was seen as the figures of one run (result.MEMORY_RUN_KEYS). minutes: as planned."""
    looks = history.looks
    names = _lasting(looks)
    total = [sum(one.pss.values()) / _MB for one in looks]
    after = [n for n, one in enumerate(looks) if one.at_s >= minutes * 60.0 * WARM_UP_SHARE]

    def line(values: list[float]) -> dict[str, Any] | None:
        groups = [looks[n].episode for n in after]
        times = means_by(groups, [looks[n].at_s for n in after])
        return _plain(trend(times, means_by(groups, [values[n] for n in after])))

    each = {name: [one.pss.get(name, 0) / _MB for one in looks] for name in names}
    opened = {name: [float(one.descriptors.get(name, 0)) for one in looks] for name in names}
    all_opened = [float(sum(one.descriptors.values())) for one in looks]
    segments = [float(one.segments) for one in looks]
    return {
        "minutes": history.seconds() / 60.0,
        "planned_minutes": minutes,
        "warm_up_minutes": minutes * WARM_UP_SHARE,
        "episodes": {"saved": history.saved, "failed": len(history.failed)},
        "stop_ms": [round(value, 1) for value in history.stop_ms],
        "memory": {
            "peak_mb": max(total, default=0.0),
            "last_mb": total[-1] if total else 0.0,
            "peak_each_mb": {name: max(values) for name, values in each.items()},
            "simulator_peak_mb": max((one.simulator_pss / _MB for one in looks), default=0.0),
        },
        "slopes_mb": {"all": line(total), "each": {name: line(v) for name, v in each.items()}},
        "slopes": {
            "descriptors": line(all_opened), "segments": line(segments),
            "descriptors_each": {name: line(values) for name, values in opened.items()},
        },
        "restarts": {
            name: len(history.pids[name]) - 1 for name in names if len(history.pids[name]) > 1
        },
        "looks": {
            "at_s": [round(one.at_s, 2) for one in looks],
            "episode": [one.episode for one in looks],
            "all_mb": _rounded(total),
            "simulator_mb": _rounded(one.simulator_pss / _MB for one in looks),
            "each_mb": {name: _rounded(values) for name, values in each.items()},
            "descriptors": {name: _rounded(values) for name, values in opened.items()},
            "segments": [one.segments for one in looks],
        },
    }  # fmt: skip


def _lasting(looks: list[Look]) -> list[str]:
    """Processes that were there at more than half of the looks: the others come and go, and are in
    the sum."""
    counts: dict[str, int] = {}
    for one in looks:
        for name in one.pss:
            counts[name] = counts.get(name, 0) + 1
    return sorted(name for name, count in counts.items() if 2 * count > len(looks))


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(value, 2) for value in values]


def _plain(found: Trend | None) -> dict[str, Any] | None:
    """A line for JSON. at_least: what it surely grows by, 0 when it may be flat."""
    if found is None:
        return None
    return {**found.plain(), "at_least": max(0.0, found.slope - found.plus_minus)}


def _document(
    plan: Plan, silence: Silence, startup: Mapping[str, float], history: History, subject: Subject,
    *, others: float,
) -> Document:  # fmt: skip
    run = {**figures(history, minutes=plan.minutes), "others_cores": max(0.0, others)}
    return {
        "format": result.RESULT_VERSION,
        "kind": MEMORY,
        "origin": origin(),
        "machine": fingerprint(plan.directory),
        "scenario": plan.scenario.plain(),
        "silence": silence.plain(),
        "startup": dict(startup),
        "realtime": subject.realtime(),
        "runs": [run],
        "summary": result.summary([run], result.SHAPES[MEMORY]),
        "budgets": [],
        "notes": list(_notes(silence, history, others)),
    }


def _notes(silence: Silence, history: History, others: float) -> Iterator[str]:
    if not silence.quiet:
        yield silence.sentence()
    if others > 0.2:
        yield f"others used {others:.2f} cores meanwhile"
    yield from (f"an episode was not recorded {why}" for why in history.failed)


def kept(told: Mapping[str, Any]) -> bool:
    """True when it ran to its end and missed no limit."""
    (run,) = told["runs"]
    return bool(run["minutes"] >= run["planned_minutes"]) and not any(
        limit.missed(run) for limit in LIMITS
    )


def show(told: Mapping[str, Any], console: Console) -> None:
    """Print the tables of such a result."""
    (run,) = told["runs"]
    console.print(computer_line(told) + scenario_line(told["scenario"]))
    for note in told["notes"]:
        console.print(f"[bold red]! {note}[/]")
    if run["minutes"] < run["planned_minutes"]:
        console.print(
            f"[bold red]! ended after {run['minutes']:.0f} of {run['planned_minutes']:g} min[/]"
        )
    console.print(
        f"{run['episodes']['saved']} episodes of {told['scenario']['seconds']:g} s in "
        f"{run['minutes']:.1f} min, {len(run['looks']['at_s'])} looks; slopes after the first "
        f"{run['warm_up_minutes']:.1f} min, ± two standard errors"
    )
    console.print(limits("memory against its goals", LIMITS, run))
    made = table("each process", "process", "peak PSS, MB", "slope, MB/h", "descriptors",
                 "slope, 1/h")  # fmt: skip
    for name, peak in run["memory"]["peak_each_mb"].items():
        opened = run["looks"]["descriptors"][name]
        made.add_row(
            name, f"{peak:.1f}", _slope(run["slopes_mb"]["each"][name]), f"{max(opened):.0f}",
            _slope(run["slopes"]["descriptors_each"][name]),
        )  # fmt: skip
    made.add_row("[bold]all of recd[/]", f"{run['memory']['peak_mb']:.1f}",
                 _slope(run["slopes_mb"]["all"]), "",
                 _slope(run["slopes"]["descriptors"]))  # fmt: skip
    made.add_row(
        "(simulated robot, apart)", f"{run['memory']['simulator_peak_mb']:.1f}", "", "", ""
    )
    console.print(made)
    for name, times in run["restarts"].items():
        console.print(f"[bold red]! {name} was started {times} more times[/]")


def _slope(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    told = f"{found['slope']:+.2f} ± {found['plus_minus']:.2f}"
    return f"[red]{told}[/]" if found["grows"] else told


def plot(told: Mapping[str, Any], axes: Any) -> None:
    """Memory of all of recd and of each process over time, with the line after the warm-up."""
    (run,) = told["runs"]
    minutes = [at / 60.0 for at in run["looks"]["at_s"]]
    axes.plot(minutes, run["looks"]["all_mb"], linewidth=1.2, color="black", label="all of recd")
    for name, values in run["looks"]["each_mb"].items():
        axes.plot(minutes, values, linewidth=0.8, label=name)
    line = run["slopes_mb"]["all"]
    if line is not None:
        ends = [run["warm_up_minutes"], minutes[-1]]
        middle = sum(ends) / 2.0
        drawn = [line["mean"] + line["slope"] * (end - middle) / 60.0 for end in ends]
        axes.plot(ends, drawn, "--", color="#b03030",
                  label=f"{line['slope']:+.1f} ± {line['plus_minus']:.1f} MB/h")  # fmt: skip
    axes.set(xlabel="minutes", ylabel="PSS, MB")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, ncols=2)
