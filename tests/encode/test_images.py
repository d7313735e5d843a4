from fractions import Fraction

import av
import numpy as np
import pytest

from recd.config.errors import RecdError
from recd.daemon.encode.images import ImageSink, read_pictures


def recorded(path, pictures):
    sink = ImageSink(size=(320, 240), rate=Fraction(30))
    sink.bind(path)
    for k, picture in enumerate(pictures):
        sink.encode(picture, k)
    sink.finish()
    return sink.settle()


def png_pixels(data):
    decoder = av.CodecContext.create("png", "r")
    (frame,) = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    return frame.to_ndarray(format="rgb24")


def test_every_row_comes_back_as_the_png_of_its_picture(moving_picture, tmp_path):
    pictures = [moving_picture(k) for k in range(4)]

    facts = recorded(tmp_path / "a.pictures", pictures)

    rows = list(read_pictures(tmp_path / "a.pictures"))
    assert facts.packets == len(rows) == 4
    for data, picture in zip(rows, pictures, strict=True):
        assert data.startswith(b"\x89PNG")
        assert (png_pixels(data) == picture.to_ndarray(format="rgb24")).all()


def test_a_repeat_costs_no_bytes_and_is_still_a_row(moving_picture, tmp_path):
    one, two = moving_picture(1), moving_picture(2)

    recorded(tmp_path / "a.pictures", [one, one, two, two, two])

    rows = list(read_pictures(tmp_path / "a.pictures"))
    assert rows[0] == rows[1] != rows[2]
    assert len(rows) == 5
    assert (tmp_path / "a.pictures").stat().st_size < sum(len(rows[i]) for i in (0, 2)) + 200


def test_a_torn_tail_costs_exactly_the_record_it_tore(moving_picture, tmp_path):
    path = tmp_path / "a.pictures"
    recorded(path, [moving_picture(k) for k in range(5)])
    data = path.read_bytes()

    path.write_bytes(data[:-1])
    cut = len(list(read_pictures(path)))
    flipped = bytearray(data)
    flipped[-50] ^= 1
    path.write_bytes(flipped)

    assert cut == 4
    assert len(list(read_pictures(path))) == 4


def test_foreign_and_newer_files_are_refused(tmp_path):
    path = tmp_path / "a.pictures"
    path.write_bytes(b"something else altogether")
    with pytest.raises(RecdError, match="expected a picture file"):
        list(read_pictures(path))

    path.write_bytes(b"RECDPICS" + np.array([99, 0], "<u4").tobytes())
    with pytest.raises(RecdError, match="format 99, this recd reads up to 1"):
        list(read_pictures(path))
