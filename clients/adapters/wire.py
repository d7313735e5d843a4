"""What the protocol of a policy server has to give to be driven: five calls, each with a deadline.

A wire is one connection. After any error it is closed and thrown away, so that a late answer can
never be taken for the next one. Nothing here knows of leases or arms.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from recd.clients.adapters.profile import Profile
from recd.config.errors import RecdError
from recd.config.models import PolicyServerConfig
from recd.config.policy_wire import MODEL_BYTES, as_line

Floats = npt.NDArray[np.float64]


class WireError(RecdError):
    """A server that is away, silent, or answers what it must not. The connection is of no use
    any more; a new one may be tried."""

    code = "policy_server"


class MismatchError(RecdError):
    """Server, profile and robot do not fit. Trying again does not help: somebody has to mend it."""

    code = "policy_mismatch"


@dataclass(frozen=True, slots=True)
class Described:
    """What a server says of itself before any inference; None where its protocol has no word.

    horizon: steps of a chunk; step_s: seconds between them; images, state, actions: its keys;
    columns: action key -> names in order; history: `images` or `state` -> steps that it wants to
    see, in its order, 0 the present, below 0 the past; prompt: key of the task; facts: all the
    rest, for people; model: which policy of which server, in one line, for the manifest.
    """

    horizon: int | None = None
    step_s: float | None = None
    images: tuple[str, ...] | None = None
    state: tuple[str, ...] | None = None
    actions: tuple[str, ...] | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    history: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    prompt: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""


def model_of(address: str, told: Mapping[str, Any] | None = None) -> str:
    """`Described.model`: the server's address, without user, password and query, and what is told
    of its policy in plain words and numbers."""
    words = [re.sub(r"//[^/]*@", "//", address.partition("?")[0])]
    for name, value in (told or {}).items():
        if isinstance(value, float):
            words.append(f"{name}={value:.6g}")
        elif isinstance(value, str | int):
            words.append(f"{name}={value}")
    return as_line(" ".join(words), MODEL_BYTES)


@dataclass(frozen=True, slots=True)
class View:
    """One observation under the profile's keys, K moments in the server's order, most often the
    present alone. images: uint8 RGB [K, H, W, 3]; state: float32 [K, N], in the profile's units;
    prompt: the task in words."""

    images: Mapping[str, npt.NDArray[np.uint8]]
    state: Mapping[str, npt.NDArray[np.float32]]
    prompt: str


class Wire(Protocol):
    """One connection to one server. Every call raises WireError within its `timeout_s`, or
    MismatchError for what no new connection mends."""

    def connect(self, timeout_s: float) -> None:
        """Open the connection."""

    def describe(self, timeout_s: float) -> Described:
        """What the server says of itself."""

    def infer(self, view: View, timeout_s: float) -> Mapping[str, Floats]:
        """Ask once. Returns float64 [T, N] under each of the profile's action keys."""

    def reset(self, timeout_s: float) -> None:
        """The policy forgets what it had planned; nothing where the protocol has no word for it."""

    def close(self) -> None:
        """Drop the connection at once. Idempotent."""


WIRES: Final[Mapping[str, str]] = {
    "openpi": "recd.clients.adapters.openpi:OpenpiWire",
    "gr00t": "recd.clients.adapters.gr00t:Gr00tWire",
    "lerobot": "recd.clients.adapters.lerobot.wire:LerobotWire",
}
"""`policy.type` -> module:class, called as `cls(server, profile)`. A new protocol is a row here, a
word of PolicyConfig.type, and a default profile (profile.DEFAULTS)."""


def new_wire(kind: str, server: PolicyServerConfig, profile: Profile) -> Wire:
    """A wire that is not connected yet. MismatchError when what it needs is not installed."""
    module, _, name = WIRES[kind].partition(":")
    try:
        make: Callable[[PolicyServerConfig, Profile], Wire] = getattr(
            importlib.import_module(module), name
        )
    except ModuleNotFoundError as error:
        raise MismatchError(
            f"policy.type {kind}: expected the package {error.name}, found none",
            mend=f"Install it into the daemon's environment: pip install {error.name}",
        ) from error
    return make(server, profile)


def secret_of(server: PolicyServerConfig) -> str:
    """The server's key, "" for none. MismatchError for a file that cannot be read."""
    if not server.secret_file:
        return ""
    path = Path(server.secret_file).expanduser()
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise MismatchError(
            f"policy.server.secret_file: expected a readable text file, found {path} ({error})",
            mend="Write the server's API key into it, readable for recd's user.",
        ) from error
