"""What can be asked of a running simulated robot: faults, hands, truth, log. One row per command.

Commands raise KeyError, TypeError or ValueError for what they cannot do; the server says so.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from recd.daemon.sim import so101
from recd.daemon.sim.arm import Arm
from recd.daemon.sim.faults import KINDS, WireFault
from recd.daemon.sim.hand import Keyframe
from recd.daemon.sim.protocol import ErrorBit
from recd.daemon.sim.robot import SimRobot
from recd.daemon.sim.servo import Ramp, Servo
from recd.shm.clock import now_ns

Answer = dict[str, Any]
Command = Callable[..., Answer]

BROWN_OUT_NS = 300_000_000
"""How long servos are silent after their power came back, unless told otherwise."""

_JOINT_AT = {plan.name: at for at, plan in enumerate(so101.PLAN)}


def describe(robot: SimRobot) -> Answer:
    """Paths, serial numbers and states of all arms."""
    now = now_ns()
    return {
        "now_ns": now,
        "pose": str(robot.pose_path),
        "arms": {name: _describe_arm(arm, now) for name, arm in robot.arms.items()},
    }


def _describe_arm(arm: Arm, at_ns: int) -> Answer:
    return {
        "path": str(arm.port.link),
        "by_id": str(arm.port.by_id),
        "serial": arm.port.serial,
        "plugged": arm.port.plugged,
        "calibration": str(arm.calibration_path),
        "role": arm.settings.role,
        "hand": arm.hand.kind,
        "requests": arm.bus.requests,
        "faults": arm.bus.faults.applied,
        "lost_bytes": arm.bus.lost_bytes,
        "joints": {
            plan.name: {
                "id": servo.ident,
                "steps": servo.reported(at_ns),
                "torque": servo.torque,
                "error": servo.error(at_ns),
            }
            for plan, servo in zip(so101.PLAN, arm.servos, strict=True)
        },
    }


def log(robot: SimRobot, *, since: int = 0, limit: int = 500, bus: str = "") -> Answer:
    """Log entries from number `since` on; `next` is where to go on, `first` the oldest kept."""
    entries = robot.log.since(since, min(limit, 1000), bus)
    behind = entries[-1].number + 1 if entries else max(since, robot.log.count)
    return {
        "entries": [
            [e.number, e.t_ns, e.bus, e.kind, e.frame, list(e.heard), e.fields] for e in entries
        ],
        "next": behind,
        "count": robot.log.count,
    }


def fault(robot: SimRobot, *, bus: str, kind: str, for_ms: float = 0, **fields: Any) -> Answer:
    """Do to a bus what `kind` says: a fault of the wire (faults.KINDS) or of servos and port.

    `for_ms` ends a fault of the wire by time instead of by count.
    """
    if kind in SERVO_FAULTS:
        return COMMANDS[kind](robot, bus=bus, **fields)
    if kind not in KINDS:
        raise ValueError(f"expected one of {', '.join([*KINDS, *SERVO_FAULTS])}, got {kind!r}")
    if for_ms:
        fields = {"count": None} | fields | {"until_ns": now_ns() + round(for_ms * 1e6)}
    robot.arm(bus).bus.faults.arm(WireFault(kind=kind, **fields))
    return _noted(robot, bus, "armed", fault=kind, **fields)


def clear(robot: SimRobot, *, bus: str = "") -> Answer:
    """End wire faults, echo, latency timer, blocks, forced errors, heat and wrong voltage.

    What a servo did because of them (torque let go, overload) stays, as do ids and plugs.
    """
    now = now_ns()
    for name in [bus] if bus else list(robot.arms):
        arm = robot.arm(name)
        arm.bus.faults.clear()
        arm.bus.echo = False
        arm.bus.timing = arm.settings.timing()
        for servo in arm.servos:
            servo.joint.advance(now)
            servo.joint.blocked = False
            servo.forced_error = 0
            servo.temperature = Ramp(32.0, 32.0)
            servo.voltage = 74
    return {}


def echo(robot: SimRobot, *, bus: str, on: bool = True) -> Answer:
    """Let the adapter echo what the host sends."""
    robot.arm(bus).bus.echo = on
    return _noted(robot, bus, "echo", on=on)


def latency_timer(robot: SimRobot, *, bus: str, ms: float) -> Answer:
    """Let the adapter collect bytes for `ms` before it sends them; 0 for at once."""
    line = robot.arm(bus).bus
    line.timing = replace(line.timing, latency_timer_ns=round(ms * 1e6))
    return _noted(robot, bus, "latency_timer", ms=ms)


def brown_out(
    robot: SimRobot, *, bus: str, idents: list[int] | None = None, down_ms: float = 300
) -> Answer:
    """Power fails for a moment: SRAM reset, torque gone, EEPROM kept, silent for `down_ms`."""
    for servo in _servos(robot.arm(bus), idents):
        servo.power_cycle(now_ns(), cause="brown-out", down_ns=round(down_ms * 1e6))
    return _noted(robot, bus, "brown_out", ids=idents, down_ms=down_ms)


def temperature(
    robot: SimRobot, *, bus: str, ident: int, celsius: float, over_ms: float = 0
) -> Answer:
    """Bring one servo's temperature to `celsius`, at once or over a time."""
    now = now_ns()
    servo = robot.arm(bus).servo(ident)
    until_ns = now + round(over_ms * 1e6)
    servo.temperature = Ramp(servo.temperature.at(now), celsius, now, until_ns)
    return _noted(robot, bus, "temperature", id=ident, celsius=celsius)


