import av
import numpy as np
import pytest

from recd.daemon.encode.colour import black_picture, plane_view
from recd.daemon.encode.statistics import CameraStatistics, sample_count, thinning
from recd.daemon.encode.thumbnails import Thumbnails, jpeg, write_thumbnails

LEROBOT_SAMPLES = {1: 1, 60: 60, 100: 100, 500: 105, 1000: 177, 2000: 299, 5000: 594, 20000: 1681}
"""facts: lerobot_format section 7: max(min(100, N), min(int(N^0.75), 10000))."""


@pytest.mark.parametrize("rows", LEROBOT_SAMPLES)
def test_sample_count_is_lerobots(rows):
    assert sample_count(rows) == LEROBOT_SAMPLES[rows]


@pytest.mark.parametrize(("size", "step"), [((640, 480), 4), ((480, 640), 4), ((299, 200), 1)])
def test_large_pictures_are_thinned_as_lerobot_does(size, step):
    assert thinning(*size) == step


@pytest.mark.parametrize("rows", [1, 7, 100, 101, 350, 900, 3000])
def test_whatever_the_length_the_sample_has_lerobots_size_and_covers_the_episode(rows):
    statistics = CameraStatistics(size=(16, 16))
    frame = black_picture(16, 16)
    level_of = lambda k: 16 + 219 * k // rows  # noqa: E731
    for k in range(rows + 5):
        plane_view(frame.planes[0])[:] = min(235, level_of(k))
        statistics.add(frame, k)

    count, histogram = statistics.result(rows)

    assert sample_count(rows) * 0.95 - 1 <= count <= sample_count(rows)
    assert (histogram.sum(axis=1) == count * 256).all()
    mean = (histogram[0] * np.arange(256)).sum() / histogram[0].sum()
    assert abs(mean - 255 * np.mean([(level_of(k) - 16) / 219 for k in range(rows)])) < 3


def test_histograms_hold_what_a_reader_decodes(moving_picture):
    frame = moving_picture(3, 640, 480)
    plane_view(frame.planes[1])[:] = 90
    plane_view(frame.planes[2])[:] = 160
    statistics = CameraStatistics(size=(640, 480))

    statistics.add(frame, 0)
    count, histogram = statistics.result(1)

    seen = frame.to_ndarray(format="rgb24")[::4, ::4].reshape(-1, 3)
    assert count == 1
    assert (histogram.sum(axis=1) == len(seen)).all()
    for channel in range(3):
        values = np.repeat(np.arange(256), histogram[channel].astype(int))
        assert np.abs(np.sort(seen[:, channel]).astype(int) - values).max() <= 3


@pytest.mark.parametrize("rows", [1, 2, 3, 40, 1000])
def test_thumbnails_are_the_first_the_last_and_one_near_the_middle(rows):
    thumbnails = Thumbnails()
    level_of = lambda k: 20 + k * 200 // (rows + 2)  # noqa: E731
    for k in range(rows + 2):  # two rows beyond the end of the episode
        frame = black_picture(16, 16)
        plane_view(frame.planes[0])[:] = level_of(k)
        thumbnails.add(frame, k)

    chosen = {name: shown_level(data) for name, data in thumbnails.choose(rows).items()}

    assert abs(chosen["first"] - level_of(0)) <= 2
    assert level_of(rows * 3 // 8) - 2 <= chosen["middle"] <= level_of(rows * 5 // 8 + 1) + 2
    assert abs(chosen["last"] - level_of(rows - 1)) <= 2


def shown_level(data):
    decoder = av.CodecContext.create("mjpeg", "r")
    (frame,) = decoder.decode(av.Packet(data))
    return 16 + float(plane_view(frame.planes[0]).mean()) * 219 / 255


def test_thumbnails_are_jpegs_of_the_picture(moving_picture, tmp_path):
    frame = moving_picture(1)

    (path,) = write_thumbnails({"first": jpeg(frame)}, tmp_path / "thumbs", camera="front")

    assert path.name == "front_first.jpg"
    with av.open(str(path)) as container:
        shown = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(shown.astype(int) - frame.to_ndarray(format="rgb24")).mean() < 4


@pytest.mark.parametrize(
    ("size", "small"),
    [((640, 480), (320, 240)), ((720, 1280), (180, 320)), ((320, 240), (320, 240)),
     ((2000, 4), (320, 2))],
)  # fmt: skip
def test_thumbnails_are_small_and_keep_their_shape(size, small):
    frame = black_picture(*size)
    plane_view(frame.planes[0])[:, : size[0] // 2] = 200

    decoder = av.CodecContext.create("mjpeg", "r")
    (shown,) = decoder.decode(av.Packet(jpeg(frame)))

    assert (shown.width, shown.height) == small
    luma = plane_view(shown.planes[0])[:, : small[0]].astype(int)
    assert luma[:, : small[0] // 2 - 8].min() > 180
    assert luma[:, small[0] // 2 + 8 :].max() < 20
