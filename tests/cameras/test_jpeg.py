import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recd.daemon.cameras.jpeg import examine
from recd.daemon.sim.v4l2shim.pictures import card_jpeg, number_jpeg


def pixels(data):
    return np.frombuffer(bytes(data), np.uint8)


@pytest.mark.parametrize("pattern", ["420", "422", "444"])
def test_size_and_chroma_pattern_are_read_without_decoding(pattern):
    facts = examine(pixels(card_jpeg(1, 320, 240, pattern)))
    assert (facts.fault, facts.width, facts.height, facts.sampling) == ("", 320, 240, pattern)


def test_padding_behind_the_picture_is_not_part_of_it():
    data = card_jpeg(1, 320, 240)
    facts = examine(pixels(data + bytes(700)))
    assert (facts.fault, facts.nbytes) == ("", len(data))


def test_segments_before_the_frame_header_are_stepped_over():
    data = number_jpeg(number_jpeg(card_jpeg(2, 320, 240), 7), 8)
    assert examine(pixels(data)).width == 320


@pytest.mark.parametrize("kept", [0, 1, 3, 10, 150, 0.5, 0.9])
def test_a_cut_picture_is_never_whole(kept):
    data = card_jpeg(1, 320, 240)
    keep = kept if isinstance(kept, int) else int(len(data) * kept)
    assert examine(pixels(data[:keep])).fault


@given(st.binary(max_size=300))
def test_random_bytes_are_faulty_and_never_an_exception(junk):
    assert examine(pixels(junk)).fault


@given(st.integers(2, 600), st.integers(0, 255))
def test_a_damaged_header_never_raises(at, value):
    data = bytearray(card_jpeg(1, 320, 240))
    data[at] = value
    facts = examine(pixels(data))
    assert facts.fault or facts.width > 0
