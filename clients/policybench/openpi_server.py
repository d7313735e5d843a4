"""A scripted server on openpi's websocket, as the real one behaves: it speaks first, answers one
request at a time, and says a failure as text before it hangs up.
"""

import http
from typing import Any

import numpy as np
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server as WebsocketServer
from websockets.sync.server import ServerConnection, serve

from recd.clients.adapters.arrays import MOST_BYTES, CodecError
from recd.clients.adapters.openpi_codec import decode, encode
from recd.clients.adapters.profile import Profile
from recd.clients.policybench.faults import Fault
from recd.clients.policybench.script import RequestError, Script
from recd.clients.policybench.server import Server

FAILED = 1011


class OpenpiServer(Server):
    """Serves in threads of its own until it is closed.

    metadata: what it says first, instead of what its script says.
    """

    def __init__(
        self, profile: Profile, script: Script | None = None, *, host: str = "127.0.0.1",
        port: int = 0, metadata: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(profile, script)
        self._metadata = metadata
        self._open: set[ServerConnection] = set()
        self._server: WebsocketServer = serve(
            self._talk, host, port, compression=None, max_size=MOST_BYTES, ping_interval=None,
            process_request=_health, close_timeout=0.2,
        )  # fmt: skip
        self.address = f"{host}:{self._server.socket.getsockname()[1]}"
        self._thread = self._live(self._server.serve_forever)

    def _end(self) -> None:
        self._server.shutdown()
        for connection in list(self._open):
            connection.close_socket()
        self._thread.join()

    def _describe(self) -> dict[str, Any]:
        if self._metadata is not None:
            return self._metadata
        script = self._bench.script
        told: dict[str, Any] = {"horizon": script.horizon, "step_s": script.step_s}
        names = self._bench.action_names()
        return {**told, "action_names": names} if names else told

    def _talk(self, connection: ServerConnection) -> None:
        self._open.add(connection)
        try:
            connection.send(encode(self._describe()))
            while True:
                connection.send(self._reply(connection.recv()))
        except (RequestError, CodecError) as error:
            connection.send(f"Traceback (most recent call last):\n{error}")
            connection.close(FAILED, "Internal server error.")
        except (ConnectionClosed, OSError):
            return  # the client has gone; real servers take that as the end, too
        finally:
            self._open.discard(connection)

    def _reply(self, data: str | bytes) -> bytes:
        request = decode(data)
        if not isinstance(request, dict):
            raise RequestError("TypeError: expected a map")
        profile = self._bench.profile
        flat = _flat(request)
        if profile.prompt and not isinstance(flat.pop(profile.prompt, None), str):
            raise RequestError(f"KeyError: {profile.prompt}")
        images = {key: value for key, value in flat.items() if key not in profile.state}
        reply, fault = self._bench.answer(images, {k: flat.get(k) for k in profile.state})
        if fault is not None and fault.kind == "error":
            raise RequestError("RuntimeError: out of memory")
        if fault is not None and fault.kind == "hangup":
            raise ConnectionResetError
        chunk = {key: values.astype(np.float32) for key, values in reply.items()}
        told = {**chunk, "server_timing": {"infer_ms": self._bench.script.latency_ms}}
        return spoil(encode(told), fault)


def spoil(data: bytes, fault: Fault | None) -> bytes:
    """The bytes of an answer with what a fault does to them."""
    match fault.kind if fault else "":
        case "object":
            return data.replace(b"\xa3<f4", b"\xa3|O8", 1)
        case "huge":
            at = data.index(b"\xc4\x05shape") + 7
            return data[:at] + b"\x92\xcf\x80" + bytes(7) + b"\x06" + data[at + 3 :]
        case "truncated":
            return data[: len(data) // 2]
    return data


def _flat(request: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in request.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _health(connection: ServerConnection, request: Request) -> Response | None:
    del connection
    if request.path == "/healthz":
        return Response(http.HTTPStatus.OK, "OK", Headers(), b"OK\n")
    return None
