"""recctl top, shm, snapshot, devices: looking at a running daemon and at this computer."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from recd.clients.recctl import show
from recd.clients.recctl.output import Output, table
from recd.config.errors import RecdError


@click.command()
@click.option("-w", "--watch", is_flag=True, help="Keep showing until Ctrl-C.")
@click.pass_obj
def top(output: Output, watch: bool) -> None:
    """Processes: CPU, memory, lateness, work and losses."""
    with output.client() as client:
        before = client.status()
        while True:
            for _ in client.events("state", timeout_s=1.0):
                pass
            now = client.status()
            if watch and not output.as_json:
                click.clear()
            output.show(now.get("processes", {}), partial(show.top, before, now))
            if not watch:
                return
            before = now


@click.command()
@click.pass_obj
def shm(output: Output) -> None:
    """Rings in shared memory: size, fill, readers and their losses."""
    output.show(output.call("shm"), show.rings)


@click.command()
@click.argument("camera", required=False)
@click.option("-o", "--output-dir", type=click.Path(path_type=Path), default=Path("snapshots"),
              show_default=True)  # fmt: skip
@click.pass_obj
def snapshot(output: Output, camera: str | None, output_dir: Path) -> None:
    """What every camera sees now: one JPEG each and a contact sheet."""
    from recd.clients.recctl.contact_sheet import write_contact_sheet

    told = output.call("snapshot", camera=camera)
    output_dir.mkdir(parents=True, exist_ok=True)
    written = {}
    for picture in told["pictures"]:
        name, source = picture["camera"], Path(picture["path"])
        target = output_dir / f"{name}{source.suffix}"
        target.write_bytes(source.read_bytes())
        written[name] = {**picture, "path": str(target)}
    if not written:
        raise RecdError("no camera has delivered a picture yet", mend="recctl status tells why")
    sheet = write_contact_sheet({n: Path(p["path"]) for n, p in written.items()}, output_dir)
    result = {"pictures": written, "contact_sheet": str(sheet)}
    output.show(result, lambda made: _pictures(made))


def _pictures(made: dict[str, Any]) -> list[str]:
    rows = [
        (name, picture["path"], f"{picture.get('age_ms', 0):.0f} ms old")
        for name, picture in made["pictures"].items()
    ]
    return [*table(("camera", "file", "age"), rows), f"contact sheet: {made['contact_sheet']}"]


@click.command()
@click.pass_obj
def devices(output: Output) -> None:
    """Cameras and serial ports of this computer: stable names, formats, who uses them."""
    from recd.daemon.arms.ports import list_ports
    from recd.daemon.cameras.discover import list_cameras

    found = {
        "cameras": [camera.to_dict() for camera in list_cameras()],
        "serial_ports": [asdict(port) for port in list_ports()],
    }
    output.show(found, show.devices)
