"""Taking up an arm: who is on the bus, is it calibrated as the file says, what differs is written.

Everything is read first. A servo that holds torque is never re-configured: what differs there is
reported and written at the next arming. Nothing here moves, drops or energises a joint.
"""

from collections.abc import Callable
from dataclasses import dataclass

from recd.config.errors import DeviceError
from recd.daemon.arms.calibration import (
    Calibration,
    ServoCalibration,
    check_calibration,
    load_calibration,
)
from recd.daemon.arms.feetech.bus import ServoBus, ServoError
from recd.daemon.arms.models import STS3215_MODEL_NUMBER
from recd.daemon.arms.ports import latency_timer_ms
from recd.daemon.arms.registers import (
    FIRMWARE_MAJOR,
    FIRMWARE_MINOR,
    GOAL_POSITION,
    HOMING_OFFSET,
    LOCK,
    MAX_ACCELERATION,
    MAX_POSITION,
    MIN_POSITION,
    MODEL_NUMBER,
    PRESENT_POSITION,
    TORQUE_ENABLE,
    Register,
    Setting,
)
from recd.daemon.arms.side import ArmSide
from recd.shm.clock import NS_PER_MS, now_ns

_EEPROM_BYTES = 40
_SRAM_BYTES = 18  # 40..57: commands, lock, present position
BAUDS = (1_000_000, 500_000, 115_200, 250_000, 128_000, 57_600, 38_400, 19_200)
"""Line rates that STS servos know, the likeliest first."""

_SCAN_TIMEOUT_NS = 12 * NS_PER_MS

