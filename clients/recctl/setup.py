"""recctl config, completion: setting up."""

from pathlib import Path
from typing import Any

import click
import yaml

from recd.clients.recctl.output import Group, Output, complete_config
from recd.config.load import dump, load_robot, preset_names, read_source
from recd.config.models import RobotConfig

OVERRIDE = click.option("--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE",
                        help="Change one value; may be given often.")  # fmt: skip


@click.group(cls=Group)
def config() -> None:
    """Check, show or update a configuration. CONFIG is a YAML file or the name of a preset."""


@config.command()
@click.argument("config", shell_complete=complete_config)
@OVERRIDE
@click.pass_obj
def check(output: Output, config: str, overrides: tuple[str, ...]) -> None:
    """Say whether CONFIG can work: every problem with key, file and line.

    Connected cameras are asked what they can do, and the dataset folder, if there is one already,
    for which robot it is. The arms are not asked.
    """
    from recd.daemon.preflight import check_here

    robot = load_robot(config, overrides=overrides)
    check_here(robot, config, overrides=overrides)
    output.show({"ok": True, "robot": robot.name}, lambda _: _summary(config, robot))


def _summary(name: str, robot: RobotConfig) -> list[str]:
    cameras = ", ".join(
        f"{key} {camera.width}x{camera.height}@{camera.fps:g}"
        for key, camera in robot.cameras.items()
    )
    arms = ", ".join(f"{key} {arm.type} {arm.rate_hz} Hz" for key, arm in robot.arms.items())
    return [
        f"{name}: ok",
        f"  cameras: {cameras or 'none'}",
        f"  arms:    {arms}",
        f"  dataset: {robot.dataset_root} ({robot.dataset.repo_id}, {robot.dataset.fps} fps)",
    ]


@config.command()
@click.argument("config", shell_complete=complete_config)
@OVERRIDE
@click.pass_obj
def show(output: Output, config: str, overrides: tuple[str, ...]) -> None:
    """Print CONFIG with every default filled in."""
    full = dump(load_robot(config, overrides=overrides, check_machine=False))
    output.show(full, lambda data: yaml.safe_dump(data, sort_keys=False).rstrip())


@config.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--write", is_flag=True, help="Change FILE; a copy of the old one is kept beside it.")
@click.pass_obj
def migrate(output: Output, file: Path, *, write: bool) -> None:
    """Show what a FILE of an older recd looks like today, as a difference.

    An older file works as it is; --write brings it up to date, comments and order stay. A file of
    a newer recd is refused.
    """
    from recd.clients.recctl.migrate import bring_up

    told = bring_up(file, write=write)
    output.show(told, lambda t: _migrated(file, t))


def _migrated(file: Path, told: dict[str, Any]) -> list[str]:
    if not told["changed"]:
        return [f"{file}: is of today's version ({told['to']}); nothing to change"]
    done = (
        f"{file}: now of version {told['to']}; the old one is {told['backup']}"
        if told["written"]
        else f"{file}: not changed; recctl config migrate --write {file}"
    )
    return [*told["diff"].splitlines(), done]


@config.command()
@click.argument("preset", required=False, type=click.Choice(preset_names()))
@click.pass_obj
def preset(output: Output, preset: str | None) -> None:
    """List the presets, or print one as a starting point for your own file."""
    if preset is None:
        output.show(list(preset_names()), lambda names: list(names))
        return
    data = read_source(preset).data
    output.show(data, lambda plain: yaml.safe_dump(plain, sort_keys=False).rstrip())


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_obj
def completion(output: Output, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash  recctl completion bash > ~/.local/share/bash-completion/completions/recctl
    zsh   recctl completion zsh > DIR/_recctl      (DIR: one of $fpath)
    fish  recctl completion fish > ~/.config/fish/completions/recctl.fish
    """
    from click.shell_completion import get_completion_class

    from recd.clients.recctl.cli import recctl

    completer = get_completion_class(shell)
    assert completer is not None, "click knows all three shells"
    script = completer(recctl, {}, "recctl", "_RECCTL_COMPLETE").source()
    output.show({"shell": shell, "script": script}, lambda told: told["script"])
