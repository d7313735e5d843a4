"""The confined side, in lerobot's interpreter: `python -m lerobot_sidecar.inside LINK SERVER FILTER`.

Speaks frames with recd on LINK and gRPC with the PolicyServer through SERVER, a socket pair whose
other end recd joins to the one address. What comes back is unpickled here and goes on as numbers.
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

from .frames import OBSERVATION_BYTES, receive, send
from .syscalls import restrict

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


class Client:
    """lerobot's side of its own wire. One policy, one observation at a time."""

    def __init__(self, server: socket.socket) -> None:
        import grpc
        from lerobot.transport import services_pb2, services_pb2_grpc
        from lerobot.transport.utils import grpc_channel_options

        self._messages = services_pb2
        channel = grpc.insecure_channel(f"unix:{doorway(server)}", grpc_channel_options())
        self._stub = services_pb2_grpc.AsyncInferenceStub(channel)

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
        patience_s = told["timeout_s"]
        self._stub.Ready(self._messages.Empty(), timeout=patience_s)
        setup = self._messages.PolicySetup(data=pickle.dumps(config))
        self._stub.SendPolicyInstructions(setup, timeout=patience_s)

    def infer(self, told: Mapping[str, Any], pictures: list[bytes]) -> Any:
        """float32 [T, D], or None when the server has no answer to exactly this observation."""
        import numpy as np
        from lerobot.async_inference.helpers import TimedObservation
        from lerobot.transport.utils import send_bytes_in_chunks

        seen: dict[str, Any] = {**told["joints"], "task": told["task"]}
        for (name, shape), data in zip(told["cameras"].items(), pictures, strict=True):
            seen[name] = np.frombuffer(data, np.uint8).reshape(shape)
        # must_go: the server's own filter drops what moved less than 1.0, in whatever unit.
        timed = TimedObservation(
            timestamp=0.0, timestep=told["step"], observation=seen, must_go=True
        )
        pieces = send_bytes_in_chunks(pickle.dumps(timed), self._messages.Observation)
        self._stub.SendObservations(pieces, timeout=told["timeout_s"])
        reply = self._stub.GetActions(self._messages.Empty(), timeout=told["timeout_s"])
        if not reply.data:
            return None
        actions = pickle.loads(reply.data)
        if actions[0].get_timestep() != told["step"]:
            return None
        rows = [action.get_action().numpy() for action in actions]
        return np.ascontiguousarray(rows, dtype=np.float32)


def serve(link: socket.socket, server: socket.socket, *, filtered: bool) -> None:
    """Answer recd until it is gone."""
    client = Client(server)
    import lerobot.async_inference.helpers  # noqa: F401  all that is needed, before the filter

    missing = restrict(programs=False) if filtered else ""
    send(link, {"ready": version("lerobot"), "missing": missing})
    while True:
        told, pictures = receive(link, most_bytes=OBSERVATION_BYTES)
        try:
            if told["op"] == "setup":
                client.setup(told)
                send(link, {"re": told["step"]})
                continue
            actions = client.infer(told, pictures)
        except Exception as error:  # whatever lerobot, gRPC or the reply brings: recd is told
            words = getattr(error, "details", lambda: "")() or str(error)
            send(link, {"re": told["step"], "error": f"{type(error).__name__}: {words}"[:500]})
            continue
        if actions is None:
            send(
                link, {"re": told["step"], "error": "the server gave no actions; its log says why"}
            )
        else:
            send(link, {"re": told["step"], "shape": actions.shape}, [actions.tobytes()])


def main() -> int:
    link, server = (socket.socket(fileno=int(word)) for word in sys.argv[1:3])
    try:
        serve(link, server, filtered=sys.argv[3] == "filter")
    except EOFError:
        return 0  # recd has closed the link
    return 1


if __name__ == "__main__":
    sys.exit(main())
