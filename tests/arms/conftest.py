"""Real arm workers on a simulated robot, without the daemon: rings, cells, links, exec."""

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from recd.config.models import ArmPairConfig
from recd.config.streams import (
    STATUS_DTYPE,
    STATUS_STATES,
    arm_sample_dtype,
    leader_cell_dtype,
    telemetry_dtype,
)
from recd.daemon.sim import launch
from recd.daemon.worker import Link, RingGrant, WorkerSpec
from recd.shm import (
    CellReader,
    ReaderPolicy,
    RingReader,
    RingSpec,
    Segment,
    create_cell,
    create_ring,
)
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

JOINTS = 6
PAIR = "main"
RATE_HZ = 100
"""Slow enough for a loaded computer: what is promised here holds per tick, not per second."""

PERIOD_NS = NS_PER_S // RATE_HZ
PATIENCE_NS = 60 * NS_PER_S
SAMPLE = arm_sample_dtype(JOINTS)


def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until `condition` is true and return its value; fail after long patience."""
    deadline_ns = now_ns() + PATIENCE_NS
    while now_ns() < deadline_ns:
        if value := condition():
            return value
        sleep_until_ns(now_ns() + 5 * NS_PER_MS)
    raise AssertionError(f"did not happen: {what}")


class Worker:
    """One real worker process and what came over its link."""

    def __init__(self, spec: WorkerSpec, link: Link, theirs: Any, status: CellReader) -> None:
        spec_read, spec_write = os.pipe()
        self.link = link
        self.status = status
        self.messages: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "recd.daemon.worker", str(spec_read)],
            pass_fds=(spec_read, *spec.passed_fds()),
        )
        os.close(spec_read)
        theirs.close()
        with os.fdopen(spec_write, "wb") as pipe:
            pipe.write(spec.pack())

    def hear(self) -> None:
        while (message := self.link.recv()) is not None:
            self.messages.append(message)

    def answer(self, ty: str, *, since: int = 0, **fields: Any) -> dict[str, Any]:
        """First message of type `ty` with these fields, from number `since` on."""

        def found() -> dict[str, Any] | None:
            select.select([self.link.fd], [], [], 0.02)
            self.hear()
            for message in self.messages[since:]:
                if message["ty"] == ty and fields.items() <= message.items():
                    return message
            return None

        try:
            return until(found, f"message {ty} {fields}")
        except AssertionError as error:
            error.add_note(f"came instead: {self.messages[since:]}")
            raise

    def event(self, name: str, *, since: int = 0) -> dict[str, Any]:
        return self.answer("event", since=since, event=name)["fields"]

    def command(self, ty: str, **fields: Any) -> int:
        """Send a motion command; returns the number of the next message."""
        self.hear()
        since = len(self.messages)
        assert self.link.send(ty, **fields)
        return since

    def state(self) -> str:
        record = self.status.read()
        return "" if record is None else STATUS_STATES["arm"][int(record[1]["state"])]

    def count(self, index: int) -> int:
        record = self.status.read()
        return 0 if record is None else int(record[1]["counters"][index])

    @property
    def alive(self) -> bool:
        return self.process.poll() is None and not self.link.closed

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.link.close()

    def finish(self, ty: str = "stop") -> int:
        """End it in order; returns its exit code."""
        self.link.send(ty)
        return self.process.wait(timeout=PATIENCE_NS / NS_PER_S)


class Rig:
    """A simulated pair, the shared memory around it, and the workers on it."""

    until = staticmethod(until)

    def __init__(self, sim: launch.RunningSim) -> None:
        self.sim = sim
        self.control = sim.control
        self.config = self._config()
        self.start_mark = 0
        self._running: dict[str, tuple[Worker, dict[str, Any]]] = {}
        self._rings: dict[str, Segment] = {}
        self._cells: dict[str, Segment] = {
            f"leader.{PAIR}": create_cell(f"leader.{PAIR}", leader_cell_dtype(JOINTS))
        }
        self.samples: dict[str, RingReader] = {}
        self.telemetry: dict[str, RingReader] = {}
        for role in ("leader", "follower"):
            bus = f"{PAIR}.{role}"
            self._cells[f"status.arm:{bus}"] = create_cell(f"status.arm:{bus}", STATUS_DTYPE)
            for name, dtype, readers in (
                (f"arm.{bus}", SAMPLE, self.samples),
                (f"telemetry.{bus}", telemetry_dtype(JOINTS), self.telemetry),
            ):
                spec = RingSpec(name=name, kind="record", slots=4096, slot_bytes=dtype.itemsize)
                self._rings[name] = create_ring(spec)
                readers[role] = RingReader(self._rings[name], 0, policy=ReaderPolicy.BEST_EFFORT)

    def _config(self) -> dict[str, Any]:
        pair = ArmPairConfig.model_validate(
            {
                "rate_hz": RATE_HZ,
                "telemetry_hz": 10.0,
                **{
                    role: {
                        "port": self.sim.endpoints[f"{PAIR}.{role}"],
                        "calibration": self.sim.calibrations[f"{PAIR}.{role}"],
                    }
                    for role in ("leader", "follower")
                },
                "limits": {"ramp_s": 0.2, "align_error": 30.0, "idle_park_s": 0.0},
            }
        )
        return pair.model_dump(mode="json")

    def start(self, role: str, **changes: Any) -> Worker:
        """Exec the worker of one side anew; `changes` replace keys of its pair's configuration."""
        self.end(role)
        bus = f"{PAIR}.{role}"
        name = f"arm:{bus}"
        ours, theirs = Link.pair()
        cells = {key: self._cells[key].fd for key in (f"status.{name}", f"leader.{PAIR}")}
        rings = {key: RingGrant(self._rings[key].fd) for key in (f"arm.{bus}", f"telemetry.{bus}")}
        spec = WorkerSpec(
            name=name, kind="arm", instance="test", runtime_dir=str(self.sim.directory),
            link_fd=theirs.fileno(), rings=rings, cells=cells,
            config={"pair": PAIR, "side": role, "bus": bus, **self.config, **changes},
        )  # fmt: skip
        worker = Worker(spec, ours, theirs, CellReader(self._cells[f"status.{name}"]))
        self._running[role] = (worker, changes)
        return worker

    def end(self, role: str) -> None:
        """Kill the worker of one side, if there is one."""
        running = self._running.pop(role, None)
        if running is not None:
            running[0].kill()

    def ready(self, role: str, **changes: Any) -> Worker:
        """A ready worker of one side: the one that runs with these changes, or a new one."""
        running = self._running.get(role)
        if running is not None and running[1] == changes and running[0].alive:
            return running[0]
        worker = self.start(role, **changes)
        worker.answer("ready")
        return worker

    def limits(self, **changes: float) -> dict[str, Any]:
        """`limits` section with changes, for `start`."""
        return {"limits": {**self.config["limits"], **changes}}

    def teleoperating(self, **changes: Any) -> tuple[Worker, Worker]:
        """Both workers, armed and following; `changes` are the follower's."""
        leader, follower = self.ready("leader"), self.ready("follower", **changes)
        since = follower.command("arm")
        follower.answer("motion", since=since, state="TELEOP")
        return leader, follower

    def settled(self) -> None:
        """Wait until the hand on the leader has brought it to the follower's pose."""

        def alike() -> bool:
            poses = [self.gather(role, 1)[-1]["present"] for role in ("leader", "follower")]
            return bool(np.abs(poses[0] - poses[1]).max() < 5)

        until(alike, "the leader is where the follower is")

    def reset(self) -> None:
        """As after power-up: both plugged in, no torque, no fault, the leader at the follower."""
        follower = self._running.get("follower")
        if follower is not None and follower[1] == {} and follower[0].alive:
            since = follower[0].command("disarm", policy="release")
            follower[0].answer("motion", since=since, state="DISARMED")
            follower[0].messages.clear()
        else:
            self.end("follower")
        for bus, arm in self.control.describe()["arms"].items():
            self.control.clear(bus=bus)
            if not arm["plugged"] or arm["path"] != self.sim.endpoints[bus]:
                self.control.unplug(bus=bus)
                self.control.plug(bus=bus, link=self.sim.endpoints[bus])
            if any(joint["torque"] for joint in arm["joints"].values()):
                self.control.brown_out(bus=bus, down_ms=0)
        self.control.hand(bus=f"{PAIR}.leader", kind="attend")
        self.config = self._config()
        self.start_mark = self.control.mark()
        for reader in self.samples.values():
            reader.seek_newest()

    def close(self) -> None:
        for role in list(self._running):
            self.end(role)

    def take(self, role: str) -> np.ndarray:
        """All samples since the last call, oldest first."""
        reader, taken = self.samples[role], []
        while (slot := reader.take()) is not None:
            record = np.frombuffer(bytes(slot.payload[: slot.nbytes]), SAMPLE)[0]
            assert slot.intact()
            taken.append(record)
        return np.array(taken, dtype=SAMPLE)

    def newest_telemetry(self, role: str) -> Any:
        """Next telemetry record of one side."""
        reader = self.telemetry[role]
        reader.seek_newest()
        slot = until(reader.take, f"telemetry of the {role}")
        return np.frombuffer(bytes(slot.payload[: slot.nbytes]), telemetry_dtype(JOINTS))[0]

    def gather(self, role: str, count: int) -> np.ndarray:
        """At least `count` new samples."""
        parts = [self.take(role)]
        until(
            lambda: (parts.append(self.take(role)), sum(map(len, parts)) >= count)[1],
            f"{count} samples of the {role}",
        )
        return np.concatenate(parts)

    def skip(self, role: str) -> None:
        """Forget the samples so far."""
        self.samples[role].seek_newest()

    def torque_writes(self) -> list[Any]:
        """Writes to the follower's torque register in this test."""
        return self.control.writes(
            since=self.start_mark, bus=f"{PAIR}.follower", name="Torque_Enable"
        )

    def goal_steps(self, since: int = 0) -> dict[int, list[int]]:
        """Goals that each servo of the follower got in this test, oldest first."""
        since = since or self.start_mark
        goals: dict[int, list[int]] = {ident: [] for ident in range(1, JOINTS + 1)}
        for write in self.control.writes(since=since, bus=f"{PAIR}.follower", name="Goal_Position"):
            goals[write.ident].append(write.value)
        return goals


@pytest.fixture(scope="module")
def sim_settings() -> dict[str, Any]:
    """Settings of the simulated arms of a file's tests."""
    return {}


@pytest.fixture(scope="module")
def pair_sim(
    tmp_path_factory: pytest.TempPathFactory, sim_settings: dict[str, Any]
) -> Iterator[launch.RunningSim]:
    directory = tmp_path_factory.mktemp("sim")
    with launch.running(directory, pairs=[PAIR], hand="attend", settings=sim_settings) as sim:
        yield sim


@pytest.fixture(scope="module")
def module_rig(pair_sim: launch.RunningSim) -> Iterator[Rig]:
    rig = Rig(pair_sim)
    yield rig
    rig.close()


@pytest.fixture
def rig(module_rig: Rig) -> Rig:
    """A simulated pair without torque whose leader is held where the follower is until it has."""
    module_rig.reset()
    return module_rig
