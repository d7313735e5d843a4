"""recctl policy ...: whether a policy drives, who it is, and what became of its chunks."""

from collections.abc import Mapping
from typing import Any

import click

from recd.clients.recctl import show
from recd.clients.recctl.arms import PAIR
from recd.clients.recctl.output import Output


@click.group()
def policy() -> None:
    """Let a policy drive, interrupt it, take over (docs/policy_api.md)."""


@policy.command()
@PAIR
@click.pass_obj
def attach(output: Output, pair: str | None) -> None:
    """Let the policy that holds the lease drive. It has to have sent sound chunks already."""
    output.show(output.call("policy.attach", pair=pair), show.motion)


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


def stats_lines(told: Mapping[str, Any]) -> list[str]:
    """`policy.stats` in words: adapter, leases, chunks, latency."""
    lines = _adapter(told["adapter"]) if told.get("adapter") else []
    for pair, seat in told.get("seats", {}).items():
        lease = told["leases"][pair]
        holder = "nobody holds the lease"
        if lease["kind"] != "nobody":
            holder = (f"{lease['holder']} ({lease['kind']}) holds the lease, "
                      f"last heard {lease['silent_ms']:.0f} ms ago")  # fmt: skip
        cause = f" ({seat['cause'].replace('_', ' ')})" if seat.get("cause") else ""
        may = "may drive" if seat["permitted"] else "may not drive"
        lines.append(f"{pair}: {seat['motion']}{cause}; {holder}; it {may}")
    counts = ", ".join(f"{count} {word}" for word, count in sorted(told.get("chunks", {}).items()))
    lines.append(f"chunks: {counts or 'none yet'}")
    latency = told.get("latency_ms", {})
    if latency.get("count"):
        lines.append(f"from observation to chunk: median {latency['median']:.0f} ms, "
                     f"p99 {latency['p99']:.0f} ms")  # fmt: skip
    return lines
