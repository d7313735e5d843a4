"""recctl replay: the actions of a saved episode, played by the arm."""

from pathlib import Path

import click

from recd.clients.policy import PolicyClient
from recd.clients.recctl.output import Output
from recd.clients.replay import Replay, read_actions
from recd.config.errors import RecdError


@click.command()
@click.argument("episode", type=click.IntRange(0))
@click.option("--root", type=click.Path(path_type=Path, file_okay=False),
              help="Dataset of the episode; else the one that is recorded into.")  # fmt: skip
@click.option("--policy", "address", metavar="ADDRESS",
              help="Policy address of a daemon on another computer, with --key.")  # fmt: skip
@click.pass_obj
def replay(output: Output, episode: int, root: Path | None, address: str | None) -> None:
    """Play the actions of EPISODE, by its number, with the arm that is armed now.

    It goes slowly to the first row, then at the pace of the recording, through the limits of the
    arm. Needs the section `policy` in the configuration. Ctrl-C stops: the arm holds.
    """
    with output.client() as control:
        where = root or Path(control.status()["dataset"]["root"])
        actions = read_actions(where, episode)
        if len(actions.rows) == 0:
            raise RecdError(f"episode {episode}: it has no rows", code="argument")
        if address is None and output.endpoint is not None:
            address = output.endpoint.replace("ctl.sock", "policy.sock")
        with PolicyClient(
            output.instance, endpoint=address, key=output.key, name=f"replay of episode {episode}"
        ) as client:
            play = Replay(client, actions, attach=lambda: control.call("policy.attach"))
            told = play.run(_tell if not output.as_json else lambda done, of: None)
    if not output.as_json:
        click.echo()
    output.show(told, lambda said: f"episode {episode}: {said['rows']} rows played; the arm holds")


def _tell(done_s: float, of_s: float) -> None:
    click.echo(f"\r{max(0.0, done_s):.1f} of {of_s:.1f} s", nl=False)
