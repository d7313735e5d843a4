"""A scripted server on lerobot 0.6.1's wire: AsyncInference over gRPC, with its pickles.

It has neither lerobot nor torch: it reads the pickles of its clients as plain values, and answers
as the real one does: the newest observation only, nothing when none came for two seconds.
"""

import queue
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, NoReturn

import numpy as np

from recd.clients.adapters.profile import Profile
from recd.clients.policybench.lerobot_pickle import dumps, loads, plain
from recd.clients.policybench.script import RequestError, Script
from recd.clients.policybench.server import Server
from recd.config.errors import RecdError

SERVICE: Final = "transport.AsyncInference"
OBSERVATION_WAIT_S: Final = 2.0
"""As long as lerobot's server waits for an observation before it answers nothing."""

LOOK_S: Final = 0.05
"""Between two looks meanwhile whether the client still waits."""

OBSERVATION_BYTES: Final = 64 * 2**20
WORKERS: Final = 8
STATE: Final = "observation.state"
PICTURES: Final = "observation.images."
LARGEST_STEP: Final = 2**31 - 512


class LerobotServer(Server):
    """Serves in threads of its own until it is closed. RecdError without grpcio, OSError for a
    port that is taken."""

    def __init__(
        self, profile: Profile, script: Script | None = None, *, host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:  # fmt: skip
        # Which pictures come is what a client announces; the script needs none of them.
        super().__init__(profile.model_copy(update={"images": {}}), script)
        grpc = _grpc()
        self._grpc = grpc
        self._policy: Mapping[str, Any] | None = None
        self._seen: queue.Queue[Mapping[str, Any] | None] = queue.Queue(maxsize=1)
        # A second server on a port would be given half of its connections otherwise.
        self._server = grpc.server(ThreadPoolExecutor(WORKERS), options=[("grpc.so_reuseport", 0)])
        one, many = grpc.unary_unary_rpc_method_handler, grpc.stream_unary_rpc_method_handler
        handlers = {
            "Ready": one(self._guarded(self._ready)),
            "SendPolicyInstructions": one(self._guarded(self._setup)),
            "SendObservations": many(self._guarded(self._observe)),
            "GetActions": one(self._guarded(self._act)),
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, handlers),)
        )
        try:
            bound = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(str(error)) from error
        self.address = f"{host}:{bound}"
        self._server.start()

    def _end(self) -> None:
        self._put(None)
        self._server.stop(None).wait()

    def _guarded(self, serve: Callable[..., bytes]) -> Callable[[Any, Any], bytes]:
        """Whatever is wrong with a request is said as a real server's traceback is."""

        def answered(request: Any, context: Any) -> bytes:
            try:
                return serve(request, context)
            except RequestError as error:
                self.trouble = str(error)
                self._fail(context, "UNKNOWN", f"Exception calling application: {error}")

        return answered

    def _fail(self, context: Any, code: str, words: str) -> NoReturn:
        context.abort(self._grpc.StatusCode[code], words)
        raise AssertionError("abort has raised")

    def _ready(self, request: bytes, context: Any) -> bytes:
        del request, context
        while not self._seen.empty():
            self._seen.get_nowait()
        return b""

    def _setup(self, request: bytes, context: Any) -> bytes:
        del context
        told = loads(_field(request, 1), "RemotePolicyConfig")
        features: Any = told.get("lerobot_features")
        most = told.get("actions_per_chunk")
        if type(most) is not int or most < 1:
            raise RequestError(f"ValueError: actions_per_chunk: {most!r:.40}")
        try:
            names = [str(name) for name in features[STATE]["names"]]
            pictures = {
                name.removeprefix(PICTURES): tuple(feature["shape"])
                for name, feature in features.items()
                if name.startswith(PICTURES)
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise RequestError(f"KeyError: lerobot_features: {error}"[:200]) from error
        self._policy = {"names": names, "pictures": pictures, "most": most}
        return b""

    def _observe(self, requests: Iterator[bytes], context: Any) -> bytes:
        del context
        data = bytearray()
        for request in requests:
            data += _field(request, 2)
            if len(data) > OBSERVATION_BYTES:
                raise RequestError(f"ValueError: more than {OBSERVATION_BYTES} bytes")
        self._put(loads(bytes(data), "TimedObservation"))
        return b""

    def _put(self, seen: Mapping[str, Any] | None) -> None:
        """The newest one only."""
        while True:
            try:
                self._seen.put_nowait(seen)
            except queue.Full:
                try:
                    self._seen.get_nowait()
                except queue.Empty:
                    continue  # it was taken meanwhile
            else:
                return

    def _act(self, request: bytes, context: Any) -> bytes:
        del request
        seen: Mapping[str, Any] | None = {}
        for _ in range(round(OBSERVATION_WAIT_S / LOOK_S)):
            # A call that its client gave up must not take what the next one is about.
            if not context.is_active():
                return b""
            with suppress(queue.Empty):
                seen = self._seen.get(timeout=LOOK_S)
                break
        else:
            return b""
        if seen is None:
            self._fail(context, "UNAVAILABLE", "the server ends")
        if self._policy is None:
            raise RequestError("AttributeError: there is no policy yet")
        step, at_s = seen.get("timestep"), seen.get("timestamp")
        if type(step) is not int or not 0 <= step < LARGEST_STEP or type(at_s) is not float:
            raise RequestError(f"TypeError: timestep {step!r:.20}, timestamp {at_s!r:.20}")
        reply, fault = self._bench.answer({}, {STATE: self._state(seen.get("observation"))})
        if self._bench.stopping.is_set():
            self._fail(context, "UNAVAILABLE", "the server ends")  # as a killed one: no answer
        kind = fault.kind if fault else ""
        if kind == "error":
            self._fail(context, "UNKNOWN", "Exception calling application: scripted failure")
        if kind == "hangup":
            self._fail(context, "UNAVAILABLE", "Socket closed")
        (rows,) = reply.values()
        data = dumps(
            rows[: self._policy["most"]].tolist(), first=step, time_s=at_s,
            step_s=self._bench.script.step_s, fault=kind,
        )  # fmt: skip
        return b"\x0a" + _varint(len(data)) + data

    def _state(self, told: Any) -> Any:
        """float64 [D] in the announced order, after everything announced was found."""
        assert self._policy is not None
        if not isinstance(told, dict):
            raise RequestError(f"TypeError: expected an observation by name, found {told!r:.40}")
        for name, shape in self._policy["pictures"].items():
            picture = plain(told.get(name))
            sound = isinstance(picture, np.ndarray) and picture.dtype == np.uint8
            if not sound or picture.shape != shape:
                raise RequestError(f"KeyError: {name}: expected uint8 {shape}")
        values = [plain(told.get(name)) for name in self._policy["names"]]
        try:
            return np.array([float(value) for value in values])
        except (TypeError, ValueError):
            raise RequestError("KeyError: expected a number for each of "
                               + ", ".join(self._policy["names"])[:200]) from None  # fmt: skip


def _grpc() -> Any:
    try:
        import grpc
    except ImportError as error:
        raise RecdError(
            "lerobot's wire: expected the package grpcio, found none",
            mend="pip install 'recd[lerobot]'",
        ) from error
    return grpc


def _field(message: bytes, number: int) -> bytes:
    """The bytes of one field of a protobuf message, empty without it. RequestError for rubbish."""
    at, found = 0, b""
    try:
        while at < len(message):
            key, at = _read_varint(message, at)
            value, at = _read_varint(message, at)
            if key & 7 == 0:
                continue
            if key & 7 != 2 or at + value > len(message):
                raise RequestError("DecodeError: no message of this service")
            if key >> 3 == number:
                found = message[at : at + value]
            at += value
    except IndexError:
        raise RequestError("DecodeError: the message ends in the middle") from None
    return found


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise RequestError("DecodeError: a number of more than 64 bits")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
