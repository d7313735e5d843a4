"""Access units of an H.264 camera in the mp4 of an episode: an encoder process, rings around it."""

import signal
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest

from recd.config.errors import RecdError
from recd.config.streams import FrameFlag, TickFlag
from recd.daemon.cameras.h264 import IDR, kind_of, nal_units
from recd.daemon.dataset.recover import probe_pins
from recd.daemon.encode import pass_through
from recd.daemon.encode.codecs import CodecSettings, info_block
from recd.daemon.encode.salvage import salvage
from recd.shm.clock import NS_PER_S, now_ns

GOP = 10
WIDTH, HEIGHT = 160, 96


def bars(number):
    """Luma with `number` as eight bright or dark bars, as numbered_jpeg has them."""
    luma = np.zeros((HEIGHT, WIDTH), np.uint8)
    for bit in range(8):
        level = 204 if number >> bit & 1 else 50
        luma[:, bit * WIDTH // 8 : (bit + 1) * WIDTH // 8] = level
    return luma


@cache
def film(frames=100, full_range=False, **options):
    """Access units of a camera, picture k showing k."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height = WIDTH, HEIGHT
    context.pix_fmt = "yuvj420p" if full_range else "yuv420p"
    context.color_range = 2 if full_range else 1
    context.time_base, context.gop_size = Fraction(1, 30), GOP
    context.options = {
        "preset": "veryfast", "tune": "zerolatency", "bf": "0", "sc_threshold": "0", "crf": "16",
    } | options  # fmt: skip
    units = []
    for number in range(frames):
        planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
        planes[:HEIGHT] = bars(number)
        frame = av.VideoFrame.from_ndarray(planes, format=context.pix_fmt)
        frame.pts = number
        units.append(b"".join(bytes(packet) for packet in context.encode(frame)))
    return units


def send(rig, number, capture_ns, *, units=None, flags=0):
    unit = (units or film())[number]
    key = FrameFlag.KEY if number % GOP == 0 else 0
    rig.frame(number, capture_ns, data=unit, flags=int(key | flags))


def play(rig, numbers, t0_ns, period_ns, *, units=None):
    for number in numbers:
        send(rig, number, t0_ns + number * period_ns + 1_000_000, units=units)


@pytest.fixture
def camera(make_rig):
    rig = make_rig(fourcc="h264")
    rig.ready()
    return rig


def slices(data):
    """Bytes of the pictures in an access unit, whatever stands around them."""
    return [nal for nal in nal_units(data) if kind_of(nal) in (1, IDR)]


def stored(path):
    """Coded pictures of a file, one list of slices a packet."""
    with av.open(str(path)) as container:
        filtered = av.bitstream.BitStreamFilterContext(
            "h264_mp4toannexb", container.streams.video[0]
        )
        packets = [p for p in container.demux(video=0) if p.size]
        return [slices(bytes(part)) for packet in packets for part in filtered.filter(packet)]


def as_sent(path, numbers, *, units=None):
    """For each row whether it holds the camera's own coding of the picture of that number."""
    sent = [slices((units or film())[number]) for number in numbers]
    return [row == own for row, own in zip(stored(path), sent, strict=True)]


@pytest.mark.parametrize(
    "options",
    [{}, {"profile": "baseline"}, {"slices": "3"}, {"full_range": True}, {"preset": "ultrafast"}],
    ids=str,
)
def test_every_row_holds_the_cameras_own_coding_when_its_pictures_fit_the_rows(
    camera, shown, period_ns, options
):
    units = film(**options)
    uid, t0 = camera.begin()
    play(camera, range(60), t0, period_ns, units=units)
    closed = camera.end(uid, 58)
    assert as_sent(closed["path"], range(58), units=units) == [True] * 58
    assert shown(closed["path"]) == list(range(58))
    assert salvage(Path(closed["path"])).whole
    assert closed["device"]["rows_as_sent"] == closed["packets"] == 58
    assert closed["info"]["video.pix_fmt"] == (
        "yuvj420p" if options.get("full_range") else "yuv420p"
    )


def test_an_episode_that_begins_inside_a_group_is_encoded_up_to_the_next_key_frame(
    camera, shown, period_ns
):
    uid, t0 = camera.begin()
    # The camera was on for four pictures when the episode began.
    for number in range(40):
        send(camera, number, t0 + (number - 4) * period_ns + 1_000_000)
    closed = camera.end(uid, 30)
    assert shown(closed["path"]) == list(range(4, 34))
    own = as_sent(closed["path"], range(4, 34))
    assert own == [False] * 6 + [True] * 24
    assert closed["device"]["rows_as_sent"] == 24


def test_a_repeated_picture_and_one_passed_over_are_in_the_rows_that_say_so(
    camera, shown, period_ns
):
    uid, t0 = camera.begin()
    for number in range(60):
        # The camera left out one exposure after 12, and took one more than there are rows at 36.
        late = 0 if not 13 <= number <= 36 else 1 if number < 36 else 0.5
        send(camera, number, t0 + int((number + late) * period_ns) + 1_000_000)
    closed = camera.end(uid, 50)
    rows = camera.told(uid, 50)
    numbers = [*range(13), 12, *range(13, 37), *range(38, 50)]
    assert shown(closed["path"]) == numbers
    assert rows["source_seq"].tolist() == numbers
    assert [int(k) for k in np.flatnonzero(rows["flags"] & TickFlag.REPEAT)] == [13]
    assert [int(k) for k in np.flatnonzero(rows["flags"] & TickFlag.SKIP_BEFORE)] == [38]
    own = as_sent(closed["path"], numbers)
    assert own == [True] * 13 + [False] * 8 + [True] * 17 + [False] * 2 + [True] * 10
    assert salvage(Path(closed["path"])).whole


def test_what_cannot_be_decoded_after_a_loss_is_no_picture_of_any_row(camera, shown, period_ns):
    uid, t0 = camera.begin()
    for number in range(60):
        if number == 24:
            continue
        broken = FrameFlag.CORRUPT if 24 < number < 30 else 0
        send(camera, number, t0 + number * period_ns + 1_000_000, flags=broken)
    closed = camera.end(uid, 50)
    rows = camera.told(uid, 50)
    assert shown(closed["path"]) == [*range(24), *[23] * 6, *range(30, 50)]
    assert all(rows["flags"][24:30] & (TickFlag.CORRUPT | TickFlag.MISSING | TickFlag.REPEAT))
    assert rows["flags"][30:].tolist() == [TickFlag.SKIP_BEFORE, *[0] * 19]


def test_a_camera_that_sends_nothing_is_black_and_the_episode_whole(camera, shown):
    uid, _ = camera.begin(t0_ns=now_ns() - 2 * NS_PER_S)  # its rows are due already
    closed = camera.end(uid, 20)
    assert shown(closed["path"]) == [-1] * 20
    assert closed["counts"]["missing"] == 20


def test_a_killed_encoder_leaves_rows_that_recovery_reads_and_knows_how_they_were_made(
    camera, period_ns
):
    uid, t0 = camera.begin()
    play(camera, range(50), t0, period_ns)
    camera.told(uid, 45)
    camera.process.send_signal(signal.SIGKILL)
    camera.process.wait()
    torn = camera.staging(uid) / "observation.images.front.mp4"
    found = salvage(torn, rate=Fraction(30))
    assert found.frames >= 30
    assert not found.whole
    pins = probe_pins(torn)
    info = {"video.extra_options": pins.extra_options}
    assert pass_through.is_passed_through(info)


def test_an_encoder_that_comes_back_goes_on_where_its_file_ends(camera, shown, period_ns):
    uid, t0 = camera.begin()
    play(camera, range(45), t0, period_ns)
    camera.told(uid, 40)
    camera.process.send_signal(signal.SIGKILL)
    camera.process.wait()
    camera.link.close()
    camera.start()
    camera.ready()
    camera.begin(uid=uid, t0_ns=t0, resume=True)
    play(camera, range(45, 80), t0, period_ns)
    closed = camera.end(uid, 75)
    assert shown(closed["path"]) == list(range(75))
    assert salvage(Path(closed["path"])).whole
    assert len(closed["restarted_at"]) == 1


def test_statistics_come_from_key_frames_and_see_what_was_recorded(camera, period_ns):
    uid, t0 = camera.begin()
    play(camera, range(100), t0, period_ns)
    closed = camera.end(uid, 95)
    assert closed["device"]["rows_as_sent"] == 95
    histogram = np.frombuffer(closed["statistics"]["hist"], np.uint64).reshape(3, 256)
    assert closed["statistics"]["count"] >= 4  # one every half a second, of 95 pictures
    assert histogram.sum(axis=1).tolist() == [closed["statistics"]["count"] * WIDTH * HEIGHT] * 3
    assert len(closed["thumbnails"]) == 3


def info_of(settings):
    return info_block(settings, (WIDTH, HEIGHT), 30)


def test_a_dataset_of_one_kind_refuses_a_camera_of_the_other_with_the_mend():
    wanted = CodecSettings(vcodec="auto", crf=23)
    passed = pass_through.settings(wanted, {}, key="observation.images.front")
    assert pass_through.is_passed_through(info_of(passed))
    again = pass_through.settings(CodecSettings(), info_of(passed), key="k")
    assert (again.crf, again.extra_options) == (23, passed.extra_options)
    with pytest.raises(RecdError, match="expected a camera recorded as it comes") as refused:
        pass_through.refuse_passed(info_of(passed), key="k")
    assert "fourcc: h264" in refused.value.mend
    with pytest.raises(RecdError, match="found video that recd encoded") as refused:
        pass_through.settings(wanted, info_of(CodecSettings()), key="k")
    assert "fourcc: yuv420p" in refused.value.mend
    with pytest.raises(RecdError, match="auto or h264"):
        pass_through.settings(CodecSettings(vcodec="hevc"), {}, key="k")
