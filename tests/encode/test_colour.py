import itertools
from fractions import Fraction

import numpy as np
import pytest

from recd.config.errors import RecdError
from recd.daemon.encode.codecs import CodecSettings
from recd.daemon.encode.colour import Converter, PictureError, PictureFormat, plane_view
from recd.daemon.encode.mp4 import Mp4Sink
from tests.payloads import HEIGHT, WIDTH, bars, worst_on_flat_areas

CODECS = [CodecSettings("h264"), CodecSettings("h264", preset="ultrafast"), CodecSettings("av1")]
CASES = [
    *itertools.product(
        ("jpeg 4:2:0", "jpeg 4:2:2", "jpeg 4:4:4", "yuyv limited", "yuyv full", "nv12", "yuv420p"),
        CODECS[:1],
    ),
    *itertools.product(("rgb24", "bgr24"), CODECS[:1]),
    *itertools.product(("jpeg 4:2:2", "yuyv limited"), CODECS[1:]),
]


@pytest.mark.parametrize(
    ("payload", "settings"), CASES, ids=lambda v: v if isinstance(v, str) else v.options()["preset"]
)
def test_colour_bars_come_out_of_the_video_within_3_of_255(
    payload, settings, make_payload, decoded, tmp_path
):
    kind, full, data = make_payload(payload, bars())
    converter = Converter(PictureFormat(kind, WIDTH, HEIGHT, full))
    sink = Mp4Sink(settings, size=(WIDTH, HEIGHT), rate=Fraction(30))
    sink.bind(tmp_path / "bars.mp4")

    for k in range(4):
        sink.encode(converter.convert(data), k)
    sink.finish()
    sink.settle()

    pictures = decoded(tmp_path / "bars.mp4")
    assert len(pictures) == 4
    assert max(worst_on_flat_areas(picture) for picture in pictures) <= 3


def test_every_grey_of_a_full_range_jpeg_keeps_its_level(make_payload):
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 8)  # JPEG blocks of one level
    image = np.broadcast_to(ramp[None, :, None], (16, 2048, 3)).copy()
    kind, full, data = make_payload("jpeg 4:2:2", image)

    frame = Converter(PictureFormat(kind, 2048, 16, full)).convert(data)

    luma = plane_view(frame.planes[0])[8, 4::8].astype(float)
    assert np.abs(luma - (16 + np.arange(256) * 219 / 255)).max() <= 1.5
    assert (plane_view(frame.planes[1]) == 128).all()


def test_yuyv_in_the_target_range_is_only_taken_apart():
    rng = np.random.default_rng(3)
    raw = rng.integers(16, 236, (8, 16, 2), np.uint8)

    frame = Converter(PictureFormat("yuyv", 16, 8, full_range=False)).convert(raw.tobytes())

    assert (plane_view(frame.planes[0]) == raw[..., 0]).all()
    u, v = raw[:, 0::2, 1].astype(int), raw[:, 1::2, 1].astype(int)
    for plane, chroma in zip(frame.planes[1:], (u, v), strict=True):
        mean = (chroma[0::2] + chroma[1::2]) / 2
        assert np.abs(plane_view(plane) - mean).max() <= 0.5


def test_grey_cameras_get_neutral_chroma():
    raw = np.full(16 * 8, 255, np.uint8)

    frame = Converter(PictureFormat("gray8", 16, 8, full_range=True)).convert(raw)

    assert (plane_view(frame.planes[0]) == 235).all()
    assert (plane_view(frame.planes[2]) == 128).all()


@pytest.mark.parametrize(
    ("rotation", "corner"), [(0, "NW"), (90, "NE"), (180, "SE"), (270, "SW")], ids=str
)
def test_rotation_turns_clockwise(rotation, corner, make_payload):
    image = np.zeros((64, 128, 3), np.uint8)
    image[:16, :16] = 255  # north-west as the camera sees it
    kind, full, data = make_payload("jpeg 4:2:0", image)
    picture = PictureFormat(kind, 128, 64, full, rotation)

    frame = Converter(picture).convert(data)

    assert (frame.width, frame.height) == picture.size
    luma = plane_view(frame.planes[0])
    corners = {"NW": luma[4, 4], "NE": luma[4, -4], "SE": luma[-4, -4], "SW": luma[-4, 4]}
    assert corners.pop(corner) > 200
    assert all(level < 30 for level in corners.values())


def test_a_cut_jpeg_is_refused_and_the_next_whole_one_is_not(make_payload):
    kind, full, data = make_payload("jpeg 4:2:2", bars())
    converter = Converter(PictureFormat(kind, WIDTH, HEIGHT, full))

    for flawed in (data[: len(data) // 2], data[:200], b"", bytes(5000), data[:900] + bytes(9000)):
        with pytest.raises(PictureError):
            converter.convert(flawed)

    assert converter.convert(data).width == WIDTH
    assert not converter.lenient


def test_a_camera_that_cuts_every_jpeg_short_is_shown_anyway_and_says_so(make_payload):
    kind, full, data = make_payload("jpeg 4:2:2", bars())
    converter = Converter(PictureFormat(kind, WIDTH, HEIGHT, full))
    short = data[:-40]

    refused = 0
    for _ in range(40):
        try:
            converter.convert(short)
        except PictureError:
            refused += 1

    assert refused == 30
    assert converter.lenient


@pytest.mark.parametrize("kind", ["yuyv", "nv12", "yuv420p", "rgb24", "gray8"])
def test_raw_payload_of_another_length_is_refused(kind):
    converter = Converter(PictureFormat(kind, 64, 48))

    with pytest.raises(PictureError, match=r"expected .* bytes, found 100"):
        converter.convert(bytes(100))


def test_jpeg_of_another_size_is_refused(make_payload):
    kind, full, data = make_payload("jpeg 4:2:0", bars())

    with pytest.raises(PictureError, match="expected 320x240, found 640x480"):
        Converter(PictureFormat(kind, 320, 240, full)).convert(data)


def test_what_cannot_be_encoded_is_refused_before_the_first_picture():
    with pytest.raises(RecdError, match="even width and height, found 641x480"):
        Converter(PictureFormat("yuyv", 641, 480))
    with pytest.raises(RecdError, match="found 'h265'"):
        Converter(PictureFormat("h265", 640, 480))
