"""Pictures in the form that was wished for: where the pixels lie, and made once for everybody."""

import select

import cv2
import numpy as np
import pytest

from recd.config.errors import RecdError
from recd.config.policy_wire import Buffer
from recd.config.policy_wishes import Encoding, Fit, PictureWish
from recd.daemon.policy.pictures import fitted, jpeg_of, rgb_of
from recd.daemon.policy.shaper import Bounded, Forms, Frame, Shaper, Wished

RGB_224 = PictureWish(Encoding.RGB, 224, 224)


def scene(width: int = 640, height: int = 480) -> np.ndarray:
    """Red above, blue below, nowhere black."""
    out = np.full((height, width, 3), (200, 40, 40), np.uint8)
    out[height // 2 :] = (40, 40, 200)
    return out


def frame(index: int = 0, *, rotation: int = 0, data: bytes | None = None) -> Frame:
    facts = {"fmt": "mjpeg", "w": 640, "h": 480, "t": 5, "age_ns": 7}
    return Frame("front", index, 1, rotation, jpeg_of(scene(), 95) if data is None else data, facts)


@pytest.mark.parametrize(
    ("size", "place"),
    [
        ((224, 224), (0, 28, 224, 168)),
        ((320, 240), (0, 0, 320, 240)),
        ((640, 640), (0, 80, 640, 480)),
        ((100, 33), (28, 0, 44, 33)),
        ((1280, 1000), (0, 20, 1280, 960)),
    ],
)
def test_padding_keeps_the_shape_centred_on_black(size, place) -> None:
    out, found = fitted(scene(), *size)
    assert found == place
    assert out.shape == (size[1], size[0], 3)
    left, top, width, height = place
    inner = out[top : top + height, left : left + width]
    assert inner.min() > 0
    assert int(out.astype(int).sum()) == int(inner.astype(int).sum()), "black around it"


def test_stretching_fills_the_picture_and_no_size_changes_nothing() -> None:
    out, place = fitted(scene(), 224, 224, fit=Fit.STRETCH)
    assert place == (0, 0, 224, 224)
    assert out.min() > 0
    same, place = fitted(scene(), 0, 0)
    assert np.array_equal(same, scene())
    assert place == (0, 0, 640, 480)


def test_two_wishes_of_one_form_cost_one_picture_and_of_two_forms_one_decoding() -> None:
    forms = Forms()
    first = forms.buffer(Wished("front", frame(), RGB_224))
    again = forms.buffer(Wished("front@-3", frame(), RGB_224))
    assert (forms.decoded, forms.shaped) == (1, 1)
    assert again.data is first.data
    assert (first.name, again.name) == ("front", "front@-3")
    forms.buffer(Wished("front", frame(), PictureWish(Encoding.JPEG, 224, 224)))
    assert (forms.decoded, forms.shaped) == (1, 2)
    forms.buffer(Wished("front", frame(1), RGB_224))
    assert (forms.decoded, forms.shaped) == (2, 3)


def test_a_made_picture_says_what_it_is() -> None:
    forms = Forms()
    raw = forms.buffer(Wished("front", frame(), RGB_224))
    assert (raw.encoding, raw.dtype, raw.shape) == ("raw", "u1", (224, 224, 3))
    assert raw.facts == {"fmt": "rgb8", "w": 224, "h": 224, "inside": [0, 28, 224, 168], "t": 5,
                         "age_ns": 7}  # fmt: skip
    assert abs(int(raw.array()[60, 112, 0]) - 200) < 10
    jpeg = forms.buffer(Wished("front", frame(), PictureWish(Encoding.JPEG, 320, 240)))
    assert jpeg.encoding == "jpeg"
    decoded = cv2.imdecode(np.frombuffer(jpeg.data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (240, 320, 3)
    assert abs(int(decoded[20, 160, 2]) - 200) < 10


def test_a_turned_camera_is_turned_as_in_the_dataset() -> None:
    made = Forms().buffer(Wished("front", frame(rotation=90), PictureWish(Encoding.RGB)))
    assert made.shape == (640, 480, 3)
    assert np.array_equal(made.array(), np.rot90(rgb_of(frame().data, frame().facts), -1))


def test_what_is_kept_stays_below_its_bytes() -> None:
    kept: Bounded[int, str] = Bounded(100)
    for key in range(10):
        kept.put(key, "x", 30)
    assert [kept.get(key) for key in range(10)].count("x") == 3
    kept.put(11, "y", 101)
    assert kept.get(11) is None
    assert kept.get(9) == "x"


def test_the_thread_gives_jobs_back_in_order_and_names_a_frame_that_is_none() -> None:
    shaper = Shaper()
    told = Buffer("state", "raw", "f4", (0,), b"", {})
    try:
        shaper.submit("good", (told, Wished("front", frame(), RGB_224)))
        shaper.submit("bad", (told, Wished("front", frame(1, data=b"no picture"), RGB_224)))
        made = []
        while len(made) < 2:
            assert select.select([shaper.fd], [], [], 30)[0]
            made += shaper.done()
    finally:
        shaper.close()
        shaper.close()
    assert [one.job for one in made] == ["good", "bad"]
    assert [buffer.name for buffer in made[0].buffers] == ["state", "front"]
    assert isinstance(made[1].error, RecdError)
    assert made[1].stream == "front"
