"""A scripted policy on recd's own API: it has no server, it connects to the robot itself.

What it shows is the reference loop of docs/policy_api.md, with faults in it.
"""

from collections import Counter
from typing import Any

import numpy as np

from recd.clients.adapters.profile import Actions, Profile
from recd.clients.policy import NoObservationError, Observation, PolicyClient
from recd.clients.policybench.faults import Fault
from recd.clients.policybench.script import Script
from recd.clients.policybench.server import Server
from recd.config.errors import RecdError
from recd.config.policy_wire import Status, pack, raw

PROFILE = Profile(wire="zmq", state={"state": "joints"}, actions={"actions": Actions()})


class ZmqPolicy(Server):
    """Drives until it is closed. said: status of a chunk -> times."""

    def __init__(self, script: Script | None = None, **client: Any) -> None:
        super().__init__(PROFILE, script)
        self.said: Counter[str] = Counter()
        self._client = PolicyClient(**{"name": "policy bench", **client})
        self.address = "recd"
        self._failure: Exception | None = None
        self._thread = self._live(self._drive)

    def _end(self) -> None:
        """Gives the lease back. Raises what ended the loop before."""
        self._thread.join()
        self._client.close()
        if self._failure is not None:
            raise self._failure

    def _drive(self) -> None:
        try:
            self._client.acquire()
            while not self._bench.stopping.is_set():
                self._turn()
        except RecdError as error:
            self.trouble = str(error)
            self._failure = error

    def _turn(self) -> None:
        try:
            seen = self._client.observe(cameras=[])
        except NoObservationError as error:
            self.trouble = error.message
            return
        if not np.isfinite(seen.state).all():
            return
        reply, fault = self._bench.answer({}, {"state": seen.state})
        if fault is not None and fault.kind in ("object", "huge", "truncated"):
            self._send_rubbish(seen, reply["actions"], fault)
            return
        layout = self._client.layout
        if fault is not None and fault.kind == "names":
            self._client.layout = layout[::-1]
        ack = self._client.act(seen, reply["actions"], dt_s=self._bench.script.step_s)
        self._client.layout = layout
        self._note(ack.status, ack.reason)
        if ack.status is Status.STALE_EPOCH:
            self._client.acquire()

    def _send_rubbish(self, seen: Observation, actions: Any, fault: Fault) -> None:
        """A chunk whose header and buffer do not fit, on the client's own connection."""
        packed = pack({"ty": "act", "id": "rubbish", "t_ref": seen.t_ref_ns}, [raw("a", actions)])
        header, buffer = packed
        match fault.kind:
            case "object":
                header = header.replace(b"\xa2f8", b"\xa2O8", 1)
            case "huge":
                header = header.replace(b"\xa2sh\x92", b"\xa2sh\x93\xcf\x80" + bytes(7), 1)
            case "truncated":
                buffer = buffer[: len(buffer) // 2]
        ack = self._client.send_raw([header, buffer], "rubbish")
        self._note(ack.status, ack.reason)

    def _note(self, status: Status, reason: str) -> None:
        self.said[status] += 1
        if reason:
            self.trouble = f"{status}: {reason}"
