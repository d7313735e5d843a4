"""What an operator waits for: `start`, its first row, `stop`, over many short episodes.

Times are a client's: from before the command is sent to its whole reply. Limit: as everything is
measured from outside, a client that the machine keeps waiting is in the figures.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from recd.clients.client import RecdClient
from recd.perf import result
from recd.perf.figures import quantiles
from recd.perf.goals import Limit
from recd.perf.machine import fingerprint, origin
from recd.perf.quiet import CpuClock, wait_for_quiet
from recd.perf.report import computer_line, limits, scenario_line, table
from recd.perf.scenario import Scenario
from recd.perf.spine import SETTLE_S, Plan
from recd.perf.subject import running
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

WAITS = "waits"

LIMITS = (
    Limit("start: reply, p99", "start_reply_ms.p99", "ms", 50.0),
    Limit("start: first row after the call, latest", "first_row_periods.max", "periods", 2.0),
    Limit("stop to durable, p99", "stop_to_durable_ms.p99", "ms", 100.0),
)

PAUSE_S = 0.5
"""Between `stop` and the next `start`: clean-up, and the next episode's encoders are ready."""

_GOLDEN = 0.618
"""Starts are spread over the camera's period by this share of it from one to the next."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Episode:
    """The waits of one. first_row_periods: row 0 after the call of `start`, in row periods."""

    start_reply_ms: float
    first_row_periods: float
    stop_to_durable_ms: float


def episode(client: RecdClient, scenario: Scenario) -> Episode:
    """Record one episode of `scenario.seconds`. RecdError when the daemon refuses."""
    asked = now_ns()
    started = client.start()
    replied = now_ns()
    t0_ns = int(started["t0_ns"])
    sleep_until_ns(t0_ns + round(scenario.seconds * NS_PER_S) - scenario.row_period_ns // 2)
    stopping = now_ns()
    client.stop()
    durable = now_ns()
    return Episode(
        (replied - asked) / NS_PER_MS,
        (t0_ns - asked) / scenario.row_period_ns,
        (durable - stopping) / NS_PER_MS,
    )


def episodes(client: RecdClient, scenario: Scenario, count: int) -> Iterator[Episode]:
    """One after another, each begun in READY, at camera phases spread over a period."""
    for number in range(count):
        phase_ns = round((number * _GOLDEN % 1.0) * scenario.camera_period_ns)
        sleep_until_ns(now_ns() + round(PAUSE_S * NS_PER_S) + phase_ns)
        client.wait_until("READY")
        yield episode(client, scenario)


def summed(taken: list[Episode]) -> dict[str, dict[str, float | None]]:
    """p50, p99, p99.9, max of each wait, and how many there were. Pure."""
    rows = [asdict(one) for one in taken]
    return {name: quantiles([row[name] for row in rows]) for name in Episode.__slots__}


def measure(plan: Plan, *, count: int, say: Say) -> dict[str, Any]:
    """Record `count` episodes and return the result. RecdError when the daemon fails."""
    plan.directory.mkdir(parents=True, exist_ok=True)
    scenario = plan.scenario
    say(scenario.title())
    silence = wait_for_quiet(plan.quiet_s)
    say(silence.sentence())
    with running(scenario, plan.directory) as subject:
        armed_s = subject.arm()
        sleep_until_ns(now_ns() + round(SETTLE_S * NS_PER_S))
        machine = CpuClock.read()
        taken = []
        for one in episodes(subject.client, scenario, count):
            taken.append(one)
            if len(taken) % 10 == 0:
                say(f"{len(taken)} of {count} episodes")
        busy = CpuClock.read().since(machine)
        realtime = subject.realtime()
    run = {
        "episodes": [asdict(one) for one in taken], **summed(taken),
        "machine_busy_cores": busy.busy_cores,
    }  # fmt: skip
    return {
        "format": result.RESULT_VERSION,
        "kind": WAITS,
        "origin": origin(),
        "machine": fingerprint(plan.directory),
        "scenario": scenario.plain(),
        "silence": silence.plain(),
        "startup": {"to_ready_s": subject.start_s, "to_teleop_s": subject.start_s + armed_s},
        "realtime": realtime,
        "runs": [run],
        "summary": result.summary([run], result.SHAPES[WAITS]),
        "budgets": [],
        "notes": [] if silence.quiet else [silence.sentence()],
    }


def kept(told: Mapping[str, Any]) -> bool:
    """True when no limit was missed."""
    return not any(limit.missed(told["runs"][0]) for limit in LIMITS)


def show(told: Mapping[str, Any], console: Console) -> None:
    """Print the tables of such a result."""
    (run,) = told["runs"]
    console.print(computer_line(told) + scenario_line(told["scenario"]))
    for note in told["notes"]:
        console.print(f"[bold red]! {note}[/]")
    title = f"waits of {len(run['episodes'])} episodes of {told['scenario']['seconds']:g} s"
    made = table(title, "", "p50", "p99", "longest")
    for label, name, unit in (
        ("start: reply", "start_reply_ms", "ms"),
        ("start: first row after the call", "first_row_periods", "periods"),
        ("stop to durable", "stop_to_durable_ms", "ms"),
    ):
        figures = run[name]
        made.add_row(f"{label}, {unit}", *(f"{figures[q]:.2f}" for q in ("p50", "p99", "max")))
    console.print(made)
    console.print(limits("waits against their goals", LIMITS, run))


def plot(told: Mapping[str, Any], axes: Any) -> None:
    """Every wait of every episode, in order."""
    (run,) = told["runs"]
    for name, label in (
        ("start_reply_ms", "start: reply"),
        ("stop_to_durable_ms", "stop to durable"),
    ):
        axes.plot([one[name] for one in run["episodes"]], ".-", linewidth=0.7, label=label)
    axes.set(xlabel="episode", ylabel="ms")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
