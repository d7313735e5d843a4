"""The policy under measurement, in a process of its own: the real client, told what to do by lines.

`python -m recd.perf.policy.client` reads one JSON map a line and answers each with one. `ask` times
observations beside a plain socket; `begin`, `pace`, `count`, `leave` let a scripted policy drive.
"""

import json
import random
import select
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import zmq

from recd.clients.entry import find_key, use_key
from recd.clients.policy import NoObservationError, PolicyClient, connected
from recd.config.endpoints import parse_endpoint, policy_doors
from recd.config.errors import RecdError
from recd.config.keys import Pair
from recd.config.policy_wire import Status, pack, unpack
from recd.daemon import realtime
from recd.perf.policy.echo import SIZES
from recd.perf.policy.reference import Reference, reference_from
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

PAUSE_MS = (3.0, 7.0)
"""Between two requests, at random: so that they come at every phase of cameras and arms."""

DITHER_MS = 4.0
"""Added to an inference at random: frames and control periods would else meet in few phases."""

FIRST_OBSERVATION_S = 20.0
REPLY_MS = 5_000


class Asking:
    """Requests for observations over one transport, each beside one of the plain socket."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        """told: endpoint, key ("" none), echo: address of the plain socket, seconds."""
        self._told = told
        self._pair = find_key(told["key"], needed=True) if told["key"] else None
        self._random = random.Random(1)

    def run(self) -> dict[str, Any]:
        """observed_ns, floor_ns: request to complete reply, one each in turn; sizes: of the parts
        of a reply; age_ns: of its oldest picture when it was complete; refused: requests that were
        answered with a stream in trouble."""
        told, observed, floor, age, refused = self._told, [], [], [], 0
        with ExitStack() as ends:
            context = ends.enter_context(zmq.Context())
            ends.callback(context.destroy, linger=0)
            asked, sizes = _raw_exchange(context, told["endpoint"], self._pair)
            echo = _plain(context, told["echo"], self._pair)
            _exchange(echo, SIZES + json.dumps(sizes).encode())
            robot = ends.enter_context(
                PolicyClient(endpoint=told["endpoint"], key=told["key"] or None, name="asks")
            )
            until_ns = now_ns() + round(told["seconds"] * NS_PER_S)
            while now_ns() < until_ns:
                self._pause()
                began = now_ns()
                try:
                    seen = robot.observe(again=True)
                except NoObservationError:
                    refused += 1
                    continue
                ended = now_ns()
                observed.append(ended - began)
                age.append(ended - min(int(seen.facts[name]["t"]) for name in seen.images))
                self._pause()
                began = now_ns()
                _exchange(echo, asked)
                floor.append(now_ns() - began)
        return {"observed_ns": observed, "floor_ns": floor, "age_ns": age, "sizes": sizes,
                "refused": refused}  # fmt: skip

    def _pause(self) -> None:
        sleep_until_ns(now_ns() + round(self._random.uniform(*PAUSE_MS) * NS_PER_MS))


def _raw_exchange(context: Any, endpoint: str, pair: Pair | None) -> tuple[bytes, list[int]]:
    """A request for an observation in bytes, and how long the parts of its answer are."""
    asked = pack({"ty": "get", "id": "sizes", "after": 0, "newer_than": 0, "max_wait_ms": 500})
    until_ns = now_ns() + round(FIRST_OBSERVATION_S * NS_PER_S)
    with connected(context, policy_doors(parse_endpoint(endpoint))[1].text, pair) as socket:
        while True:
            socket.send_multipart(asked)
            parts = _received(socket)
            if (told := unpack(parts)[0])["ty"] == "obs":
                return asked[0], [len(part) for part in parts]
            if now_ns() > until_ns:
                raise NoObservationError(f"no observation: {told.get('reason')}")


def _plain(context: Any, address: str, pair: Pair | None) -> Any:
    socket = context.socket(zmq.REQ)
    socket.setsockopt(zmq.LINGER, 0)
    use_key(socket, pair)
    socket.connect(address)
    return socket


def _exchange(socket: Any, asked: bytes) -> list[bytes]:
    socket.send(asked)
    return _received(socket)


def _received(socket: Any) -> list[bytes]:
    if not socket.poll(REPLY_MS):
        raise RecdError(f"no answer within {REPLY_MS} ms", mend="See the daemon's log.")
    parts: list[bytes] = socket.recv_multipart()
    return parts


class Driving:
    """The scripted policy: observe, think, answer with rows of the reference. One `step` each."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        """told: endpoint, key ("" none), dt_s; and what `pace` takes."""
        self._robot = PolicyClient(
            endpoint=told["endpoint"], key=told["key"] or None, name="recd.perf policy"
        )
        self._dt_s = float(told["dt_s"])
        self._random = random.Random(2)
        self.pace(told)
        try:
            self.reference = self._begin()
            self._robot.acquire()
        except BaseException:
            self._robot.close()
            raise
        self.forget()

    def pace(self, told: Mapping[str, Any]) -> None:
        """latency_ms: of an inference; horizon: rows of a chunk."""
        self._latency_ns = round(told["latency_ms"] * NS_PER_MS)
        self._offsets_ns = np.arange(1, int(told["horizon"]) + 1) * round(self._dt_s * NS_PER_S)

    def forget(self) -> None:
        """Count anew."""
        self._age_ns: list[int] = []
        self._acks: Counter[str] = Counter()
        self._troubles: Counter[str] = Counter()

    def _begin(self) -> Reference:
        action = self._robot.robot["action"]
        until_ns = now_ns() + round(FIRST_OBSERVATION_S * NS_PER_S)
        while True:
            try:
                seen = self._robot.observe()
            except NoObservationError:
                if now_ns() > until_ns:
                    raise
                continue
            if np.isfinite(seen.state).all():
                state = seen.state.astype(float).tolist()
                return reference_from(state, action["low"], action["high"], now_ns())

    def step(self) -> None:
        """One turn of the policy's loop."""
        try:
            seen = self._robot.observe()
            self._age_ns.append(now_ns() - seen.t_ref_ns)
            dither_ns = round(self._random.uniform(0, DITHER_MS) * NS_PER_MS)
            sleep_until_ns(now_ns() + self._latency_ns + dither_ns)
            rows = self.reference.at(seen.t_ref_ns + self._offsets_ns)
            ack = self._robot.act(seen, rows, dt_s=self._dt_s)
            self._acks[ack.status] += 1
            if ack.status is Status.STALE_EPOCH:
                self._robot.acquire()
        except RecdError as error:
            # A policy that was stopped finds its answers late; one that lost its lease has ended.
            self._troubles[error.code] += 1

    def told(self) -> dict[str, Any]:
        """Since the last `forget`: what became of its chunks, and of its requests; age_ns: of each
        observation when it came."""
        return {"acks": dict(self._acks), "troubles": dict(self._troubles),
                "age_ns": self._age_ns}  # fmt: skip

    def close(self) -> None:
        """Give the lease back."""
        self._robot.close()


