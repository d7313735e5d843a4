"""recctl demo: the whole of recd in a minute, with the simulated robot and the real code.

Starts a daemon of its own, records three short episodes by a plan (one of them twice), shows what
was kept, verifies the dataset and leaves nothing behind but the dataset.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from recd.clients.client import RecdClient
from recd.clients.recctl import show
from recd.clients.recctl.dataset import show_verified, verified
from recd.clients.recctl.demo_daemon import (
    directory_option,
    overrides_option,
    say_unless,
    started,
)
from recd.clients.recctl.demo_policy import policy
from recd.clients.recctl.output import Output
from recd.clients.recctl.record import LiveLine, Told
from recd.config.load import load_robot

CLIENT = "recctl_demo"
REDO_AFTER_S = 1.5


@click.group(invoke_without_command=True)
@click.option("-n", "--episodes", type=click.IntRange(1, 100), default=3, show_default=True,
              help="How many.")  # fmt: skip
@click.option("--episode-time", "episode_s", type=click.FloatRange(2.0, 600), default=5.0,
              show_default=True, metavar="S", help="Length of an episode in seconds.")  # fmt: skip
@click.option("--reset-time", "reset_s", type=click.FloatRange(0, 60), default=1.0,
              show_default=True, metavar="S", help="Time between episodes.")  # fmt: skip
@directory_option
@overrides_option
@click.pass_context
def demo(
    ctx: click.Context, episodes: int, episode_s: float, reset_s: float, directory: Path,
    overrides: tuple[str, ...],
) -> int:  # fmt: skip
    """Record three short episodes with the simulated robot, one of them twice, and verify them."""
    if ctx.invoked_subcommand is not None:
        return 0
    output: Output = ctx.obj
    directory = directory.absolute()
    overrides = (f"dataset.root={directory / 'dataset'}", *overrides)
    robot = load_robot("demo", overrides=overrides)
    root = robot.dataset_root
    from recd.daemon.dataset.verify import verify_dataset

    say = say_unless(output.as_json)
    say("starting recd with a simulated SO-101 pair and two cameras ...")
    with started(robot.instance_name, directory, overrides) as client:
        client.arm()
        client.wait_for_motion("TELEOP")
        say("armed: the follower follows the leader at 250 Hz")
        saved = _record(client, episodes, episode_s, reset_s, output)
        client.shutdown()
    report = verified(root, verify_dataset(root))
    told = {"dataset": str(root), "episodes": saved, "verify": report}
    output.show(told, lambda _: _what_next(root, report))
    return 0 if report["good"] and len(saved) == episodes else 1


demo.add_command(policy)


def _record(
    client: RecdClient, episodes: int, episode_s: float, reset_s: float, output: Output
) -> list[dict[str, Any]]:
    """Run the plan; press `redo` once in the second episode. Returns the saved episodes."""
    line = LiveLine(live=sys.stdout.isatty() and not output.as_json, bell=False)
    client.call("plan.start", episodes=episodes, episode_s=episode_s, reset_s=reset_s,
                resume=True, client=CLIENT)  # fmt: skip
    told, redone, phase = Told(client), False, ""
    while phase != "done":
        client.pause(0.2, "plan", "episode")
        plan, now = told.look(CLIENT)
        phase = plan["phase"]
        if not output.as_json:
            line.update(plan, now)
        if not redone and _in_second_take(plan, episodes):
            client.call("plan.key", key="rerecord")
            line.say("  key ←: this take is thrown away and recorded again")
            redone = True
        for episode in told.finished(plan):
            line.clear()
            if not output.as_json:
                output.show(episode, show.episode)
    line.clear()
    takes = client.call("episodes", limit=200)["episodes"]
    return [take for take in takes if take["state"] == "saved"]


def _in_second_take(told: dict[str, Any], episodes: int) -> bool:
    return (
        told["phase"] == "recording"
        and told["episode"] == min(2, episodes)
        and told["elapsed_s"] > REDO_AFTER_S
    )


def _activate() -> list[str]:
    """How the commands below are found, where the shell does not know them yet."""
    if shutil.which("recctl") or sys.prefix == sys.base_prefix:
        return []
    return [f"  . {os.path.relpath(sys.prefix)}/bin/activate"]


def _what_next(root: Path, report: dict[str, Any]) -> list[str]:
    return [
        "",
        *show_verified(report),
        "try next:",
        *_activate(),
        "  recd run demo                 the same daemon, for your own hands",
        "  recctl record -n 2 --episode-time 10 --reset-time 5 --arm --resume",
        "  recctl config preset so101 > my_robot.yaml   then edit ports and cameras",
        f"  lerobot: LeRobotDataset('local/recd_demo', root='{root}')",
    ]
