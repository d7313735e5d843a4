"""Does a save take longer the more a dataset holds? recd at each size, and lerobot beside it.

A dataset is grown (grow.py) to each size; then the real daemon records some short episodes into it.
lerobot's own save_episode runs on a copy of it (peer_save.py). Results go into one file, which the
next call goes on with. Limit: lerobot is its library alone, with no robot to wait for.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from recd.config.errors import RecdError
from recd.daemon.dataset import DatasetStore, verify_dataset
from recd.daemon.dataset.layout import INFO
from recd.perf import costs, peer_run, result
from recd.perf.figures import at_path, quantiles
from recd.perf.grow import count_of, grow
from recd.perf.machine import fingerprint, origin
from recd.perf.quiet import wait_for_quiet
from recd.perf.report import computer_line, scenario_line, table
from recd.perf.scenario import Scenario
from recd.perf.subject import Subject, running
from recd.perf.waits import episodes, summed
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns

GROWTH = "growth"

SIZES = (10, 100, 1_000, 3_000, 10_000)

FLAT = 1.5
"""The largest size against the smallest: a wait that grows by less is called flat."""

SETTLE_S = 3.0

PEER_SCRIPT = Path(__file__).with_name("peer_save.py")
PEER_S = 900.0

_MB = 2.0**20

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """sizes: episodes in the dataset before the first one is recorded; count: recorded at each;
    peer: lerobot as well; quiet_s: patience for a quiet machine."""

    scenario: Scenario
    directory: Path
    sizes: Sequence[int] = SIZES
    count: int = 8
    peer: bool = True
    quiet_s: float = 60.0

    @property
    def root(self) -> Path:
        """The dataset."""
        return self.directory / "dataset"


def measure(
    plan: Plan, before: Mapping[str, Any] | None, *, keep: Callable[[dict[str, Any]], None],
    say: Say,
) -> dict[str, Any]:  # fmt: skip
    """Measure every size that `before` (an earlier part of the result) lacks; `keep` is given the
    result after each. RecdError when the dataset in the folder is larger than a size."""
    if plan.peer:
        peer_run.lerobot_python()
    plan.directory.mkdir(parents=True, exist_ok=True)
    told = dict(before) if before is not None else _fresh(plan)
    if told["scenario"] != plan.scenario.plain():
        raise RecdError("expected a result of the same scenario to add to, found another",
                        mend="Name another --output.")  # fmt: skip
    if not count_of(plan.root):
        say("recording the episode that is multiplied")
        _template(plan)
    done = {run["episodes_before"] for run in told["runs"]}
    for size in sorted(set(plan.sizes) - done):
        began = now_ns()
        grow(plan.root, size, say=say)
        grown_s = (now_ns() - began) / NS_PER_S
        silence = wait_for_quiet(plan.quiet_s)
        say(f"{size} episodes, grown in {grown_s:.0f} s; {silence.sentence()}")
        if not silence.quiet:
            told["notes"].append(f"{size} episodes: {silence.sentence()}")
        theirs = _theirs(plan, size) if plan.peer else None
        run = {"episodes_before": size, "recd": _ours(plan, told, say), "lerobot": theirs}
        told["runs"] = sorted([*told["runs"], run], key=lambda one: int(one["episodes_before"]))
        told["silence"] = silence.plain()
        keep(told)
    return told


def _fresh(plan: Plan) -> dict[str, Any]:
    return {
        "format": result.RESULT_VERSION, "kind": GROWTH, "origin": origin(),
        "machine": fingerprint(plan.directory), "scenario": plan.scenario.plain(),
        "silence": wait_for_quiet(0.0).plain(), "startup": {}, "realtime": {}, "runs": [],
        "summary": {}, "budgets": [], "notes": [],
    }  # fmt: skip


def _template(plan: Plan) -> None:
    """One recorded episode, decoded as well: so its copies leave nothing to decode."""
    with running(plan.scenario, plan.directory) as subject:
        subject.arm()
        sleep_until_ns(now_ns() + round(SETTLE_S * NS_PER_S))
        next(episodes(subject.client, plan.scenario, 1))
        subject.await_decoded()


def _ours(plan: Plan, told: dict[str, Any], say: Say) -> dict[str, Any]:
    """A daemon with this dataset: its start, its waits, its writer's memory; then opened alone."""
    with running(plan.scenario, plan.directory) as subject:
        armed_s = subject.arm()
        told["startup"] = {
            "to_ready_s": subject.start_s, "to_teleop_s": subject.start_s + armed_s
        }  # fmt: skip
        told["realtime"] = subject.realtime()
        sleep_until_ns(now_ns() + round(SETTLE_S * NS_PER_S))
        memory = _memory(subject)
        taken = list(episodes(subject.client, plan.scenario, plan.count))
        commits = _commits(subject)
        subject.await_decoded()
    began = now_ns()
    with DatasetStore.open(plan.root):
        open_s = (now_ns() - began) / NS_PER_S
    say("verifying, without decoding")
    began = now_ns()
    report = verify_dataset(plan.root, decode=False)
    verify_s = (now_ns() - began) / NS_PER_S
    if not report.good:
        raise RecdError(f"{plan.root}: {report.counts}", mend="Nothing of this can be quoted.")
    return {
        **summed(taken), "episodes": [asdict(one) for one in taken], "commit_ms": commits,
        "start_up_s": subject.start_s, "open_s": open_s, "verify_s": verify_s,
        "memory_mb": memory, "metadata_bytes": _metadata(plan.root),
    }  # fmt: skip


def _commits(subject: Subject) -> dict[str, float | None]:
    """What the daemon says of its own saves of this session, ms."""
    told = subject.client.call("episodes")["episodes"]
    return quantiles([one["durable_s"] * 1000.0 for one in told if one.get("durable_s")])


