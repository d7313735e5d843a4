from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from recd.config.streams import TICK_DTYPE, TickFlag
from recd.daemon.sim.stamp import Stamp, draw_stamp
from recd.perf import truth
from recd.perf.truth import Wrong
from recd.shm.clock import NS_PER_MS

PERIOD_NS = 33_333_333
T0_NS = 5_000_000_000_000
OFFSET_NS = 7 * NS_PER_MS
ROWS = 12


def capture_ns(frame):
    return (T0_NS + OFFSET_NS + frame * PERIOD_NS) // 1000 * 1000


def stamp(frame, camera=3):
    return Stamp(camera, frame, capture_ns(frame) // 1000)


def honest():
    """ROWS rows that each show their own frame, and what they say."""
    ticks = np.zeros(ROWS, TICK_DTYPE)
    for row in range(ROWS):
        ticks[row]["k"] = ticks[row]["source_seq"] = row
        ticks[row]["tick_ns"] = T0_NS + row * PERIOD_NS
        ticks[row]["capture_ns"] = capture_ns(row)
    return [stamp(row) for row in range(ROWS)], ticks


def judged(stamps, ticks):
    return truth.compare(stamps, ticks, camera=3, period_ns=PERIOD_NS)


def show(stamps, ticks, row, frame, flags=0):
    """From `row` on other frames are shown, and told of."""
    for k in range(row, ROWS):
        stamps[k] = stamp(frame + k - row)
        ticks[k]["source_seq"], ticks[k]["capture_ns"] = (
            frame + k - row,
            capture_ns(frame + k - row),
        )
    ticks[row]["flags"] |= flags


def test_rows_that_tell_the_truth_are_not_wrong():
    stamps, ticks = honest()
    seen = judged(stamps, ticks)
    assert seen.findings == ()
    assert (seen.repeated, seen.skipped) == (0, 0)
    assert seen.captured_ns.tolist() == [capture_ns(row) for row in range(ROWS)]


def test_flagged_repeats_and_skips_are_not_wrong():
    stamps, ticks = honest()
    show(stamps, ticks, 4, 3, TickFlag.REPEAT)
    show(stamps, ticks, 8, 9, TickFlag.SKIP_BEFORE)
    seen = judged(stamps, ticks)
    assert seen.findings == ()
    assert (seen.repeated, seen.skipped) == (1, 2)


def test_a_time_that_is_said_to_be_of_arrival_is_no_claim():
    stamps, ticks = honest()
    other_time(stamps, ticks)
    ticks[5]["flags"] |= TickFlag.ARRIVAL
    assert judged(stamps, ticks).findings == ()


def unreadable(stamps, ticks):
    stamps[5] = None


def other_camera(stamps, ticks):
    stamps[5] = replace(stamps[5], camera=2)


def other_number(stamps, ticks):
    ticks[5]["source_seq"] = 77


def other_time(stamps, ticks):
    ticks[5]["capture_ns"] += PERIOD_NS


def unflagged_repeat(stamps, ticks):
    show(stamps, ticks, 5, 4)


def false_repeat(stamps, ticks):
    ticks[5]["flags"] |= TickFlag.REPEAT


def unflagged_skip(stamps, ticks):
    show(stamps, ticks, 5, 7)


def backwards(stamps, ticks):
    show(stamps, ticks, 5, 2)


@pytest.mark.parametrize(
    ("lie", "wrong"),
    [
        (unreadable, Wrong.UNREADABLE),
        (other_camera, Wrong.CAMERA),
        (other_number, Wrong.FRAME),
        (other_time, Wrong.TIME),
        (unflagged_repeat, Wrong.REPEAT_UNFLAGGED),
        (false_repeat, Wrong.REPEAT_FALSE),
        (unflagged_skip, Wrong.SKIP_UNFLAGGED),
        (backwards, Wrong.BACKWARDS),
    ],
)
def test_every_kind_of_lie_is_found_in_its_row(lie, wrong):
    stamps, ticks = honest()
    lie(stamps, ticks)
    seen = judged(stamps, ticks)
    assert [(f.row, f.wrong) for f in seen.findings] == [(5, wrong)]
    assert truth.plain(seen)["kinds"] == {wrong.name.lower(): 1}


@pytest.mark.parametrize("flag", [TickFlag.MISSING, TickFlag.CORRUPT])
def test_a_row_that_admits_to_have_no_picture_may_show_anything_of_its_camera(flag):
    stamps, ticks = honest()
    stamps[5] = None
    ticks[5]["flags"] = flag
    stamps[6] = stamps[4]
    ticks[6]["flags"] = flag | TickFlag.REPEAT
    assert judged(stamps, ticks).findings == ()


def test_frames_lost_inside_an_admitted_hole_need_no_second_flag():
    stamps, ticks = honest()
    stamps[4] = stamps[3]
    ticks[4]["flags"] = TickFlag.MISSING | TickFlag.REPEAT
    show(stamps, ticks, 5, 20)
    seen = judged(stamps, ticks)
    assert seen.findings == ()
    assert seen.skipped == 16


def test_a_picture_too_few_is_wrong():
    stamps, ticks = honest()
    seen = judged(stamps[:-1], ticks)
    assert [(f.row, f.wrong) for f in seen.findings] == [(ROWS - 1, Wrong.COUNT)]


def test_times_are_taken_from_the_stamps_and_not_from_what_rows_say():
    stamps, ticks = honest()
    ticks["capture_ns"] += 2 * NS_PER_MS
    told = truth.times_of(judged(stamps, ticks), ticks, period_ns=PERIOD_NS)
    assert told["from_row_ms"]["p50"] == pytest.approx(7.0, abs=0.002)
    assert told["claim_error_ms"]["p99"] == pytest.approx(2.0, abs=0.002)
    assert told["claim_bias_ms"] == pytest.approx(2.0, abs=0.002)
    assert told["phase"] == pytest.approx(7 / 33.333, abs=0.001)


def test_stamps_are_read_from_every_picture_of_an_encoded_file(tmp_path):
    path = tmp_path / "video.mp4"
    stamps, ticks = honest()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "30", "g": "2"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30)
        for row, one in enumerate(stamps):
            picture = np.full((240, 320, 3), 90, np.uint8)
            draw_stamp(picture, one)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = row
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    read = list(truth.read_stamps(path))
    assert read == stamps
    assert judged(read, ticks).findings == ()
