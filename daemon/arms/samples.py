"""Samples and telemetry of one bus on their way into the rings: packed whole.

Values lie in plain attributes until then. Filling a numpy record field by field took a fifth of a
control tick [leader, 250 Hz, three cameras recording].
"""

import struct
from collections.abc import Iterable, MutableSequence
from ctypes import c_float, c_int32

from recd.config.streams import JointFlag, arm_sample_dtype, telemetry_dtype
from recd.daemon.arms.feetech.reading import Reading
from recd.daemon.arms.goalpath import GoalPath
from recd.daemon.arms.normalize import Scales, scale_table
from recd.daemon.arms.passes import (
    LOAD,
    STATUS,
    TELEMETRY_COLUMNS,
    TEMPERATURE,
    TORQUE,
    VOLTAGE,
    columns,
    doubles,
    doubles_in,
    integers,
)
from recd.daemon.arms.tickcode import Code
from recd.daemon.worker import Status
from recd.shm import RingWriter, libc
from recd.shm.packed import record_struct

_UNKNOWN = float("nan")
_FACTS = struct.Struct("<7qiIII2BH")
"""An arm sample up to its vectors, in the order of `arm_sample_dtype`."""

_TICK, _SAMPLE_NS, _ARRIVAL_NS, _FLAGS, _POSITION_AT, _VALID = 2, 3, 4, 5, 7, 8
_SENT_RAW, _LEADER, _REQUESTED, _LIMITED, _SENT = 16, 17, 18, 19, 20
"""Places of what changes among the arguments of kernels.put_sample."""

FLAG_COUNTERS: tuple[tuple[int, str], ...] = (
    (int(JointFlag.NO_REPLY), "no_reply"),
    (int(JointFlag.RESYNC), "resync"),
    (int(JointFlag.LATE_REPLY), "late_reply"),
    (int(JointFlag.BAD_PACKET), "bad_packet"),
    (int(JointFlag.CLIPPED), "clipped"),
    (int(JointFlag.STALE_LEADER), "stale_leader"),
)
"""Flags that have a counter in the status cell."""


