"""Simulated arms that outlive the daemon, a daemon on them, and the log of their servos."""

import itertools
import os
import signal
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from recd.daemon.sim import launch
from recd.daemon.sim.servolog import writes_of
from recd.shm.clock import NS_PER_S
from tests.rig import START_S, Robot, stolen_ns, until

RATE_HZ = 100
JOINTS = 6
LEADER, FOLLOWER = "main.leader", "main.follower"
GOAL, TORQUE = "Goal_Position", "Torque_Enable"
LONGEST_GAP_NS = NS_PER_S // 4
"""Half of the silence that makes a follower hold: 25 periods, more than a busy computer takes. What
its host takes from it meanwhile comes on top."""

VELOCITY_PER_S, GLIDE_PER_S, RAMP_S = 360.0, 60.0, 0.5
STEPS_PER_UNIT = dict.fromkeys(range(1, JOINTS), 4095 / 360) | {JOINTS: 15.0}


def largest_step(ident: int, per_s: float = VELOCITY_PER_S) -> float:
    """Steps by which two goals in a row may differ; truncation to steps costs up to two."""
    return per_s / RATE_HZ * STEPS_PER_UNIT[ident] + 2


class Bench:
    """Simulated arms that outlive the daemon, and a daemon on them."""

    def __init__(self, sim: launch.RunningSim, folder: Path, *overrides: str) -> None:
        self.sim = sim
        self.folder = folder
        self.control = sim.control
        buses = list(sim.endpoints)
        by_id = {bus: arm["by_id"] for bus, arm in sim.control.describe()["arms"].items()}
        pairs = sorted({bus.partition(".")[0] for bus in buses})
        self.overrides = ["cameras.wrist=null"]
        self.overrides += [f"arms.{bus}.port={by_id[bus]}" for bus in buses]
        self.overrides += [f"arms.{bus}.calibration={sim.calibrations[bus]}" for bus in buses]
        for pair in pairs:
            limits = f"arms.{pair}.limits"
            # The leader goes on demonstrating: wherever it is by then, the follower glides there.
            self.overrides += [
                f"arms.{pair}.rate_hz={RATE_HZ}", f"{limits}.align_error=400",
                f"{limits}.ramp_s={RAMP_S}", f"{limits}.idle_park_s=0",
            ]  # fmt: skip
        self.overrides += overrides
        self.robot = Robot(folder, *self.overrides)

    @property
    def client(self) -> Any:
        return self.robot.client

    def teleoperating(self, bus: str = FOLLOWER) -> None:
        """Everything plugged in, alive, and following."""
        pair = bus.partition(".")[0]
        for name, arm in self.control.describe()["arms"].items():
            self.control.clear(bus=name)
            if not arm["plugged"]:
                self.control.plug(bus=name)
        self.control.hand(bus=f"{pair}.leader", kind="attend")
        until(lambda: self._ready(), "READY", START_S)
        if self.motion(pair)["state"] != "TELEOP":
            self.client.arm(pair)
            until(lambda: self.motion(pair)["state"] == "TELEOP", "TELEOP")
        self.ticks(30, bus)

    def _ready(self) -> bool:
        processes = self.client.status()["processes"]
        return all(p["state"] not in ("CONNECTING", "") for n, p in processes.items()
                   if n.startswith("arm:"))  # fmt: skip

    def motion(self, pair: str = "main") -> dict[str, Any]:
        return self.client.status()["arms"][pair]["motion"] or {"state": "", "cause": ""}

    def in_state(self, state: str, cause: str, pair: str = "main") -> None:
        wanted = (state, cause)
        until(
            lambda: (self.motion(pair)["state"], self.motion(pair)["cause"]) == wanted,
            f"{state} ({cause})", START_S,
        )  # fmt: skip

    def ticks(self, count: int, bus: str = FOLLOWER) -> None:
        """Wait until a bus has carried as many more requests."""

        def requests() -> int:
            return int(self.control.describe()["arms"][bus]["requests"])

        upto = requests() + count
        until(lambda: requests() >= upto, f"{count} requests on {bus}")

    def worker(self, bus: str) -> psutil.Process:
        return self.robot.workers()[f"arm:{bus}"]

    def torque(self, bus: str = FOLLOWER) -> list[bool]:
        return [j["torque"] for j in self.control.describe()["arms"][bus]["joints"].values()]

    def torque_changes(self, since: int, bus: str = FOLLOWER) -> list[tuple[int, bool]]:
        """(servo, on) for each change of torque, by whatever cause."""
        return [
            (entry.fields["id"], entry.fields["on"])
            for entry in self.control.entries(since=since, bus=bus)
            if entry.kind == "torque"
        ]

    def goals(self, since: int, bus: str = FOLLOWER) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {ident: [] for ident in range(1, JOINTS + 1)}
        for write in self.control.writes(since=since, bus=bus, name=GOAL):
            found[write.ident].append(write.value)
        return found

    def assert_untouched(self, since: int, bus: str = FOLLOWER) -> None:
        assert self.control.writes(since=since, bus=bus) == []
        assert self.torque_changes(since, bus) == []

    def assert_stood_still(self, since: int, bus: str = FOLLOWER) -> None:
        """No goal since then but, at most, the last one once more."""
        assert all(len(set(goals)) <= 1 for goals in self.goals(since, bus).values())
        assert self.torque_changes(since, bus) == []

    def moved(self, since: int) -> bool:
        """Whether the three joints that every demonstration moves have got different goals."""
        return all(len(set(goals)) > 1 for at, goals in self.goals(since).items() if at < 4)

    def assert_never_left_alone(self, since: int, *, stolen_before_ns: int) -> None:
        """A goal for every joint all the time since then, at the rate of the control loop."""
        longest_gap_ns = LONGEST_GAP_NS + stolen_ns() - stolen_before_ns
        times: dict[int, list[int]] = {ident: [] for ident in range(1, JOINTS + 1)}
        for write in self.control.writes(since=since, bus=FOLLOWER, name=GOAL):
            times[write.ident].append(write.t_ns)
        for ident, written_ns in times.items():
            gaps = [b - a for a, b in itertools.pairwise(written_ns)]
            assert max(gaps) <= longest_gap_ns, (ident, max(gaps))
            assert median(gaps) < 1.5 * NS_PER_S / RATE_HZ, (ident, median(gaps))

    def assert_gentle(self, since: int, bus: str = FOLLOWER) -> None:
        """No two goals in a row, while torque is on, lie further apart than a period allows."""
        last: dict[int, int] = {}
        count = 0
        for entry in self.control.entries(since=since, bus=bus):
            if entry.kind == "torque" and not entry.fields["on"]:
                last.pop(entry.fields["id"], None)
            for write in writes_of(entry):
                if write.name == GOAL:
                    step = abs(write.value - last.get(write.ident, write.value))
                    assert step <= largest_step(write.ident), (write.ident, step)
                    last[write.ident] = write.value
                    count += 1
        assert count > 0

    def stop_daemon(self) -> None:
        if self.robot.process is not None and self.robot.process.poll() is None:
            self.robot.end()

    def kill_daemon(self) -> None:
        """The supervisor dies at once; wait until its workers have followed."""
        tree = self.robot.tree()
        os.kill(self.robot.process.pid, signal.SIGKILL)
        self.robot.process.wait()
        self.robot.close_client()
        until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in tree),
              "all processes to end")  # fmt: skip