class Party:
    """What the process does: nothing, ask, or drive between two lines."""

    def __init__(self) -> None:
        self._driving: Driving | None = None

    def run(self) -> None:
        """Until the input ends."""
        try:
            while True:
                if self._driving is None or select.select([sys.stdin], [], [], 0)[0]:
                    line = sys.stdin.readline()
                    if not line:
                        return
                    print(json.dumps(self._hear(json.loads(line))), flush=True)
                else:
                    self._driving.step()
        finally:
            self._leave()

    def _hear(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out one line. What went wrong is the answer, in words."""
        try:
            return {"ok": True, **self._carry_out(told)}
        except RecdError as error:
            return {"ok": False, "error": str(error)}

    def _carry_out(self, told: Mapping[str, Any]) -> dict[str, Any]:
        match told["do"]:
            case "ask":
                return Asking(told).run()
            case "begin":
                self._driving = Driving(told)
                return {"reference": self._driving.reference.plain()}
            case "leave":
                return self._leave()
        if self._driving is None:
            raise RecdError(f"{told['do']}: it does not drive", mend="Tell it to begin first.")
        if told["do"] == "pace":
            self._driving.pace(told)
            self._driving.forget()
            return {}
        return self._driving.told()

    def _leave(self) -> dict[str, Any]:
        if self._driving is None:
            return {}
        told = self._driving.told()
        self._driving.close()
        self._driving = None
        return told


if __name__ == "__main__":
    realtime.die_with_parent()
    Party().run()
