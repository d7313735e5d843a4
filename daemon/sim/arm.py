"""One simulated arm: six servos on a bus with its port, the joints' scales, and the hand on it.

Built from its settings; the files that belong to it (port link, calibration) come with it.
"""

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from recd.config.errors import ConfigError, ConfigProblem
from recd.daemon.sim import so101
from recd.daemon.sim.bus import Bus, LineTiming
from recd.daemon.sim.demonstration import REST, Pose
from recd.daemon.sim.hand import HANDS, Hand, HandKind
from recd.daemon.sim.motion import Joint, Led
from recd.daemon.sim.port import Port
from recd.daemon.sim.servo import Servo
from recd.daemon.sim.servolog import ServoLog


@dataclass(frozen=True, slots=True)
class ArmSettings:
    """What an arm may be told. Paths default to `<dir>/<bus>` and `<dir>/calibration/<bus>.json`.

    hand: see hand.HANDS. missing: ids that are not on the wire. model, firmware: by id, as text or
    number; firmware as [major, minor]. goal_enables_torque: servos that take torque by themselves
    when a goal is written, as some firmware does.
    """

    bus: str
    role: Literal["leader", "follower"]
    pair: str = ""
    hand: HandKind = "none"
    seed: int = 1
    serial: str = ""
    link: str = ""
    calibration: str = ""
    out_us: float = 150.0
    in_us: float = 150.0
    servo_us: float = 20.0
    packet_us: float = 250.0
    latency_timer_ms: float = 0.0
    return_delay: int = 0
    missing: tuple[int, ...] = ()
    model: dict[int, int] = field(default_factory=dict)
    firmware: dict[int, tuple[int, int]] = field(default_factory=dict)
    pose: Pose = REST
    goal_enables_torque: bool = False

    @classmethod
    def read(cls, bus: str, role: str, fields: dict[str, Any], pair: str = "") -> "ArmSettings":
        """Settings from plain values. ConfigError for unknown keys or values."""
        known = set(cls.__slots__) - {"bus", "role", "pair"}
        problems = [
            ConfigProblem(f"sim.{bus}.{key}", "", f"one of {', '.join(sorted(known))}", key)
            for key in fields
            if key not in known
        ]
        defaults: dict[str, Any] = {"hand": "demo" if role == "leader" else "none"}
        values = defaults | {key: value for key, value in fields.items() if key in known}
        if values["hand"] not in HANDS:
            problems.append(
                ConfigProblem(f"sim.{bus}.hand", "", f"one of {', '.join(HANDS)}", values["hand"])
            )
        if problems:
            raise ConfigError(problems)
        shape: Any
        try:
            values["missing"] = tuple(int(ident) for ident in values.get("missing", ()))
            for key, shape in (("model", int), ("firmware", _version)):
                given = values.get(key, {})
                values[key] = {int(ident): shape(value) for ident, value in given.items()}
            values["pose"] = tuple(float(value) for value in values.get("pose", REST))
            for key in ("out_us", "in_us", "servo_us", "packet_us", "latency_timer_ms"):
                values[key] = float(values.get(key, getattr(_DEFAULTS, key)))
        except (TypeError, ValueError, AttributeError) as error:
            problem = ConfigProblem(f"sim.{bus}", "", "settings of a simulated arm", str(error))
            raise ConfigError([problem]) from error
        side: Literal["leader", "follower"] = "leader" if role == "leader" else "follower"
        return cls(bus=bus, role=side, pair=pair, **values)

    def timing(self) -> LineTiming:
        return LineTiming(
            out_ns=round(self.out_us * 1e3),
            in_ns=round(self.in_us * 1e3),
            servo_ns=round(self.servo_us * 1e3),
            packet_ns=round(self.packet_us * 1e3),
            latency_timer_ns=round(self.latency_timer_ms * 1e6),
        )


_DEFAULTS = ArmSettings("", "follower")


def _version(value: Any) -> tuple[int, int]:
    major, minor = value
    return int(major), int(minor)


