"""A real daemon with the simulated robot, policies at it, and the log of what its servos got."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import zmq

from recd.clients.policy import Ack, NoObservationError, Observation, PolicyClient, connected
from recd.config.errors import RecdError
from recd.config.policy_wire import Status, pack, raw, unpack
from recd.daemon.sim import camera_control
from recd.daemon.sim.control import SimControl
from recd.daemon.sim.servolog import writes_of
from tests.rig import Robot, running, until

RATE_HZ = 100
VELOCITY_PER_S = 360.0
STEPS_PER_UNIT = dict.fromkeys(range(1, 6), 4095 / 360) | {6: 15.0}
FOLLOWER = "main.follower"
DT_S = 1 / 30
OVERRIDES = (
    "policy={}", "policy.lease_kept_s=30", "policy.observation_s=10", "cameras.wrist=null",
    f"arms.main.rate_hz={RATE_HZ}",
    "arms.main.limits.align_error=400", "arms.main.limits.ramp_s=0.3",
    "arms.main.limits.idle_park_s=0",
)  # fmt: skip


DRIVER = Path(__file__).with_name("drive_policy.py")


class Driver:
    """A policy in a process of its own (drive_policy.py), by what it prints."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process, self.pid = process, process.pid

    def until_said(self, word: str) -> str:
        """The next line that begins with `word`; it fails when the process ends before."""
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.split()[0] == word:
                return line
        raise AssertionError(f"it ended before it said {word}")