def voltage(robot: SimRobot, *, bus: str, volts: float, idents: list[int] | None = None) -> Answer:
    """Set the supply voltage."""
    for servo in _servos(robot.arm(bus), idents):
        servo.voltage = round(volts * 10)
    return _noted(robot, bus, "voltage", volts=volts)


def overload(robot: SimRobot, *, bus: str, ident: int) -> Answer:
    """Trip one servo's overload protection now."""
    robot.arm(bus).servo(ident).trip_overload(now_ns())
    return _noted(robot, bus, "overload", id=ident)


def block(robot: SimRobot, *, bus: str, ident: int, on: bool = True) -> Answer:
    """Hold a joint by force: it cannot move, and its load rises when it has torque."""
    joint = robot.arm(bus).servo(ident).joint
    now = now_ns()
    joint.angle = joint.angle_at(now)
    joint.blocked = on
    return _noted(robot, bus, "block", id=ident, on=on)


def error_bits(robot: SimRobot, *, bus: str, ident: int, bits: int) -> Answer:
    """Force error bits into every reply and the status register of a servo; 0 ends it."""
    robot.arm(bus).servo(ident).forced_error = int(ErrorBit(bits))
    return _noted(robot, bus, "error_bits", id=ident, bits=bits)


def missing(robot: SimRobot, *, bus: str, ident: int, on: bool = True) -> Answer:
    """Take a servo off the wire, or put it back."""
    arm = robot.arm(bus)
    servo = arm.servo(ident)
    if on and servo in arm.bus.servos:
        arm.bus.servos.remove(servo)
    elif not on:
        arm.bus.join(servo)
    return _noted(robot, bus, "missing", id=ident, on=on)


def duplicate(robot: SimRobot, *, bus: str, ident: int, of: int) -> Answer:
    """Give servo `ident` the id `of` another: both answer at once from now on."""
    robot.arm(bus).servo(ident).put("ID", of, now_ns())
    return _noted(robot, bus, "duplicate", id=ident, of=of)


def register(
    robot: SimRobot, *, bus: str, ident: int, name: str, value: int | None = None
) -> Answer:
    """Read a register, or set it from outside the line (identity and EEPROM too)."""
    servo = robot.arm(bus).servo(ident)
    now = now_ns()
    if value is not None:
        servo.put(name, value, now)
        _noted(robot, bus, "register", id=ident, name=name, value=value)
    servo.refresh(now)
    return {"value": servo.get(name)}


