import json
from pathlib import Path

import numpy as np
import pytest

from recd.daemon.dataset.stats import (
    CameraHistogram,
    aggregate,
    camera_stats,
    picture_stride,
    stats_from_json,
    stats_to_json,
    vector_stats,
)

FACTS = json.loads((Path(__file__).parent / "facts/statistics.json").read_text())
LENGTHS = (7, 1, 12)
EXACT = ("min", "max", "mean", "std", "count")


def made(episode: int) -> dict:
    """The data behind the facts, which lerobot 0.6.1 computed."""
    rows = LENGTHS[episode]
    k = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    pictures = (np.arange(rows * 3 * 64) % 251).astype(np.uint8).reshape(rows, 3, 8, 8)
    hist = np.array([np.bincount(pictures[:, c].ravel(), minlength=256) for c in range(3)])
    return {
        "action": vector_stats(np.sin(k * 0.7 + episode).astype(np.float32)),
        "flag": vector_stats(np.arange(rows) % 3 == 0),
        "index": vector_stats(np.arange(rows) + 100 * episode),
        "observation.images.front": camera_stats(CameraHistogram(rows, hist.astype(np.uint64))),
    }


@pytest.mark.parametrize("episode", [0, 1, 2])
def test_an_episodes_statistics_are_lerobots(episode):
    ours, theirs = made(episode), FACTS["episodes"][episode]
    for key, wanted in theirs.items():
        for name in EXACT:
            assert np.shape(ours[key][name]) == np.shape(wanted[name])
            np.testing.assert_allclose(ours[key][name], wanted[name], atol=2e-6, err_msg=key)
        for name in ("q01", "q10", "q50", "q90", "q99"):
            assert np.shape(ours[key][name]) == np.shape(wanted[name])


def test_aggregated_statistics_are_lerobots_to_its_float32():
    theirs = [stats_from_json(part) for part in FACTS["episodes"]]
    ours = stats_to_json(aggregate(theirs))
    for key, wanted in FACTS["total"].items():
        for name, value in wanted.items():
            np.testing.assert_allclose(ours[key][name], value, rtol=1e-6, err_msg=f"{key} {name}")


def test_aggregating_one_by_one_equals_aggregating_at_once():
    parts = [made(episode) for episode in range(3)]
    step = aggregate([aggregate(parts[:2]), parts[2]])
    for key, wanted in aggregate(parts).items():
        for name, value in wanted.items():
            np.testing.assert_allclose(step[key][name], value, rtol=1e-12, atol=1e-12)


def test_quantiles_of_a_camera_are_those_of_its_pixels():
    pixels = np.random.default_rng(1).integers(0, 256, (3, 5000))
    hist = np.array([np.bincount(channel, minlength=256) for channel in pixels]).astype(np.uint64)
    stats = camera_stats(CameraHistogram(5, hist))
    for name, quantile in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        wanted = np.quantile(pixels, quantile, axis=1, method="inverted_cdf") / 255
        np.testing.assert_allclose(stats[name].ravel(), wanted)
    assert stats["mean"].shape == (3, 1, 1)
    assert stats["count"].tolist() == [5]


def test_a_camera_without_a_sampled_picture_has_no_statistics():
    with pytest.raises(ValueError, match="no sample"):
        camera_stats(CameraHistogram(0, np.zeros((3, 256), np.uint64)))


@pytest.mark.parametrize(
    ("size", "stride"), [((96, 128), 1), ((299, 299), 1), ((480, 640), 4), ((1080, 1920), 12)]
)
def test_pictures_are_thinned_as_lerobot_thins_them(size, stride):
    assert picture_stride(*size) == stride
