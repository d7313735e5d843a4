import gc
import os
import subprocess
import sys

import numpy as np
import pytest

from recd.config.errors import RecdError
from recd.shm import (
    CellReader,
    CellWriter,
    Doorbell,
    ReaderPolicy,
    RingReader,
    RingSpec,
    RingWriter,
    Segment,
    create_cell,
    create_ring,
    warm,
)


def _open_files() -> set[str]:
    gc.collect()
    links = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.add(f"{fd}:{os.readlink(f'/proc/self/fd/{fd}')}")
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return links


def _mapped(name: str) -> bool:
    with open("/proc/self/maps") as maps:
        return f"/memfd:{name} " in maps.read()


def test_bytes_are_shared_between_attachments_and_zero_at_first():
    segment = Segment.create("zero", 5000)
    assert segment.nbytes == 8192
    assert not segment.bytes.any()
    other = Segment.attach(segment.fd)
    other.bytes[4999] = 7
    assert segment.bytes[4999] == 7
    assert other.fd != segment.fd
    assert other.name == segment.name == "zero"


@pytest.mark.parametrize("size", [0, 4096, 1 << 20])
def test_sealed_segment_changes_its_size_for_nobody(size: int):
    segment = Segment.create("sealed", 8192)
    with pytest.raises(PermissionError):
        os.ftruncate(segment.fd, size)
    assert os.fstat(segment.fd).st_size == 8192


def test_pages_exist_before_anyone_writes():
    segment = Segment.create("present", 1 << 20)
    assert os.fstat(segment.fd).st_blocks * 512 >= 1 << 20


def test_populated_attachment_has_all_pages_mapped():
    segment = Segment.create("populated", 1 << 20)
    resident = []
    for populate in (False, True):
        view = Segment.attach(segment.fd, populate=populate)
        with open("/proc/self/smaps") as maps:
            _, _, after = maps.read().partition(f"{view.address:x}-")
        resident.append(int(after.split("Rss:")[1].split()[0]) * 1024)
    assert resident == [0, 1 << 20]


def test_read_only_attachment_cannot_be_written():
    segment = Segment.create("readonly", 4096)
    view = Segment.attach(segment.fd, readonly=True)
    with pytest.raises(ValueError, match="read-only"):
        view.bytes[0] = 1
    assert view.readonly


def test_memory_that_could_shrink_is_refused():
    fd = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4096)
    with pytest.raises(RecdError, match="could still shrink"):
        Segment.attach(fd)
    os.close(fd)


def test_descriptor_that_is_no_memory_is_refused():
    reading, writing = os.pipe()
    with pytest.raises(RecdError, match="no shared memory"):
        Segment.attach(reading)
    os.close(reading)
    os.close(writing)


def test_segment_larger_than_any_memory_is_refused_with_its_size():
    before = _open_files()
    with pytest.raises(RecdError, match=r"MiB asked, [0-9]+ MiB available"):
        Segment.create("huge", 1 << 60)
    assert _open_files() == before


def test_closing_everything_leaves_no_descriptor_and_no_mapping():
    warm()
    before = _open_files()
    segment = create_ring(RingSpec("trace", "frame", 4, 100))
    cell = create_cell("trace", np.dtype("<f8"))
    doorbell = Doorbell.create()
    writer = RingWriter(segment, [doorbell])
    reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP, doorbell=doorbell)
    values, value = CellWriter(cell), CellReader(cell)
    assert _mapped("recd:trace")
    for thing in (writer, reader, values, doorbell, segment, cell, segment, doorbell):
        thing.close()
    del writer, reader, values, value, thing
    assert _open_files() == before
    assert not _mapped("recd:trace")


def test_dropped_handles_give_up_their_role():
    segment = create_ring(RingSpec("dropped", "frame", 4, 100))
    warm()
    before = _open_files()
    writer = RingWriter(segment)
    assert _open_files() != before
    del writer
    assert _open_files() == before
    RingWriter(segment)


def test_stale_handles_of_a_closed_segment_still_work():
    segment = create_ring(RingSpec("stale", "frame", 4, 100))
    writer = RingWriter(segment)
    reader = RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    stale_view = segment.bytes
    segment.close()
    with pytest.raises(ValueError, match="closed"):
        _ = segment.bytes
    writer.write(b"abc", t_capture_ns=1, t_arrival_ns=1)
    slot = reader.take()
    assert slot is not None
    assert slot.intact()
    del writer, reader
    assert slot.payload.tobytes() == b"abc"
    assert slot.intact()
    assert stale_view.size == segment.nbytes


ATTACH = """
import sys
from recd.shm import Segment
segment = Segment.attach(int(sys.argv[1]))
segment.bytes[0] += 1
"""


def test_segment_outlives_a_stranger_that_attached_and_left():
    segment = Segment.create("stranger", 4096)
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", ATTACH, str(segment.fd)], pass_fds=[segment.fd], check=True
        )
    assert segment.bytes[0] == 2
    assert not [name for name in os.listdir("/dev/shm") if "stranger" in name]


def test_doorbell_adds_up_and_never_blocks():
    doorbell = Doorbell.create()
    assert not doorbell.wait(0)
    assert not doorbell.wait(1)
    for _ in range(3):
        doorbell.ring()
    assert doorbell.wait(-5)
    assert not doorbell.drain()
    os.eventfd_write(doorbell.fd, 2**64 - 2)
    doorbell.ring()
    assert doorbell.drain()
    doorbell.close()
