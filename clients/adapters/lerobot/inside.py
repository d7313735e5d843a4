"""The confined side, in lerobot's interpreter: `python -m ...inside LINK filter|open`.

Speaks frames with recd on LINK, and gRPC with the PolicyServer through a socket pair that comes by
it and that recd joins to the one address. What the server says is unpickled here and goes on as
numbers.
"""

import os
import pickle
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from recd.clients.adapters.lerobot.frames import OBSERVATION_BYTES, receive, send
from recd.clients.adapters.lerobot.syscalls import restrict
from recd.shm.clock import NS_PER_S, now_ns

PIECE = 256 * 1024


def join_sockets(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until either side ends; then both have ended."""

    def carry(source: socket.socket, target: socket.socket) -> None:
        try:
            while piece := source.recv(PIECE):
                target.sendall(piece)
        except OSError:
            pass  # the other direction has closed them
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is closed already

    for pair in ((one, other), (other, one)):
        threading.Thread(target=carry, args=pair, daemon=True).start()


def doorway(server: socket.socket) -> str:
    """A path for one gRPC connection that leads to `server`. A second connection is refused."""
    path = os.path.join(tempfile.mkdtemp(), "server.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)

    def admit() -> None:
        with listener:
            join_sockets(listener.accept()[0], server)

    threading.Thread(target=admit, daemon=True).start()
    return path


class Deadline:
    """What is left of the time for one question, in seconds, for call after call."""

    def __init__(self, timeout_s: float) -> None:
        self._at_ns = now_ns() + int(timeout_s * NS_PER_S)

    @property
    def left_s(self) -> float:
        return max(0.0, (self._at_ns - now_ns()) / NS_PER_S)


class Client:
    """lerobot's side of its own wire, on one connection: one policy, one observation at a time."""

    def __init__(self, server: socket.socket) -> None:
        import grpc
        from lerobot.transport import services_pb2, services_pb2_grpc
        from lerobot.transport.utils import grpc_channel_options

        self._messages = services_pb2
        self._channel = grpc.insecure_channel(f"unix:{doorway(server)}", grpc_channel_options())
        self._stub = services_pb2_grpc.AsyncInferenceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def ready(self, timeout_s: float) -> None:
        """Have the server forget what another connection left behind."""
        self._stub.Ready(self._messages.Empty(), timeout=timeout_s)

    def setup(self, told: Mapping[str, Any]) -> None:
        """Name the policy and the features that it will see. The server loads it meanwhile."""
        from lerobot.async_inference.helpers import RemotePolicyConfig
        from lerobot.utils.constants import OBS_STR
        from lerobot.utils.feature_utils import hw_to_dataset_features

        hardware: dict[str, Any] = dict.fromkeys(told["joints"], float)
        hardware |= {name: tuple(shape) for name, shape in told["cameras"].items()}
        config = RemotePolicyConfig(
            told["policy_type"],
            told["path"],
            hw_to_dataset_features(hardware, OBS_STR, use_video=False),
            told["actions_per_chunk"],
            told["device"],
            told["rename"],
        )
        setup = self._messages.PolicySetup(data=pickle.dumps(config))
        self._stub.SendPolicyInstructions(setup, timeout=told["timeout_s"])

    def infer(self, told: Mapping[str, Any], pictures: list[bytes]) -> Any:
        """float32 [T, D], or None when the server has no answer to exactly this observation."""
        import numpy as np
        from lerobot.async_inference.helpers import TimedObservation
        from lerobot.transport.utils import send_bytes_in_chunks

        deadline = Deadline(told["timeout_s"])
        seen: dict[str, Any] = {**told["joints"], "task": told["task"]}
        for (name, shape), data in zip(told["cameras"].items(), pictures, strict=True):
            seen[name] = np.frombuffer(data, np.uint8).reshape(shape)
        # must_go: the server's own filter drops what moved less than 1.0, in whatever unit.
        timed = TimedObservation(
            timestamp=0.0, timestep=told["step"], observation=seen, must_go=True
        )
        pieces = send_bytes_in_chunks(pickle.dumps(timed), self._messages.Observation)
        self._stub.SendObservations(pieces, timeout=deadline.left_s)
        reply = self._stub.GetActions(self._messages.Empty(), timeout=deadline.left_s)
        if not reply.data:
            return None
        actions = pickle.loads(reply.data)
        if actions[0].get_timestep() != told["step"]:
            return None
        rows = [action.get_action().numpy() for action in actions]
        return np.ascontiguousarray(rows, dtype=np.float32)


class Desk:
    """Answers recd's questions, one by one."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._client: Client | None = None

    def answer(self, told: Mapping[str, Any], pictures: list[bytes]) -> Any:
        """None, or float32 [T, D]."""
        if told["op"] == "open":
            if self._client is not None:
                self._client.close()
            (way,) = socket.recv_fds(self._link, 1, 1)[1]
            self._client = Client(socket.socket(fileno=way))
            self._client.ready(told["timeout_s"])
            return None
        if self._client is None:
            raise RuntimeError("there is no connection")
        if told["op"] == "setup":
            return self._client.setup(told)
        actions = self._client.infer(told, pictures)
        if actions is None:
            raise RuntimeError("no actions; the server's log says why")
        return actions


def serve(link: socket.socket, *, filtered: bool) -> None:
    """Answer recd until it is gone (EOFError)."""
    import grpc  # noqa: F401  everything that is needed, before programs are forbidden
    import lerobot.async_inference.helpers  # noqa: F401

    missing = restrict(programs=False) if filtered else ""
    send(link, {"ready": version("lerobot"), "missing": missing})
    desk = Desk(link)
    while True:
        told, pictures = receive(link, most_bytes=OBSERVATION_BYTES)
        try:
            actions = desk.answer(told, pictures)
        except Exception as error:  # whatever lerobot, gRPC or the reply brings: recd is told
            words = getattr(error, "details", lambda: "")() or str(error)
            send(link, {"re": told["step"], "error": f"{type(error).__name__}: {words}"[:500]})
            continue
        if actions is None:
            send(link, {"re": told["step"]})
        else:
            send(link, {"re": told["step"], "shape": actions.shape}, [actions.tobytes()])


def main() -> int:
    try:
        serve(socket.socket(fileno=int(sys.argv[1])), filtered=sys.argv[2] == "filter")
    except EOFError:
        return 0  # recd has closed the link
    return 1


if __name__ == "__main__":
    sys.exit(main())
