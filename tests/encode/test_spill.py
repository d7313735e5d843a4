import numpy as np
import pytest

from recd.config.load import load_robot
from recd.daemon import spill as spilling
from recd.daemon.encode.colour import Converter, PictureFormat
from recd.daemon.encode.pictures import Fate, Pictures
from recd.daemon.spill import SpillReader, SpillWriter, spill_path, take_back
from recd.daemon.supervisor.processes import spilled_cameras
from recd.shm import Credit, ReaderPolicy, RingReader, RingSpec, RingWriter, create_ring

SLOTS = 16
ENCODER, KEEPER = 0, 1


@pytest.fixture
def ring():
    spec = RingSpec("cam.front", "frame", slots=SLOTS, slot_bytes=4096, readers=4, meta={})
    segment = create_ring(spec)
    yield segment
    segment.close()


def publish(writer: RingWriter, numbers: range) -> None:
    for number in numbers:
        writer.write(
            np.full(100 + number, number % 256, np.uint8), t_capture_ns=number * 1000,
            t_arrival_ns=number * 1000 + 1, source_seq=number, flags=number % 3, aux=7,
        )  # fmt: skip


def readers(ring):
    encoder = RingReader(ring, ENCODER, policy=ReaderPolicy.MUST_KEEP)
    keeper = RingReader(ring, KEEPER, policy=ReaderPolicy.BEST_EFFORT)
    return encoder, SpillWriter("front", keeper, Credit(ring, slack=0))


def test_frames_of_a_stalled_encoder_come_back_from_the_file_in_order_and_unchanged(ring, tmp_path):
    writer = RingWriter(ring)
    encoder, spill = readers(ring)
    taken = SpillReader(spill_path(tmp_path, "front"))
    publish(writer, range(4))
    assert [encoder.take().index for _ in range(4)] == [0, 1, 2, 3]
    for first in range(4, 100, 4):
        publish(writer, range(first, first + 4))
        spill.keep(tmp_path)
    assert taken.reaching_back(90) == 1  # it may hold what it took last, undecided
    for index in range(4, 84):
        slot = taken.take(index)
        assert (slot.index, slot.source_seq, slot.t_capture_ns) == (index, index, index * 1000)
        assert (slot.flags, slot.aux, slot.intact()) == (index % 3, 7, True)
        assert slot.payload.tolist() == [index % 256] * (100 + index)
        encoder.seek(index + 1)
    assert [slot.index for slot in iter(encoder.take, None)] == list(range(84, 100))
    assert (encoder.lost, spill.spilled) == (0, 99)


def test_where_the_writer_came_too_late_the_encoder_goes_on_in_the_file_or_in_the_ring(
    ring, tmp_path
):
    writer = RingWriter(ring)
    encoder, spill = readers(ring)
    files = [SpillReader(spill_path(tmp_path, "front"))]
    publish(writer, range(40))  # a ring of 16, and nobody looked
    assert take_back(encoder, files) is None
    assert encoder.take().index == 26  # two are left for the camera to fill meanwhile
    publish(writer, range(40, 50))
    spill.keep(tmp_path)
    publish(writer, range(50, 70))
    spill.keep(tmp_path)  # frames 50 to 54 are gone
    assert [files[0].next_from(index) for index in (36, 50, 70)] == [36, 55, None]
    taken = list(iter(lambda: take_back(encoder, files) or encoder.take(), None))
    assert [slot.index for slot in taken] == [*range(35, 50), *range(55, 70)]
    assert all(slot.intact() for slot in taken)
    assert encoder.lost == 26 + 8 + 5
    assert encoder.cursor == 70


def test_frames_that_reach_the_file_between_two_looks_are_not_passed_over(ring, tmp_path):
    writer = RingWriter(ring)
    encoder, spill = readers(ring)
    publish(writer, range(12))
    spill.keep(tmp_path)
    publish(writer, range(12, 30))  # frames 0 to 13 are in the file alone
    path = spill_path(tmp_path, "front")
    whole = path.read_bytes()
    path.write_bytes(b"")

    class WrittenMeanwhile(SpillReader):
        def take(self, index):
            slot = super().take(index)
            path.write_bytes(whole)
            return slot

    assert take_back(encoder, [WrittenMeanwhile(path)]).index == 0
    assert encoder.lost == 0


