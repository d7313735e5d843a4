import av
import numpy as np
import pytest

from recd.daemon.encode.colour import Converter, PictureFormat, plane_view
from recd.shm import ReaderPolicy, RingReader, RingSpec, RingWriter, create_ring
from tests.payloads import HEIGHT, PAYLOADS, WIDTH, bars


@pytest.fixture
def segment():
    made = create_ring(RingSpec("cam.front", "frame", 4, 4 * WIDTH * HEIGHT))
    yield made
    made.close()


@pytest.fixture
def ends(segment):
    writer, reader = RingWriter(segment), RingReader(segment, 0, policy=ReaderPolicy.MUST_KEEP)
    yield writer, reader
    reader.close()
    writer.close()


def address(memory):
    return np.frombuffer(memory, np.uint8).__array_interface__["data"][0]


def test_what_a_camera_fills_is_what_an_encoder_reads(segment, ends):
    writer, reader = ends
    filled = writer.reserve()
    filled[:9] = 7
    writer.commit(9, t_capture_ns=1, t_arrival_ns=1)
    slot = reader.take()
    # The reader maps the segment for itself in its own process; here both see one mapping.
    assert np.shares_memory(filled, slot.payload)
    assert np.shares_memory(slot.payload, segment.bytes)


@pytest.mark.parametrize("name", sorted(PAYLOADS))
def test_a_picture_is_made_from_the_slots_own_memory(ends, make_payload, name):
    writer, reader = ends
    kind, full, shown = make_payload(name, bars())
    filled = writer.reserve()[: len(shown)]
    filled[:] = 0
    writer.commit(len(shown), t_capture_ns=1, t_arrival_ns=1)
    slot = reader.take()
    # What stands in the slot now is what counts: nothing was put aside when it was taken.
    filled[:] = np.frombuffer(shown, np.uint8)

    converter = Converter(PictureFormat(kind, WIDTH, HEIGHT, full))
    found, wanted = converter.convert(slot.payload), converter.convert(shown)

    for one, other in zip(found.planes, wanted.planes, strict=True):
        assert (plane_view(one) == plane_view(other)).all()


def test_a_jpegs_packet_for_the_decoder_is_the_slots_memory(ends, make_payload):
    writer, reader = ends
    _, _, jpeg = make_payload("jpeg 4:2:0", bars())
    writer.write(jpeg, t_capture_ns=1, t_arrival_ns=1)
    slot = reader.take()
    assert address(av.Packet(slot.payload)) == slot.payload.__array_interface__["data"][0]
