"""recctl keys: who may command this computer's daemon from another one. Files only, no daemon.

A running daemon sees every change by itself. Secrets are written to files and never shown.
"""

from pathlib import Path

import click

from recd.clients.recctl.output import Group, Output, table
from recd.config.errors import RecdError
from recd.config.keys import (
    LIST_FILE,
    SERVER_FILE,
    fingerprint,
    keys_folder,
    make_client,
    make_server,
    read_list,
    read_pair,
    revoke,
)
from recd.config.roles import ROLES, granted
from recd.shm.clock import clock_pair, wall_iso

_folder = click.option(
    "--dir", "folder", metavar="FOLDER", default="", envvar="RECD_KEYS_DIR",
    help="Folder of keys (control.keys_dir); default: recd/keys in your configuration folder.",
)  # fmt: skip


@click.group(cls=Group)
def keys() -> None:
    """Keys of clients on other computers. The list takes effect without a restart."""


def _wall() -> str:
    return wall_iso(clock_pair().real_ns)


@keys.command()
@click.argument("name", required=False)
@click.option("--role", type=click.Choice(list(ROLES)), help="What the key may do.")
@click.option("--file", "-o", metavar="FILE", help="Where the client's key file goes.")
@_folder
@click.pass_obj
def make(output: Output, name: str | None, role: str | None, file: str | None, folder: str) -> None:
    """Make a key for the client NAME; without NAME only the daemon's own pair.

    The daemon's pair is made along with the first key. Carry the file to the client's computer by a
    safe way and delete it here: recctl --endpoint tcp://HOST:PORT --key FILE status.
    """
    place = keys_folder(folder)
    if name is None:
        server, new = make_server(place, created=_wall())
        _show_server(output, place, server.public, new=new)
        return
    if role is None:
        raise click.UsageError(f"--role is missing: one of {', '.join(ROLES)}")
    pair, path = make_client(
        place, name, role, created=_wall(), file=Path(file).absolute() if file else None
    )
    result = {
        "name": name, "role": role, "fingerprint": fingerprint(pair.public),
        "server": fingerprint(pair.server), "file": str(path),
    }  # fmt: skip
    output.show(result, lambda told: [
        f"key of {told['name']}: role {told['role']}, fingerprint {told['fingerprint']}",
        f"  {told['file']}: carry it to the client's computer; whoever has it may enter",
    ])  # fmt: skip


def _show_server(output: Output, place: Path, public: str, *, new: bool) -> None:
    result = {"name": "server", "new": new, "fingerprint": fingerprint(public), "public": public,
              "file": str(place / SERVER_FILE)}  # fmt: skip
    output.show(result, lambda told: f"the daemon's key: fingerprint {told['fingerprint']}"
                f"{'' if told['new'] else ' (was there already)'}")  # fmt: skip


@keys.command(name="list")
@_folder
@click.pass_obj
def list_keys(output: Output, folder: str) -> None:
    """Every key: name, role, when it was made, fingerprint, and when it was revoked."""
    rows = [
        {"name": client.name, "role": client.role, "created": client.created,
         "fingerprint": client.fingerprint, "revoked": client.revoked}
        for client in read_list(keys_folder(folder))
    ]  # fmt: skip
    head = ("name", "role", "created", "fingerprint", "revoked")
    empty = [f"no keys in {keys_folder(folder)}; recctl keys make NAME --role operate"]
    output.show(rows, lambda told: table(
        head, [[row[column] or "-" for column in head] for row in told]
    ) if told else empty)  # fmt: skip


@keys.command()
@click.argument("name")
@_folder
@click.pass_obj
def show(output: Output, name: str, folder: str) -> None:
    """One key, newest first where a name was used again; `server`: the daemon's own."""
    place = keys_folder(folder)
    if name == "server":
        _show_server(output, place, read_pair(place / SERVER_FILE).public, new=True)
        return
    found = [client for client in read_list(place) if client.name == name]
    if not found:
        raise RecdError(f"no key {name!r} in {place / LIST_FILE}", mend="recctl keys list")
    client = found[-1]
    result = {
        "name": client.name, "role": client.role, "may": sorted(granted(client.role)),
        "created": client.created, "revoked": client.revoked,
        "fingerprint": client.fingerprint, "public": client.public,
    }  # fmt: skip
    output.show(result, lambda told: [
        f"{key:<12} {' '.join(value) if isinstance(value, list) else value or '-'}"
        for key, value in told.items()
    ])  # fmt: skip


@keys.command(name="revoke")
@click.argument("name")
@_folder
@click.pass_obj
def revoke_key(output: Output, name: str, folder: str) -> None:
    """Take the key of NAME out of use, at once, also where it is connected."""
    gone = revoke(keys_folder(folder), name, at=_wall())
    output.show(
        {"name": name, "fingerprint": gone.fingerprint, "revoked": gone.revoked},
        lambda told: f"key of {told['name']} ({told['fingerprint']}) is revoked",
    )
