from recd.perf import align


def test_the_kernel_and_pandas_find_the_same_values():
    times, values, rows = align.series(0.2)
    for direction in align.DIRECTIONS:
        told = align.against_pandas(times, values, rows, direction=direction, repeats=1)
        assert told["kernel_ms"] > 0
    assert align.rows_against_pandas(times, values, rows, repeats=1)["pandas_ms"] > 0


def test_rows_lie_inside_their_samples():
    times, values, rows = align.series(0.2)
    assert times[0] < rows[0]
    assert rows[-1] < times[-1]
    assert (times[1:] > times[:-1]).all()
    assert values.shape == (len(times), align.JOINTS)


def test_the_exponent_of_growth_is_that_of_the_times():
    for wanted in (1.0, 2.0):
        grown = [{"samples": n, "ms": 3e-4 * n**wanted} for n in (100, 1000, 5000)]
        assert abs(align.exponent(grown) - wanted) < 1e-9


def test_rows_decided_live_are_all_timed():
    rows = len(align.series(1)[2])
    assert align.joints_live_us()["n"] == (rows - 1) // align.LIVE_ROWS