def test_nothing_is_kept_of_a_ring_whose_encoder_keeps_up(ring, tmp_path):
    writer = RingWriter(ring)
    encoder, spill = readers(ring)
    for number in range(50):
        publish(writer, range(number, number + 1))
        assert encoder.take().index == number
        assert spill.keep(tmp_path) == 0
    assert not spill_path(tmp_path, "front").exists()


def test_a_record_that_is_still_being_written_is_found_when_it_is_whole(ring, tmp_path):
    writer = RingWriter(ring)
    _, spill = readers(ring)
    publish(writer, range(12))
    assert spill.keep(tmp_path) == 12
    path = spill_path(tmp_path, "front")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    taken = SpillReader(path)
    assert (taken.take(11), taken.take(10).index) == (None, 10)
    path.write_bytes(whole)
    assert taken.take(11).payload.tolist() == [11] * 111


def test_a_frame_held_undecided_when_the_ring_came_round_is_read_from_the_file(ring, tmp_path):
    writer = RingWriter(ring)
    encoder, spill = readers(ring)
    pictures = Pictures(Converter(PictureFormat("gray8", 10, 10)))
    publish(writer, range(1))
    held = encoder.take()
    for first in range(1, 40, 4):
        publish(writer, range(first, first + 4))
        spill.keep(tmp_path)
    assert held.overtaken()
    frame, fate = pictures.of(held, SpillReader(spill_path(tmp_path, "front")))
    assert (fate, encoder.lost) == (Fate.GOOD, 0)
    assert set(frame.to_ndarray()[:10, :10].ravel().tolist()) == {16}  # frame 0 is black


@pytest.mark.parametrize(("limit", "said"), [("RAW_BYTES", "GB"), ("SLOW_NS", "the disk took")])
def test_raw_frames_are_kept_up_to_a_limit_and_the_next_episode_begins_anew(
    ring, tmp_path, monkeypatch, limit, said
):
    monkeypatch.setattr(spilling, limit, 2500 if limit == "RAW_BYTES" else -1)
    writer = RingWriter(ring)
    RingReader(ring, ENCODER, policy=ReaderPolicy.MUST_KEEP)
    keeper = RingReader(ring, KEEPER, policy=ReaderPolicy.BEST_EFFORT)
    spill = SpillWriter("front", keeper, Credit(ring, slack=0), raw=True)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    kept = []
    for first in range(0, 60, 4):
        publish(writer, range(first, first + 4))
        kept.append(spill.keep(tmp_path / "one"))
    assert said in spill.refused
    assert kept[:2] == [0, 0]  # half a ring is no stall
    assert all(kept[2:4])
    assert not any(kept[5:])
    publish(writer, range(60, 64))
    assert spill.keep(tmp_path / "two") > 0
    assert SpillReader(spill_path(tmp_path / "two", "front")).take(63).index == 63
    assert spill_path(tmp_path / "one", "front").stat().st_size > 1000


def test_of_what_comes_after_the_end_of_an_episode_one_frame_is_kept(ring, tmp_path):
    writer = RingWriter(ring)
    _, spill = readers(ring)
    publish(writer, range(12))
    assert spill.keep(tmp_path, until_ns=7_500) == 9  # frame 8 was captured at 8,000
    publish(writer, range(12, 16))
    assert spill.keep(tmp_path, until_ns=7_500) == 0
    taken = SpillReader(spill_path(tmp_path, "front"))
    assert [taken.take(index) is None for index in (7, 8, 9, 12)] == [False, False, True, True]


def test_frames_of_every_camera_are_kept_but_h264_whose_pictures_hang_together():
    device = ["source=v4l2", "device=/dev/video0", "fourcc=yuyv"]
    overrides = [f"cameras.front.{each}" for each in device]
    robot = load_robot(
        "demo", overrides=[*overrides, "cameras.wrist.fourcc=h264"], check_machine=False
    )
    assert spilled_cameras(robot) == ("front",)
    assert set(spilled_cameras(load_robot("demo"))) == {"front", "wrist"}