@contextmanager
def driving(endpoint: str, steps: int, *, world: Sequence[str] = ()) -> Iterator[Driver]:
    """It acquires the lease and sends chunks of so many steps. world: a command that it is run by.
    Its end is the end of its input, however it was started."""
    process = subprocess.Popen(
        [*world, sys.executable, str(DRIVER), endpoint, str(steps)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Driver(process)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.kill()
        process.wait()


class PolicyBench:
    """One daemon for a file of tests."""

    @classmethod
    @contextmanager
    def running(cls, folder: Path, *overrides: str, rate_hz: int = RATE_HZ) -> Iterator[Self]:
        """Its daemon, armed."""
        with running(folder, *overrides) as robot:
            robot.arm()
            bench = cls(robot, rate_hz=rate_hz)
            try:
                yield bench
            finally:
                bench.control.close()

    def __init__(self, robot: Robot, *, rate_hz: int = RATE_HZ) -> None:
        self.robot, self.rate_hz = robot, rate_hz
        self.client = robot.client
        self.control = SimControl(next(robot.runtime.rglob("control.sock")))
        self.cameras = str(next(robot.runtime.rglob("cameras.sock")))
        self.endpoint = robot.policy_endpoint
        self.control_endpoint = ""
        self.center = np.zeros(6)

    def motion(self) -> dict[str, Any]:
        return self.client.status()["arms"]["main"]["motion"] or {"state": "", "cause": ""}

    def in_state(self, state: str, cause: str = "") -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            told = self.motion()
            fits = told["state"] == state and cause in ("", told["cause"])
            return told if fits else None

        return until(there, f"{state} {cause}")

    def ticks(self, count: int) -> None:
        """Wait until the follower's bus has carried as many more requests."""

        def requests() -> int:
            return int(self.control.describe()["arms"][FOLLOWER]["requests"])

        upto = requests() + count
        until(lambda: requests() >= upto, f"{count} requests")

    def goals(self, since: int) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {ident: [] for ident in range(1, 7)}
        for write in self.control.writes(since=since, bus=FOLLOWER, name="Goal_Position"):
            found[write.ident].append(write.value)
        return found

    def assert_gentle(self, since: int) -> None:
        """No two goals in a row lie further apart than a period allows; torque is not touched."""
        last: dict[int, int] = {}
        for entry in self.control.entries(since=since, bus=FOLLOWER):
            assert entry.kind != "torque"
            for write in writes_of(entry):
                if write.name == "Goal_Position":
                    most = VELOCITY_PER_S / self.rate_hz * STEPS_PER_UNIT[write.ident] + 2
                    assert abs(write.value - last.get(write.ident, write.value)) <= most
                    last[write.ident] = write.value

    def assert_stands(self) -> None:
        """Nothing moves the arm any more, once it has slowed down."""
        self.ticks(40)
        mark = self.control.mark()
        self.ticks(40)
        assert all(len(set(goals)) <= 1 for goals in self.goals(mark).values())

    @contextlib.contextmanager
    def policy(self, **options: Any) -> Iterator[PolicyClient]:
        with PolicyClient(endpoint=self.endpoint, **options) as policy:
            yield policy

    def ready(self) -> None:
        """Armed, held, nobody's lease, every fault over."""
        camera_control.call(self.cameras, "clear")
        self.client.wait_until("READY", "RECORDING")
        if self.motion()["state"] in ("DISARMED", "FAULT", "") or not self.armed():
            self.client.arm()
            self.in_state("TELEOP")
        self.gateway("policy.detach")
        self.in_state("HOLD", "command")
        until(lambda: self.leases()["main"]["kind"] == "nobody", "the lease to be free")

    def armed(self) -> bool:
        return bool(self.motion().get("armed"))

    def gateway(self, command: str) -> dict[str, Any]:
        """A command about policies, as soon as the gateway is there."""

        def answer() -> dict[str, Any] | None:
            try:
                return self.client.call(command)
            except RecdError as error:
                if error.code in ("starting", "device"):
                    return None
                raise

        return until(answer, f"{command} to be carried out")

    def leases(self) -> dict[str, Any]:
        return self.gateway("policy.stats").get("leases", {"main": {"kind": ""}})

    def observe(self, policy: PolicyClient) -> Observation:
        """An observation, however long a busy computer takes for it."""

        def found() -> Observation | None:
            try:
                return policy.observe()
            except NoObservationError:
                return None

        return until(found, "an observation")

    def chunk(self, seen: Observation, steps: int = 60) -> np.ndarray:
        """Back and forth around where the arm was first, from where it is."""
        del seen
        swing = np.sin(np.linspace(0.0, 6.0, steps))[:, None] * np.eye(1, 6) * 5.0
        return self.center + swing

    def send(self, policy: PolicyClient, steps: int = 60, **options: Any) -> Ack:
        seen = self.observe(policy)
        return policy.act(seen, self.chunk(seen, steps), dt_s=DT_S, **options)

    def seat(self, policy: PolicyClient) -> None:
        """Acquire, warm up, and let a person say that it may drive."""
        policy.acquire()
        self.center = self.observe(policy).state.astype(float)
        sound = 0
        while sound < 3:
            sound += self.send(policy).status is Status.SHADOW
        self.gateway("policy.attach")

    def drive(self, policy: PolicyClient) -> None:
        """Seat it and send chunks until the arm moves by them."""
        self.seat(policy)
        self.rejoin(policy)

    def rejoin(self, policy: PolicyClient) -> None:
        told: dict[str, Any] = {}

        def moving() -> bool:
            told.update(ack=self.send(policy), motion=self.motion())
            return bool(told["motion"]["state"] == "POLICY")

        try:
            until(moving, "POLICY")
        except BaseException:
            print("what became of the last chunk:", told)
            raise

    def goes_on(self, policy: PolicyClient) -> None:
        """Its chunks are played, as they were."""
        ack = self.send(policy)
        for _ in range(300):
            if ack.status is Status.APPLIED:
                return
            ack = self.send(policy)
        raise AssertionError(f"it does not go on: {ack}, {self.motion()}")

    def raw_act(self, policy: PolicyClient, **changes: Any) -> list[Any]:
        """The parts of a chunk as the client would send them, with changes to its header."""
        seen = self.observe(policy)
        header = {
            "ty": "act", "id": "raw", "lease": {"id": policy._ident, "epoch": policy._epoch},
            "chunk": policy._chunk + 1, "obs": seen.number, "t_ref": seen.t_ref_ns,
            "dt_ns": round(DT_S * 1e9), "layout": policy.layout, **changes,
        }  # fmt: skip
        actions = header.pop("actions", self.chunk(seen))
        return pack(header, [raw("actions", np.asarray(actions))])

    @contextlib.contextmanager
    def actions(self) -> Iterator[zmq.Socket[bytes]]:
        """A bare connection to `act`."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            yield connected(context, self.endpoint.replace(".sock", "-act.sock"), None)
        finally:
            context.destroy(linger=0)

    def answer(self, socket: zmq.Socket[bytes]) -> dict[str, Any]:
        assert socket.poll(10_000)
        return unpack(socket.recv_multipart())[0]
