"""openpi's websocket: the server speaks first, then one request and one reply at a time.

Keepalive pings are off: a server that infers on its event loop does not answer them. The deadline
of each call is what bounds it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from recd.clients.adapters.arrays import MOST_BYTES, CodecError, said
from recd.clients.adapters.openpi_codec import decode, encode
from recd.clients.adapters.profile import Profile
from recd.clients.adapters.wire import Described, Floats, View, WireError, model_of, secret_of
from recd.config.models import PolicyServerConfig

DEFAULT_PORT = 8000
LAST_WORDS = 200


def uri_of(address: str) -> str:
    """The websocket address of `policy.server.address`; the protocol's own port here if empty."""
    if not address:
        return f"ws://127.0.0.1:{DEFAULT_PORT}"
    return address if address.startswith(("ws://", "wss://")) else f"ws://{address}"


class OpenpiWire:
    """One connection to an openpi server."""

    def __init__(self, server: PolicyServerConfig, profile: Profile) -> None:
        self._uri = uri_of(server.address)
        self._secret = secret_of(server)
        self._profile = profile
        self._socket: ClientConnection | None = None

    def connect(self, timeout_s: float) -> None:
        """Open the connection; WireError when nobody answers in time."""
        headers = {"Authorization": f"Api-Key {self._secret}"} if self._secret else None
        try:
            self._socket = connect(
                self._uri, compression=None, max_size=MOST_BYTES, additional_headers=headers,
                open_timeout=timeout_s, close_timeout=0.2, ping_interval=None, proxy=None,
            )  # fmt: skip
        except (OSError, WebSocketException, ValueError) as error:
            raise WireError(
                f"{self._uri}: expected an openpi server, found {_why(error)}",
                mend="Start the server, or set policy.server.address.",
            ) from error

    def describe(self, timeout_s: float) -> Described:
        """The metadata that the server sends first; what it may say of chunks is looked at."""
        told = self._receive(timeout_s)
        horizon, step_s = told.get("horizon"), told.get("step_s")
        names = told.get("action_names")
        return Described(
            horizon=horizon if type(horizon) is int else None,
            step_s=float(step_s) if isinstance(step_s, int | float) else None,
            columns={"actions": tuple(map(str, names))} if isinstance(names, list) else {},
            facts={key: value for key, value in told.items() if not isinstance(value, np.ndarray)},
            model=model_of(self._uri, told),
        )

    def infer(self, view: View, timeout_s: float) -> Mapping[str, Floats]:
        """One observation, one chunk: float64 [T, N]."""
        request: dict[str, Any] = {}
        for key, pictures in view.images.items():
            _put(request, key, _ordered(pictures[-1], self._profile.images[key].order))
        for key, states in view.state.items():
            _put(request, key, states[-1])
        if self._profile.prompt:
            _put(request, self._profile.prompt, view.prompt)
        self._send(encode(request))
        told = self._receive(timeout_s)
        return {key: _actions(told, key) for key in self._profile.actions}

    def reset(self, timeout_s: float) -> None:
        """Nothing: the protocol has no word for it, and its servers keep no plan."""
        del timeout_s

    def close(self) -> None:
        """Drop the connection; a late answer goes with it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, data: bytes) -> None:
        assert self._socket is not None
        try:
            self._socket.send(data)
        except (OSError, WebSocketException) as error:
            raise WireError(f"{self._uri}: {_why(error)}", mend="See the server's log.") from error

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        assert self._socket is not None
        try:
            data = self._socket.recv(timeout_s)
        except TimeoutError as error:
            raise WireError(
                f"{self._uri}: expected an answer within {timeout_s:g} s, found none",
                mend="A faster policy, or a longer policy.server.timeout_s.",
            ) from error
        except (OSError, WebSocketException) as error:
            raise WireError(f"{self._uri}: {_why(error)}", mend="See the server's log.") from error
        if isinstance(data, str):
            last = (data.strip().splitlines() or ["nothing"])[-1][:LAST_WORDS]
            raise WireError(f"{self._uri}: the server failed: {last}", mend="See the server's log.")
        try:
            told = decode(data)
        except CodecError as error:
            raise WireError(
                f"{self._uri}: {error.message}", mend="Is it an openpi server?"
            ) from error
        if not isinstance(told, dict):
            raise WireError(f"{self._uri}: expected a map, found {said(told)}",
                            mend="Is it an openpi server?")  # fmt: skip
        return told


def _put(request: dict[str, Any], key: str, value: Any) -> None:
    """Under `a.b`: in the map `a`, as `b`."""
    *maps, last = key.split(".")
    for name in maps:
        request = request.setdefault(name, {})
    request[last] = value


def _ordered(picture: npt.NDArray[np.uint8], order: str) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(picture.transpose(2, 0, 1)) if order == "chw" else picture


def _actions(told: Mapping[str, Any], key: str) -> Floats:
    found = told.get(key)
    if not isinstance(found, np.ndarray) or found.dtype.kind != "f" or found.ndim != 2:
        what = (
            f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else said(found)
        )
        raise WireError(f"{key}: expected an array of floats [T, N], found {what}",
                        mend="Is it the right server, and the right profile?")  # fmt: skip
    return found.astype(np.float64)


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
