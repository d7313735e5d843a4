"""The life of an adapter: connect, warm up, pass the gate, take the lease, answer observations.

A failed request costs its connection and nothing else; several in a row cost the lease, and the arm
holds. What does not fit is told in words and tried again only slowly.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recd.clients.adapters.gate import (
    Expected,
    check_dry_run,
    check_latency,
    check_reply,
    expected_of,
)
from recd.clients.adapters.looking import Looking, looking_of
from recd.clients.adapters.profile import Binding, ProfileError, bind, load_profile
from recd.clients.adapters.wire import (
    Described,
    Floats,
    MismatchError,
    Wire,
    WireError,
    new_wire,
)
from recd.clients.policy import NoObservationError, Observation, PolicyClient
from recd.config.errors import RecdError
from recd.config.models import RobotConfig
from recd.config.policy_wire import Status
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

AGAIN_S: Mapping[str, float] = {"refused": 5.0, "unreachable": 1.0, "waiting": 1.0}
"""State of an adapter that does not drive -> seconds until it tries again."""

OBSERVATIONS_S = 30.0
"""How long a warm-up waits for the robot's first observation."""

WAITING = ": waiting"
"""End of the gateway's reason when there is only nothing newer yet."""

AFTER_FAILURE_S = 0.1
"""A server in trouble is not asked thirty times a second."""

LATENCIES = 256


@dataclass(frozen=True, slots=True)
class Said:
    """What an adapter tells of itself. state: `connecting`, `warming_up`, `offering` (it has the
    lease and sends chunks), `unreachable`, `refused`, `waiting`; reason, mend: why not offering.
    """

    state: str
    reason: str = ""
    mend: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


