"""The gateway's doors: requests and events, observations, actions; who is behind a letter.

Everything that bounds a peer is what the control plane has: sizes, queues, handshakes, keys, and a
peer of rubbish that is not heard for a while.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq

from recd.config.endpoints import parse_endpoint, policy_doors
from recd.config.errors import RecdError
from recd.config.models import ControlConfig, PolicyConfig
from recd.config.paths import policy_endpoint
from recd.config.policy_wire import ACT_BYTES, HEADER_BYTES
from recd.daemon.supervisor.access import LOCAL, Access, Caller, Gate, access_of
from recd.daemon.supervisor.doors import Door, Letter
from recd.shm.clock import NS_PER_MS, now_ns

BATCH = 64
TURN_NS = 5 * NS_PER_MS
"""Letters and time of one door in one turn: a flood at one delays the others by no more."""

KINDS = ("requests", "observations", "actions")

Peer = tuple[int, bytes]
"""Number of a door, and what its socket calls the connection."""


def policy_access(control: ControlConfig, policy: PolicyConfig) -> Access:
    """Access of the gateway's own address, by the rules and keys of the control plane.

    RecdError when it would be open to others.
    """
    try:
        return access_of(control.model_copy(update={"endpoint": policy.endpoint}))
    except RecdError as error:
        message = error.message.replace("control.endpoint", "policy.endpoint")
        raise RecdError(message, mend=error.mend, code=error.code) from error


class Sockets:
    """All doors of a gateway, by kind. Close when done."""

    def __init__(self, directory: Path, access: Access) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.doors: list[Door] = []
        self._kinds: list[str] = []
        self.gate: Gate | None = None
        bases = [parse_endpoint(policy_endpoint(directory))]
        if access.endpoint is not None:
            bases.append(access.endpoint)
        try:
            if access.keys is not None:
                self.gate = Gate(self._context, access.keys)
            for number, base in enumerate(bases):
                server = access.server if number else None
                sizes = (HEADER_BYTES, HEADER_BYTES, ACT_BYTES)
                places = zip(KINDS, policy_doors(base), sizes, strict=True)
                for kind, endpoint, most in places:
                    door = Door(self._context, endpoint, server=server,
                                events=kind == "requests", most_bytes=most)  # fmt: skip
                    self.doors.append(door)
                    self._kinds.append(kind)
        except RecdError:
            self.close()
            raise

    def polled(self) -> list["zmq.Socket[bytes]"]:
        """For poll: readable when somebody says something."""
        routers = [door.router for door in self.doors]
        return routers if self.gate is None else [*routers, self.gate.socket]

    def letters(self, kind: str) -> Iterator[tuple[Peer, Letter]]:
        """What waits at the doors of a kind, up to a batch and a time each."""
        for number, door in enumerate(self.doors):
            if self._kinds[number] != kind:
                continue
            until_ns = now_ns() + TURN_NS
            for _ in range(BATCH):
                letter = door.take()
                if letter is None:
                    break
                yield (number, letter.peer), letter
                if now_ns() >= until_ns:
                    break

    def caller(self, peer: Peer, letter: Letter) -> Caller:
        """Who sent a letter. RefusedError for a key that may no longer enter."""
        if self.gate is None or not self.doors[peer[0]].guarded:
            return LOCAL
        return self.gate.caller(letter.public)

    def send(self, peer: Peer, parts: list[Any]) -> bool:
        """A message to one connection. False when it is gone or does not read."""
        return self.doors[peer[0]].send(peer[1], parts)

    def publish(self, topic: str, packed: bytes) -> None:
        """One event to whoever listens; who does not read loses it."""
        for number, door in enumerate(self.doors):
            if self._kinds[number] == "requests":
                door.publish(topic, packed)

    def watch_keys(self) -> None:
        """Answer handshakes; forget who lost a right, by ending what it listens to."""
        if self.gate is None:
            return
        self.gate.serve()
        if self.gate.refresh():
            for door in self.doors:
                if door.guarded:
                    door.cut_listeners()
        for number, door in enumerate(self.doors):
            if self._kinds[number] == "requests":
                door.reopen()

    @property
    def handshakes_refused(self) -> int:
        """Connections of keys that are not on the list, or no longer."""
        return 0 if self.gate is None else self.gate.denied

    def close(self) -> None:
        """Close all doors and remove the socket files. Idempotent."""
        for door in self.doors:
            door.close()
        self.doors.clear()
        if self.gate is not None:
            self.gate.close()
            self.gate = None
        self._context.destroy(linger=0)
