"""GR00T's ZeroMQ request and reply, in whichever of its three msgpack forms the server speaks.

Everything is driven by what `get_modality_config` says. One socket is one attempt: after a missed
deadline it is closed, and the answer that still comes is never read.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import zmq

from recd.clients.adapters.arrays import MOST_BYTES, CodecError, said
from recd.clients.adapters.gr00t_codec import Form, Modality, decode, encode
from recd.clients.adapters.profile import Profile
from recd.clients.adapters.wire import (
    Described,
    Floats,
    MismatchError,
    View,
    WireError,
    model_of,
    secret_of,
)
from recd.config.models import PolicyServerConfig

DEFAULT_PORT = 5555
PREFIX = {"video": "video.", "state": "state.", "action": "action."}


def address_of(address: str) -> str:
    """ZeroMQ's form of `policy.server.address`; the protocol's own port here if empty."""
    if not address:
        return f"tcp://127.0.0.1:{DEFAULT_PORT}"
    return address if address.startswith("tcp://") else f"tcp://{address}"


class Gr00tWire:
    """One connection to a GR00T server."""

    def __init__(self, server: PolicyServerConfig, profile: Profile) -> None:
        self._address = address_of(server.address)
        self._secret = secret_of(server)
        self._profile = profile
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._form: Form | None = None
        self._flat = False
        self._prompt = ""

    def connect(self, timeout_s: float) -> None:
        """Connect and ask for a sign of life; WireError when there is none in time."""
        self._context = zmq.Context()
        socket = self._context.socket(zmq.REQ)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MOST_BYTES)
        try:
            socket.connect(self._address)
        except zmq.ZMQError as error:
            raise MismatchError(
                f"policy.server.address: expected tcp://HOST:PORT, found {self._address!r} "
                f"({error})", mend="For instance tcp://127.0.0.1:5555",
            ) from error  # fmt: skip
        self._socket = socket
        self._ask("ping", None, timeout_s)

    def describe(self, timeout_s: float) -> Described:
        """The modalities, and by their marker the form of the wire."""
        told = self._ask("get_modality_config", None, timeout_s)
        if not isinstance(told, dict) or not all(isinstance(v, Modality) for v in told.values()):
            raise MismatchError(
                f"{self._address}: expected modalities, found {said(told)}",
                mend="Is it a GR00T server?",
            )
        for part in ("video", "state", "action"):
            if part not in told:
                raise MismatchError(f"{self._address}: expected the modality {part}, found "
                                    f"{', '.join(told) or 'none'}")  # fmt: skip
        self._form = told["action"].form
        keys = {part: _keys(told[part], part) for part in told}
        video = keys["video"]
        # Form B and the simulation wrapper name keys with their modality in front.
        self._flat = self._form == "B" or any(key.startswith("video.") for key in video)
        self._prompt = (keys.get("language") or keys.get("annotation") or ("",))[0]
        self._check_means(told["action"].values.get("action_configs"), keys["action"])
        bare = {part: tuple(k.removeprefix(PREFIX.get(part, "")) for k in keys[part])
                for part in keys}  # fmt: skip
        return Described(
            horizon=len(_indices(told["action"], "action")),
            images=bare["video"],
            state=bare["state"],
            actions=bare["action"],
            history={"images": _indices(told["video"], "video"),
                     "state": _indices(told["state"], "state")},
            prompt=self._prompt,
            facts={"form": self._form, "flat": self._flat},
            model=model_of(self._address),
        )  # fmt: skip

    def _check_means(self, configs: object, keys: tuple[str, ...]) -> None:
        """Steps between rows are not positions. (RELATIVE ones are made absolute by the server.)"""
        if not isinstance(configs, list):
            return
        for key, config in zip(keys, configs, strict=False):
            own = self._profile.actions.get(key.removeprefix(PREFIX["action"]))
            rep = config.get("rep") if isinstance(config, dict) else None
            if own is not None and rep == "DELTA":
                raise MismatchError(
                    f"actions.{key}: expected positions, found rep DELTA",
                    mend="Serve a policy with absolute or relative actions.",
                )

    def infer(self, view: View, timeout_s: float) -> Mapping[str, Floats]:
        """One observation, one chunk: float64 [T, N] per group."""
        told = self._ask("get_action", self._observation(view), timeout_s)
        if self._form != "B":
            if not isinstance(told, list) or len(told) != 2:
                raise WireError(f"get_action: expected [action, info], found {said(told)}")
            told = told[0]
        if not isinstance(told, dict):
            raise WireError(f"get_action: expected a map, found {said(told)}")
        return {key: self._group(told, key) for key in self._profile.actions}

    def reset(self, timeout_s: float) -> None:
        """The policy begins anew; form B has no word for it."""
        if self._form != "B":
            self._ask("reset", {"options": None}, timeout_s)

    def close(self) -> None:
        """Drop the connection; a late answer goes with it."""
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = self._socket = None

    def _observation(self, view: View) -> dict[str, Any]:
        if self._form == "B":
            state = {key: values.astype(np.float64) for key, values in view.state.items()}
            return {**{f"video.{k}": v for k, v in view.images.items()},
                    **{f"state.{k}": v for k, v in state.items()},
                    self._prompt: [view.prompt]}  # fmt: skip
        video = {key: frames[None] for key, frames in view.images.items()}
        state32 = {key: values[None] for key, values in view.state.items()}
        if self._flat:
            observation = {**{f"video.{k}": v for k, v in video.items()},
                           **{f"state.{k}": v for k, v in state32.items()},
                           self._prompt: [view.prompt]}  # fmt: skip
        else:
            observation = {"video": video, "state": state32,
                           "language": {self._prompt: [[view.prompt]]}}  # fmt: skip
        if not self._prompt:
            observation.pop("language", None)
            observation.pop("", None)
        return {"observation": observation, "options": None}

    def _group(self, told: Mapping[str, Any], key: str) -> Floats:
        found = told.get(f"action.{key}" if self._flat else key)
        if not isinstance(found, np.ndarray) or found.dtype.kind != "f":
            raise WireError(f"action {key}: expected an array of floats, found {said(found)}")
        values = found.astype(np.float64)
        if self._form != "B":
            if values.ndim != 3 or values.shape[0] != 1:
                raise WireError(f"action {key}: expected [1, T, N], found {list(values.shape)}")
            return values[0]
        if values.ndim == 1:  # a group of one number may come squeezed
            return values[:, None]
        if values.ndim != 2:
            raise WireError(f"action {key}: expected [T, N], found {list(values.shape)}")
        return values

    def _ask(self, endpoint: str, data: Any, timeout_s: float) -> Any:
        assert self._socket is not None
        request: dict[str, Any] = {"endpoint": endpoint}
        if data is not None:
            request["data"] = data
        if self._secret:
            request["api_token"] = self._secret
        self._socket.send(encode(request, self._form or "C"))
        if not self._socket.poll(round(timeout_s * 1000)):
            raise WireError(
                f"{self._address}: {endpoint}: expected an answer within {timeout_s:g} s, found "
                f"none", mend="Start the server, set policy.server.address, or a longer timeout_s.",
            )  # fmt: skip
        try:
            told = decode(self._socket.recv())
        except CodecError as error:
            kind = MismatchError if error.mend else WireError
            raise kind(f"{self._address}: {endpoint}: {error.message}",
                       mend=error.mend or "Is it a GR00T server?") from error  # fmt: skip
        if isinstance(told, dict) and "error" in told:
            raise WireError(
                f"{self._address}: {endpoint}: the server failed: {said(told['error'])}",
                mend="See the server's log; an API token goes into policy.server.secret_file.",
            )
        return told


def _keys(modality: Modality, part: str) -> tuple[str, ...]:
    keys = modality.values.get("modality_keys")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise MismatchError(f"{part}.modality_keys: expected a list of names, found {said(keys)}")
    return tuple(keys)


def _indices(modality: Modality, part: str) -> tuple[int, ...]:
    indices = modality.values.get("delta_indices")
    if not isinstance(indices, list) or not all(type(index) is int for index in indices):
        raise MismatchError(f"{part}.delta_indices: expected whole numbers, found {said(indices)}")
    return tuple(indices)