def _memory(subject: Subject) -> dict[str, float]:
    """PSS of writer and supervisor now, MB: both know the dataset."""
    looked = costs.read_memory(subject.tree())
    return {
        one.process.name: one.pss_bytes / _MB
        for one in looked
        if one.process.name in ("writer", costs.SUPERVISOR)
    }


def _metadata(root: Path) -> dict[str, int]:
    """Sizes of what a save writes anew, and of the journal."""
    newest = sorted(root.glob("meta/episodes/*/*.parquet"))[-1]
    names = {
        "info": root / INFO, "stats": root / "meta/stats.json", "episodes": newest,
        "journal": root / ".recd/journal",
    }  # fmt: skip
    return {name: path.stat().st_size for name, path in names.items() if path.exists()}


def _theirs(plan: Plan, size: int) -> dict[str, Any]:
    """lerobot's save_episode on a copy (hard links; it replaces files) of the same dataset."""
    copy = plan.directory / "lerobot"
    shutil.rmtree(copy, ignore_errors=True)
    copied = copy / "dataset"
    shutil.copytree(plan.root, copied, copy_function=os.link,
                    ignore=shutil.ignore_patterns(".recd"))  # fmt: skip
    # Those are written in place.
    for path in (copied / "meta").rglob("*"):
        if path.is_file():
            own = path.read_bytes()
            path.unlink()
            path.write_bytes(own)
    command = [
        str(peer_run.lerobot_python()), str(PEER_SCRIPT), str(copied), str(size),
        str(plan.count), str(plan.scenario.vcodec), str(plan.scenario.crf), str(plan.scenario.g),
    ]  # fmt: skip
    done = subprocess.run(
        command, env=peer_run.environment(copy, {}), cwd=copy, capture_output=True, text=True,
        timeout=PEER_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no words"]
        raise RecdError(f"lerobot's save_episode failed: {last[0]}", code="lerobot")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    shutil.rmtree(copy)
    return {
        "open_s": said["open_s"],
        "save_ms": quantiles(said["save_ms"]),
        "first_save_ms": said["first_save_ms"],
        "video_mb": said["video_mb"],
        "each_ms": said["save_ms"],
    }


def growth_of(told: Mapping[str, Any], path: str) -> float | None:
    """A figure at the largest size against the smallest; None where one was not measured."""
    runs = told["runs"]
    first, last = (at_path(runs[n], path) for n in (0, -1))
    return None if first is None or last is None or len(runs) < 2 else float(last) / float(first)


def kept(told: Mapping[str, Any]) -> bool:
    """True when neither `start` nor `stop` grew."""
    ratios = (growth_of(told, f"recd.{name}.p50") for name in FLAT_WAITS)
    return all(ratio is None or ratio <= FLAT for ratio in ratios)


FLAT_WAITS = ("start_reply_ms", "stop_to_durable_ms")

ROWS = (
    ("recd: start, reply p50, ms", "recd.start_reply_ms.p50", 1),
    ("recd: stop to durable p50, ms", "recd.stop_to_durable_ms.p50", 1),
    ("recd: stop to durable, longest, ms", "recd.stop_to_durable_ms.max", 1),
    ("recd: start-up to READY, s", "recd.start_up_s", 2),
    ("recd: dataset opened, s", "recd.open_s", 3),
    ("recd: verified without decoding, s", "recd.verify_s", 2),
    ("recd: writer, MB", "recd.memory_mb.writer", 1),
    ("lerobot: save_episode p50, ms", "lerobot.save_ms.p50", 1),
    ("lerobot: save_episode, longest, ms", "lerobot.save_ms.max", 1),
    ("lerobot: its open mp4s, MB", "lerobot.video_mb", 1),
    ("lerobot: resumed, s", "lerobot.open_s", 2),
)


def show(told: Mapping[str, Any], console: Console) -> None:
    """Print the one table."""
    console.print(computer_line(told) + scenario_line(told["scenario"]))
    for note in told["notes"]:
        console.print(f"[bold red]! {note}[/]")
    sizes = [f"{run['episodes_before']:,}" for run in told["runs"]]
    made = table("episodes already in the dataset", "", *sizes, "last / first")
    for label, path, digits in ROWS:
        values = [at_path(run, path) for run in told["runs"]]
        if any(value is not None for value in values):
            ratio = growth_of(told, path)
            made.add_row(
                label, *("-" if v is None else f"{v:.{digits}f}" for v in values),
                "-" if ratio is None else f"{ratio:.2f}",
            )  # fmt: skip
    console.print(made)
    word = "[green]flat[/]" if kept(told) else "[red]NOT flat[/]"
    console.print(f"start and stop of recd, p50: {word} (goal: at most {FLAT:g} times)")


def plot(told: Mapping[str, Any], axes: Any) -> None:
    """Waits over the number of episodes: p50, up to the longest."""
    for label, path in (
        ("recd: stop to durable", "recd.stop_to_durable_ms"),
        ("recd: start, reply", "recd.start_reply_ms"),
        ("lerobot: save_episode", "lerobot.save_ms"),
    ):
        known = [run for run in told["runs"] if at_path(run, path) is not None]
        sizes = [run["episodes_before"] for run in known]
        if known:
            middle = [at_path(run, f"{path}.p50") for run in known]
            longest = [at_path(run, f"{path}.max") for run in known]
            (line,) = axes.plot(sizes, middle, "o-", label=f"{label}, p50")
            axes.plot(sizes, longest, ":", color=line.get_color(), label=f"{label}, longest")
    axes.set(xscale="log", yscale="log", xlabel="episodes in the dataset", ylabel="ms")
    axes.legend(fontsize=8)
