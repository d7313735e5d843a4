import av
import numpy as np
import pytest

from recd.clients.recctl.pictures import (
    PIXEL_FORMATS,
    read_picture,
    save_picture,
    write_contact_sheet,
)
from recd.config.errors import RecdError
from recd.config.streams import RAW_PAYLOADS

WIDTH, HEIGHT = 64, 48
COLOUR = (180, 90, 40)


def entry(folder, payload, *, cut=0):
    flat = np.full((HEIGHT, WIDTH, 3), COLOUR, np.uint8)
    frame = av.VideoFrame.from_ndarray(flat, format="rgb24")
    array = frame.reformat(format=PIXEL_FORMATS[payload]).to_ndarray()
    path = folder / f"{payload}.raw"
    path.write_bytes(array.tobytes()[: array.nbytes - cut])
    return {"camera": payload, "path": path, "payload": payload, "width": WIDTH, "height": HEIGHT}


@pytest.mark.parametrize("payload", RAW_PAYLOADS)
def test_a_raw_snapshot_becomes_a_jpeg_of_the_same_colour(tmp_path, payload):
    made = save_picture(entry(tmp_path, payload), tmp_path)
    assert made.read_bytes()[:2] == b"\xff\xd8"
    seen = read_picture(made, width=WIDTH, height=HEIGHT).reshape(-1, 3).mean(axis=0)
    expected = np.full(3, np.dot(COLOUR, (0.299, 0.587, 0.114))) if payload == "gray8" else COLOUR
    assert np.abs(seen - expected).max() < 8


def test_a_raw_payload_of_another_length_is_refused(tmp_path):
    with pytest.raises(RecdError, match="expected 6144 bytes of yuyv 64x48, found 6142"):
        save_picture(entry(tmp_path, "yuyv", cut=2), tmp_path)


def test_a_damaged_picture_leaves_a_black_tile_and_is_named(tmp_path):
    good = save_picture(entry(tmp_path, "rgb24"), tmp_path)
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(b"\xff\xd8 not a picture")
    sheet, damaged = write_contact_sheet({"good": good, "torn": torn}, tmp_path)
    assert damaged == ["torn"]
    assert read_picture(sheet, width=480, height=360).any()
