"""Two versions of recd that talk to each other: what every one of them understands, what is said.

Requests, replies and the commands of ENDURING keep their form for ever; all else belongs to one
PROTOCOL_VERSION. A message names the recd that sent it; those of the first ones name none.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

ENDURING: Final = ("hello", "status", "stop", "shutdown", "estop", "hold", "disarm")
"""Commands that a daemon carries out for a client of any protocol version: what ends an episode,
an arm's motion or the daemon, and what tells of them."""

UNNAMED: Final = "an earlier recd"
LONGEST: Final = 32
"""Characters of a version that is shown; it comes from whoever sends."""


@cache
def own_version() -> str:
    """Of this recd, without what tells a source tree from an installation."""
    from recd import __version__

    return __version__.partition("+")[0]


def version_of(message: Mapping[str, Any]) -> str:
    """Of the recd that sent `message`; "" when it says none, or nothing that is one."""
    said = message.get("recd", "")
    return said if isinstance(said, str) and said.isprintable() and len(said) <= LONGEST else ""


def daemon_differs(reply: Mapping[str, Any], protocol: int) -> str:
    """What to tell the operator of a daemon that is not of this recd; "" when it is.

    protocol: the one that this side speaks.
    """
    theirs, ours = version_of(reply), own_version()
    if theirs == ours and reply.get("v") == protocol:
        return ""
    named = f"recd {theirs}" if theirs else UNNAMED
    return (
        f"the daemon is of {named}, this client of recd {ours}: "
        "status, stop and shutdown work; update the older one and restart the daemon"
    )


def client_differs(theirs: str, spoken: int, protocol: int) -> str:
    """For the daemon's log: how a client is not of this recd. spoken: its protocol version.

    A client that names no version is a script, or a recctl of a time when none did: no reason to
    complain as long as it speaks today's protocol.
    """
    if spoken == protocol and theirs in ("", own_version()):
        return ""
    return (
        f"{f'recd {theirs}' if theirs else UNNAMED}, protocol {spoken}; "
        f"the daemon is of recd {own_version()}, protocol {protocol}"
    )
