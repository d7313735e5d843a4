from pathlib import Path

import numpy as np

from recd.config.streams import FrameFlag, TickFlag
from recd.daemon.digest import head_last_of
from recd.shm.clock import NS_PER_MS, now_ns, sleep_until_ns


def flags(records, row):
    return TickFlag(int(records["flags"][row]))


def test_rows_records_and_pictures_are_the_same_in_number_and_content(rig, shown):
    uid, t0 = rig.begin()
    rig.feed(range(24), t0)

    closed = rig.end(uid, 20)

    records = rig.told(uid, 20)
    assert shown(closed["path"]) == list(range(20)) == records["source_seq"].tolist()
    assert records["k"].tolist() == list(range(20))
    assert (records["error_ns"] == records["capture_ns"] - records["tick_ns"]).all()
    assert np.abs(records["error_ns"] - NS_PER_MS).max() <= 20
    assert not records["flags"].any()
    assert closed["counts"] == {
        "kept": 20, "repeated": 0, "expected": 0, "missing": 0, "late": 0, "corrupt": 0, "lost": 0,
    }  # fmt: skip


def test_closed_tells_what_the_writer_needs_and_all_of_it_is_true(rig):
    uid, t0 = rig.begin(source={"device": "/dev/video9", "range": "full"})
    rig.feed(range(12), t0)

    closed = rig.end(uid, 10)

    path = Path(closed["path"])
    assert path == rig.staging(uid) / "observation.images.front.mp4"
    assert closed["digest"] == head_last_of(path)
    assert (closed["packets"], closed["bytes"]) == (10, path.stat().st_size)
    assert closed["key"] == "observation.images.front"
    assert closed["device"]["device"] == "/dev/video9"
    assert closed["pins"] == {
        "codec": "h264", "pix_fmt": "yuv420p", "width": 160, "height": 96, "g": 2, "crf": 30,
        "preset": "veryfast", "extra_options": {},
    }  # fmt: skip
    histogram = np.frombuffer(closed["statistics"]["hist"], np.uint64).reshape(3, 256)
    assert closed["statistics"]["count"] == 10
    assert (histogram.sum(axis=1) == 10 * 160 * 96).all()
    assert closed["first_capture_ns"] == t0 + NS_PER_MS
    thumbs = sorted(Path(p).name for p in closed["thumbnails"])
    assert thumbs == ["front_first.jpg", "front_last.jpg", "front_middle.jpg"]
    assert sorted(p.name for p in rig.staging(uid).iterdir()) == [path.name, "thumbs"]


def test_frames_from_before_begin_serve_the_first_rows(rig, period_ns, shown):
    t0 = rig.future()
    rig.feed(range(6), t0)  # before the encoder knows of the take

    uid, _ = rig.begin(t0_ns=t0)
    rig.feed(range(6, 9), t0)
    closed = rig.end(uid, 8)

    assert shown(closed["path"]) == list(range(8))


def test_a_slower_camera_repeats_as_expected_and_is_flagged(rig, period_ns, shown):
    uid, t0 = rig.begin(source={"fps_num": 15, "fps_den": 1})
    rig.feed(range(12), t0, period_ns=2 * period_ns)

    closed = rig.end(uid, 20)

    numbers = shown(closed["path"])
    records = rig.told(uid, 20)
    repeats = [k for k in range(1, 20) if numbers[k] == numbers[k - 1]]
    assert len(repeats) == closed["counts"]["expected"] >= 9
    assert all(flags(records, k) == TickFlag.REPEAT | TickFlag.EXPECTED for k in repeats)
    assert closed["counts"]["repeated"] == closed["counts"]["missing"] == 0


def test_a_corrupt_jpeg_repeats_the_last_good_picture_and_says_so(rig, period_ns, shown):
    uid, t0 = rig.begin()
    rig.feed(range(5), t0)
    rig.frame(5, t0 + 5 * period_ns + NS_PER_MS, data=b"\xff\xd8" + bytes(900))
    rig.frame(6, t0 + 6 * period_ns + NS_PER_MS, flags=int(FrameFlag.CORRUPT))
    rig.feed(range(7, 12), t0)

    closed = rig.end(uid, 10)

    records = rig.told(uid, 10)
    assert shown(closed["path"]) == [0, 1, 2, 3, 4, 4, 4, 7, 8, 9] == records["source_seq"].tolist()
    assert flags(records, 5) == flags(records, 6) == TickFlag.CORRUPT | TickFlag.REPEAT
    assert flags(records, 7) == TickFlag.SKIP_BEFORE
    assert records["error_ns"][6] == NS_PER_MS + t0 + 4 * period_ns - records["tick_ns"][6]
    assert closed["counts"]["corrupt"] == 2


