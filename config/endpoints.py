"""Addresses of the control plane: what they mean, and who could reach them.

Only `ipc://` with a path and `tcp://` exist. Whatever is not plainly this computer counts as
reachable from others.
"""

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Final

from recd.config.errors import RecdError

PORTS: Final = range(1, 65536)
_TCP = re.compile(r"tcp://(\[[0-9a-fA-F:]+\]|[^:/\s\[\]]+):(\d{1,5})")
_MEND = "For instance ipc:///run/recd/demo/ctl.sock or tcp://127.0.0.1:5591"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address. path: of an ipc socket; host, port: of a tcp one; local: only this computer."""

    text: str
    path: str = ""
    host: str = ""
    port: int = 0
    local: bool = True

    @property
    def events(self) -> str:
        """Where the events of the daemon at this address are published.

        Beside an ipc `ctl.sock` in `evt.sock`, beside any other ipc path under `.evt`, beside a tcp
        port at the next port.
        """
        if not self.path:
            return f"tcp://{self.host}:{self.port + 1}"
        folder, found, rest = self.path.rpartition("/ctl.sock")
        return f"ipc://{folder}/evt.sock" if found and not rest else f"ipc://{self.path}.evt"

    def asks_for_keys(self, curve: str) -> bool:
        """Whether peers need a key here; curve: `control.curve`. File sockets have their mode."""
        return not self.path and (curve == "always" or not self.local)


def parse_endpoint(text: str, *, named: str = "control.endpoint") -> Endpoint:
    """The address in `text`. RecdError (code `endpoint`) when it is none of ours.

    named: what the message calls it.
    """
    if text.startswith("ipc://"):
        path = text.removeprefix("ipc://")
        if path.startswith("/") and "\0" not in path:
            return Endpoint(text, path=path)
        raise _wrong(named, "ipc:// with an absolute path (abstract sockets have no owner)", text)
    found = _TCP.fullmatch(text)
    # One port more carries the events.
    if found is None or int(found[2]) not in PORTS or int(found[2]) + 1 not in PORTS:
        raise _wrong(named, "ipc:///PATH or tcp://HOST:PORT", text)
    host = "127.0.0.1" if found[1] == "localhost" else found[1]
    return Endpoint(f"tcp://{host}:{found[2]}", host=host, port=int(found[2]), local=is_local(host))


def policy_doors(base: Endpoint) -> tuple[Endpoint, Endpoint, Endpoint]:
    """(requests, observations, actions) of the policy gateway at `base`; events as everywhere.

    Of an ipc path `x.sock`: `x-obs.sock` and `x-act.sock`; of a tcp port: two and three further.
    """
    if base.path:
        stem = base.path.removesuffix(".sock")
        observations, actions = f"{stem}-obs.sock", f"{stem}-act.sock"
        return base, _at_path(observations), _at_path(actions)
    return base, _at_port(base, base.port + 2), _at_port(base, base.port + 3)


def _at_path(path: str) -> Endpoint:
    return Endpoint(f"ipc://{path}", path=path)


def _at_port(base: Endpoint, port: int) -> Endpoint:
    return replace(base, text=f"tcp://{base.host}:{port}", port=port)


def is_local(host: str) -> bool:
    """True for this computer's own loopback address, and for nothing else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _wrong(named: str, expected: str, found: str) -> RecdError:
    return RecdError(f"{named}: expected {expected}, found {found!r}", mend=_MEND, code="endpoint")
