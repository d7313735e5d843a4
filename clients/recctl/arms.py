"""recctl arm, hold, estop, ...: who moves the robot. `release` works without any daemon."""

from dataclasses import asdict
from typing import Any

import click

from recd.clients.client import RecdClient
from recd.clients.recctl import show
from recd.clients.recctl.output import Output, complete_config
from recd.shm.clock import NS_PER_S, now_ns

PAIR = click.argument("pair", required=False)
POLICY = click.option("--policy", type=click.Choice(["hold", "park", "release"]), default=None,
                      help="What the torque does; else as configured.")  # fmt: skip


SETTLE_S = 3.0


def _settled(client: RecdClient, pair: str | None) -> dict[str, Any]:
    """Motion of all pairs once those that were told to move follow, or say what they wait for."""
    until_ns = now_ns() + int(SETTLE_S * NS_PER_S)
    while True:
        arms = client.status()["arms"]
        undecided = any(
            "leader" in one
            and one["motion"].get("state") == "HOLD"
            and not one["motion"].get("waiting_joints")
            for name, one in arms.items()
            if pair in (None, name)
        )
        if not undecided or now_ns() > until_ns:
            return {"motion": {name: one["motion"] for name, one in arms.items()}}
        client.pause(0.1, "event")


@click.command()
@PAIR
@click.pass_obj
def arm(output: Output, pair: str | None) -> None:
    """Torque on, glide to the leader and follow it. Waits while their poses differ too much.

    An arm whose process is still starting is waited for, as long as --timeout allows.
    """
    with output.client() as client:
        client.arm(pair)
        output.show(_settled(client, pair), show.motion)


@click.command()
@PAIR
@POLICY
@click.pass_obj
def disarm(output: Output, pair: str | None, policy: str | None) -> None:
    """Stop following the leader."""
    output.show(output.call("disarm", pair=pair, policy=policy), show.motion)


@click.command()
@PAIR
@click.pass_obj
def teleop(output: Output, pair: str | None) -> None:
    """Follow the leader (after hold, pause or replay)."""
    with output.client() as client:
        client.call("teleop", pair=pair)
        output.show(_settled(client, pair), show.motion)


@click.command()
@PAIR
@click.pass_obj
def hold(output: Output, pair: str | None) -> None:
    """Stand still with torque on."""
    output.show(output.call("hold", pair=pair), show.motion)


@click.command()
@PAIR
@click.pass_obj
def resume(output: Output, pair: str | None) -> None:
    """Go on after hold: glide to the leader and follow it."""
    with output.client() as client:
        client.call("resume", pair=pair)
        output.show(_settled(client, pair), show.motion)


@click.command()
@PAIR
@click.pass_obj
def estop(output: Output, pair: str | None) -> None:
    """Stand still within one control period. A second estop applies the torque policy."""
    output.show(output.call("estop", pair=pair), show.motion)


@click.command()
@click.argument("config", shell_complete=complete_config)
@click.argument("bus", required=False)
@POLICY
@click.option("--force", is_flag=True, help="Also while another process has the port open.")
@click.pass_obj
def release(output: Output, config: str, bus: str | None, policy: str | None, force: bool) -> None:
    """Apply the torque policy of CONFIG to BUS (all followers when left out), without a daemon."""
    from recd.config.load import dump, load_robot
    from recd.config.paths import runtime_dir
    from recd.daemon.arms.release import release as release_bus

    robot = load_robot(config, check_machine=False)
    directory = str(runtime_dir(robot.instance_name, robot.control.runtime_dir))
    buses = [bus] if bus else [name for name in robot.buses() if name.endswith(".follower")]
    reports = [
        asdict(release_bus(dump(robot), name, policy=policy, force=force, runtime_dir=directory))
        for name in buses
    ]
    output.show({"released": reports}, _released)


def _released(told: dict[str, Any]) -> list[str]:
    return [
        f"{report['bus']}: {report['policy']}, torque on at "
        f"{sum(report['torque_after'])} of {len(report['torque_after'])} joints"
        f"{f' ({note})' if (note := report['note']) else ''}"
        for report in told["released"]
    ]