SERVO_MODELS: dict[int, str] = {
    777: "STS3215", 2825: "STS3250", 11272: "SM8512BL", 1284: "SCS0009",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ServoImage:
    """All registers of one servo as they were read."""

    eeprom: bytes
    sram: bytes
    factory: bytes

    def get(self, register: Register) -> int:
        if register.address < _EEPROM_BYTES:
            data, start = self.eeprom, 0
        elif register.address < _EEPROM_BYTES + _SRAM_BYTES:
            data, start = self.sram, _EEPROM_BYTES
        else:
            data, start = self.factory, MAX_ACCELERATION.address
        at = register.address - start
        return register.decode(int.from_bytes(data[at : at + register.size], "little"))


@dataclass(frozen=True, slots=True)
class Attached:
    """What was found. torque: per joint; goal, present: steps; changed: registers written,
    deferred: registers that differ on joints that hold torque; reply_ns: the shortest transaction.
    """

    calibration: Calibration
    torque: tuple[bool, ...]
    goal: tuple[int, ...]
    present: tuple[int, ...]
    firmware: tuple[str, ...]
    changed: tuple[str, ...]
    deferred: tuple[str, ...]
    reply_ns: int

    def facts(self) -> dict[str, object]:
        """For the operator and the episode's manifest."""
        return {
            "calibration": str(self.calibration.path),
            "calibration_values": self.calibration.as_dict(),
            "calibration_sha256": self.calibration.sha256,
            "torque": list(self.torque),
            "firmware": sorted(set(self.firmware)),
            "changed": list(self.changed),
            "deferred": list(self.deferred),
            "reply_us": self.reply_ns // 1000,
        }


def attach(bus: ServoBus, side: ArmSide, *, alive: Callable[[], None]) -> Attached:
    """Check and configure the arm behind an open bus. DeviceError names what is wrong and the mend.

    alive: called between servos, so that a heartbeat can go on.
    """
    calibration = load_calibration(side.calibration, side.joints, bus=side.bus)
    _find_all(bus, side, alive)
    images = []
    spans = []
    for servo in side.ids:
        started_ns = now_ns()
        images.append(read_image(bus, servo))
        spans.append((now_ns() - started_ns) // 3)
        alive()
    _check_models(images, side)
    servos = tuple(
        ServoCalibration(i.get(HOMING_OFFSET), i.get(MIN_POSITION), i.get(MAX_POSITION))
        for i in images
    )
    check_calibration(calibration, servos, joints=side.joints, bus=side.bus)
    changed, deferred = configure(bus, side, images)
    return Attached(
        calibration=calibration,
        torque=tuple(image.get(TORQUE_ENABLE) != 0 for image in images),
        goal=tuple(image.get(GOAL_POSITION) for image in images),
        present=tuple(image.get(PRESENT_POSITION) for image in images),
        firmware=tuple(f"{i.get(FIRMWARE_MAJOR)}.{i.get(FIRMWARE_MINOR)}" for i in images),
        changed=changed,
        deferred=deferred,
        reply_ns=min(spans),
    )


def read_image(bus: ServoBus, servo: int) -> ServoImage:
    """Read all of one servo's registers that we know of, in three requests."""
    return ServoImage(
        eeprom=bus.read_bytes(servo, 0, _EEPROM_BYTES),
        sram=bus.read_bytes(servo, _EEPROM_BYTES, _SRAM_BYTES),
        factory=bus.read_bytes(servo, MAX_ACCELERATION.address, 1),
    )


def configure(
    bus: ServoBus, side: ArmSide, images: list[ServoImage]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write every setting that differs, on joints without torque. Returns (changed, deferred)."""
    changed, deferred = [], []
    for joint, settings, image in zip(side.joints, side.settings, images, strict=True):
        wrong = [s for s in settings if s.wanted(image.get(s.register)) != image.get(s.register)]
        words = [
            f"{joint.name}.{s.register.name}: {image.get(s.register)} -> "
            f"{s.wanted(image.get(s.register))}"
            for s in wrong
        ]
        if image.get(TORQUE_ENABLE):
            deferred += words
        elif wrong:
            _write_settings(bus, joint.servo_id, wrong, image)
            changed += words
    return tuple(changed), tuple(deferred)


def _write_settings(bus: ServoBus, servo: int, wrong: list[Setting], image: ServoImage) -> None:
    lasting = [s for s in wrong if s.register.eeprom]
    locked = image.get(LOCK)
    if lasting and locked:
        bus.write(servo, LOCK, 0)
    for setting in wrong:
        bus.write(servo, setting.register, setting.wanted(image.get(setting.register)))
    if lasting and locked:
        bus.write(servo, LOCK, locked)


def _find_all(bus: ServoBus, side: ArmSide, alive: Callable[[], None]) -> None:
    missing = []
    for joint in side.joints:
        if not bus.ping(joint.servo_id):
            missing.append(joint)
        alive()
        if not bus.line.in_step:
            raise _nobody(bus, side, alive)
    if not missing:
        return
    there = [servo for servo in side.ids if servo not in {joint.servo_id for joint in missing}]
    names = ", ".join(f"{joint.name} (id {joint.servo_id})" for joint in missing)
    raise ServoError(
        f"arms.{side.bus}: no answer from {names}; ids found: {_listing(there)}",
        mend="Check the cable into the first silent joint. A new servo has id 1, and two servos "
        f"with one id garble each other: recctl devices --scan {bus.port.port_name} shows them.",
    )


def _nobody(bus: ServoBus, side: ArmSide, alive: Callable[[], None]) -> DeviceError:
    path = bus.port.port_name
    found = ids_at_other_bauds(bus, alive)
    if found:
        baud, ids = found
        return ServoError(
            f"arms.{side.bus}.baud: nothing answers on {path} at {side.baud} baud, but "
            f"servo {_listing(ids)} does at {baud}",
            mend=f"Set arms.{side.bus}.baud: {baud}.",
        )
    timer = latency_timer_ms(path)
    hint = f" The adapter's latency timer is {timer} ms." if timer and timer > 1 else ""
    return ServoError(
        f"arms.{side.bus}: no servo answers on {path}",
        mend="Switch the arm's power on, check the cable from the board to the first servo, and "
        f"that this is the {side.role}'s port.{hint}",
    )


def ids_at_other_bauds(bus: ServoBus, alive: Callable[[], None]) -> tuple[int, list[int]] | None:
    """(baud, ids) of the first other line rate at which any of the bus's ids answers, or None.

    The port is left at its own rate.
    """
    port, own, patience_ns = bus.port, bus.port.baudrate, bus.port.reply_timeout_ns
    port.reply_timeout_ns = _SCAN_TIMEOUT_NS
    try:
        for baud in BAUDS:
            if baud == own:
                continue
            alive()
            port.change_baud(baud)
            ids = [servo for servo in bus.ids if bus.answers(servo)]
            if ids:
                return baud, ids
        return None
    finally:
        port.change_baud(own)
        port.reply_timeout_ns = patience_ns


def _check_models(images: list[ServoImage], side: ArmSide) -> None:
    for joint, image in zip(side.joints, images, strict=True):
        model = image.get(MODEL_NUMBER)
        if model != STS3215_MODEL_NUMBER:
            name = SERVO_MODELS.get(model, "unknown")
            raise ServoError(
                f"arms.{side.bus}: {joint.name} (id {joint.servo_id}): expected servo model "
                f"{STS3215_MODEL_NUMBER} (STS3215), found {model} ({name})",
                mend="This is not an SO-100 or SO-101 arm, or another device's port: recctl "
                "devices lists the ports.",
            )


def _listing(ids: list[int]) -> str:
    return ", ".join(str(servo) for servo in ids) or "none"
