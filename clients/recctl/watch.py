"""recctl top, shm, snapshot, devices: looking at a running daemon and at this computer."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from recd.clients.recctl import show, show_top
from recd.clients.recctl.output import Output, table
from recd.config.errors import RecdError
from recd.shm.clock import NS_PER_S, now_ns, sleep_until_ns

TOP_S = 1.0
"""Time over which `top` measures the CPU."""


@click.command()
@click.option("-w/-1", "--watch/--once", default=None,
              help="Keep showing until Ctrl-C, or look once. Without: keeps showing on a terminal, "
              "looks once into a file, a pipe or with --json.")  # fmt: skip
@click.pass_obj
def top(output: Output, watch: bool | None) -> None:
    """Processes: CPU, memory, lateness, work, ring lag and losses."""
    if watch is None:
        watch = sys.stdout.isatty() and not output.as_json
    with output.client() as client:
        before = client.status()
        while True:
            sleep_until_ns(now_ns() + int(TOP_S * NS_PER_S))
            now, rings = client.status(), client.call("shm")["rings"]
            if watch and not output.as_json:
                click.clear()
            output.show(show_top.costs(before, now, rings), show_top.top)
            if not watch:
                return
            before = now


@click.command()
@click.pass_obj
def shm(output: Output) -> None:
    """Rings in shared memory: size, fill, readers and their losses."""
    with output.client() as client:
        told, processes = client.call("shm"), client.status()["processes"]
    names = {process["pid"]: name for name, process in processes.items()}
    for ring in told["rings"]:
        for reader in ring["readers"]:
            reader["process"] = names.get(reader["pid"], "")
    output.show(told, show.rings)


@click.command()
@click.argument("camera", required=False)
@click.option("-o", "--output-dir", type=click.Path(path_type=Path, file_okay=False),
              default=Path("snapshots"), show_default=True, help="Where they go.")  # fmt: skip
@click.pass_obj
def snapshot(output: Output, camera: str | None, output_dir: Path) -> None:
    """What every camera sees now: one JPEG each and a contact sheet."""
    from recd.clients.recctl.pictures import save_picture, write_contact_sheet

    told = output.call("snapshot", camera=camera)
    failed = dict(told.get("failed", {}))
    if not told["pictures"]:
        raise RecdError(
            "no camera has delivered a picture yet: " + "; ".join(failed.values()),
            mend="recctl status tells why",
            code="device",
        )
    output_dir.mkdir(parents=True, exist_ok=True)
    written = {
        picture["camera"]: {**picture, "path": str(save_picture(picture, output_dir))}
        for picture in told["pictures"]
    }
    sheet, unreadable = write_contact_sheet(
        {name: Path(picture["path"]) for name, picture in written.items()}, output_dir
    )
    failed |= {name: f"camera {name}: the picture is damaged" for name in unreadable}
    result = {"pictures": written, "failed": failed, "contact_sheet": str(sheet)}
    output.show(result, _pictures)


def _pictures(made: dict[str, Any]) -> list[str]:
    rows = [
        (name, picture["path"], f"{picture.get('age_ms', 0):.0f} ms old")
        for name, picture in made["pictures"].items()
    ]
    lines = [*table(("camera", "file", "age"), rows), f"contact sheet: {made['contact_sheet']}"]
    return [*lines, *(click.style(reason, fg="red") for reason in made["failed"].values())]


@click.command()
@click.option(
    "--scan",
    "ports",
    multiple=True,
    metavar="PORT",
    help="Also ask which servos are on this free serial port; repeatable.",
)
@click.pass_obj
def devices(output: Output, ports: tuple[str, ...]) -> None:
    """Cameras and serial ports of this computer: stable names, formats, who uses them."""
    from recd.daemon.arms.ports import list_ports
    from recd.daemon.arms.scan import scan_port
    from recd.daemon.cameras.discover import list_cameras

    found = {
        "cameras": [camera.to_dict() for camera in list_cameras()],
        "serial_ports": [asdict(port) for port in list_ports()],
        "scans": [asdict(scan_port(port)) for port in ports],
    }
    output.show(found, show.devices)
