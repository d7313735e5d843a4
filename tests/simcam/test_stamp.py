from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recd.daemon.realtime import keep_class
from recd.daemon.sim.jpeg import PATTERNS, JpegEncoder
from recd.daemon.sim.stamp import STAMP_WIDTH_PX, Stamp, draw_stamp, read_stamp

stamps = st.builds(
    Stamp,
    camera=st.integers(0, 255),
    frame=st.integers(0, 2**32 - 1),
    t_capture_us=st.integers(0, 2**48 - 1),
)


def _scene(width: int, height: int, *, shift: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    x, y = np.arange(width), np.arange(height)[:, None]
    wave = 120 + 70 * np.sin((x + 3 * shift) / 23) * np.cos(y / 17)
    noisy = wave + rng.normal(0, 6, (height, width))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _jpeg_luma(jpeg: bytes) -> np.ndarray:
    frame = av.CodecContext.create("mjpeg", "r").decode(av.Packet(jpeg))[0]
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : frame.width]


@settings(max_examples=40, deadline=None)
@given(stamps, st.sampled_from([(160, 120), (320, 240), (640, 480), (1280, 720)]))
def test_a_drawn_stamp_reads_back_in_luma_and_in_colour_and_turned(stamp, size):
    luma = _scene(*size, shift=0)
    draw_stamp(luma, stamp)
    colour = np.stack([luma] * 3, axis=2)
    for quarters in range(4):
        if min(size) < STAMP_WIDTH_PX and quarters % 2:
            continue
        assert read_stamp(np.rot90(luma, quarters)) == stamp
        assert read_stamp(np.rot90(colour, quarters)) == stamp


@settings(max_examples=25, deadline=None)
@given(stamps, st.sampled_from(sorted(PATTERNS)), st.integers(2, 20))
def test_a_stamp_survives_jpeg(stamp, pattern, quality):
    encoder = JpegEncoder(320, 240, pattern=pattern, quality=quality)
    encoder.planes[0][...] = _scene(320, 240, shift=0)
    encoder.planes[1][...] = 128
    encoder.planes[2][...] = 128
    draw_stamp(encoder.planes[0], stamp)
    assert read_stamp(_jpeg_luma(encoder.encode())) == stamp


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"crf": "30", "preset": "ultrafast", "tune": "zerolatency", "g": "2"}),
        ("libx264", {"crf": "30", "preset": "veryfast", "g": "30"}),
        ("libsvtav1", {"crf": "30", "preset": "12", "g": "2"}),
        ("libsvtav1", {"crf": "40", "preset": "12", "g": "30", "svtav1-params": "pred-struct=1"}),
    ],
)
@pytest.mark.parametrize("size", [(320, 240), (640, 480)])
def test_stamps_survive_video_encoding(codec, options, size):
    width, height = size
    said = [Stamp(3, n, 1_700_000_000 + 33_333 * n) for n in range(20)]
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 30), Fraction(30)
    encoder.options = options
    with keep_class():
        encoder.open()
    packets = []
    for n, stamp in enumerate(said):
        frame = av.VideoFrame(width, height, "yuv420p")
        luma = _scene(width, height, shift=n)
        draw_stamp(luma, stamp)
        limited = (16 + luma.astype(np.float32) * 219 / 255).round().astype(np.uint8)
        planes = (limited, *[np.full((height // 2, width // 2), 128, np.uint8)] * 2)
        for plane, values in zip(frame.planes, planes, strict=True):
            target = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            target[: values.shape[0], : values.shape[1]] = values
        frame.pts = n
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create("h264" if codec == "libx264" else "libdav1d", "r")
    decoder.extradata = encoder.extradata
    frames = [f for packet in packets for f in decoder.decode(packet)] + decoder.decode(None)
    assert [read_stamp(f.to_ndarray(format="rgb24")) for f in frames] == said


@settings(max_examples=60, deadline=None)
@given(stamps, st.integers(0, 119))
def test_a_damaged_stamp_is_none_never_another_stamp(stamp, cell):
    luma = _scene(320, 240, shift=0)
    draw_stamp(luma, stamp)
    row, column = divmod(cell, 20)
    block = luma[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
    block[...] = 255 - block
    assert read_stamp(luma) is None


def test_a_picture_without_stamp_has_none():
    assert read_stamp(_scene(640, 480, shift=0)) is None
    assert read_stamp(np.zeros((480, 640, 3), np.uint8)) is None
    assert read_stamp(np.zeros((20, 20), np.uint8)) is None


def test_a_picture_too_small_for_its_stamp_is_refused():
    with pytest.raises(ValueError, match="smaller than its stamp"):
        draw_stamp(np.zeros((40, 100), np.uint8), Stamp(0, 0, 0))
