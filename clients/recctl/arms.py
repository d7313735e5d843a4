"""recctl arm, hold, estop, ...: who moves the robot. `release` works without any daemon."""

import click

from recd.clients.recctl import show
from recd.clients.recctl.output import Output

PAIR = click.argument("pair", required=False)
POLICY = click.option("--policy", type=click.Choice(["hold", "park", "release"]), default=None,
                      help="What the torque does; else as configured.")  # fmt: skip


@click.command()
@PAIR
@click.pass_obj
def arm(output: Output, pair: str | None) -> None:
    """Torque on, glide to the leader and follow it. Waits while their poses differ too much."""
    output.show(output.call("arm", pair=pair), show.motion)


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
    output.show(output.call("teleop", pair=pair), show.motion)


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
    output.show(output.call("resume", pair=pair), show.motion)


@click.command()
@PAIR
@click.pass_obj
def estop(output: Output, pair: str | None) -> None:
    """Stand still within one control period. A second estop applies the torque policy."""
    output.show(output.call("estop", pair=pair), show.motion)
