import signal
from fractions import Fraction

import numpy as np
import pytest

from recd.shm.clock import NS_PER_MS, now_ns, sleep_until_ns

from .conftest import PATIENCE_NS

FRAMES, WIDTH, HEIGHT = 60, 320, 240
RAW = WIDTH * HEIGHT * 3 // 2


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """60 frames at 30 fps; the luma of each is 3 times its number. Its clock pauses 2 s at 30."""
    import av

    path = tmp_path_factory.mktemp("film") / "film.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"qp": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30)
        for k in range(FRAMES):
            planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
            planes[:HEIGHT] = 16 + 3 * k
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = k + (60 if k >= 30 else 0), Fraction(1, 30)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def film_rig(rig, film, **camera):
    options = {name: camera.pop(name) for name in ("slots", "join") if name in camera}
    asked = {"source": "file", "device": str(film), "width": WIDTH, "height": HEIGHT, **camera}
    return rig({"accept_mismatch": True, **asked}, payload="yuv420p", slot_bytes=RAW, **options)


def number(slot):
    return (int(slot.payload[0]) - 16) // 3


def until_head(worker, head):
    deadline_ns = now_ns() + PATIENCE_NS
    while worker.reader.peek_head() < head and now_ns() < deadline_ns:
        sleep_until_ns(now_ns() + 5 * NS_PER_MS)
    assert worker.reader.peek_head() >= head


def test_a_step_source_at_three_times_real_time_loses_nothing_though_readers_are_slow(rig, film):
    worker = film_rig(rig, film, step=True, speed=3.0, slots=8)

    def slowly(slot):
        sleep_until_ns(now_ns() + 15 * NS_PER_MS)  # slower than the film: the ring is always full
        return number(slot), slot.source_seq, slot.t_capture_ns, slot.nbytes

    taken = worker.each(FRAMES, slowly)
    worker.await_message("event", "camera.ended")
    assert [drawn for drawn, *_ in taken] == list(range(FRAMES))
    assert [seq for _, seq, *_ in taken] == list(range(FRAMES))
    assert {nbytes for *_, nbytes in taken} == {RAW}
    assert worker.reader.lost == 0
    steps = np.diff([capture for _, _, capture, _ in taken])
    # The film's own time is kept, its pause of two seconds included.
    assert np.abs(np.delete(steps, 29) - 33_333_333).max() < 1_000_000
    assert steps[29] == pytest.approx(61 * 33_333_333, abs=2_000_000)
    assert worker.stop() == 0


def test_a_step_source_waits_for_a_reader_that_stands_still(rig, film):
    worker = film_rig(rig, film, step=True, speed=100.0, slots=8)
    first = worker.each(1, number)
    # Nobody takes anything until the ring is as full as its credit allows.
    until_head(worker, 6)
    sleep_until_ns(now_ns() + 300 * NS_PER_MS)
    stood_at = worker.reader.peek_head()
    rest = worker.each(FRAMES - 1, number)
    assert stood_at <= 8
    assert first + rest == list(range(FRAMES))
    assert worker.reader.lost == 0


def test_a_step_source_holds_its_first_frame_until_somebody_must_keep_it(rig, film):
    worker = film_rig(rig, film, step=True, speed=100.0, join=False)
    deadline_ns = now_ns() + PATIENCE_NS
    while worker.status_or_none() is None and now_ns() < deadline_ns:
        sleep_until_ns(now_ns() + 5 * NS_PER_MS)
    reader = worker.join()
    assert reader.peek_head() == 0
    assert worker.each(FRAMES, number) == list(range(FRAMES))


def test_a_stopped_and_continued_worker_repeats_and_loses_no_step(rig, film):
    worker = film_rig(rig, film, step=True, speed=3.0, slots=8)
    first = worker.each(10, number)
    worker.process.send_signal(signal.SIGSTOP)
    sleep_until_ns(now_ns() + 200 * NS_PER_MS)
    worker.process.send_signal(signal.SIGCONT)
    assert first + worker.each(FRAMES - 10, number) == list(range(FRAMES))


def test_a_paced_film_is_stamped_when_each_frame_was_due(rig, film):
    worker = film_rig(rig, film, speed=4.0)
    assert worker.await_message("ready")["stamp"] == "device"
    slots = worker.frames(20)
    periods = np.diff([slot.t_capture_ns for slot in slots])
    assert np.abs(periods - 33_333_333 / 4).max() < 300_000
    assert all(slot.t_arrival_ns >= slot.t_capture_ns for slot in slots)


@pytest.mark.parametrize(
    ("camera", "code"),
    [({"width": 160, "height": 120}, "size"), ({"fps": 25.0}, "rate")],
)
def test_a_film_of_another_size_or_rate_is_refused(rig, film, camera, code):
    worker = film_rig(rig, film, accept_mismatch=False, **camera)
    assert worker.await_message("refused")["code"] == code
    assert worker.process.wait(timeout=60) == 2


def test_files_that_are_not_there_or_no_film_are_named(read_source, tmp_path):
    text = tmp_path / "notes.mp4"
    text.write_text("no film")
    for path, code in ((tmp_path / "none.mp4", "missing"), (text, "format")):
        error = read_source({"source": "file", "device": str(path)}, frames=1)[0]
        assert (error["ty"], error["code"]) == ("error", code)
        assert str(path) in error["text"]


def test_a_step_source_that_was_held_back_does_not_make_up_for_it(rig, film):
    worker = film_rig(rig, film, step=True, speed=1.0, slots=8)
    worker.frames(1)
    until_head(worker, 7)
    sleep_until_ns(now_ns() + 500 * NS_PER_MS)  # held back: the film's clock must not run on
    freed_ns = now_ns()
    arrivals = [slot.t_arrival_ns for slot in worker.frames(20)]
    after = arrivals[7:]  # the first that was not read from the file before there was room
    assert after[-1] - freed_ns >= (len(after) - 1) * 33_333_333


def test_a_step_source_killed_and_started_again_goes_on_after_its_last_step(rig, film):
    worker = film_rig(rig, film, step=True, speed=100.0, slots=8)
    seen = worker.each(20, lambda slot: (number(slot), slot.source_seq, slot.t_capture_ns))
    until_head(worker, 20 + 6)  # the ring is full: it is killed between two frames
    worker.process.kill()
    worker.process.wait()
    worker.restart()
    seen += worker.each(
        FRAMES - 20, lambda slot: (number(slot), slot.source_seq, slot.t_capture_ns)
    )
    assert [drawn for drawn, *_ in seen] == list(range(FRAMES))
    assert [seq for _, seq, _ in seen] == list(range(FRAMES))
    steps = np.diff([capture for *_, capture in seen])
    assert np.abs(np.delete(steps, 29) - 33_333_333).max() < 1_000_000
    assert worker.reader.lost == 0
    worker.await_message("event", "camera.ended")
    assert worker.status()["state"] == "ended"
    assert worker.stop() == 0


def test_a_step_source_has_ended_only_when_every_step_was_taken(rig, film):
    worker = film_rig(rig, film, step=True, speed=100.0, slots=128)
    worker.frames(30)
    until_head(worker, FRAMES)
    sleep_until_ns(now_ns() + 300 * NS_PER_MS)
    assert worker.status()["state"] == "running"
    worker.frames(30)
    worker.await_message("event", "camera.ended")
