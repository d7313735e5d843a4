"""Torque on and torque off, in the only order that neither moves nor drops an arm.

On: present position as goal, read back, then torque, read back. Off: written and read back. A
failure half way leaves the joints as they were before.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from recd.daemon.arms.feetech.bus import ServoBus, ServoError
from recd.daemon.arms.feetech.port import ATTACH_TIMEOUT_NS
from recd.daemon.arms.feetech.reading import Reading
from recd.daemon.arms.registers import (
    GOAL_POSITION,
    LOCK,
    POSITION_BLOCK,
    TORQUE_BLOCK,
    TORQUE_ENABLE,
    Block,
)

_TRIES = 3
_TORQUE_BYTE = 0
_GOAL_WORD = 2


@contextmanager
def patient(bus: ServoBus) -> Iterator[None]:
    """Longer reply timeout for transactions that matter more than the tick in which they run."""
    before = bus.port.reply_timeout_ns
    bus.port.reply_timeout_ns = max(before, ATTACH_TIMEOUT_NS)
    try:
        yield
    finally:
        bus.port.reply_timeout_ns = before


def read_all(bus: ServoBus, block: Block) -> Reading:
    """`block` of every servo. ServoError when one stays silent."""
    for _ in range(_TRIES):
        bus.recover()
        reading = bus.sync_read(block)
        if reading.valid == (1 << len(bus.ids)) - 1:
            return reading
    silent = [servo for joint, servo in enumerate(bus.ids) if not reading.valid >> joint & 1]
    raise ServoError(
        f"{bus.port.bus}: no answer from servo {', '.join(map(str, silent))}",
        mend="Check the arm's power and cables.",
    )


def read_torque(bus: ServoBus) -> tuple[tuple[bool, ...], list[int]]:
    """Torque and goal register (steps) per joint. ServoError when a servo stays silent."""
    reading = read_all(bus, TORQUE_BLOCK)
    joints = range(len(bus.ids))
    torque = tuple(bool(reading.byte(joint, _TORQUE_BYTE)) for joint in joints)
    goals = [GOAL_POSITION.decode(reading.word(joint, _GOAL_WORD)) for joint in joints]
    return torque, goals


def engage(bus: ServoBus) -> list[int]:
    """Torque on where it is off, each such joint holding its present position.

    Joints that hold torque already keep their goal. Returns the goals (steps). On failure the
    joints that were off are switched off again and ServoError says what was refused.
    """
    with patient(bus):
        before, _ = read_torque(bus)
        limp = [servo for servo, on in zip(bus.ids, before, strict=True) if not on]
        try:
            return _engage(bus, limp)
        except ServoError:
            if limp:
                bus.sync_write(TORQUE_ENABLE, dict.fromkeys(limp, 0))
            raise


def _engage(bus: ServoBus, limp: list[int]) -> list[int]:
    present = [0] * len(bus.ids)
    read_all(bus, POSITION_BLOCK).positions(present)
    wanted = {servo: present[joint] for joint, servo in enumerate(bus.ids) if servo in limp}
    if wanted:
        bus.sync_write(GOAL_POSITION, wanted)
    torque, goals = read_torque(bus)
    held = dict(zip(bus.ids, goals, strict=True))
    refused = [servo for servo, goal in wanted.items() if held[servo] != goal]
    if refused:
        raise ServoError(
            f"{bus.port.bus}: servo {', '.join(map(str, refused))} did not take its present "
            "position as goal",
            mend="Arm again; if it stays so, switch the arm's power off and on.",
        )
    if limp:
        bus.sync_write(TORQUE_ENABLE, dict.fromkeys(limp, 1))
        bus.sync_write(LOCK, dict.fromkeys(limp, 1))
    torque, goals = read_torque(bus)
    if not all(torque):
        weak = [str(servo) for servo, on in zip(bus.ids, torque, strict=True) if not on]
        raise ServoError(
            f"{bus.port.bus}: servo {', '.join(weak)} did not take torque",
            mend="It may protect itself (heat, overload, voltage): recctl status shows readings; "
            "switch the arm's power off and on.",
        )
    return goals


def disengage(bus: ServoBus) -> None:
    """Torque off on all joints, read back. ServoError names servos that still hold or are silent.

    The write goes out even when nobody answers: a servo that hears and cannot speak lets go too.
    """
    with patient(bus):
        everybody = dict.fromkeys(bus.ids, 0)
        for attempt in range(_TRIES):
            bus.sync_write(TORQUE_ENABLE, everybody)
            try:
                torque, _ = read_torque(bus)
            except ServoError:
                if attempt == _TRIES - 1:
                    raise
                continue
            if not any(torque):
                return
    firm = [str(servo) for servo, on in zip(bus.ids, torque, strict=True) if on]
    raise ServoError(
        f"{bus.port.bus}: servo {', '.join(firm)} still holds torque after switching it off",
        mend="Switch the arm's power off, holding the arm.",
    )
