import numpy as np
import pytest

from recd.config.errors import RecdError
from recd.shm import (
    Credit,
    Doorbell,
    ReaderPolicy,
    RingReader,
    RingSpec,
    RingWriter,
    Segment,
    create_ring,
    read_spec,
    ring_nbytes,
)
from recd.shm.dump import describe_ring

STAMPS = {"t_capture_ns": 11, "t_arrival_ns": 22}


def _ring(slots: int = 4, slot_bytes: int = 100, readers: int = 3) -> Segment:
    return create_ring(RingSpec("test", "frame", slots, slot_bytes, readers, {"width": 7}))


def _fill(writer: RingWriter, count: int) -> None:
    for _ in range(count):
        writer.write(bytes([writer.head % 251]) * 50, **STAMPS)


def test_spec_comes_back_from_the_segment_as_it_was_given():
    spec = RingSpec("cam.front", "frame", 5, 1000, 2, {"width": 640, "fourcc": "MJPG"})
    segment = create_ring(spec)
    assert read_spec(Segment.attach(segment.fd)) == spec
    assert segment.nbytes == ring_nbytes(spec)


def test_what_was_committed_is_taken_with_all_its_facts():
    segment = _ring()
    writer = RingWriter(segment)
    reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    view = writer.reserve()
    view[:3] = (1, 2, 3)
    index = writer.commit(
        3, t_capture_ns=-5, t_arrival_ns=2**62, source_seq=9, flags=2**40, aux=-(2**50)
    )
    slot = reader.take()
    assert slot is not None
    assert (slot.index, slot.nbytes, slot.epoch) == (index, 3, writer.epoch)
    assert (slot.t_capture_ns, slot.t_arrival_ns) == (-5, 2**62)
    assert (slot.source_seq, slot.flags, slot.aux) == (9, 2**40, -(2**50))
    assert slot.t_publish_ns > 0
    assert slot.payload.tolist() == [1, 2, 3]
    assert slot.intact()
    assert reader.take() is None


def test_empty_ring_gives_nothing():
    segment = _ring()
    reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    assert reader.take() is None
    assert reader.latest() is None
    assert reader.tally() == (0, 0, 0, 0)


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("burst", [1, 2, 5, 8, 100])
def test_kept_and_lost_are_what_was_produced(slots: int, burst: int):
    segment = _ring(slots)
    writer = RingWriter(segment)
    reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    kept = []
    for _ in range(5):
        _fill(writer, burst)
        while (slot := reader.take()) is not None:
            assert set(slot.payload.tolist()) == {slot.index % 251}
            assert slot.intact()
            kept.append(slot.index)
    assert len(kept) + reader.lost == 5 * burst == writer.head
    assert kept == sorted(set(kept))
    assert kept[-1] == writer.head - 1


def test_an_overrun_reader_loses_what_is_gone_and_an_eighth_of_the_ring():
    segment = _ring(slots=64)
    writer = RingWriter(segment)
    reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    _fill(writer, 65)
    slot = reader.take()
    assert slot is not None
    assert (slot.index, reader.lost) == (9, 9)
    _fill(writer, 7)  # the writer does not come round to it while it is read
    assert slot.intact()


def test_what_a_reader_forgoes_is_lost_to_it_and_never_behind_it():
    segment = _ring(slots=8)
    writer = RingWriter(segment)
    keeps = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    looks = RingReader(segment, 1, policy=ReaderPolicy.LATEST)
    _fill(writer, 6)
    assert (keeps.forgo(4), keeps.tally()) == (4, (4, 4, 0, 0))
    assert (keeps.forgo(2), keeps.tally()) == (4, (4, 4, 0, 0))
    assert (keeps.forgo(99), keeps.tally()) == (6, (6, 6, 0, 0))
    assert (looks.forgo(5), looks.tally()) == (5, (5, 0, 0, 5))


def test_latest_passes_over_without_loss():
    segment = _ring()
    writer = RingWriter(segment)
    reader = RingReader(segment, 0, policy=ReaderPolicy.LATEST)
    _fill(writer, 3)
    slot = reader.latest()
    assert slot is not None
    assert slot.index == 2
    _fill(writer, 9)
    slot = reader.take()
    assert slot is not None
    assert reader.lost == 0
    assert reader.skipped + 2 == reader.cursor == slot.index + 1


def test_latest_of_a_must_keep_reader_counts_what_it_passed_over():
    segment = _ring()
    writer = RingWriter(segment)
    reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    _fill(writer, 3)
    assert reader.latest() is not None
    assert (reader.lost, reader.skipped) == (2, 0)


