"""Torque policy without a daemon: for `recctl release` and for the service's stop hook.

Opens the bus itself and refuses while somebody else holds it, unless forced. Reads first; a bus
that cannot be talked to is told to let go all the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recd.config.errors import DeviceError, RecdError
from recd.daemon.arms.attach import attach
from recd.daemon.arms.feetech.bus import ServoBus, ServoError
from recd.daemon.arms.feetech.port import BusPort
from recd.daemon.arms.goalpath import PARK_PATIENCE_NS, off_rest
from recd.daemon.arms.normalize import units_of
from recd.daemon.arms.registers import POSITION_BLOCK, TORQUE_ENABLE
from recd.daemon.arms.side import SIMULATED, ArmSide, arm_side, goal_path, park_pose
from recd.daemon.arms.torque import disengage, read_torque
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

POLICIES = ("hold", "park", "release")
_PARK_RATE_HZ = 50
_INSISTING = 5


@dataclass(frozen=True, slots=True)
class ReleaseReport:
    """What was done. torque_before, torque_after: per joint, () when it could not be read."""

    bus: str
    policy: str
    torque_before: tuple[bool, ...]
    torque_after: tuple[bool, ...]
    parked: bool
    note: str


def release(
    config: Mapping[str, Any],
    bus: str,
    *,
    policy: str | None = None,
    force: bool = False,
    runtime_dir: str = "",
) -> ReleaseReport:
    """Apply the torque policy to one bus (`main.follower`).

    config: the robot's configuration as a plain mapping (RobotConfig.model_dump). policy: instead
    of the configured torque_on_exit; a leader is always released. force: also while another
    process has the port open. Raises DeviceError (code `busy` when held), RecdError for a bus or
    policy that does not exist.
    """
    pair, _, role = bus.partition(".")
    arm = config["arms"].get(pair)
    if arm is None or arm.get(role) is None:
        known = [f"{name}.{side}" for name, one in config["arms"].items()
                 for side in ("leader", "follower") if one.get(side)]  # fmt: skip
        raise RecdError(f"no bus {bus!r}", mend=f"Buses: {', '.join(known)}.", code="argument")
    wanted = policy or ("release" if role == "leader" else str(arm["torque_on_exit"]))
    if wanted not in POLICIES:
        raise RecdError(
            f"policy {wanted!r}: expected one of {', '.join(POLICIES)}", code="argument"
        )
    side = arm_side(pair, role, arm, runtime_dir=runtime_dir)
    if arm[role]["port"] == SIMULATED and not Path(side.port).exists():
        raise DeviceError(
            f"arms.{bus}.port: the simulated robot is there only while its daemon runs "
            f"(there is no {side.port})",
            mend="Nothing to do: it holds no torque any more.",
        )
    port = BusPort(side.port, baud=side.baud, bus=bus, exclusive=not force)
    servos = ServoBus(port, side.ids)
    servos.open()
    try:
        return _apply(servos, side, arm, wanted)
    finally:
        servos.close()


def _apply(servos: ServoBus, side: ArmSide, arm: Mapping[str, Any], policy: str) -> ReleaseReport:
    try:
        before, goals = read_torque(servos)
    except ServoError:
        if policy != "release":
            raise
        _insist(servos)
        return ReleaseReport(side.bus, policy, (), _torque_or_nothing(servos), False,
                             "not every servo answers; all were told to let go")  # fmt: skip
    if not any(before):
        return ReleaseReport(side.bus, policy, before, before, False, "no joint held torque")
    parked, note = False, ""
    if policy == "park":
        parked, note = _park(servos, side, arm, goals)
    if policy == "release" or parked:
        disengage(servos)
    return ReleaseReport(side.bus, policy, before, _torque_or_nothing(servos), parked, note)


def _park(servos: ServoBus, side: ArmSide, arm: Mapping[str, Any], goals: Any) -> tuple[bool, str]:
    """Glide to the resting pose. (whether it was reached, why not)."""
    pair = side.bus.partition(".")[0]
    pose = park_pose(pair, arm, side.names)
    if pose is None:
        return False, f"no resting pose is configured (arms.{pair}.park): left holding"
    scales = attach(servos, side, alive=lambda: None).calibration.scales(side.units)
    path = goal_path(pair, {**arm, "rate_hz": _PARK_RATE_HZ}, scales, side.names)
    path.rest_at(goals)
    raw = list(goals)
    tick_ns = now_ns()
    until_ns = tick_ns + PARK_PATIENCE_NS
    servos.port.reply_timeout_ns = 15 * NS_PER_MS
    while tick_ns < until_ns:
        reading = servos.sync_read(POSITION_BLOCK)
        reading.positions(raw)
        if reading.valid == (1 << len(side.joints)) - 1:
            position = units_of(scales, raw)
            arrived = path.approach(pose, position)
            servos.write_goals(path.steps)
            if arrived and not off_rest(position, pose):
                return True, ""
        tick_ns += NS_PER_S // _PARK_RATE_HZ
        sleep_until_ns(tick_ns)
    return False, "the resting pose was not reached in time (something in the way?): left holding"


def _insist(servos: ServoBus) -> None:
    for _ in range(_INSISTING):
        servos.sync_write(TORQUE_ENABLE, dict.fromkeys(servos.ids, 0))
        sleep_until_ns(now_ns() + 10 * NS_PER_MS)


def _torque_or_nothing(servos: ServoBus) -> tuple[bool, ...]:
    try:
        return read_torque(servos)[0]
    except DeviceError:
        return ()  # said in the report: torque could not be read back
