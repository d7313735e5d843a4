"""recctl policy ...: whether a policy drives, who it is, and what became of its chunks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recd.clients.recctl import show
from recd.clients.recctl.arms import PAIR
from recd.clients.recctl.output import Output

if TYPE_CHECKING:
    from recd.clients.inferencelog.follow import InferenceLog


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of everything that writes an inference log."""
    options = (
        click.option("--log-dir", type=click.Path(path_type=Path, file_okay=False),
                     default=Path("inference_logs"), show_default=True, help="Where logs go."),
        click.option("--log-most", "most_mb", type=click.IntRange(1), default=1000, metavar="MB",
                     show_default=True, help="Size at which a log ends."),
        click.option("--for", "for_s", type=click.FloatRange(min=0.1), metavar="S",
                     help="End the log by itself."),
        click.option("--policy-endpoint", metavar="ADDRESS",
                     help="The robot's policy address, when it is another computer."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def policy() -> None:
    """Let a policy drive, interrupt it, take over (docs/policy_api.md)."""


@policy.command()
@PAIR
@click.option("--log", is_flag=True, help="Stay, show each inference, and write it to CSV files.")
@log_options
@click.pass_obj
def attach(
    output: Output, pair: str | None, log: bool, log_dir: Path, most_mb: int, for_s: float | None,
    policy_endpoint: str | None,
) -> None:  # fmt: skip
    """Let the policy that holds the lease drive. It has to have sent sound chunks already.

    With --log this command stays until the policy is detached, or Ctrl-C, which ends only the log.
    """
    if not log:
        output.show(output.call("policy.attach", pair=pair), show.motion)
        return
    with opened_log(output, log_dir, most_mb, policy_endpoint) as written:
        told = output.call("policy.attach", pair=pair)
        if not output.as_json:
            output.show(told, show.motion)
        keep_log(output, written, for_s)


@policy.command()
@log_options
@click.pass_obj
def log(
    output: Output, log_dir: Path, most_mb: int, for_s: float | None, policy_endpoint: str | None
) -> None:  # fmt: skip
    """Show each inference and write it to CSV files; moves nothing."""
    with opened_log(output, log_dir, most_mb, policy_endpoint) as written:
        keep_log(output, written, for_s)


@contextmanager
def opened_log(
    output: Output, log_dir: Path, most_mb: int, endpoint: str | None
) -> Iterator["InferenceLog"]:
    """A log whose files are there; they go again when nothing comes of it."""
    from recd.clients.inferencelog.follow import InferenceLog
    from recd.clients.policy import PolicyClient

    with ExitStack() as ends:
        client = ends.enter_context(output.client())
        looks = ends.enter_context(
            PolicyClient(output.instance, endpoint=endpoint, key=output.key, name="inference log")
        )
        written = InferenceLog(
            client, looks, log_dir, most_bytes=most_mb * 10**6,
            say=lambda line: click.echo(line, err=True),
            show=None if output.as_json else click.echo,
        )  # fmt: skip
        ends.callback(written.files.close)
        try:
            yield written
        finally:
            if not any(written.files.rows.values()):
                written.files.remove()


def keep_log(output: Output, written: "InferenceLog", for_s: float | None) -> None:
    """Follow the policy until the log ends, however it does, and tell what is in it."""
    from recd.clients.inferencelog.follow import ended_lines

    try:
        written.follow(for_s=for_s)
    except KeyboardInterrupt:
        pass  # the end that an operator chose; the policy goes on
    finally:
        output.show(written.end(), ended_lines)


@policy.command()
@PAIR
@click.pass_obj
def pause(output: Output, pair: str | None) -> None:
    """Interrupt the policy: the arm slows down and holds."""
    output.show(output.call("policy.pause", pair=pair), show.motion)


@policy.command()
@PAIR
@click.pass_obj
def resume(output: Output, pair: str | None) -> None:
    """Let the policy go on, from a new observation."""
    output.show(output.call("policy.resume", pair=pair), show.motion)


@policy.command()
@PAIR
@click.pass_obj
def takeover(output: Output, pair: str | None) -> None:
    """Interrupt the policy and follow the leader: a correction."""
    output.show(output.call("policy.takeover", pair=pair), show.motion)


@policy.command()
@PAIR
@click.pass_obj
def detach(output: Output, pair: str | None) -> None:
    """Hold, and take the lease from whoever has it."""
    output.show(output.call("policy.detach", pair=pair), show.motion)


@policy.command()
@click.pass_obj
def stats(output: Output) -> None:
    """Leases, what became of the chunks, latencies."""
    output.show(output.call("policy.stats"), stats_lines)


def _adapter(said: Mapping[str, Any]) -> list[str]:
    """What the adapter of a foreign server is at, and what it is in trouble with."""
    lines = [f"adapter {said['type']}: {said['state'].replace('_', ' ')}"]
    if said.get("horizon"):
        lines[0] += f"; chunks of {said['horizon']} steps of {said['step_s']:.3g} s"
    if said["infer_ms"]["median"] is not None:
        lines[0] += f"; inference: median {said['infer_ms']['median']:.0f} ms"
    if said["failures"]:
        lines[0] += f"; {said['failures']} of {said['requests']} requests failed"
    if reason := said.get("reason") or said.get("trouble"):
        lines.append(f"  {reason}")
    return lines + [f"  {said['mend']}"] * bool(said.get("mend"))


def _about(lease: Mapping[str, Any]) -> list[str]:
    """What the holder of a lease tells of itself, where it does."""
    lines = [f"  model: {lease['model']}"] if lease.get("model") else []
    if clock := lease.get("clock"):
        lines.append(f"  its clock: the robot's is {clock['offset_ns'] / 1e6:+.3f} ms from it, "
                     f"give or take {clock['bound_ns'] / 1e6:.3f} ms, as it measured")  # fmt: skip
    return lines


def stats_lines(told: Mapping[str, Any]) -> list[str]:
    """`policy.stats` in words: adapter, leases, chunks, latency."""
    lines = _adapter(told["adapter"]) if told.get("adapter") else []
    for pair, seat in told.get("seats", {}).items():
        lease, about = told["leases"][pair], list[str]()
        holder = "nobody holds the lease"
        if lease["kind"] != "nobody":
            holder = (f"{lease['holder']} ({lease['kind']}) holds the lease, "
                      f"last heard {lease['silent_ms']:.0f} ms ago")  # fmt: skip
            about = _about(lease)
        cause = f" ({seat['cause'].replace('_', ' ')})" if seat.get("cause") else ""
        may = "may drive" if seat["permitted"] else "may not drive"
        lines.append(f"{pair}: {seat['motion']}{cause}; {holder}; it {may}")
        lines += about
    counts = ", ".join(f"{count} {word}" for word, count in sorted(told.get("chunks", {}).items()))
    lines.append(f"chunks: {counts or 'none yet'}")
    if refused := told.get("refused"):
        lines.append(f"  refused last, {refused['ago_s']:.0f} s ago: {refused['status']}: "
                     f"{refused['reason']}")  # fmt: skip
        lines += [f"  {refused['mend']}"] * bool(refused["mend"])
    latency = told.get("latency_ms", {})
    if latency.get("count"):
        lines.append(f"from observation to chunk: median {latency['median']:.0f} ms, "
                     f"p99 {latency['p99']:.0f} ms")  # fmt: skip
    if refused := told.get("handshakes_refused"):
        lines.append(f"keys that are not on the list knocked {refused} times: recctl keys list")
    return lines
