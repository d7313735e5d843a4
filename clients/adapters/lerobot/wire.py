"""lerobot's PolicyServer as a wire: gRPC with pickles, spoken by a confined sidecar only.

A sidecar that fails is replaced; one whose server failed is kept, with a new connection: it takes
ten seconds to load lerobot. The server says nothing of itself, so the policy is configuration.
"""

import logging
import socket
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from recd.clients.adapters.lerobot.launch import Place, Started
from recd.clients.adapters.lerobot.sidecar import Policy, Sidecar
from recd.clients.adapters.profile import Profile
from recd.clients.adapters.wire import (
    Described,
    Floats,
    MismatchError,
    View,
    WireError,
    model_of,
)
from recd.config.models import PolicyServerConfig
from recd.shm.clock import NS_PER_S, now_ns

LOG = logging.getLogger("recd.sidecar")
"""Without a handler, warnings of Python's logging go to standard error: the daemon's log."""

DEFAULT_ADDRESS = "127.0.0.1:8080"

_PARKED: dict[Place, Sidecar] = {}
"""Sidecars without a connection, of this process: at most one for each configuration."""


class LerobotWire:
    """One connection to one PolicyServer (wire.Wire)."""

    def __init__(self, server: PolicyServerConfig, profile: Profile) -> None:
        told = server.lerobot
        if told is None:
            raise MismatchError(
                "policy.server.lerobot: expected the policy that the server is to load, found none",
                mend="policy.server.lerobot: {python: ENVIRONMENT/bin/python, path: CHECKPOINT}",
            )
        if len(profile.state) != 1 or len(profile.actions) != 1:
            raise MismatchError(
                "profile: expected one array of state and one of actions, as lerobot has them, "
                f"found {len(profile.state)} and {len(profile.actions)}"
            )
        self._address = server.address or DEFAULT_ADDRESS
        self._told = told
        self._state, self._action = next(iter(profile.state)), next(iter(profile.actions))
        self._place = Place(
            python=Path(told.python).expanduser(),
            python_path=tuple(Path(folder).expanduser() for folder in told.python_path),
            confined=told.confinement == "required",
            memory_bytes=told.memory_mb * 2**20,
        )
        self._sidecar: Sidecar | None = None
        self._server: socket.socket | None = None
        self._step = 0

    def connect(self, timeout_s: float) -> None:
        """Reach the server and begin to start the sidecar; `infer` waits until it is ready."""
        self._server = reached(self._address, timeout_s)
        parked = _PARKED.pop(self._place, None)
        if parked is not None and not parked.sound:
            parked.close()
            parked = None
        self._sidecar = Sidecar(self._place) if parked is None else parked
        if parked is None:
            self._log_confinement(self._sidecar.started)

    def _log_confinement(self, started: Started) -> None:
        LOG.warning("sidecar confined: %s", "; ".join(started.got) or "not at all")
        for words in started.missing:
            LOG.warning("sidecar not confined: %s", words)

    def describe(self, timeout_s: float) -> Described:
        """What the sidecar may and may not, for people: the protocol has no word of the policy,
        which is the one that it is asked for."""
        del timeout_s
        assert self._sidecar is not None, "connected"
        started = self._sidecar.started
        facts = {"confined": "; ".join(started.got) or "not at all"}
        if started.missing:
            facts["not confined"] = "; ".join(started.missing)
        asked = {"policy": self._told.policy, "path": self._told.path}
        return Described(facts=facts, model=model_of(self._address, asked))

    def infer(self, view: View, timeout_s: float) -> Mapping[str, Floats]:
        """Ask once; the first time after everything that comes before it."""
        sidecar, until_ns = self._sidecar, now_ns() + int(timeout_s * NS_PER_S)
        assert sidecar is not None, "connected"

        def left_s() -> float:
            if now_ns() >= until_ns:
                raise WireError(f"no answer within {timeout_s:g} s")
            return (until_ns - now_ns()) / NS_PER_S

        state, images = view.state[self._state][-1], {n: p[-1] for n, p in view.images.items()}
        joints = {f"joint_{number}.pos": float(value) for number, value in enumerate(state)}
        shapes = {name: picture.shape for name, picture in images.items()}
        sidecar.await_ready(left_s())
        if self._server is not None:
            server, self._server = self._server, None
            sidecar.join(server, left_s())
        told = self._told
        policy = Policy(
            told.policy, told.path, told.device, told.actions_per_chunk, tuple(joints), shapes
        )
        sidecar.setup(policy, left_s())
        actions = sidecar.infer(joints, images, view.prompt, left_s())
        return {self._action: actions.astype(np.float64)}

    def reset(self, timeout_s: float) -> None:
        """Nothing: the server keeps no plan between two answers."""

    def close(self) -> None:
        """Drop the connection at once. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._sidecar is not None:
            sidecar, self._sidecar = self._sidecar, None
            sidecar.part()
            if sidecar.sound and self._place not in _PARKED:
                _PARKED[self._place] = sidecar
            else:
                sidecar.close()


def reached(server: str, timeout_s: float) -> socket.socket:
    """A connection to HOST:PORT. WireError while nobody listens, MismatchError for no address."""
    host, _, port = server.rpartition(":")
    if not host or not port.isdecimal():
        raise MismatchError(
            f"policy.server.address: expected HOST:PORT, found {server!r}",
            mend="For instance 192.168.1.5:8080",
        )
    try:
        found = socket.create_connection((host.strip("[]"), int(port)), timeout_s)
    except OSError as error:
        raise WireError(
            f"policy.server.address: expected a PolicyServer at {server}, found "
            f"{error.strerror or error}",
            mend="python -m lerobot.async_inference.policy_server --host=... --port=...",
        ) from error
    found.settimeout(None)
    return found