def test_slot_overwritten_in_use_is_not_intact_and_counted_once():
    segment = _ring(slots=2)
    writer = RingWriter(segment)
    reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    _fill(writer, 1)
    slot = reader.take()
    assert slot is not None
    _fill(writer, 1)
    assert slot.intact()
    writer.reserve()
    assert not slot.intact()
    assert not slot.intact()
    assert (reader.lost, reader.torn) == (1, 1)


def test_payloads_of_readers_are_read_only():
    segment = _ring()
    RingWriter(segment).write(b"abc", **STAMPS)
    reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    reader.seek(0)
    slot = reader.take()
    assert slot is not None
    with pytest.raises(ValueError, match="read-only"):
        slot.payload[0] = 1


def test_reader_that_joins_late_begins_with_what_comes_next():
    segment = _ring()
    writer = RingWriter(segment)
    _fill(writer, 9)
    reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    assert reader.take() is None
    _fill(writer, 1)
    slot = reader.take()
    assert slot is not None
    assert (slot.index, reader.lost) == (9, 0)


def test_restarted_must_keep_reader_goes_on_and_counts_what_it_missed():
    segment = _ring()
    writer = RingWriter(segment)
    first = RingReader(segment, 1, policy=ReaderPolicy.MUST_KEEP)
    _fill(writer, 2)
    assert first.take() is not None
    first.close()
    _fill(writer, 1)
    second = RingReader(segment, 1, policy=ReaderPolicy.MUST_KEEP)
    slot = second.take()
    assert slot is not None
    assert (slot.index, second.lost) == (1, 0)
    second.close()
    _fill(writer, 10)
    third = RingReader(segment, 1, policy=ReaderPolicy.MUST_KEEP)
    kept = 2
    while third.take() is not None:
        kept += 1
    assert kept + third.lost == writer.head == 13


def test_restarted_latest_reader_begins_with_what_comes_next():
    segment = _ring()
    writer = RingWriter(segment)
    RingReader(segment, 1, policy=ReaderPolicy.LATEST).close()
    _fill(writer, 10)
    reader = RingReader(segment, 1, policy=ReaderPolicy.LATEST)
    assert reader.latest() is None
    assert (reader.lost, reader.cursor) == (0, 10)


def test_two_readers_count_apart():
    segment = _ring()
    writer = RingWriter(segment)
    quick = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    slow = RingReader(segment, 1, policy=ReaderPolicy.MUST_KEEP)
    for _ in range(20):
        _fill(writer, 1)
        assert quick.take() is not None
    while slow.take() is not None:
        pass
    assert quick.lost == 0
    assert slow.lost > 0


def test_living_writer_cannot_be_replaced():
    segment = _ring()
    writer = RingWriter(segment)
    with pytest.raises(RecdError, match="writer is still alive"):
        RingWriter(Segment.attach(segment.fd))
    writer.close()
    assert RingWriter(segment).epoch == 2


def test_living_reader_keeps_its_line():
    segment = _ring()
    reader = RingReader(segment, 2, policy=ReaderPolicy.LATEST)
    with pytest.raises(RecdError, match="reader 2 is still alive"):
        RingReader(segment, 2, policy=ReaderPolicy.LATEST)
    reader.close()
    RingReader(segment, 2, policy=ReaderPolicy.LATEST)


def test_restarted_writer_never_reuses_an_index_and_an_open_slot_is_one_loss():
    segment = _ring()
    first = RingWriter(segment)
    reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    _fill(first, 2)
    first.reserve()
    first.close()
    assert [slot.index for slot in iter(reader.take, None)] == [0, 1]
    second = RingWriter(segment)
    assert (second.epoch, second.head) == (2, 3)
    assert reader.take() is None
    assert reader.lost == 1
    _fill(second, 1)
    slot = reader.take()
    assert slot is not None
    assert (slot.index, slot.epoch, reader.lost) == (3, 2, 1)
    assert describe_ring(segment)["abandoned"] == 1


def test_commit_without_reserve_is_refused():
    writer = RingWriter(_ring())
    with pytest.raises(ValueError, match="commit without reserve"):
        writer.commit(1, **STAMPS)
    writer.reserve()
    writer.commit(1, **STAMPS)
    with pytest.raises(ValueError, match="commit without reserve"):
        writer.commit(1, **STAMPS)


