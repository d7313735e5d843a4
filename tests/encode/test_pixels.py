"""Bytes to planes: machine code over words gives what plain arithmetic gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recd.daemon.encode.colour import Converter, PictureFormat, plane_view
from recd.daemon.pixels.passes import KERNELS, WORD_BYTES, lanes
from recd.shm import aot

PIXELS = aot.load(KERNELS)  # compiled once, not in an example
LUMA, CHROMA, AS_IT_IS = (220, 16 * 256 + 128), (225, 4096), (256, 0)


def scaled(values, factor, offset):
    return (values.astype(int) * factor + offset) >> 8


def planes_of(frame):
    return [plane_view(plane).copy() for plane in frame.planes]


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), words=st.integers(1, 5), rows=st.integers(1, 4),
    apart=st.integers(0, 2), scaling=st.sampled_from([LUMA, CHROMA, AS_IT_IS]),
)  # fmt: skip
def test_every_byte_is_scaled_and_none_beside_the_plane(seed, words, rows, apart, scaling):
    source = np.random.default_rng(seed).integers(0, 256, (rows, words * WORD_BYTES), np.uint8)
    target = np.full((rows, (words + apart) * WORD_BYTES), 77, np.uint8)

    PIXELS["scale_bytes"](
        source.ctypes.data, words, target.ctypes.data, words + apart, words, rows,
        scaling[0], lanes(scaling[1]),
    )  # fmt: skip

    assert (target[:, : words * WORD_BYTES] == scaled(source, *scaling)).all()
    assert (target[:, words * WORD_BYTES :] == 77).all()


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), eights=st.integers(1, 6), pairs=st.integers(1, 4),
    full=st.booleans(),
)  # fmt: skip
def test_yuyv_becomes_luma_and_the_rounded_mean_of_two_lines_chroma(seed, eights, pairs, full):
    width, height = 8 * eights, 2 * pairs
    raw = np.random.default_rng(seed).integers(0, 256, (height, width, 2), np.uint8)

    frame = Converter(PictureFormat("yuyv", width, height, full)).convert(raw.tobytes())

    luma, chroma = raw[..., 0], raw[..., 1].astype(int)
    mean = (chroma[0::2] + chroma[1::2] + 1) >> 1
    of_luma, of_chroma = (LUMA, CHROMA) if full else (AS_IT_IS, AS_IT_IS)
    expected = [scaled(luma, *of_luma)] + [scaled(mean[:, at::2], *of_chroma) for at in (0, 1)]
    for found, wanted in zip(planes_of(frame), expected, strict=True):
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("payload", ["yuyv", "yuv420p", "nv12"])
def test_a_width_that_is_no_whole_word_and_a_turned_picture_come_out_alike(payload, full):
    width, height = 48, 16
    bytes_ = {"yuyv": 2, "yuv420p": 1.5, "nv12": 1.5}[payload]
    raw = np.random.default_rng(1).integers(0, 256, int(width * height * bytes_), np.uint8)
    straight = planes_of(Converter(PictureFormat(payload, width, height, full)).convert(raw))

    turned = Converter(PictureFormat(payload, width, height, full, 180)).convert(raw)

    for found, wanted in zip(planes_of(turned), straight, strict=True):
        assert np.array_equal(np.rot90(found, 2), wanted)


def test_a_narrow_yuyv_picture_is_that_part_of_a_wide_one():
    wide = np.random.default_rng(2).integers(0, 256, (8, 16, 2), np.uint8)
    narrow = wide[:, :12].copy()

    part = planes_of(Converter(PictureFormat("yuyv", 12, 8)).convert(narrow.reshape(-1)))
    whole = planes_of(Converter(PictureFormat("yuyv", 16, 8)).convert(wide.reshape(-1)))

    for found, wanted in zip(part, whole, strict=True):
        assert np.array_equal(found, wanted[:, : found.shape[1]])
