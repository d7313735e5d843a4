"""A scripted server on GR00T's ZeroMQ wire, in form B, C or D: one request at a time.

A request that comes while another is served waits; an answer that nobody waits for goes nowhere.
"""

from typing import Any

import numpy as np
import zmq

from recd.clients.adapters.arrays import MOST_BYTES, CodecError
from recd.clients.adapters.gr00t_codec import Form, Modality, decode, encode
from recd.clients.adapters.profile import Profile
from recd.clients.policybench.faults import Fault
from recd.clients.policybench.script import RequestError, Script
from recd.clients.policybench.server import Server

TURN_MS = 50
PROMPT = "annotation.human.task_description"


class Gr00tServer(Server):
    """Serves in a thread of its own until it is closed. token: what requests have to carry;
    history: steps that it says it wants, of pictures, and state_history of the state; a request
    that has others is refused.
    """

    def __init__(
        self, profile: Profile, script: Script | None = None, *, form: Form = "C",
        host: str = "127.0.0.1", port: int = 0, token: str = "", history: tuple[int, ...] = (0,),
        state_history: tuple[int, ...] = (0,),
    ) -> None:  # fmt: skip
        super().__init__(profile, script)
        self._form: Form = form
        self._token, self._history, self._states = token, history, state_history
        self.seen: dict[str, Any] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MOST_BYTES)
        self._socket.bind(f"tcp://{host}:{port or '*'}")
        bound = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.address = f"{host}:{bound.rpartition(':')[2]}"
        self.resets = 0
        self._thread = self._live(self._serve)

    def _end(self) -> None:
        self._thread.join()
        self._context.destroy(linger=0)

    def _serve(self) -> None:
        while not self._bench.stopping.is_set():
            if not self._socket.poll(TURN_MS):
                continue
            try:
                told, fault = self._answer(decode(self._socket.recv()))
            except (RequestError, CodecError) as error:
                told, fault = {"error": str(error)}, None
            if fault is not None and fault.kind == "hangup":
                self._rebind()
                continue
            self._socket.send(spoil(encode(told, self._form), fault))

    def _rebind(self) -> None:
        """No answer: the socket is closed, and another one listens in its place."""
        address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._socket.close(linger=0)
        self._socket = self._context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        while not self._bench.stopping.wait(0.02):
            try:
                self._socket.bind(address)
            except zmq.ZMQError:
                continue  # the closed socket lets go of its port a moment later
            return

    def _answer(self, request: Any) -> tuple[Any, Fault | None]:
        if not isinstance(request, dict):
            raise RequestError("TypeError: expected a map")
        if self._token and request.get("api_token") != self._token:
            raise RequestError("Unauthorized: Invalid API token")
        match request.get("endpoint", "get_action"):
            case "ping":
                return {"status": "ok", "message": "Server is running"}, None
            case "get_modality_config":
                return self._modalities(), None
            case "reset" if self._form != "B":
                self.resets += 1
                return {}, None
            case "get_action":
                return self._action(request.get("data"))
            case other:
                raise RequestError(f"Unknown endpoint: {other}")

    def _modalities(self) -> dict[str, Any]:
        profile, script = self._bench.profile, self._bench.script
        mark = {
            part: f"{part}." if self._form == "B" else "" for part in ("video", "state", "action")
        }
        names = {"video": list(profile.images), "state": list(profile.state),
                 "action": list(profile.actions)}  # fmt: skip
        if self.faults.is_set("names") and self.faults.take():
            names["action"] = [f"other_{name}" for name in names["action"]]
        deltas = {"video": list(self._history), "state": list(self._states),
                  "action": list(range(script.horizon))}  # fmt: skip
        told = {
            part: Modality(self._form, {
                "delta_indices": deltas[part],
                "modality_keys": [mark[part] + name for name in names[part]],
            })
            for part in names
        }  # fmt: skip
        told["language"] = Modality(self._form, {"delta_indices": [0], "modality_keys": [PROMPT]})
        return told

    def _action(self, data: Any) -> tuple[Any, Fault | None]:
        images, state = self._b(data) if self._form == "B" else self._cd(data)
        self._check_history(images, state)
        self.seen = {**images, **state}
        state = {key: values[..., -1, :] for key, values in state.items()}
        reply, fault = self._bench.answer(images, state)
        if fault is not None and fault.kind == "error":
            raise RequestError("RuntimeError: out of memory")
        chunk = {key: values.astype(np.float32) for key, values in reply.items()}
        if self._form == "B":
            return {f"action.{key}": values for key, values in chunk.items()}, fault
        return [{key: values[None] for key, values in chunk.items()}, {}], fault

    def _check_history(self, images: dict[str, Any], state: dict[str, Any]) -> None:
        """Steps of each request are those of the modality, as real servers assert."""
        told = {key: (values.shape[-4], len(self._history)) for key, values in images.items()}
        told |= {key: (values.shape[-2], len(self._states)) for key, values in state.items()}
        for key, (found, steps) in told.items():
            if found != steps:
                raise RequestError(f"AssertionError: {key}: {steps} steps expected, got {found}")

    def _b(self, data: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        if not isinstance(data, dict) or not isinstance(data.get(PROMPT), list):
            raise RequestError(f"KeyError: {PROMPT}")
        images = {k[6:]: _shaped(v, k, 4) for k, v in data.items() if k.startswith("video.")}
        state = {k[6:]: _shaped(v, k, 2) for k, v in data.items() if k.startswith("state.")}
        return images, state

    def _cd(self, data: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            seen = data["observation"]
            if not isinstance(seen["language"][PROMPT][0][0], str):
                raise RequestError(f"TypeError: {PROMPT}")
            images = {key: _shaped(value, key, 5) for key, value in seen["video"].items()}
            state = {key: _shaped(value, key, 3) for key, value in seen["state"].items()}
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise RequestError(f"{type(error).__name__}: {error}") from error
        if any(values.dtype != np.float32 for values in state.values()):
            raise RequestError("TypeError: state must be float32")
        return images, state


def _shaped(value: Any, key: str, axes: int) -> Any:
    if not isinstance(value, np.ndarray) or value.ndim != axes:
        raise RequestError(f"{key} must be a numpy array of {axes} axes, got {value!r:.60}")
    return value


def spoil(data: bytes, fault: Fault | None) -> bytes:
    """The bytes of an answer with what a fault does to them."""
    match fault.kind if fault else "":
        case "object":
            return data.replace(b"<f4", b"|O8", 1)
        case "huge":
            if b"\xc4\x05shape" in data:
                at = data.index(b"\xc4\x05shape") + 7
                return data[:at] + b"\x93\x01\xcf\x80" + bytes(7) + b"\x05" + data[at + 4 :]
            at = data.index(b"'shape': (")
            text = b"'shape': (9223372036854775808, 5), }"
            return data[:at] + text + data[at + len(text) :]
        case "truncated":
            return data[: len(data) // 2]
    return data