def unplug(robot: SimRobot, *, bus: str) -> Answer:
    """Pull the USB plug: the port is gone, servos keep their power."""
    arm = robot.arm(bus)
    _noted(robot, bus, "unplug")
    arm.port.unplug()
    arm.bus.forget()
    return {}


def plug(robot: SimRobot, *, bus: str, link: str = "") -> Answer:
    """Plug it in again, under the same or another name; the serial number stays."""
    arm = robot.arm(bus)
    arm.port.plug(Path(link) if link else None)
    _noted(robot, bus, "plug", path=str(arm.port.link))
    return {"path": str(arm.port.link), "by_id": str(arm.port.by_id)}


def hand(robot: SimRobot, *, bus: str, kind: str) -> Answer:
    """Change what the hand on an arm does: none, demo, attend, still."""
    match kind:
        case "none" | "demo" | "attend" | "still":
            robot.arm(bus).take_hold(kind, now_ns())
        case _:
            raise ValueError(f"expected none, demo, attend or still, got {kind!r}")
    return _noted(robot, bus, "hand", hand=kind)


def script(robot: SimRobot, *, bus: str, frames: list[list[Any]]) -> Answer:
    """Lead an arm through `frames`: [[seconds from now, {joint: value}], ...].

    Values are reported servo steps; they may lie beyond 0..4095 to cross the seam of a joint that
    turns freely. Joints not named stay where they are.
    """
    arm = robot.arm(bus)
    now = now_ns()
    pose = list(arm.pose(now))
    keyframes = []
    for after_s, joints in frames:
        for name, steps in joints.items():
            at = _JOINT_AT[name]
            offset = arm.calibration[name].homing_offset
            pose[at] = arm.scales[at].pose(steps + offset)
        keyframes.append(Keyframe(round(after_s * 1e9), tuple(pose)))
    if not keyframes:
        raise ValueError("expected at least one frame, got none")
    arm.take_hold("script", now, keyframes=keyframes)
    return _noted(robot, bus, "hand", hand="script")


def place(robot: SimRobot, *, bus: str, joints: dict[str, float]) -> Answer:
    """Put joints at reported steps at once, as nobody could; for setting a scene."""
    arm = robot.arm(bus)
    now = now_ns()
    arm.take_hold("none", now)
    for name, steps in joints.items():
        joint = arm.servos[_JOINT_AT[name]].joint
        joint.advance(now)
        joint.angle = steps + arm.calibration[name].homing_offset
        joint.velocity = 0.0
    return _noted(robot, bus, "place", joints=joints)


def _servos(arm: Arm, idents: list[int] | None) -> list[Servo]:
    return [servo for servo in arm.servos if idents is None or servo.ident in idents]


def _noted(robot: SimRobot, bus: str, what: str, **fields: Any) -> Answer:
    robot.log.note(now_ns(), bus, "command", command=what, **fields)
    return {}


COMMANDS: dict[str, Command] = {
    "describe": describe,
    "log": log,
    "fault": fault,
    "clear": clear,
    "echo": echo,
    "latency_timer": latency_timer,
    "brown_out": brown_out,
    "temperature": temperature,
    "voltage": voltage,
    "overload": overload,
    "block": block,
    "error_bits": error_bits,
    "missing": missing,
    "duplicate": duplicate,
    "register": register,
    "unplug": unplug,
    "plug": plug,
    "hand": hand,
    "script": script,
    "place": place,
}
"""By name; arguments are those of the function behind `robot`."""

SERVO_FAULTS = (
    "brown_out", "temperature", "voltage", "overload", "block", "error_bits", "missing",
    "duplicate", "echo", "latency_timer", "unplug", "plug", "hand", "clear",
)  # fmt: skip
"""Commands that may also be asked for as a kind of `fault`."""
