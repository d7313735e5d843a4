"""How a client enters a daemon: whether one listens, which key is used, what a refusal means."""

import errno
import grp
import os
import pwd
import socket as sockets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from recd.config.endpoints import Endpoint, parse_endpoint
from recd.config.errors import RecdError
from recd.config.keys import Pair, fingerprint, keys_folder, read_pair
from recd.config.paths import open_to_group

DEFAULT_KEY = "client.key"
"""In the folder of keys: used for other computers when no key is named."""

HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
"""Events of a socket monitor: the daemon has turned this client away."""


class NotRunningError(RecdError):
    """No daemon answers at the endpoint."""

    code = "not_running"


def find_key(key: Path | str | None, *, needed: bool) -> Pair | None:
    """The client's key: `key`, else RECD_KEY, else client.key in the folder of keys.

    Raises KeyFileError for a file that cannot be used; RecdError when one is `needed` and there is
    none.
    """
    named = key or os.environ.get("RECD_KEY")
    if named:
        pair = read_pair(Path(named).expanduser())
        if not pair.server:
            raise RecdError(
                f"{named}: expected a client's key, found the daemon's own",
                mend="recctl keys make NAME --role ROLE makes one.",
                code="key",
            )
        return pair
    default = keys_folder() / DEFAULT_KEY
    if not needed:
        return None
    if default.exists():
        return find_key(default, needed=True)
    raise RecdError(
        "a daemon on another computer asks for a key; none was named",
        mend=f"--key FILE, or RECD_KEY, or {default}; on the daemon's computer: recctl keys make",
        code="key",
    )


def use_key(socket: "zmq.Socket[bytes]", pair: Pair | None) -> None:
    """Speak CURVE with the key, to the daemon that it names only; None speaks plainly."""
    if pair is not None:
        socket.setsockopt(zmq.CURVE_SERVERKEY, pair.server.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())


def turned_away(endpoint: str, pair: Pair | None, failed: int) -> RecdError:
    """What a failed handshake means, as far as the daemon says."""
    if pair is None:
        return RecdError(
            f"{endpoint}: the daemon asks for a key",
            mend="--key FILE or RECD_KEY; on the daemon's computer: recctl keys make",
            code="key",
        )
    who = f"key {pair.name!r}, {fingerprint(pair.public)}"
    if failed == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return RecdError(
            f"{endpoint}: the daemon refuses this key ({who}): not on its list, or revoked",
            mend="On the daemon's computer: recctl keys list",
            code="key",
        )
    return RecdError(
        f"{endpoint}: expected the daemon with key {fingerprint(pair.server)}, found another "
        f"one, or one without keys ({who})",
        mend="Is it the right address? On the daemon's computer: recctl keys show server",
        code="key",
    )


def parsed(endpoint: str) -> Endpoint:
    """The address in `endpoint`. RecdError (code `usage`) when it is none of ours."""
    try:
        return parse_endpoint(endpoint, named="--endpoint")
    except RecdError as error:
        raise RecdError(error.message, mend=error.mend, code="usage") from None


def bad_endpoint(endpoint: str, reason: str) -> RecdError:
    """An address that ZeroMQ does not take, and why."""
    return RecdError(
        f"--endpoint: expected a ZeroMQ address, found {endpoint!r} ({reason})",
        mend="For instance ipc:///run/recd/demo/ctl.sock or tcp://127.0.0.1:5591",
        code="usage",
    )


def check_reachable(endpoint: str, asked: str = "") -> None:
    """Whether a process listens at `endpoint`. A tcp one is at fault only when it refuses.

    asked: the command that waits for a reply, for the message. Raises NotRunningError when nobody
    listens (a killed daemon leaves its socket file), RecdError when this user may not connect.
    """
    if not endpoint.startswith("ipc:///"):
        _check_tcp(endpoint)
        return
    path = endpoint.removeprefix("ipc://")
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            reason = probe.connect_ex(path)
        except OSError as error:
            raise bad_endpoint(endpoint, str(error)) from error
    if reason in (errno.EACCES, errno.EPERM):
        raise not_allowed(Path(path).parent)
    if reason not in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
        return
    if asked:
        raise NotRunningError(
            f"{asked}: the daemon ended before it answered",
            mend="Its log tells why. What was recorded is saved at the next start: recd run CONFIG",
        )
    raise NotRunningError(
        f"no recd daemon listens at {path}", mend="Start it: recd run CONFIG (try: recd run demo)"
    )


def _check_tcp(endpoint: str) -> None:
    address = parsed(endpoint)
    try:
        sockets.create_connection((address.host.strip("[]"), address.port), timeout=1.0).close()
    except ConnectionRefusedError:
        raise NotRunningError(
            f"no recd daemon listens at {endpoint}",
            mend="Is it the daemon's control.endpoint, and does the daemon run?",
        ) from None
    except OSError:  # slow, or no way there at this moment: ZeroMQ tries until the deadline
        return


def not_allowed(directory: Path) -> RecdError:
    """A folder that this user may not enter: whose it is, and how one gets in."""
    facts = directory.stat()
    user, group = _name(pwd.getpwuid, facts.st_uid), _name(grp.getgrgid, facts.st_gid)
    if open_to_group(directory):
        mend = f"Join the group: sudo usermod -aG {group} $USER, then log in again."
    else:
        mend = f"Run recctl as {user}."
    return RecdError(
        f"{directory}: permission denied: the daemon is operated by the user {user}"
        + (f" and the group {group}" if open_to_group(directory) else ""),
        mend=mend,
        code="permission",
    )


def _name(lookup: Callable[[int], Any], number: int) -> str:
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)
