"""recctl sim: faults of the simulated robot of a running daemon, and scripted policy servers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import yaml

from recd.clients.client import find_instance
from recd.clients.recctl.output import Group, Output
from recd.clients.recctl.sim_policy import policy
from recd.config.errors import RecdError


@click.group(cls=Group)
def sim() -> None:
    """Faults of the simulated robot, on demand. A DEVICE is a bus (main.follower) or a camera."""


sim.add_command(policy)


@sim.command()
@click.argument("device")
@click.argument("fault")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")
@click.pass_obj
def fault(output: Output, device: str, fault: str, arguments: tuple[str, ...]) -> None:
    """Let FAULT happen to DEVICE.

    \b
    buses    late ms=60, silent, checksum, garbage, short, error; each with ident=3, count=5,
             skip=10 or for_ms=2000; missing, duplicate, brown_out, temperature, voltage,
             overload, block, unplug, plug
    cameras  freeze, skip, stall, half_rate, corrupt, garble, wrong_size, black, delay,
             disconnect, clock_step; with frames=30 (else until cleared) and value=MS

    \b
    recctl sim fault main.follower silent for_ms=2000
    recctl sim fault front freeze frames=30
    """
    given = dict(_pair(argument) for argument in arguments)
    directory = _directory(output)
    if "." in device:
        told = _asked(lambda: _on_bus(directory, "fault", bus=device, kind=fault, **given))
    else:
        told = _asked(lambda: _on_camera(directory, "fault", camera=device, kind=fault, **given))
    output.show(told, lambda _: f"{device}: {fault} {' '.join(arguments)}".rstrip())


@sim.command()
@click.argument("device", required=False)
@click.pass_obj
def clear(output: Output, device: str | None) -> None:
    """End the faults of DEVICE, of all devices when it is left out."""
    directory = _directory(output)
    if device is None or "." in device:
        _asked(lambda: _on_bus(directory, "clear", bus=device or ""))
    if device is None or "." not in device:
        _asked(lambda: _on_camera(directory, "clear", camera=device or "*"))
    output.show({"cleared": device or "*"}, lambda _: f"{device or 'all devices'}: faults ended")


def _pair(argument: str) -> tuple[str, Any]:
    key, separator, value = argument.partition("=")
    if not separator or not key.isidentifier() or key in ("cmd", "bus", "camera", "kind"):
        raise click.UsageError(f"expected KEY=VALUE, found {argument!r}")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise click.UsageError(f"{key}: expected a plain value, found {value!r}") from error


def _directory(output: Output) -> Path:
    """Where the simulated robot of the daemon listens."""
    if output.endpoint is None:
        return find_instance(output.instance) / "sim"
    return Path(output.endpoint.removeprefix("ipc://")).parent / "sim"


def _on_bus(directory: Path, cmd: str, **arguments: Any) -> dict[str, Any]:
    from recd.daemon.sim.control import SimControl

    with SimControl(directory) as control:
        return control.call(cmd, **arguments)


def _on_camera(directory: Path, cmd: str, **arguments: Any) -> dict[str, Any]:
    from recd.daemon.sim.camera_control import call

    return call(str(directory / "cameras.sock"), cmd, **arguments)


def _asked(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The simulator's answer; its refusals are the operator's to mend."""
    try:
        return ask()
    except ValueError as error:
        raise RecdError(str(error), mend="recctl sim fault --help", code="argument") from error
