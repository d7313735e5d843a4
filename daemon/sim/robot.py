"""The simulated robot: its arms, their log, and the pose file that cameras look at.

`pump` moves everything on; the event loop in loop.py decides when. One process, one thread.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recd.config.errors import ConfigError, ConfigProblem
from recd.daemon.sim import so101
from recd.daemon.sim.arm import Arm, ArmSettings
from recd.daemon.sim.pose import PoseJoint, PoseWriter
from recd.daemon.sim.servolog import ServoLog
from recd.shm.clock import now_ns

POSE_PERIOD_NS = 4_000_000
SAVE_PERIOD_NS = 500_000_000


def arms_of_pairs(pairs: dict[str, dict[str, Any]]) -> list[ArmSettings]:
    """Settings of `{"main": {"leader": {...}, "follower": {...}}}`; a pair may lack one side.

    Buses are called `<pair>.<side>`, or just `<side>` for the pair named "".
    """
    settings = []
    for pair, sides in pairs.items():
        for side, fields in sides.items():
            if side not in ("leader", "follower"):
                raise ConfigError(
                    [ConfigProblem(f"sim.pairs.{pair}", "", "leader or follower", side)]
                )
            bus = f"{pair}.{side}" if pair else side
            settings.append(ArmSettings.read(bus, side, fields or {}, pair))
            if settings[-1].hand == "attend" and "follower" not in sides:
                problem = ConfigProblem(f"sim.{bus}.hand", "", "a follower to attend to", "none")
                raise ConfigError([problem])
    return settings


class SimRobot:
    """All arms of one simulated robot in `directory`, plugged in and ready.

    log_path: JSON lines of everything that happens on the lines, besides the ring in memory.
    """

    def __init__(
        self, arms: Iterable[ArmSettings], directory: Path, *, log_path: Path | None = None
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        start_ns = now_ns()
        self.directory = directory
        self.log = ServoLog(log_path)
        self.arms = {
            settings.bus: Arm(settings, directory, log=self.log, at_ns=start_ns)
            for settings in arms
        }
        self.pose_path = directory / "pose.bin"
        self._poses = PoseWriter(self.pose_path, self._pose_joints())
        self._pose_due_ns = start_ns
        self._save_due_ns = start_ns + SAVE_PERIOD_NS
        for arm in self.arms.values():
            self._give_hand(arm, start_ns)
            arm.port.plug()
        self._publish(start_ns)

    @property
    def endpoints(self) -> dict[str, str]:
        """Path of the port of each bus."""
        return {name: str(arm.port.link) for name, arm in self.arms.items()}

    @property
    def calibrations(self) -> dict[str, str]:
        """LeRobot calibration file that fits the servos of each bus."""
        return {name: str(arm.calibration_path) for name, arm in self.arms.items()}

    @property
    def requests(self) -> int:
        return sum(arm.bus.requests for arm in self.arms.values())

    @property
    def faults(self) -> int:
        return sum(arm.bus.faults.applied for arm in self.arms.values())

    def arm(self, bus: str) -> Arm:
        """Arm by the name of its bus. KeyError names those that there are."""
        if bus not in self.arms:
            raise KeyError(f"expected a bus of {', '.join(self.arms)}, got {bus!r}")
        return self.arms[bus]

    def hear(self, arm: Arm) -> None:
        """Take what the host wrote to the port of `arm`, and answer what is due."""
        data = arm.port.read()
        if data:
            arm.bus.receive(data, now_ns(), arm.port.baud())

    def pump(self) -> None:
        """Send every reply that is due, publish poses, save the log."""
        now = now_ns()
        for arm in self.arms.values():
            arm.bus.run(now)
            due = arm.bus.take_due(now)
            if due and arm.port.plugged:
                arm.bus.lost_bytes += len(due) - arm.port.write(due)
        if now >= self._pose_due_ns:
            self._publish(now - now % POSE_PERIOD_NS)
        if now >= self._save_due_ns:
            self._save_due_ns = now + SAVE_PERIOD_NS
            self.log.save()

    def next_ns(self) -> int:
        """When `pump` has something to do again."""
        due = self._pose_due_ns
        for arm in self.arms.values():
            at = arm.bus.next_ns()
            if at is not None and at < due:
                due = at
        return due

    def close(self) -> None:
        """Unplug everything and write the rest of the log."""
        for arm in self.arms.values():
            arm.port.unplug()
        self.log.close()
        self._poses.close()

    def _publish(self, at_ns: int) -> None:
        angles: list[float] = []
        for arm in self.arms.values():
            arm.hand.look(at_ns)
            arm.protect(at_ns)
            angles += arm.angles(at_ns)
        self._poses.publish(at_ns, angles)
        self._pose_due_ns = at_ns + POSE_PERIOD_NS

    def _give_hand(self, arm: Arm, at_ns: int) -> None:
        partner = next(
            (
                other
                for other in self.arms.values()
                if other.settings.pair == arm.settings.pair and other.settings.role == "follower"
            ),
            None,
        )
        if arm.settings.role == "leader" and partner is not None:
            arm.hand.attend_to(partner.joint_pose, lambda: partner.has_torque)
        arm.take_hold(arm.settings.hand, at_ns)

    def _pose_joints(self) -> list[PoseJoint]:
        return [
            PoseJoint(
                bus=name,
                joint=plan.name,
                zero=scale.zero,
                unit=scale.unit_steps,
                offset=arm.calibration[plan.name].homing_offset,
                low=float(arm.calibration[plan.name].homing_offset)
                + arm.calibration[plan.name].range_min,
                high=float(arm.calibration[plan.name].homing_offset)
                + arm.calibration[plan.name].range_max,
            )
            for name, arm in self.arms.items()
            for plan, scale in zip(so101.PLAN, arm.scales, strict=True)
        ]