class Samples:
    """The arm_sample record of the present tick and its ring.

    position, position_bytes: present position in units per joint, NaN where invalid; raw: steps per
    joint, the last known ones; of the sample published last. The others: fields of the record of
    the same name, set before `publish`.
    """

    def __init__(
        self, ring: RingWriter, scales: Scales, status: Status, reading: Reading, code: Code
    ) -> None:  # fmt: skip
        """reading: the one that is published each time; code: machine code, publishing has no other
        form."""
        joints = len(scales)
        self._ring, self._status, self._reading = ring, status, reading
        self._stage = stage = ring.stage(arm_sample_dtype(joints).itemsize)
        count = (len(stage) - _FACTS.size) // 4
        self._nowhere = doubles([_UNKNOWN] * joints)
        self._no_steps = integers([-1] * joints)
        self.goal_written_ns = self.leader_ns = 0
        self.chunk = self.chunk_index = -1
        self.motion = self.source = self.cause = 0
        self.position_bytes = memoryview(bytearray(struct.calcsize(f"{joints}d")))
        self.position = doubles_in(self.position_bytes, 0, joints)
        self.position[:] = self._nowhere
        self.raw = integers([0] * joints)
        self._put = code.prepare(
            "put_sample", ring.pointer, libc.table(), 0, 0, 0, 0,
            reading.data, 0, 0, self.raw, self.position, scale_table(scales), joints, _UNKNOWN,
            (c_int32 * count).from_buffer(stage, _FACTS.size),
            (c_float * count).from_buffer(stage, _FACTS.size),
            self._no_steps, self._nowhere, self._nowhere, self._nowhere, self._nowhere,
        )  # fmt: skip

    def led_by(self, position: MutableSequence[float]) -> None:
        """Where the leader is, as `publish` finds it (units, `doubles`)."""
        self._put.point(_LEADER, position)

    def goals(self, path: GoalPath, asked: MutableSequence[float]) -> None:
        """The way of this tick's goal: what was asked (units, `doubles`), limited, sent; as
        `publish` finds them."""
        self._point(path.steps, asked, path.goal, path.sent)

    def no_goals(self) -> None:
        """There is no goal: NaN, and -1 for steps."""
        self._point(self._no_steps, self._nowhere, self._nowhere, self._nowhere)

    def _point(
        self, sent_raw: MutableSequence[int], requested: MutableSequence[float],
        limited: MutableSequence[float], sent: MutableSequence[float],
    ) -> None:  # fmt: skip
        put = self._put
        put.point(_SENT_RAW, sent_raw)
        put.point(_REQUESTED, requested)
        put.point(_LIMITED, limited)
        put.point(_SENT, sent)

    def publish(self, tick: int, flags: int) -> int:
        """Take positions, times and flags of the reading, add `flags`, count them, write the
        record. Returns its ring index."""
        reading = self._reading
        total = reading.flags | flags
        if total:
            for flag, counter in FLAG_COUNTERS:
                if total & flag:
                    self._status.count(counter)
        sample_ns, valid = reading.sample_ns, reading.valid
        _FACTS.pack_into(
            self._stage, 0,
            tick, reading.request_ns, sample_ns, reading.half_width_ns,
            self.goal_written_ns, self.leader_ns, self.chunk, self.chunk_index,
            total, valid, self._ring.epoch,
            self.motion, self.source, self.cause,
        )  # fmt: skip
        args = self._put.args
        args[_TICK], args[_SAMPLE_NS], args[_ARRIVAL_NS] = tick, sample_ns, reading.arrival_ns
        args[_FLAGS], args[_POSITION_AT], args[_VALID] = total, reading.position_at, valid
        index: int = self._put.run()
        if index < 0:
            raise self._ring.refused(index)
        return index


class Telemetry:
    """The telemetry record and its ring, values per joint. torque: kept by whoever knows; table:
    all of them, in the columns of passes.py; sample_ns, valid: of the newest reading."""

    load: MutableSequence[int]
    voltage: MutableSequence[int]
    temperature: MutableSequence[int]
    status: MutableSequence[int]
    torque: MutableSequence[int]

    def __init__(self, ring: RingWriter, joints: int, code: Code) -> None:
        """code: the passes, as Python or as machine code."""
        self._ring = ring
        self._joints = joints
        self._take = code["take_telemetry"]
        self._nbytes = telemetry_dtype(joints).itemsize
        self._pack = record_struct(telemetry_dtype(joints)).pack_into
        self._slots = ring.buffers(self._nbytes)
        self.sample_ns = self.valid = self._arrival_ns = 0
        self.table = integers([0] * (TELEMETRY_COLUMNS * joints))
        found = columns(self.table, joints)
        self.load, self.voltage, self.temperature = found[LOAD], found[VOLTAGE], found[TEMPERATURE]
        self.status, self.torque = found[STATUS], found[TORQUE]

    def set_torque(self, torque: Iterable[bool]) -> None:
        """Whether each joint holds torque now."""
        self.torque[:] = list(torque)

    def take(self, reading: Reading) -> None:
        """Values of a reading of TELEMETRY_BLOCK; joints that are silent keep theirs."""
        self.sample_ns, self.valid = reading.sample_ns, reading.valid
        self._arrival_ns = reading.arrival_ns
        self._take(reading.data, reading.valid, reading.errors, self.table, self._joints)

    def publish(self) -> int:
        """Write the record. Returns its index in the ring."""
        self._pack(
            self._slots[self._ring.begin()], 0,
            self.sample_ns, self.valid, 0, *self.table,
        )  # fmt: skip
        return self._ring.commit(
            self._nbytes, t_capture_ns=self.sample_ns, t_arrival_ns=self._arrival_ns
        )
