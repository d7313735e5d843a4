"""Client for policies: observe, infer, act; the daemon decides what becomes of each chunk.

The loop of docs/policy_api.md is all that a policy server needs. A thread of its own sends
heartbeats that count the loop's progress: a loop that hangs is noticed although its sockets live.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import zmq

from recd.clients.client import ReplyTimeoutError, find_instance
from recd.clients.entry import check_reachable, find_key, parsed, use_key
from recd.clients.heartbeat import Heart
from recd.clients.observation import (
    Ack,
    Arm,
    LoggedChunk,
    NoObservationError,
    Observation,
    Prefix,
    ack_of,
    logged_of,
    observation_of,
)
from recd.clients.policy_events import Event, Listener
from recd.config.endpoints import policy_doors
from recd.config.errors import RecdError
from recd.config.keys import Pair
from recd.config.messages import Request, decode, new_request_id
from recd.config.paths import policy_endpoint
from recd.config.policy_wire import Buffer, Clock, is_task, pack, raw, unpack
from recd.config.policy_wishes import Encoding, Fit, PictureWish
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

Floats = npt.NDArray[np.floating[Any]]

__all__ = ["Ack", "Arm", "Encoding", "Event", "Fit", "LoggedChunk", "NoObservationError",
           "Observation", "PictureWish", "PolicyClient", "Prefix", "ack_of",
           "connected"]  # fmt: skip

REPLY_MS = 2_000
ACK_MS = 1_000
QUEUED = 16


class PolicyClient:
    """One policy at one robot. Not for several threads; its heartbeat has a thread of its own.

    instance: name of a daemon on this computer, none for the only one; endpoint: the policy address
    of another (`tcp://ROBOT:5595`), with `key`. name: who acts, in words; model: what acts, as the
    name of a checkpoint, for the manifest (one line, at most 256 bytes). Raises RecdError.
    """

    def __init__(
        self, instance: str | None = None, *, endpoint: str | None = None,
        key: Path | str | None = None, name: str = "policy", model: str = "",
    ) -> None:  # fmt: skip
        address = endpoint or policy_endpoint(find_instance(instance))
        self._doors = policy_doors(parsed(address))
        self._pair: Pair | None = None
        if not self._doors[0].path:
            self._pair = find_key(key, needed=not self._doors[0].local)
        self.name, self.model = name, model
        self.progress = 0
        self._ident = secrets.token_hex(16)
        self._epoch = 0
        self._chunk = 0
        self._last_obs = self._seen_ns = 0
        self._began: dict[str, tuple[int, int]] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._heart: Heart | None = None
        self._listener: Listener | None = None
        check_reachable(self._doors[0].text)
        self._requests, self._observations, self._actions = (
            connected(self._context, door.text, self._pair) for door in self._doors
        )
        try:
            self.robot = self.call("describe")
        except RecdError:
            self.close()
            raise
        action = self.robot["action"]
        self.layout: str = action["layout"]
        self.names: tuple[str, ...] = tuple(action["names"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """Stop the heartbeat, give the lease back, drop the connections. Idempotent."""
        if self._heart is not None:
            self._heart.stop()
            self._heart = None
            self._send_release()
        self._context.destroy(linger=100)

    def _send_release(self) -> None:
        request = Request(new_request_id(), "lease.release", {"lease": self._ident}, REPLY_MS)
        self._requests.send(request.pack(), zmq.NOBLOCK)

    def call(self, cmd: str, **args: Any) -> dict[str, Any]:
        """One request of the gateway (docs/policy_api.md). RecdError with its reason."""
        request = Request(new_request_id(), cmd, args, REPLY_MS)
        self._requests.send(request.pack())
        deadline_ns = now_ns() + REPLY_MS * NS_PER_MS
        while (left_ms := (deadline_ns - now_ns()) // NS_PER_MS) > 0:
            if not self._requests.poll(left_ms):
                break
            reply = decode(self._requests.recv())
            if reply.get("re") != request.id:
                continue
            if reply.get("ok"):
                result: dict[str, Any] = reply["result"]
                return result
            error = reply.get("error", {})
            raise RecdError(error.get("message", ""), mend=error.get("mend", ""),
                            code=error.get("code", ""))  # fmt: skip
        raise ReplyTimeoutError(
            f"{cmd}: no reply from {self._doors[0].text}", mend="recctl status shows the gateway."
        )

    def clock(self, *, samples: int = 16) -> tuple[int, int]:
        """(offset, bound) in ns: the daemon's clock is this one plus offset, give or take bound.

        From the round trip that took the least time.
        """
        best = Clock(0, 2**62)
        for _ in range(samples):
            sent_ns = now_ns()
            told = self.call("clock")
            found = Clock.measured(
                sent_ns=sent_ns, rx_ns=told["rx"], tx_ns=told["tx"], back_ns=now_ns()
            )
            best = min(best, found, key=lambda clock: clock.bound_ns)
        return best.offset_ns, best.bound_ns

    def acquire(self, pair: str | None = None, *, kind: str = "policy", adapter: str = "") -> None:
        """Become the one whose chunks count, and begin the heartbeat. RecdError (`held`) names who
        is in the way. adapter: what stands between the policy and this API, for the manifest.
        """
        wanted = {} if pair is None else {"pair": pair}
        if adapter:
            wanted["adapter"] = adapter
        if self.model:
            wanted["model"] = self.model
        self._ident = secrets.token_hex(16)
        told = self.call("lease.acquire", lease=self._ident, name=self.name, kind=kind, **wanted)
        self._epoch, self._chunk = told["epoch"], 0
        self._began.clear()
        if self._heart is None:
            context, door, pair_of_keys = self._context, self._doors[2].text, self._pair
            self._heart = Heart(
                lambda: connected(context, door, pair_of_keys), lambda: self.pulse,
                every_ms=told["heartbeat_ms"],
            )  # fmt: skip
        self._heart.begin()

    def observe(
        self, *, cameras: Sequence[str] | None = None, max_wait_s: float = 0.5,
        newer_than_ns: int = 0, again: bool = False,
        pictures: PictureWish | Mapping[str, PictureWish] | None = None,
        history: Mapping[str, Sequence[int]] | None = None,
        history_ns: Mapping[str, Sequence[int]] | None = None, telemetry: bool = False,
        prefix: bool = False,
    ) -> Observation:  # fmt: skip
        """The newest observation that was not given yet. Waits up to half a second for it.

        cameras: only these; newer_than_ns: time of the daemon's clock that it has to be younger
        than; again: the newest one, although it may have been given already; pictures: their form,
        one for all cameras or one each; history: stream (a camera or `state`) -> rows of the
        dataset before this one, below 0; history_ns: the same in nanoseconds; telemetry: readings
        of the servos as well; prefix: what the arms will be told if no chunk comes.
        NoObservationError with the reason when there is none; RecdError for a wish that cannot be
        fulfilled.
        """
        ident = new_request_id()
        wanted: dict[str, Any] = {
            "ty": "get", "id": ident, "after": 0 if again else self._last_obs,
            "newer_than": newer_than_ns,
            "max_wait_ms": round(min(0.5, max_wait_s) * 1000),
        }  # fmt: skip
        if cameras is not None:
            wanted["cameras"] = list(cameras)
        wishes = self._wishes(cameras, pictures, history, history_ns,
                              telemetry=telemetry, prefix=prefix)  # fmt: skip
        wanted |= wishes
        self._observations.send_multipart(pack(wanted))
        header, buffers = self._answer(self._observations, ident, REPLY_MS)
        if header["ty"] != "obs":
            stream = header.get("stream", "")
            if wishes and header.get("code"):
                mend = header.get("mend") or "docs/policy_api.md tells what may be wished for."
                raise RecdError(header["reason"], mend=mend, code=header["code"])
            raise NoObservationError(
                f"no observation: {f'{stream}: ' if stream else ''}{header.get('reason', '')}",
                mend="recctl status shows cameras and arms.",
            )
        self._last_obs = header["obs"]
        self.progress += 1
        seen = observation_of(header, buffers)
        began = {pair: (arm.grants, arm.held_ns) for pair, arm in seen.arms.items()}
        reset, self._began = began != self._began, began
        self._seen_ns = now_ns()
        return replace(seen, reset=reset)

    def _wishes(
        self, cameras: Sequence[str] | None,
        pictures: PictureWish | Mapping[str, PictureWish] | None,
        history: Mapping[str, Sequence[int]] | None,
        history_ns: Mapping[str, Sequence[int]] | None, *, telemetry: bool,
        prefix: bool,
    ) -> dict[str, Any]:  # fmt: skip
        """What a message `get` says of them. RecdError at a daemon that would not hear it."""
        if isinstance(pictures, PictureWish):
            names = self.robot["cameras"] if cameras is None else cameras
            pictures = dict.fromkeys(names, pictures)
        told: dict[str, Any] = {}
        if pictures:
            told["pictures"] = {name: wish.told() for name, wish in pictures.items()}
        for key, given in (("history", history), ("history_ns", history_ns)):
            if given:
                told[key] = {stream: [int(at) for at in back] for stream, back in given.items()}
        if telemetry:
            told["telemetry"] = True
        if prefix:
            told["prefix"] = True
        known = self.robot.get("wishes")
        if told and (known is None or (prefix and not known.get("prefix"))):
            raise RecdError(
                f"expected a daemon that gives {', '.join(told)}, found version "
                f"{self.robot['version']}", mend="Update recd on the robot.", code="version",
            )  # fmt: skip
        return told

    def act(
        self, seen: Observation, actions: Floats, *, dt_s: float,
        representation: str = "abs", mode: str = "replace", blend: int = 0,
        valid_s: float | None = None, mask: Sequence[bool] | None = None,
        offsets_ns: Sequence[int] | None = None, prefix_used: int | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Ack:  # fmt: skip
        """Send a chunk that answers `seen` and wait for what became of it.

        actions: float [T, D] in the order of `names`; row k is due (k + 1) * dt_s after the
        observation, or `offsets_ns[k]` after it. T = 0 stops the arm. prefix_used: how many of its
        rows, from the first one, go on from `seen.prefix`, for the record. facts: more for the
        header; `task`: what the policy is at, else the observation's. ReplyTimeoutError when no
        ACK comes.
        """
        self._chunk += 1
        ident = new_request_id()
        chunk: dict[str, Any] = {
            "ty": "act", "id": ident, "lease": {"id": self._ident, "epoch": self._epoch},
            "chunk": self._chunk, "obs": seen.number, "t_ref": seen.t_ref_ns,
            "dt_ns": round(dt_s * NS_PER_S), "layout": self.layout, "rep": representation,
            "mode": mode, "blend": blend, **task_of(seen.task),
            "infer": {"start": self._seen_ns, "end": now_ns()}, **(facts or {}),
        }  # fmt: skip
        if offsets_ns is not None:
            chunk["offsets_ns"] = [int(offset) for offset in offsets_ns]
        if valid_s is not None:
            chunk["valid_ns"] = round(valid_s * NS_PER_S)
        if prefix_used is not None:
            chunk["prefix_used"] = int(prefix_used)
        if mask is not None:
            chunk["mask"] = [bool(item) for item in mask]
        ack = self.send_raw(pack(chunk, [raw("actions", actions)]), ident)
        self.progress += 1
        return ack

    def chunks(self, after: int = 0) -> tuple[LoggedChunk, ...]:
        """The newest chunks of whatever policy, with what became of them: those behind the one
        numbered `after`, oldest first, a dozen at most. A gap in the numbers is a loss.
        """
        ident = new_request_id()
        self._observations.send_multipart(pack({"ty": "chunks", "id": ident, "after": after}))
        header, buffers = self._answer(self._observations, ident, REPLY_MS)
        if header["ty"] != "chunks":
            reason = str(header.get("reason", "no chunks"))
            raise RecdError(reason, mend="Update recd on the robot.", code="version")
        if header["newest"] < after:  # another gateway, which counts anew
            return self.chunks()
        return logged_of(header, buffers)

    def next_event(self, *topics: str, timeout_s: float = 0.0) -> Event | None:
        """The next event (`lease`, `motion`, `chunk`; only these topics when some are named), or
        None when none came within `timeout_s`.

        The first call connects: it hears what happens from a moment later on.
        """
        if self._listener is None:
            self._listener = Listener(self._context, self._doors[0], self._pair)
        return self._listener.next(*topics, timeout_s=timeout_s)

    def send_raw(self, parts: Sequence[Any], ident: str) -> Ack:
        """Send a message to `act` as it is, and wait for the ACK of `ident`: for tests of what a
        daemon does with rubbish. ReplyTimeoutError.
        """
        self._actions.send_multipart(parts)
        header, _ = self._answer(self._actions, ident, ACK_MS)
        return ack_of(header)

    def _answer(
        self, socket: zmq.Socket[bytes], ident: str, patience_ms: int
    ) -> tuple[dict[str, Any], dict[str, Buffer]]:
        """The message that answers `ident`; older ones are thrown away."""
        deadline_ns = now_ns() + patience_ms * NS_PER_MS
        while (left_ms := (deadline_ns - now_ns()) // NS_PER_MS) > 0:
            if not socket.poll(left_ms):
                break
            header, buffers = unpack(socket.recv_multipart())
            if header.get("re") == ident:
                return header, buffers
        raise ReplyTimeoutError(
            f"no answer within {patience_ms} ms from {self._doors[0].text}",
            mend="recctl status shows the gateway.",
        )

    @property
    def pulse(self) -> dict[str, Any]:
        """What the heartbeat sends: the lease, how often the loop has come round, and how the clock
        goes, once the heartbeats before have measured it."""
        told = {"ty": "hb", "lease": {"id": self._ident}, "progress": self.progress}
        clock = None if self._heart is None else self._heart.clock
        return told if clock is None else {**told, "clock": clock.told()}


def task_of(task: str) -> dict[str, str]:
    """`task` for a chunk's header; nothing where a chunk cannot say it: its rows then have the
    episode's."""
    return {"task": task} if is_task(task) else {}


def connected(
    context: "zmq.Context[zmq.Socket[bytes]]", address: str, pair: Pair | None
) -> "zmq.Socket[bytes]":
    """A DEALER at one door of the gateway: bounded, forgetting at once when it is closed."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, QUEUED)
    socket.setsockopt(zmq.RCVHWM, QUEUED)
    use_key(socket, pair)
    socket.connect(address)
    return socket