class Drive:
    """One adapter at one robot. connect: makes a new client of the policy API; say: hears every
    change of state; counts: requests, failures, chunks, applied, refused.
    """

    def __init__(
        self, robot: RobotConfig, *, connect: Callable[[], PolicyClient],
        say: Callable[[Said], None], stopping: threading.Event,
    ) -> None:  # fmt: skip
        assert robot.policy is not None
        self._robot, self._server, self._kind = robot, robot.policy.server, robot.policy.type
        self._connect, self._say, self._stopping = connect, say, stopping
        self._wire: Wire | None = None
        self._described = Described()
        self._expected = Expected(None, 1.0)
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self.counts = {"requests": 0, "failures": 0, "chunks": 0, "applied": 0, "refused": 0}
        self.trouble = ""

    def run(self) -> None:
        """Until `stopping` is set. Raises only what is a fault of this program."""
        while not self._stopping.is_set():
            try:
                self._session()
            except (MismatchError, ProfileError) as error:
                said = Said("refused", error.message, error.mend)
            except WireError as error:
                said = Said("unreachable", error.message, error.mend)
            except RecdError as error:
                said = Said("waiting", error.message, error.mend)
            else:
                continue
            finally:
                self._drop()
            self._say(said)
            self._stopping.wait(AGAIN_S[said.state])

    # --- one session: from a new connection to the lease's end -----------------------------

    def _session(self) -> None:
        self._say(Said("connecting"))
        profile = load_profile(self._server.profile, wire=self._kind)
        with self._connect() as robot:
            binding = bind(profile, joints=robot.names, cameras=list(robot.robot["cameras"]),
                           places=self._server.cameras)  # fmt: skip
            self._described = self._open(binding)
            self._expected = expected_of(
                self._described, binding, self._server, row_s=1 / self._robot.dataset.fps,
                reach_ns=robot.robot["wishes"]["reach_ns"],
            )  # fmt: skip
            looking = looking_of(
                binding, self._described, size=self._server.image_size or profile.size,
                step_s=self._expected.step_s,
            )  # fmt: skip
            self._warm_up(robot, looking)
            robot.model = self._described.model
            robot.acquire(adapter=self._kind)
            self._say(Said("offering", facts=self.facts()))
            self._serve(robot, looking)

    def _open(self, binding: Binding) -> Described:
        """A new connection, and what the server says of itself."""
        self._drop()
        self._wire = new_wire(self._kind, self._server, binding.profile)
        self._wire.connect(self._server.timeout_s)
        return self._wire.describe(self._server.timeout_s)

    def _drop(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _warm_up(self, robot: PolicyClient, looking: Looking) -> None:
        """The gate: inferences whose chunks are sound, in time, and within the arm's limits."""
        self._say(Said("warming_up"))
        assert self._wire is not None
        self._wire.reset(self._server.timeout_s)
        action, binding = robot.robot["action"], looking.binding
        taken = []
        for _ in range(self._server.warm_up):
            seen = self._first_seen(robot, looking)
            began = now_ns()
            reply = self._infer(looking, seen, self._server.warm_up_timeout_s)
            taken.append((now_ns() - began) / NS_PER_S)
            steps = check_reply(reply, binding, self._expected)
            self._expected = Expected(steps, self._expected.step_s)
            check_dry_run(
                binding.chunk(reply, seen.state, self._expected.step_s), binding,
                names=robot.names, low=np.array(action["low"]), high=np.array(action["high"]),
            )  # fmt: skip
        assert self._expected.steps is not None
        check_latency(taken, self._played(), self._expected.step_s)

    def _first_seen(self, robot: PolicyClient, looking: Looking) -> Observation:
        """The next whole observation; NoObservationError after a while."""
        until_ns = now_ns() + int(OBSERVATIONS_S * NS_PER_S)
        while True:
            try:
                return self._observe(robot, looking, newer_than_ns=0)
            except NoObservationError:
                if now_ns() > until_ns or self._stopping.is_set():
                    raise

    def _observe(
        self, robot: PolicyClient, looking: Looking, *, newer_than_ns: int
    ) -> Observation:  # fmt: skip
        seen = robot.observe(newer_than_ns=newer_than_ns, **looking.wanted)
        unknown = [robot.names[joint] for joint in looking.unknown(seen)]
        if unknown:
            raise NoObservationError(f"no observation: the position of {', '.join(unknown)} is not "
                                     f"known", mend="recctl status shows the arms.")  # fmt: skip
        return seen

    # --- while it has the lease ------------------------------------------------------------

    def _serve(self, robot: PolicyClient, looking: Looking) -> None:
        """Chunk after chunk. Raises what ended it; the lease goes with the client."""
        binding = looking.binding
        failed, newer_than_ns = 0, 0
        while not self._stopping.is_set():
            robot.progress += 1  # alive, whatever server and cameras do
            try:
                seen = self._observe(robot, looking, newer_than_ns=newer_than_ns)
            except NoObservationError as error:
                if not error.message.endswith(WAITING):
                    self.trouble = error.message
                continue
            try:
                if self._wire is None:
                    self._reopen(binding)
                assert self._wire is not None
                if seen.reset:
                    self._wire.reset(self._server.timeout_s)
                reply = self._infer(looking, seen, self._server.timeout_s)
                check_reply(reply, binding, self._expected)
            except WireError as error:
                failed += 1
                self._failed(error)
                if failed >= self._server.failures_most:
                    raise
                self._stopping.wait(AFTER_FAILURE_S)
                continue
            failed, self.trouble = 0, ""
            self._act(robot, binding, seen, reply)
            ahead_ns = self._replan() * self._expected.step_s * NS_PER_S
            newer_than_ns = seen.t_ref_ns + int(ahead_ns) - self._latency_ns()

    def _failed(self, error: WireError) -> None:
        self._drop()
        self.counts["failures"] += 1
        self.trouble = error.message
        self._say(Said("offering", error.message, error.mend, self.facts()))

    def _reopen(self, binding: Binding) -> None:
        """A new connection to the same server. MismatchError when it is another one by now."""
        described = self._open(binding)
        if described != self._described:
            raise MismatchError(
                "the server describes itself otherwise than before",
                mend="It is looked at anew; then: recctl policy attach",
            )
        assert self._wire is not None
        self._wire.reset(self._server.timeout_s)

    def _infer(self, looking: Looking, seen: Observation, timeout_s: float) -> Mapping[str, Floats]:
        assert self._wire is not None
        view = looking.view(seen)
        self.counts["requests"] += 1
        began = now_ns()
        reply = self._wire.infer(view, timeout_s)
        self._latencies.append((now_ns() - began) / NS_PER_MS)
        return reply

    def _act(
        self, robot: PolicyClient, binding: Binding, seen: Observation, reply: Mapping[str, Floats]
    ) -> None:
        chunk = binding.chunk(reply, seen.state, self._expected.step_s)[: self._played()]
        ack = robot.act(
            seen, chunk, dt_s=self._expected.step_s, mask=binding.mask.tolist(),
            mode="blend" if self._server.blend else "replace", blend=self._server.blend,
        )  # fmt: skip
        self.counts["chunks"] += 1
        good = ack.status in (Status.APPLIED, Status.SHADOW, Status.STOPPED)
        self.counts["applied" if good else "refused"] += 1
        if not good:
            self.trouble = f"chunk {ack.status}: {ack.reason}"
        match ack.status:
            case Status.STALE_EPOCH:
                self._acquire_again(robot)
            case Status.LAYOUT | Status.MALFORMED | Status.NOT_FINITE | Status.REFUSED:
                raise MismatchError(f"chunk {ack.status}: {ack.reason}", mend=ack.mend)

    def _acquire_again(self, robot: PolicyClient) -> None:
        """Somebody took the lease: ask for it until it is free. Driving needs a person again."""
        while not self._stopping.is_set():
            try:
                robot.acquire(adapter=self._kind)
            except RecdError as error:
                if error.code != "held":
                    raise
                self._say(Said("waiting", error.message, error.mend, self.facts()))
                self._stopping.wait(AGAIN_S["waiting"])
            else:
                self._say(Said("offering", facts=self.facts()))
                return

    def _played(self) -> int:
        steps = self._expected.steps or 1
        return min(steps, self._server.execute or steps)

    def _replan(self) -> int:
        return min(self._server.replan or max(1, self._played() // 2), self._played())

    def _latency_ns(self) -> int:
        """The usual inference: so much earlier the next observation is taken."""
        if not self._latencies:
            return 0
        ordered = sorted(self._latencies)
        return round(ordered[len(ordered) // 2] * NS_PER_MS)

    def facts(self) -> dict[str, Any]:
        """Numbers for `recctl policy stats`."""
        ordered = sorted(self._latencies)
        return {
            "type": self._kind,
            "address": self._server.address,
            "profile": self._server.profile,
            "horizon": self._expected.steps,
            "step_s": self._expected.step_s,
            "server": {key: str(value)[:200] for key, value in self._described.facts.items()},
            "infer_ms": {
                "median": ordered[len(ordered) // 2] if ordered else None,
                "p99": ordered[len(ordered) * 99 // 100] if ordered else None,
            },
            "trouble": self.trouble,
            **self.counts,
        }  # fmt: skip
