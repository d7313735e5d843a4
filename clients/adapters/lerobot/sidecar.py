"""recd's end of the sidecar: hand it a connection, pictures and joints, take checked numbers.

Nothing that it says is trusted: sizes, shapes and times are compared before use. Its one way out is
a socket pair that is joined here to the one address of the PolicyServer.
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.clients.adapters.lerobot.frames import ACTIONS_BYTES, FrameError, receive, send
from recd.clients.adapters.lerobot.inside import join_sockets
from recd.clients.adapters.lerobot.launch import Place, Started, start
from recd.clients.adapters.wire import WireError
from recd.config.policy_wire import MOST_STEPS

Shape = tuple[int, int, int]
SHARE = 0.9
"""Of the time for a question, what the sidecar has for the server: its own word is then in time."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the server is to load, in its own words, and what it will see. joints: names in order;
    cameras: name -> (height, width, 3).
    """

    kind: str
    path: str
    device: str
    actions_per_chunk: int
    joints: tuple[str, ...]
    cameras: Mapping[str, Shape]


class Sidecar:
    """One sidecar. lerobot: the version it found, once it is ready; sound: False once nothing but a
    new one helps. Not for several threads. WireError for whatever fails, MismatchError when it
    cannot be started here.
    """

    def __init__(self, place: Place) -> None:
        self.started: Started = start(place)
        self.lerobot = self.unfiltered = ""
        self.sound = True
        self._step = 0
        self._policy: Policy | None = None
        self._server: socket.socket | None = None

    def await_ready(self, timeout_s: float) -> None:
        """Until it has loaded lerobot: about ten seconds after its start."""
        if self.lerobot:
            return
        header, _ = self._heard(timeout_s)
        self.lerobot = str(header.get("ready"))[:40]
        self.unfiltered = str(header.get("missing", ""))[:200]

    def join(self, server: socket.socket, timeout_s: float) -> None:
        """Have it speak by this connection from now on."""
        self.part()
        self._server = server
        ours, theirs = socket.socketpair()
        with theirs:
            self._say({"op": "open"}, [], timeout_s)
            socket.send_fds(self.started.link, [b"F"], [theirs.fileno()])
        join_sockets(ours, server)
        self._answered(timeout_s)

    def part(self) -> None:
        """Close the connection to the server. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def setup(self, policy: Policy, timeout_s: float) -> None:
        """Have the server load this policy, unless that was done and it answered since."""
        if policy == self._policy:
            return
        self._say(
            {"op": "setup", "policy_type": policy.kind, "path": policy.path,
             "device": policy.device, "actions_per_chunk": policy.actions_per_chunk,
             "joints": policy.joints, "cameras": policy.cameras, "rename": {}},
            [], timeout_s,
        )  # fmt: skip
        self._answered(timeout_s)
        self._policy = policy

    def infer(
        self, joints: Mapping[str, float], pictures: Mapping[str, npt.NDArray[np.uint8]],
        task: str, timeout_s: float,
    ) -> npt.NDArray[np.float32]:  # fmt: skip
        """float32 [T, D] for one observation. pictures: uint8 [H, W, 3] in RGB, as announced."""
        assert self._policy is not None, "it was set up"
        policy, self._policy = self._policy, None  # without an answer: set up anew
        self._say(
            {"op": "infer", "joints": joints, "cameras": policy.cameras, "task": task},
            [np.ascontiguousarray(pictures[name]).tobytes() for name in policy.cameras], timeout_s,
        )  # fmt: skip
        header, buffers = self._answered(timeout_s)
        actions = _actions(header.get("shape"), buffers, len(policy.joints))
        self._policy = policy
        return actions

    def _say(self, told: Mapping[str, Any], buffers: Sequence[bytes], timeout_s: float) -> None:
        self._step += 1
        self.started.link.settimeout(timeout_s)
        try:
            given = {**told, "step": self._step, "timeout_s": SHARE * timeout_s}
            send(self.started.link, given, buffers)
        except OSError as error:
            raise self._useless(f"it takes no message: {error}") from error

    def _answered(self, timeout_s: float) -> tuple[dict[str, Any], list[bytes]]:
        header, buffers = self._heard(timeout_s)
        if header.get("re") != self._step:
            raise self._useless("it answered another question")
        if "error" in header:
            raise WireError(f"the policy server: {str(header['error'])[:500]}")
        return header, buffers

    def _heard(self, timeout_s: float) -> tuple[dict[str, Any], list[bytes]]:
        try:
            return receive(self.started.link, most_bytes=ACTIONS_BYTES, timeout_s=timeout_s)
        except TimeoutError as error:
            raise self._useless(f"no answer within {timeout_s:g} s") from error
        except (OSError, EOFError, FrameError) as error:
            raise self._useless(str(error)) from error

    def _useless(self, why: str) -> WireError:
        self.sound = False
        code = self.started.process.poll()
        ended = "" if code is None else f"; it ended with {code}, its last words are in the log"
        return WireError(f"the sidecar is of no use any more: {why}{ended}")

    def close(self) -> None:
        """End the sidecar and its connection. Idempotent."""
        self.sound = False
        self.part()
        self.started.end()


def _actions(shape: Any, buffers: list[bytes], width: int) -> npt.NDArray[np.float32]:
    sound = (
        isinstance(shape, list) and len(shape) == 2 and len(buffers) == 1
        and all(type(size) is int for size in shape)
        and 0 < shape[0] <= MOST_STEPS and shape[1] == width
        and len(buffers[0]) == 4 * shape[0] * width
    )  # fmt: skip
    if not sound:
        raise WireError(
            f"actions: expected 1..{MOST_STEPS} rows of {width}, found {str(shape)[:40]} in "
            f"{sum(map(len, buffers))} bytes",
            mend="Does the policy belong to this robot?",
        )
    return np.frombuffer(buffers[0], "<f4").reshape(shape)
