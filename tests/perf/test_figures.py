import numpy as np
import pytest

from recd.config.streams import HISTOGRAM_BUCKETS, histogram_bucket
from recd.perf import figures


def test_a_percentile_is_a_value_that_was_measured():
    values = [5, 1, 4, 2, 3]
    assert figures.percentile(values, 0.5) == 3
    assert figures.percentile(values, 0.99) == 5
    assert figures.percentile(range(1, 101), 0.99) == 99
    assert figures.percentile([], 0.5) is None


def test_a_spread_leaves_out_what_was_not_measured():
    found = figures.spread([3.0, None, 1.0, 8.0])
    assert (found.median, found.least, found.most, found.n) == (3.0, 1.0, 8.0, 3)
    assert figures.spread([None]) is None


def test_bare_loops_are_counted_in_the_buckets_of_the_control_loops():
    rng = np.random.default_rng(4)
    values = np.concatenate(([0, 1, 2, 3, 2**31], (2 ** rng.uniform(0, 33, 4000)).astype(np.int64)))
    expected = np.bincount([histogram_bucket(int(v)) for v in values], minlength=HISTOGRAM_BUCKETS)
    assert figures.buckets_of(values).tolist() == expected.tolist()


@pytest.mark.parametrize("share", [0.5, 0.99, 0.999])
def test_a_histogram_percentile_lies_in_the_bucket_of_the_true_one(share):
    values = np.random.default_rng(1).lognormal(10, 1.5, 20_000).astype(np.int64)
    true = figures.percentile(values, share)
    found = figures.histogram_percentile(figures.buckets_of(values), share)
    assert true / 1.0906 < found < true * 1.0906


def test_a_histogram_of_an_earlier_version_is_read_by_its_half_octaves():
    counts = [0] * 64
    counts[24] = 1
    assert figures.histogram_percentile(counts, 1.0) == pytest.approx(2**12.5)


def test_an_empty_histogram_has_no_percentiles():
    assert figures.histogram_quantiles([0] * HISTOGRAM_BUCKETS) == {
        "p50": None, "p99": None, "p99_9": None, "n": 0,
    }  # fmt: skip


def test_a_ratio_of_times_below_the_clocks_resolution_is_one():
    assert figures.ratio(0.2, 0.0, least=1.0) == 1.0
    assert figures.ratio(30.0, 0.5, least=1.0) == 30.0
    assert figures.ratio(None, 1.0) is None
    assert figures.ratio(1.0, 0.0) is None
