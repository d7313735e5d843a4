"""recctl rollout, highlight: what is recorded by itself while a policy drives."""

import sys
from collections.abc import Mapping
from typing import Any

import click

from recd.clients.client import RecdClient
from recd.clients.recctl import show
from recd.clients.recctl.keys import Terminal, wait_for_action
from recd.clients.recctl.output import EXIT_INTERRUPTED, Output
from recd.clients.recctl.record import ENDED, REFRESH_S, LiveLine, do_key

KEY_HELP = (
    "keys: h highlight  policy: p pause  t take over  g give back\n"
    "      s/f success/fail  a arm  space hold  e estop  d leave"
)
KEYS_HERE = {"hold": "arms.hold"}
"""Without a plan, space holds the arms and no clock."""

STRATEGIES = ["base", "sentry", "highlight", "dagger", "episodic"]


@click.command()
@click.argument("strategy", required=False, type=click.Choice(STRATEGIES))
@click.option("--episode-time", "episode_s", type=click.FloatRange(1, 990), metavar="S",
              help="sentry: length of an episode; episodic: the longest.")  # fmt: skip
@click.option("--corrections", type=click.Choice(["own", "inside"]),
              help="dagger: an episode each, or marked inside the attempt's.")  # fmt: skip
@click.option("--stop", "ends", is_flag=True, help="End it; its running episode is kept.")
@click.option("--keys", is_flag=True, help="Stay, show what goes on, and take keys.")
@click.pass_obj
def rollout(
    output: Output, strategy: str | None, episode_s: float | None, corrections: str | None,
    ends: bool, keys: bool,
) -> int:  # fmt: skip
    """Record by itself while a policy drives; without STRATEGY: tell what it does.

    \b
    base       nothing
    sentry     everything, cut into episodes
    highlight  the last seconds, when somebody says `recctl highlight`
    dagger     corrections
    episodic   one episode per attempt; at its longest the policy is paused

    Attach, pause and take over as ever: `recctl policy`, or --keys.
    """
    if ends and (strategy or episode_s or corrections or keys):
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
    return _stay(output) if keys else 0


def _stay(output: Output) -> int:
    """Show the session and each saved episode, and do what keys say, until `d`, `q` or Ctrl-C."""
    line = LiveLine(live=sys.stdout.isatty() and not output.as_json, bell=False)
    with output.client() as client, Terminal() as terminal:
        if terminal.available:
            line.say(KEY_HELP)
        shown = set(client.status()["rollout"]["uids"])
        try:
            while True:
                now = client.status()
                line.show(_now(now))
                shown |= _show_saved(client, output, line, set(now["rollout"]["uids"]) - shown)
                action = wait_for_action([terminal], REFRESH_S)
                if action in ("detach", "stop"):
                    return 0
                if action is not None:
                    do_key(client, KEYS_HERE.get(action, action), line.say)
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        finally:
            line.clear()


def _show_saved(client: RecdClient, output: Output, line: LiveLine, uids: set[str]) -> set[str]:
    """Show those of `uids` that have ended; returns them."""
    if not uids:
        return uids
    takes = client.call("episodes", limit=20)["episodes"]
    ended = [take for take in takes if take["uid"] in uids and take["state"] in ENDED]
    for take in ended:
        line.clear()
        output.show(take, show.episode)
    return {take["uid"] for take in ended}


def _now(status: Mapping[str, Any]) -> list[str]:
    """The live line: session, arms, rollout."""
    arms = [
        f"{pair} {arm['motion'].get('state', 'unknown')} ({arm['motion'].get('cause', 'unknown')})"
        for pair, arm in status["arms"].items()
    ]
    episode = status.get("episode")
    rows = [f"{episode['rows']} rows"] if episode else []
    return [status["state"], *rows, *arms, _words(status["rollout"])]


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
