"""recctl demo policy: a scripted server drives the simulated robot, and an episode of it is kept.

Starts a daemon and a server of its own and ends both. The arm is armed by it: it is simulated.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from recd.clients.client import RecdClient
from recd.clients.policybench.script import Script
from recd.clients.recctl import show
from recd.clients.recctl.demo_daemon import (
    directory_option,
    overrides_option,
    say_unless,
    started,
)
from recd.clients.recctl.output import Output
from recd.clients.recctl.policy import stats_lines
from recd.clients.recctl.sim_policy import WIRES, new_server
from recd.config.errors import RecdError
from recd.config.load import load_robot
from recd.shm.clock import NS_PER_S, now_ns

OFFER_S = 60.0
TURN_S = 0.1
SIDECAR = "policy.server.lerobot"
SIDECAR_MEND = (
    f"Give --set '{SIDECAR}={{python: ENVIRONMENT/bin/python, path: scripted}}': what lerobot's "
    "server sends is read in lerobot's own environment only."
)


@click.command()
@click.option("--wire", type=click.Choice(WIRES), default="openpi",
              show_default=True, help="Protocol of the server.")  # fmt: skip
@click.option("--latency", "latency_ms", type=click.FloatRange(0, 900), default=80.0,
              show_default=True, metavar="MS", help="Time of an inference.")  # fmt: skip
@click.option("--episode-time", "episode_s", type=click.FloatRange(2.0, 600), default=6.0,
              show_default=True, metavar="S", help="How long it drives.")  # fmt: skip
@directory_option
@overrides_option
@click.pass_obj
def policy(
    output: Output, wire: str, latency_ms: float, episode_s: float, directory: Path,
    overrides: tuple[str, ...],
) -> int:  # fmt: skip
    """A scripted policy drives the simulated robot and is recorded."""
    if wire == "lerobot" and not any(o.startswith(f"{SIDECAR}=") for o in overrides):
        raise RecdError(f"{SIDECAR}: expected lerobot's interpreter, found none", mend=SIDECAR_MEND)
    directory = directory.absolute()
    script, say = Script(latency_ms=latency_ms), say_unless(output.as_json)
    server = None if wire == "zmq" else new_server(wire, script)
    told = [f"dataset.root={directory / 'dataset'}", f"policy.type={wire}", *overrides]
    if server is not None:
        told.insert(2, f"policy.server.address={server.address}")
        say(f"a scripted {wire} server at {server.address}, {latency_ms:g} ms an inference")
    instance = load_robot("demo", overrides=tuple(told)).instance_name
    with ExitStack() as ends:
        if server is not None:
            ends.callback(server.close)
        say("starting recd with a simulated SO-101 pair and two cameras ...")
        client = ends.enter_context(started(instance, directory, tuple(told)))
        if server is None:
            server = new_server(wire, script, instance=instance)
            ends.callback(server.close)
        episode, stats = _drive(client, episode_s, say)
        server.close()
        client.shutdown()
    result = {"episode": episode, "stats": stats, "served": server.served}
    output.show(result, lambda _: [*show.episode(episode), *stats_lines(stats),
                                   f"{server.served} chunks served"])  # fmt: skip
    return 0


def _drive(
    client: RecdClient, episode_s: float, say: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arm, hold, attach, record. Returns the saved episode and the gateway's numbers."""
    client.arm()
    client.wait_for_motion("TELEOP")
    client.call("hold")
    client.wait_for_motion("HOLD")
    _attach(client)
    client.wait_for_motion("POLICY")
    say("attached: the policy drives; recording ...")
    client.start()
    seen: Counter[str] = Counter()
    until_ns = now_ns() + int(episode_s * NS_PER_S)
    while now_ns() < until_ns:
        client.pause(TURN_S, "state")
        seen[str(client.status()["arms"]["main"]["motion"]["state"])] += 1
    stats = client.call("policy.stats")
    episode = client.stop()
    client.call("policy.detach")
    say("motion while recording: " + ", ".join(f"{count} x {word}" for word, count in seen.items()))
    return episode, stats


def _attach(client: RecdClient) -> None:
    """As soon as its chunks are sound; RecdError with the last reason if they never are."""
    deadline_ns = now_ns() + int(OFFER_S * NS_PER_S)
    while True:
        try:
            client.call("policy.attach")
        except RecdError:
            if now_ns() > deadline_ns:
                raise
            client.pause(TURN_S, "state")
        else:
            return
