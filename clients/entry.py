"""How a client enters a daemon on another computer: which key it uses, and what a refusal means."""

import os
from pathlib import Path

import zmq

from recd.config.errors import RecdError
from recd.config.keys import Pair, fingerprint, keys_folder, read_pair

DEFAULT_KEY = "client.key"
"""In the folder of keys: used for other computers when no key is named."""

HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
"""Events of a socket monitor: the daemon has turned this client away."""


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
