"""Samples and telemetry of one bus on their way into the rings: records filled in place.

Fields are bound once as views into one record; publishing copies that record into the ring's slot.
"""

from collections.abc import Sequence

import numpy as np

from recd.config.streams import JointFlag, arm_sample_dtype, telemetry_dtype
from recd.daemon.arms.feetech.bus import Reading
from recd.daemon.arms.goalpath import GoalPath
from recd.daemon.arms.normalize import Scales
from recd.daemon.arms.registers import (
    PRESENT_LOAD,
    TELEMETRY_CURRENT,
    TELEMETRY_LOAD,
    TELEMETRY_STATUS,
    TELEMETRY_TEMPERATURE,
    TELEMETRY_VOLTAGE,
)
from recd.daemon.worker import Status
from recd.shm import RingWriter

_UNKNOWN = float("nan")

FLAG_COUNTERS: tuple[tuple[JointFlag, str], ...] = (
    (JointFlag.NO_REPLY, "no_reply"),
    (JointFlag.RESYNC, "resync"),
    (JointFlag.LATE_REPLY, "late_reply"),
    (JointFlag.BAD_PACKET, "bad_packet"),
    (JointFlag.CLIPPED, "clipped"),
    (JointFlag.STALE_LEADER, "stale_leader"),
)
"""Flags that have a counter in the status cell."""


class Samples:
    """The arm_sample record of the present tick and its ring.

    position: present position in units per joint, NaN where invalid; raw: steps per joint, the
    last known ones; leader: float32 view [n] of the record.
    """

    def __init__(self, ring: RingWriter, scales: Scales, status: Status) -> None:
        joints = len(scales)
        self._ring = ring
        self._status = status
        self._scales = scales
        self._array = np.zeros(1, arm_sample_dtype(joints))
        self._slots = ring.views(self._array.dtype)
        self.record = self._array[0]
        self.record["epoch"] = ring.epoch
        self.record["chunk"] = self.record["chunk_index"] = -1
        self._present_raw = self._array["present_raw"][0]
        self._present = self._array["present"][0]
        self._requested = self._array["requested"][0]
        self._limited = self._array["limited"][0]
        self._sent = self._array["sent"][0]
        self._sent_raw = self._array["sent_raw"][0]
        self.leader = self._array["leader"][0]
        self.leader[:] = np.nan
        self.position = [float("nan")] * joints
        self.raw = [0] * joints
        self.no_goals()

    def take(self, reading: Reading) -> None:
        """Positions, times and flags of a reading; `flags` is set, not added to."""
        record, valid = self.record, reading.valid
        record["request_ns"] = reading.request_ns
        record["sample_ns"] = reading.sample_ns
        record["half_width_ns"] = reading.half_width_ns
        record["valid"] = valid
        record["flags"] = reading.flags
        reading.positions(self.raw)
        for joint, scale in enumerate(self._scales):
            known = valid >> joint & 1
            self.position[joint] = scale.to_units(self.raw[joint]) if known else _UNKNOWN
        self._present_raw[:] = self.raw
        self._present[:] = self.position

    def goals(self, path: GoalPath, asked: Sequence[float]) -> None:
        """The way of this tick's goal: what was asked (units), limited, sent."""
        self._requested[:] = asked
        self._limited[:] = path.goal
        self._sent[:] = path.sent
        self._sent_raw[:] = path.steps

    def no_goals(self) -> None:
        """There is no goal: NaN, and -1 for steps."""
        self._requested[:] = self._limited[:] = self._sent[:] = np.nan
        self._sent_raw[:] = -1

    def publish(self, tick: int, flags: int, *, arrival_ns: int) -> int:
        """Add flags, count them, write the record. Returns its index in the ring."""
        record, ring = self.record, self._ring
        record["tick"] = tick
        total = int(record["flags"]) | flags
        record["flags"] = total
        if total:
            for flag, counter in FLAG_COUNTERS:
                if total & flag:
                    self._status.count(counter)
        self._slots[ring.begin()][0] = record
        return ring.commit(
            self._array.itemsize,
            t_capture_ns=int(record["sample_ns"]),
            t_arrival_ns=arrival_ns,
            source_seq=tick,
            flags=total,
        )


class Telemetry:
    """The telemetry record and its ring. torque: uint8 view [n], kept by whoever knows."""

    def __init__(self, ring: RingWriter, joints: int) -> None:
        self._ring = ring
        self._array = np.zeros(1, telemetry_dtype(joints))
        self._slots = ring.views(self._array.dtype)
        self.record = self._array[0]
        self.load = self._array["load"][0]
        self.current = self._array["current"][0]
        self.voltage = self._array["voltage"][0]
        self.temperature = self._array["temperature"][0]
        self.status = self._array["status"][0]
        self.torque = self._array["torque"][0]

    def take(self, reading: Reading) -> None:
        """Values of a reading of TELEMETRY_BLOCK; joints that are silent keep theirs."""
        self.record["sample_ns"] = reading.sample_ns
        self.record["valid"] = reading.valid
        for joint, data in enumerate(reading.packets):
            if data is None:
                continue
            self.load[joint] = PRESENT_LOAD.decode(reading.word(joint, TELEMETRY_LOAD))
            self.current[joint] = reading.word(joint, TELEMETRY_CURRENT) & 0x7FFF
            self.voltage[joint] = data[TELEMETRY_VOLTAGE]
            self.temperature[joint] = data[TELEMETRY_TEMPERATURE]
            self.status[joint] = data[TELEMETRY_STATUS] | reading.errors[joint]

    def publish(self, *, arrival_ns: int) -> int:
        """Write the record. Returns its index in the ring."""
        self._slots[self._ring.begin()][0] = self.record
        return self._ring.commit(
            self._array.itemsize,
            t_capture_ns=int(self.record["sample_ns"]),
            t_arrival_ns=arrival_ns,
        )