def test_payload_larger_than_a_slot_is_refused_and_nothing_begun():
    segment = _ring(slot_bytes=8)
    writer = RingWriter(segment)
    reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    for _ in range(5):
        with pytest.raises(ValueError, match="slots of 8"):
            writer.write(bytes(9), **STAMPS)
    writer.write(bytes(8), **STAMPS)
    assert reader.take() is not None
    assert reader.lost == 0


def test_seek_is_no_loss_and_clamped():
    segment = _ring()
    writer = RingWriter(segment)
    reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    _fill(writer, 3)
    assert reader.seek(2) == 2
    assert reader.seek(10**9) == 3
    assert reader.seek(-4) == 0
    assert [slot.index for slot in iter(reader.take, None)] == [0, 1, 2]
    assert reader.tally() == (3, 0, 0, 0)


def test_observer_of_a_read_only_segment_leaves_no_trace():
    segment = _ring()
    writer = RingWriter(segment)
    before = segment.bytes.copy()
    reader = RingReader(Segment.attach(segment.fd, readonly=True), policy=ReaderPolicy.BEST_EFFORT)
    assert reader.take() is None
    assert np.array_equal(before, segment.bytes)
    _fill(writer, 9)
    kept = sum(1 for _ in iter(reader.take, None))
    assert kept + reader.lost == 9
    assert describe_ring(segment)["readers"] == []


def test_credit_counts_the_room_before_the_slowest_must_keep_reader():
    segment = _ring(slots=8)
    writer = RingWriter(segment)
    credit = Credit(segment, slack=2)
    assert credit.free() == 6
    reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    RingReader(segment, 1, policy=ReaderPolicy.BEST_EFFORT)
    while credit.free() > 0:
        _fill(writer, 1)
    assert writer.head == 6
    assert reader.take() is not None
    assert credit.free() == 1
    reader.close()
    assert credit.free() == 6


def test_waiting_reader_hears_the_commit():
    segment = _ring()
    doorbell = Doorbell.create()
    writer = RingWriter(segment, [doorbell])
    reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP, doorbell=doorbell)
    assert not reader.wait(0)
    _fill(writer, 1)
    assert reader.wait(0)
    assert reader.take() is not None
    assert reader.wait(0)  # the ring that was not yet heard
    assert not reader.wait(0)
    doorbell.close()


def test_views_of_a_dtype_are_the_payloads():
    dtype = np.dtype([("a", "<i4"), ("b", "<f8")])
    segment = _ring(slot_bytes=16)
    writer = RingWriter(segment)
    reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    rows = writer.views(dtype)
    for k in range(9):
        rows[writer.begin()][0] = (k, k / 2)
        writer.commit(dtype.itemsize, **STAMPS)
        slot = reader.take()
        assert slot is not None
        assert slot.payload.view(dtype)[0].item() == (k, k / 2)


def test_dump_tells_what_happened():
    segment = _ring()
    writer = RingWriter(segment)
    reader = RingReader(segment, 1, policy=ReaderPolicy.MUST_KEEP)
    _fill(writer, 9)
    assert reader.take() is not None
    assert writer.add_dropped(2) == 2
    assert writer.add_dropped(3) == 5
    told = describe_ring(Segment.attach(segment.fd, readonly=True))
    assert (told["produced"], told["dropped"], told["epoch"]) == (9, 5, 1)
    assert told["writer_alive"]
    (line,) = told["readers"]
    assert line["policy"] == "MUST_KEEP"
    assert line["kept"] == 1
    assert line["kept"] + line["lost"] + line["lag"] == 9
    writer.close()
    told = describe_ring(segment)
    assert (told["writer_alive"], told["writer_pid"]) == (False, 0)


def test_ring_of_another_layout_is_refused():
    segment = Segment.create("other", 4096)
    with pytest.raises(RecdError, match="is no ring"):
        read_spec(segment)
    ring = _ring()
    ring.bytes[8:16].view(np.int64)[0] = 99
    with pytest.raises(RecdError, match="layout 99"):
        RingWriter(ring)


def test_only_slot_open_leaves_nothing_to_read_and_nobody_waiting():
    segment = _ring(slots=1)
    writer = RingWriter(segment)
    latest = RingReader(segment, 0, policy=ReaderPolicy.LATEST)
    taking = RingReader(segment, 1, policy=ReaderPolicy.MUST_KEEP)
    _fill(writer, 3)
    writer.reserve()
    assert latest.latest() is None
    assert taking.take() is None
    assert (latest.skipped, taking.lost) == (3, 3)