def test_frames_that_the_device_dropped_are_counted_and_their_rows_flagged(rig, shown):
    uid, t0 = rig.begin()
    rig.feed(range(4), t0)
    rig.feed(range(7, 14), t0)  # 4, 5 and 6 never came

    closed = rig.end(uid, 12)

    records = rig.told(uid, 12)
    numbers = shown(closed["path"])
    wrong = [k for k in range(12) if numbers[k] != k]
    assert closed["counts"]["lost"] == 3
    assert len(wrong) == 3
    assert all(records["flags"][k] & (TickFlag.REPEAT | TickFlag.MISSING) for k in wrong)
    assert numbers == records["source_seq"].tolist()


def test_a_frozen_source_is_flagged_in_its_rows(rig, period_ns):
    uid, t0 = rig.begin()
    rig.feed(range(3), t0)
    for k in range(3, 8):
        rig.frame(3, t0 + k * period_ns + NS_PER_MS, flags=int(FrameFlag.FROZEN), source_seq=k)

    rig.end(uid, 6)

    records = rig.told(uid, 6)
    assert [bool(f & TickFlag.FROZEN) for f in records["flags"]] == [False] * 3 + [True] * 3


def test_a_row_whose_picture_has_no_time_but_that_of_its_arrival_says_so(rig, period_ns):
    uid, t0 = rig.begin()
    rig.feed(range(3), t0)
    for k in range(3, 8):
        rig.frame(
            k, t0 + k * period_ns + NS_PER_MS, flags=int(FrameFlag.STAMP_ARRIVAL), source_seq=k
        )

    rig.end(uid, 6)

    records = rig.told(uid, 6)
    assert [bool(f & TickFlag.ARRIVAL) for f in records["flags"]] == [False] * 3 + [True] * 3


def test_a_row_that_repeats_for_want_of_its_own_picture_says_what_the_repeated_one_is(
    rig, make_payload, period_ns
):
    black = make_payload("jpeg 4:2:0", np.zeros((96, 160, 3), np.uint8))[2]
    uid, t0 = rig.begin()
    rig.feed(range(2), t0)
    rig.frame(2, t0 + 2 * period_ns + NS_PER_MS, data=black)
    rig.frame(3, t0 + 3 * period_ns + NS_PER_MS, flags=int(FrameFlag.CORRUPT))
    rig.frame(4, t0 + 4 * period_ns + NS_PER_MS, flags=int(FrameFlag.FROZEN))
    rig.frame(5, t0 + 5 * period_ns + NS_PER_MS, data=b"\xff\xd8" + bytes(900))
    rig.feed(range(6, 9), t0)

    rig.end(uid, 8)

    records = rig.told(uid, 8)
    repeated = TickFlag.CORRUPT | TickFlag.REPEAT
    assert [flags(records, k) for k in range(8)] == [
        TickFlag(0), TickFlag(0), TickFlag.BLACK, repeated | TickFlag.BLACK,
        TickFlag.SKIP_BEFORE | TickFlag.FROZEN, repeated | TickFlag.FROZEN, TickFlag.SKIP_BEFORE,
        TickFlag(0),
    ]  # fmt: skip


def test_black_pictures_are_flagged_in_their_rows_and_dark_ones_are_not(
    rig, make_payload, period_ns
):
    shape = (96, 160, 3)
    levels = [40] * 3 + [4] * 3 + [40] * 2  # of 255
    pictures = {
        level: make_payload("jpeg 4:2:0", np.full(shape, level, np.uint8)) for level in levels
    }
    uid, t0 = rig.begin()
    for k, level in enumerate(levels):
        rig.frame(k, t0 + k * period_ns + NS_PER_MS, data=pictures[level][2])

    rig.end(uid, 7)

    records = rig.told(uid, 7)
    assert [bool(f & TickFlag.BLACK) for f in records["flags"]] == [
        level < 20 for level in levels[:7]
    ]


def test_a_camera_that_never_delivers_gives_black_rows_by_deadline(own_rig, shown):
    uid, _ = own_rig.begin(t0_ns=now_ns() + 10 * NS_PER_MS)

    closed = own_rig.end(uid, 5)

    records = own_rig.told(uid, 5)
    assert shown(closed["path"]) == [-1] * 5
    assert all(flags(records, k) == TickFlag.MISSING | TickFlag.LATE for k in range(5))
    assert (records["source_index"] == -1).all()


def test_a_camera_that_stops_repeats_its_last_picture_and_every_row_is_flagged(
    own_rig, period_ns, shown
):
    uid, t0 = own_rig.begin(t0_ns=now_ns() + 1500 * NS_PER_MS)
    own_rig.feed(range(4), t0)

    closed = own_rig.end(uid, 9)

    records = own_rig.told(uid, 9)
    assert shown(closed["path"]) == [0, 1, 2, 3, 3, 3, 3, 3, 3]
    assert all(flags(records, k) & TickFlag.REPEAT for k in range(4, 9))
    assert all(flags(records, k) & TickFlag.MISSING for k in range(5, 9))
    assert (np.diff(records["error_ns"][3:]) < 0).all()


