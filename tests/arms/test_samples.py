"""What a reader of the ring finds is what the tick knew, whatever a policy asked."""

import os
from types import SimpleNamespace

import numpy as np
import pytest

from recd.config.errors import RecdError
from recd.config.streams import JointFlag, arm_sample_dtype, telemetry_dtype
from recd.daemon.arms.feetech.reading import Reading
from recd.daemon.arms.models import Unit
from recd.daemon.arms.normalize import joint_scale
from recd.daemon.arms.passes import doubles, integers
from recd.daemon.arms.samples import Samples, Telemetry
from recd.daemon.arms.tickcode import machine_code
from recd.shm import Doorbell, ReaderPolicy, RingReader, RingSpec, RingWriter, create_ring
from recd.shm.clock import now_ns

JOINTS = 6
SCALES = tuple(joint_scale(0, 4000, unit=Unit.DEGREES, inverted=False) for _ in range(JOINTS))


class Counts:
    def __init__(self) -> None:
        self.names: list[str] = []

    def count(self, name: str) -> None:
        self.names.append(name)


def ring_of(dtype: np.dtype) -> tuple[RingWriter, RingReader]:
    segment = create_ring(RingSpec("s", "record", slots=4, slot_bytes=dtype.itemsize))
    reader = RingReader(segment, 0, policy=ReaderPolicy.BEST_EFFORT)
    return RingWriter(segment), reader


def reading_of(words: list[int], *, silent: int = 0) -> Reading:
    reading = Reading(JOINTS)
    reading.request_ns, reading.sample_ns, reading.half_width_ns = 100, 150, 50
    reading.arrival_ns = 200
    reading.flags = int(JointFlag.NO_REPLY) if silent else 0
    for joint, word in enumerate(words):
        if not silent >> joint & 1:
            reading.keep(joint, 0, bytes([word & 0xFF, word >> 8]))
    return reading


def way(goal: float, sent: float, steps: int) -> SimpleNamespace:
    return SimpleNamespace(
        goal=doubles([goal] * 6), sent=doubles([sent] * 6), steps=integers([steps] * 6)
    )


def published(samples: Samples, ring: RingReader, flags: int = 0) -> np.void:
    samples.publish(7, flags)
    slot = ring.take()
    return slot.payload[: slot.nbytes].copy().view(arm_sample_dtype(JOINTS))[0]


def test_a_sample_holds_every_field_of_its_tick() -> None:
    writer, ring = ring_of(arm_sample_dtype(JOINTS))
    counts = Counts()
    samples = Samples(
        writer,
        SCALES,
        counts,
        reading_of([2000 + joint for joint in range(JOINTS)], silent=0b10),
        machine_code(),
    )
    samples.motion, samples.source, samples.cause = 2, 1, 300
    samples.goal_written_ns, samples.leader_ns = 90, 80
    samples.led_by(doubles(float(joint) for joint in range(JOINTS)))
    samples.chunk, samples.chunk_index = 5, 6
    path = way(1.5, 1.25, -3)
    samples.goals(path, doubles([2.5] * 6))
    record = published(samples, ring, int(JointFlag.CLIPPED))
    assert [int(record[name]) for name in (
        "tick", "request_ns", "sample_ns", "half_width_ns", "goal_written_ns", "leader_ns",
        "chunk", "chunk_index", "flags", "valid", "epoch", "motion", "source", "cause",
    )] == [7, 100, 150, 50, 90, 80, 5, 6, 17, 0b111101, 1, 2, 1, 300]  # fmt: skip
    assert record["present_raw"].tolist() == [2000, 0, 2002, 2003, 2004, 2005]
    expected = [scale.to_units(2000 + joint) for joint, scale in enumerate(SCALES)]
    expected[1] = float("nan")
    np.testing.assert_array_equal(record["present"], np.array(expected, np.float32))
    assert record["leader"].tolist() == [0, 1, 2, 3, 4, 5]
    assert record["requested"].tolist() == [2.5] * 6
    assert record["limited"].tolist() == [1.5] * 6
    assert record["sent"].tolist() == [1.25] * 6
    assert record["sent_raw"].tolist() == [-3] * 6
    assert counts.names == ["no_reply", "clipped"]


