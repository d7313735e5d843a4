"""recctl rollout, highlight: what is recorded by itself while a policy drives."""

from collections.abc import Mapping
from typing import Any

import click

from recd.clients.recctl import show
from recd.clients.recctl.output import Output

STRATEGIES = ["base", "sentry", "highlight", "dagger", "episodic"]


@click.command()
@click.argument("strategy", required=False, type=click.Choice(STRATEGIES))
@click.option("--episode-time", "episode_s", type=click.FloatRange(1, 990), metavar="S",
              help="sentry: length of an episode; episodic: the longest.")  # fmt: skip
@click.option("--corrections", type=click.Choice(["own", "inside"]),
              help="dagger: an episode each, or marked inside the attempt's.")  # fmt: skip
@click.option("--stop", "ends", is_flag=True, help="End it; its running episode is kept.")
@click.pass_obj
def rollout(
    output: Output, strategy: str | None, episode_s: float | None, corrections: str | None,
    ends: bool,
) -> None:  # fmt: skip
    """Record by itself while a policy drives; without STRATEGY: tell what it does.

    \b
    base       nothing
    sentry     everything, cut into episodes
    highlight  the last seconds, when somebody says `recctl highlight`
    dagger     corrections
    episodic   one episode per attempt; at its longest the policy is paused

    Attach, pause and take over as ever: `recctl policy`.
    """
    if ends and (strategy or episode_s or corrections):
        raise click.UsageError("--stop stands alone")
    if ends:
        told = output.call("rollout.stop", timeout_s=output.durable_s)
    elif strategy or episode_s or corrections:
        told = output.call(
            "rollout.start", strategy=strategy, episode_s=episode_s, corrections=corrections
        )
    else:
        told = output.call("status")["rollout"]
    output.show(told, _words)


@click.command()
@click.option("--go-on", is_flag=True, help="Record on from there, until `recctl stop`.")
@click.pass_obj
def highlight(output: Output, go_on: bool) -> None:
    """Save the last seconds (rollout.highlight_s) as an episode."""
    told = output.call("highlight", go_on=go_on, timeout_s=output.durable_s)
    output.show(told, show.episode)


def _words(told: Mapping[str, Any]) -> str:
    if told["strategy"] is None:
        return "no rollout"
    said = f"rollout: {told['strategy']}"
    if told["strategy"] in ("sentry", "episodic"):
        said += f", episodes of {told['episode_s']:g} s"
    if told["strategy"] == "dagger":
        said += f", corrections {told['corrections']}"
    if told["highlight_s"]:
        said += f"; recctl highlight saves the last {told['highlight_s']:g} s"
    return f"{said}; {len(told['uids'])} episodes so far"
