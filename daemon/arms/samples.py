"""Samples and telemetry of one bus on their way into the rings: records filled in place.

Fields are bound once as views into one record; publishing copies that record into the ring's slot.
"""

from typing import Any

import numpy as np

from recd.config.streams import JointFlag, arm_sample_dtype, telemetry_dtype
from recd.daemon.arms.feetech.bus import Reading
from recd.daemon.arms.goalpath import GoalPath
from recd.daemon.arms.limits import F8
from recd.daemon.arms.normalize import Normalizer
from recd.daemon.arms.registers import (
    PRESENT_LOAD,
    TELEMETRY_CURRENT,
    TELEMETRY_LOAD,
    TELEMETRY_STATUS,
    TELEMETRY_TEMPERATURE,
    TELEMETRY_VOLTAGE,
)
from recd.shm import RingWriter

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

    present, leader, requested, limited, sent: float32 views [n]; position: present in float64
    units [n], NaN where invalid; raw: steps [n].
    """

    def __init__(self, ring: RingWriter, normalizer: Normalizer, status: Any) -> None:
        joints = normalizer.joints
        self._ring = ring
        self._status = status
        self._normalizer = normalizer
        self._array = np.zeros(1, arm_sample_dtype(joints))
        self._slots = ring.views(self._array.dtype)
        self.record = self._array[0]
        self.record["epoch"] = ring.epoch
        self.raw = self._array["present_raw"][0]
        self.sent_raw = self._array["sent_raw"][0]
        self.present = self._array["present"][0]
        self.leader = self._array["leader"][0]
        self.requested = self._array["requested"][0]
        self.limited = self._array["limited"][0]
        self.sent = self._array["sent"][0]
        self.position = np.full(joints, np.nan)
        self._bits = 1 << np.arange(joints, dtype=np.uint32)
        self._invalid = np.zeros(joints, dtype=bool)
        self.leader[:] = np.nan
        self.no_goals()

    def take(self, reading: Reading) -> None:
        """Positions, times and flags of a reading; `flags` is set, not added to."""
        record = self.record
        record["request_ns"] = reading.request_ns
        record["sample_ns"] = reading.sample_ns
        record["half_width_ns"] = reading.half_width_ns
        record["valid"] = reading.valid
        record["flags"] = reading.flags
        reading.positions(self.raw)
        self._normalizer.to_units(self.raw, self.position)
        np.equal(self._bits & np.uint32(reading.valid), 0, out=self._invalid)
        np.copyto(self.position, np.nan, where=self._invalid)
        np.copyto(self.present, self.position, casting="same_kind")

    def goals(self, path: GoalPath, asked: F8) -> None:
        """The way of this tick's goal: what was asked (units), limited, sent."""
        np.copyto(self.requested, asked, casting="same_kind")
        np.copyto(self.limited, path.goal, casting="same_kind")
        np.copyto(self.sent, path.sent, casting="same_kind")
        np.copyto(self.sent_raw, path.steps)

    def no_goals(self) -> None:
        """There is no goal: NaN, and -1 for steps."""
        self.requested[:] = self.limited[:] = self.sent[:] = np.nan
        self.sent_raw[:] = -1

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