def test_a_stalled_encoder_loses_nothing_while_the_ring_holds(rig, shown):
    uid, t0 = rig.begin()
    rig.feed(range(5), t0)
    rig.told(uid, 3)

    rig.freeze()
    rig.feed(range(5, 90), t0)
    sleep_until_ns(now_ns() + 150 * NS_PER_MS)  # the length of the stall
    rig.thaw()
    closed = rig.end(uid, 80)

    assert shown(closed["path"]) == list(range(80))
    assert closed["counts"]["lost"] == 0
    assert rig.answer("event", event="encoder.lag")["level"] == "warning"
    rig.answer("event", event="encoder.lag_over")


def test_an_overrun_ring_costs_counted_frames_and_never_a_row(make_rig, shown):
    rig = make_rig(slots=16)
    rig.ready()
    uid, t0 = rig.begin()
    rig.feed(range(4), t0)
    rig.told(uid, 2)

    rig.freeze()
    rig.feed(range(4, 40), t0)
    rig.thaw()
    closed = rig.end(uid, 36)

    records = rig.told(uid, 36)
    numbers = shown(closed["path"])
    assert len(numbers) == 36
    lost = closed["counts"]["lost"]
    wrong = [k for k in range(36) if numbers[k] != k]
    assert lost >= 40 - 2 - 16  # what the ring cannot have held
    assert 36 <= len(set(numbers)) + lost <= 40  # every frame was shown or counted
    assert closed["counts"]["kept"] == len(set(numbers))
    flagged = TickFlag.REPEAT | TickFlag.MISSING
    assert all(records["flags"][k] & flagged for k in wrong)
    assert rig.answer("event", event="encoder.lost")["level"] == "warning"


def test_a_stop_before_rows_that_are_already_encoded_cuts_the_file_to_them(rig, shown):
    uid, t0 = rig.begin()
    rig.feed(range(20), t0)
    rig.told(uid, 15)

    closed = rig.end(uid, 9)

    assert shown(closed["path"]) == list(range(9))
    assert closed["packets"] == 9
    assert closed["statistics"]["count"] == 9


def test_the_next_take_may_begin_before_the_last_rows_of_this_one_are_decided(
    rig, period_ns, shown
):
    first, t0 = rig.begin()
    rig.feed(range(10), t0)
    rig.link.send("end", uid=first, ticks=12, keep=True)
    second, _ = rig.begin(t0_ns=t0 + 12 * period_ns)
    rig.feed(range(10, 30), t0)

    one = rig.answer("closed", uid=first)
    two = rig.end(second, 10)

    assert shown(one["path"]) == list(range(12))
    assert shown(two["path"]) == list(range(12, 22))
    assert rig.told(second, 10)["source_seq"].tolist() == list(range(12, 22))


def test_a_discarded_take_leaves_no_file_and_the_next_one_is_whole(rig, shown):
    uid, t0 = rig.begin()
    rig.feed(range(6), t0)
    rig.told(uid, 4)

    rig.link.send("discard", uid=uid)
    rig.answer("discarded", uid=uid)
    again, _ = rig.begin(t0_ns=t0 + 10**9)
    rig.feed(range(30, 40), t0)

    assert list(rig.staging(uid).iterdir()) == []
    assert shown(rig.end(again, 8)["path"]) == list(range(30, 38))


def test_begin_told_twice_is_one_take(rig, shown):
    uid, t0 = rig.begin()
    rig.begin(uid=uid, t0_ns=t0)
    rig.feed(range(8), t0)

    assert shown(rig.end(uid, 6)["path"]) == list(range(6))


def test_stopping_counts_as_ready_again_and_ends_with_code_0(own_rig):
    uid, t0 = own_rig.begin()
    own_rig.feed(range(6), t0)
    own_rig.end(uid, 4)

    assert own_rig.stop() == 0
    assert own_rig.counter(0) == 4


def test_the_encoder_ends_with_its_supervisor_and_leaves_the_file_to_recovery(own_rig, tmp_path):
    uid, t0 = own_rig.begin()
    own_rig.feed(range(9), t0)
    own_rig.told(uid, 6)

    own_rig.link.close()

    assert own_rig.process.wait(timeout=60) == 0
    assert (own_rig.staging(uid) / "observation.images.front.mp4").stat().st_size > 0


def test_an_encoder_process_carries_neither_compiler_nor_arrow_nor_opencv(rig):
    maps = Path(f"/proc/{rig.process.pid}/maps").read_text()

    assert "libav" in maps
    assert not [word for word in ("llvmlite", "numba", "arrow", "cv2") if word in maps]
