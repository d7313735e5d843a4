import numpy as np

from recd.config.streams import FrameFlag
from recd.daemon.cameras.health import Health, HealthSettings
from recd.daemon.cameras.source import FrameInfo
from recd.daemon.sim.v4l2shim.pictures import card_jpeg, number_jpeg

PERIOD_NS = 33_333_333


def settings(**changed):
    base = {"payload": "mjpeg", "raw_bytes": 0, "width": 320, "height": 240, "fps": 30.0}
    return HealthSettings(**{**base, **changed})


def jpeg(number, size=(320, 240)):
    return np.frombuffer(number_jpeg(card_jpeg(number % 8, *size), number), np.uint8)


def info(k, *, seq=None, delay_ns=2_000_000, payload=None, flags=0, period_ns=PERIOD_NS):
    capture = 10**9 + k * period_ns
    nbytes = 0 if payload is None else payload.size
    return FrameInfo(nbytes, capture, capture + delay_ns, k if seq is None else seq, flags)


def judge_all(health, count, *, seqs=None, **kwargs):
    return [
        health.judge(jpeg(k), info(k, seq=None if seqs is None else seqs[k], **kwargs))
        for k in range(count)
    ]


def test_a_good_camera_has_no_flag():
    judged = judge_all(Health(settings()), 300)
    assert not any(j.flags or j.lost or j.fault for j in judged)


def test_missing_numbers_are_counted_exactly_and_flagged_once():
    judged = judge_all(Health(settings()), 5, seqs=[0, 1, 5, 6, 8])
    assert [j.lost for j in judged] == [0, 0, 3, 0, 1]
    assert [bool(j.flags & FrameFlag.GAP_BEFORE) for j in judged] == [
        False, False, True, False, True,
    ]  # fmt: skip


def test_a_camera_without_numbers_loses_nothing_by_them():
    judged = judge_all(Health(settings()), 5, seqs=[-1] * 5)
    assert not any(j.lost or j.flags for j in judged)


def test_a_picture_that_stands_still_is_flagged_until_it_moves():
    health = Health(settings(frozen_after=3))
    numbers = [0, 1, 1, 1, 1, 1, 2, 3]
    judged = [health.judge(jpeg(n), info(k)) for k, n in enumerate(numbers)]
    assert [bool(j.flags & FrameFlag.FROZEN) for j in judged] == [
        False, False, False, False, True, True, False, False,
    ]  # fmt: skip


def test_raw_pictures_are_compared_by_sparse_pixels(noise):
    raw = noise[: 320 * 240 * 2]
    health = Health(settings(payload="yuyv", raw_bytes=raw.size, frozen_after=2))
    pictures = [raw, raw, raw, np.roll(raw, 1)]
    judged = [health.judge(picture, info(k)) for k, picture in enumerate(pictures)]
    assert [bool(j.flags & FrameFlag.FROZEN) for j in judged] == [False, False, True, False]


def test_a_raw_picture_of_another_length_is_corrupt(noise):
    health = Health(settings(payload="yuyv", raw_bytes=320 * 240 * 2))
    judged = health.judge(noise[:1000], info(0))
    assert judged.flags & FrameFlag.CORRUPT
    assert "1000 bytes instead of 153600" in judged.fault


def test_late_delivery_is_flagged():
    health = Health(settings())
    assert not health.judge(jpeg(0), info(0, delay_ns=60_000_000)).flags
    assert health.judge(jpeg(1), info(1, delay_ns=70_000_000)).flags & FrameFlag.LATE


def test_a_cut_jpeg_is_corrupt_and_a_whole_one_loses_its_padding():
    health = Health(settings())
    whole = jpeg(0)
    cut = health.judge(whole[: whole.size // 2], info(0))
    assert cut.flags & FrameFlag.CORRUPT
    padded = np.concatenate([jpeg(1), np.zeros(100, np.uint8)])
    judged = health.judge(padded, info(1))
    assert (judged.flags, judged.nbytes) == (0, padded.size - 100)


def test_another_size_is_corrupt_unless_accepted():
    wrong = jpeg(0, size=(160, 120))
    health = Health(settings())
    judged = health.judge(wrong, info(0))
    assert judged.wrong_size
    assert judged.flags & FrameFlag.CORRUPT
    assert "160x120 instead of 320x240" in judged.fault
    assert health.wrong_sizes == 1
    accepted = Health(settings(accept_mismatch=True)).judge(wrong, info(0))
    assert not accepted.flags


def test_capture_times_always_grow_whatever_the_device_says():
    health = Health(settings())
    stamps = [10**9, 2 * 10**9, 2 * 10**9, 10**9, 3 * 10**9]
    arrivals = [
        s + 5_000_000 for s in (10**9, 2 * 10**9, 2 * 10**9 + 33, 2 * 10**9 + 66, 3 * 10**9)
    ]
    judged = [
        health.judge(jpeg(k), FrameInfo(0, stamp, arrival, k))
        for k, (stamp, arrival) in enumerate(zip(stamps, arrivals, strict=True))
    ]
    captures = [j.t_capture_ns for j in judged]
    assert captures == sorted(set(captures))
    assert [bool(j.flags & FrameFlag.STAMP_ARRIVAL) for j in judged] == [
        False, False, True, True, False,
    ]  # fmt: skip


def test_configured_latency_is_taken_off_the_capture_time():
    judged = Health(settings(latency_ns=7_000_000)).judge(jpeg(0), info(0))
    assert judged.t_capture_ns == info(0).t_capture_ns - 7_000_000


def test_a_slower_camera_than_asked_is_measured_though_frames_are_lost():
    health = Health(settings())
    for k in range(0, 200, 3):  # two of three are lost, the numbers still say 25 Hz
        health.judge(jpeg(k), info(k, period_ns=40_000_000))
    assert abs(health.rate_hz - 25) < 0.1
    assert health.wrong_rate()


def test_one_slow_window_is_no_wrong_rate():
    health = Health(settings())
    starved = [k * PERIOD_NS + (900_000_000 if k > 40 else 0) for k in range(400)]
    for k, at in enumerate(starved):
        capture = 10**9 + at
        health.judge(jpeg(k), FrameInfo(0, capture, capture + 2_000_000))
        assert not health.wrong_rate()
    assert health.rate_hz > 0


def test_a_camera_within_ten_percent_of_its_rate_is_right():
    health = Health(settings())
    judge_all(health, 300, period_ns=34_500_000)
    assert health.rate_hz > 0
    assert not health.wrong_rate()


def test_the_first_frame_after_a_break_says_that_some_may_be_missing():
    health = Health(settings(), last_capture_ns=10**9 - 1)
    judged = judge_all(health, 2)
    assert judged[0].flags & FrameFlag.GAP_BEFORE
    assert not judged[1].flags


def test_a_step_source_is_never_late_or_frozen():
    health = Health(settings(step=True, frozen_after=1))
    for k in range(5):
        assert not health.judge(jpeg(1), info(k, delay_ns=10**10)).flags