def test_a_tick_without_a_goal_says_so() -> None:
    writer, ring = ring_of(arm_sample_dtype(JOINTS))
    samples = Samples(writer, SCALES, Counts(), reading_of([2000] * 6), machine_code())
    record = published(samples, ring)
    for name in ("leader", "requested", "limited", "sent"):
        assert np.isnan(record[name]).all()
    assert record["sent_raw"].tolist() == [-1] * 6
    assert (int(record["chunk"]), int(record["chunk_index"])) == (-1, -1)


def test_a_policy_that_asks_beyond_float32_is_recorded_as_infinite_and_ends_no_tick() -> None:
    writer, ring = ring_of(arm_sample_dtype(JOINTS))
    samples = Samples(writer, SCALES, Counts(), reading_of([2000] * 6), machine_code())
    path = way(1.5, 1.25, 3)
    samples.goals(path, doubles([1e300, -1e39, 3.4e38, float("nan"), float("-inf"), 0.0]))
    requested = published(samples, ring)["requested"]
    expected = [np.inf, -np.inf, np.float32(3.4e38), np.nan, -np.inf, 0.0]
    np.testing.assert_array_equal(requested, np.array(expected, np.float32))


def test_telemetry_holds_what_servos_said_and_silent_joints_keep_theirs() -> None:
    writer, ring = ring_of(telemetry_dtype(JOINTS))
    telemetry = Telemetry(writer, JOINTS, machine_code())
    telemetry.set_torque([True, False, True, True, True, True])
    data = bytes([0, 0, 0, 0, 0x05, 0x04, 74, 31, 0, 2, 0, 0, 0, 9, 0x80])
    reading = reading_of([0] * 6)
    for joint in range(6):
        reading.keep(joint, 0x20, data)
    telemetry.take(reading)
    reading.valid = 0
    for joint in range(6):
        reading.keep(joint, 0, bytes(15))
    reading.valid = 0
    telemetry.take(reading)
    telemetry.publish()
    slot = ring.take()
    record = slot.payload[: slot.nbytes].copy().view(telemetry_dtype(JOINTS))[0]
    assert record["load"].tolist() == [-5] * 6
    assert record["current"].tolist() == [9] * 6
    assert record["voltage"].tolist() == [74] * 6
    assert record["temperature"].tolist() == [31] * 6
    assert record["status"].tolist() == [0x22] * 6
    assert record["torque"].tolist() == [1, 0, 1, 1, 1, 1]
    assert (int(record["sample_ns"]), int(record["valid"])) == (150, 0)


def test_a_sample_tells_its_ring_when_it_was_and_wakes_every_listener() -> None:
    segment = create_ring(
        RingSpec("s", "record", slots=4, slot_bytes=arm_sample_dtype(JOINTS).itemsize)
    )
    bells = [Doorbell.create(), Doorbell.create()]
    reader = RingReader(segment, 0, policy=ReaderPolicy.BEST_EFFORT)
    samples = Samples(
        RingWriter(segment, bells), SCALES, Counts(), reading_of([2000] * 6), machine_code()
    )
    before_ns = now_ns()
    for tick in (7, 8):
        flags = int(JointFlag.OVERRUN_BEFORE)
        assert samples.publish(tick, flags) == tick - 7
    for index in range(2):
        slot = reader.take()
        assert slot is not None
        assert (slot.index, slot.source_seq, slot.flags) == (index, 7 + index, flags)
        assert (slot.t_capture_ns, slot.t_arrival_ns, slot.epoch) == (150, 200, 1)
        assert slot.nbytes == arm_sample_dtype(JOINTS).itemsize
        assert before_ns <= slot.t_publish_ns <= now_ns()
    assert [os.eventfd_read(bell.fd) for bell in bells] == [2, 2]


def test_a_sample_after_a_newer_writer_took_the_ring_is_refused() -> None:
    segment = create_ring(
        RingSpec("s", "record", slots=4, slot_bytes=arm_sample_dtype(JOINTS).itemsize)
    )
    ring = RingReader(segment, 0, policy=ReaderPolicy.BEST_EFFORT)
    writer = RingWriter(segment)
    samples = Samples(writer, SCALES, Counts(), reading_of([2000] * 6), machine_code())
    samples.publish(7, 0)
    writer.close()
    RingWriter(segment)
    with pytest.raises(RecdError, match="a newer writer has taken over"):
        samples.publish(8, 0)
    assert ring.take() is not None
    assert ring.take() is None