class Arm:
    """Servos, bus, port, scales and hand of one arm. Joints in the order of so101.PLAN."""

    def __init__(
        self, settings: ArmSettings, directory: Path, *, log: ServoLog, at_ns: int
    ) -> None:
        self.settings = settings
        self.name = settings.bus
        stem = settings.bus
        self.calibration_path = Path(
            settings.calibration or directory / "calibration" / f"{stem}.json"
        )
        if not self.calibration_path.exists():
            so101.write_calibration(self.calibration_path, so101.make_calibration(stem))
        self.calibration = so101.read_calibration(self.calibration_path)
        self.scales = [so101.scale_of(plan, self.calibration[plan.name]) for plan in so101.PLAN]
        self.servos = [self._build(at, at_ns) for at in range(len(so101.PLAN))]
        present = [servo for servo in self.servos if servo.ident not in settings.missing]
        self.bus = Bus(settings.bus, present, log=log, timing=settings.timing())
        self.bus.torque_listener = self._torque_changed
        serial = settings.serial or f"SIM{zlib.crc32(stem.encode()):08X}"
        self.port = Port(Path(settings.link or directory / stem), serial)
        self.hand = Hand(self.pose, seed=settings.seed)

    @property
    def joints(self) -> list[Joint]:
        return [servo.joint for servo in self.servos]

    @property
    def has_torque(self) -> bool:
        return all(servo.torque for servo in self.servos)

    def angles(self, at_ns: int) -> list[float]:
        """Mechanical angles (steps) of all joints at `at_ns`."""
        return [servo.joint.angle_at(at_ns) for servo in self.servos]

    def pose(self, at_ns: int) -> Pose:
        """Pose units of all joints at `at_ns`."""
        return tuple(self.joint_pose(at, at_ns) for at in range(len(self.servos)))

    def joint_pose(self, at: int, at_ns: int) -> float:
        """Pose of the joint of index `at` at `at_ns`."""
        return self.scales[at].pose(self.servos[at].joint.angle_at(at_ns))

    def take_hold(self, kind: HandKind, at_ns: int, **more: Any) -> None:
        """Let the hand do something else from `at_ns` on."""
        self.hand.take(kind, at_ns, **more)
        for at, servo in enumerate(self.servos):
            servo.joint.hand = self._led(at) if self.hand.holds else None

    def protect(self, at_ns: int) -> None:
        """Let every servo watch its load, whether or not somebody reads it."""
        for servo in self.servos:
            servo.protect(at_ns)

    def servo(self, ident: int) -> Servo:
        """Servo by id, the first of that id; KeyError when there is none."""
        for servo in self.servos:
            if servo.ident == ident:
                return servo
        raise KeyError(f"{self.name} has no servo with id {ident}")

    def _led(self, at: int) -> Led:
        scale, hand = self.scales[at], self.hand
        return lambda t_ns: scale.angle(hand.joint_at(at, t_ns))

    def _torque_changed(self, servo: Servo, on: bool, cause: str, at_ns: int) -> None:
        if not on and self.hand.holds:
            self.hand.regrip(at_ns)

    def _build(self, at: int, at_ns: int) -> Servo:
        plan, scale = so101.PLAN[at], self.scales[at]
        calibration = self.calibration[plan.name]
        servo = Servo(
            calibration.id,
            so101.mechanics_of(plan, scale),
            angle=scale.angle(self.settings.pose[at]),
            at_ns=at_ns,
        )
        works = {
            "Homing_Offset": calibration.homing_offset,
            "Min_Position_Limit": calibration.range_min,
            "Max_Position_Limit": calibration.range_max,
            "Return_Delay_Time": self.settings.return_delay,
        }
        if calibration.id in self.settings.model:
            works["Model_Number"] = self.settings.model[calibration.id]
        if calibration.id in self.settings.firmware:
            major, minor = self.settings.firmware[calibration.id]
            works |= {"Firmware_Major_Version": major, "Firmware_Minor_Version": minor}
        for name, value in works.items():
            servo.put(name, value, at_ns)
        servo.goal_enables_torque = self.settings.goal_enables_torque
        servo.power_cycle(at_ns)
        return servo
