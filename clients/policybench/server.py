"""What the servers of all protocols share: one scripted answer after another, delayed and spoiled.

Nothing is hurried or skipped: a stalled server serves nobody, as a real one does.
"""

import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from recd.clients.adapters.profile import Profile
from recd.clients.policybench.faults import Fault, Faults
from recd.clients.policybench.script import Floats, Reference, Script
from recd.shm.clock import NS_PER_S, now_ns

FAR = 5000.0


class Bench:
    """Script, faults and delays of one server. stopping: ends every delay."""

    def __init__(self, profile: Profile, script: Script, faults: Faults) -> None:
        self.profile, self.script, self.faults = profile, script, faults
        self.stopping = threading.Event()
        self.served = 0
        self._reference = Reference(profile, script)
        self._random = random.Random(0)
        self._one = threading.Lock()

    def answer(
        self, images: Mapping[str, Any], state: Mapping[str, Any]
    ) -> tuple[dict[str, Floats], Fault | None]:
        """A chunk after the script's delay, and the fault that the wire has to make of it.

        RequestError for a request that no server would understand.
        """
        with self._one:
            began, cleared = now_ns(), self.faults.cleared
            fault = self.faults.take()
            if fault is not None and fault.kind == "restart":
                self._reference = Reference(self.profile, self.script)
            self._reference.check(images, state)
            reply = self._reference.reply(state, began / NS_PER_S)
            delay_s = self.script.latency_ms / 1000
            delay_s += abs(self._random.gauss(0, self.script.jitter_ms)) / 1000
            self.stopping.wait(delay_s)
            if fault is not None:
                reply = spoiled(reply, fault)
                self.faults.outlast(fault, cleared)
            self.served += 1
            return reply, fault

    def action_names(self) -> list[str] | None:
        """Columns of the first action in words, None for `joints`."""
        columns = next(iter(self.profile.actions.values())).columns
        if columns == "joints":
            return None
        names = ["-" if c is None else c if isinstance(c, str) else c.joint for c in columns]
        return names[::-1] if self.faults.is_set("names") and self.faults.take() else names


class Server(ABC):
    """A running server of one protocol. address: for `policy.server.address`; trouble: the last
    thing that went wrong, in words."""

    address: str
    trouble = ""

    def __init__(self, profile: Profile, script: Script | None) -> None:
        self.faults = Faults()
        self._bench = Bench(profile, script or Script(), self.faults)

    @property
    def served(self) -> int:
        """Answers given so far."""
        return self._bench.served

    def close(self) -> None:
        """Stop, as a killed server does. Idempotent."""
        if self._bench.stopping.is_set():
            return
        self._bench.stopping.set()
        self.faults.clear()
        self._end()

    def _live(self, serve: Callable[[], None]) -> threading.Thread:
        """A thread that serves until it is told to stop."""
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        return thread

    @abstractmethod
    def _end(self) -> None:
        """Wait for the thread, and drop every connection."""


def spoiled(reply: dict[str, Floats], fault: Fault) -> dict[str, Floats]:
    """The chunk with what a fault does to its numbers; other faults are the wire's."""
    key = next(iter(reply))
    values = reply[key]
    match fault.kind:
        case "nan":
            values[len(values) // 2, 0] = np.nan
        case "inf":
            values[len(values) // 2, 0] = np.inf
        case "width":
            values = values[:, :-1]
        case "horizon":
            return {key: values[: max(1, len(values) // 2)] for key, values in reply.items()}
        case "far":
            values = values + FAR
    return {**reply, key: values}
