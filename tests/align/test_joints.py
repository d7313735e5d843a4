import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recd.daemon.align import passes
from recd.daemon.align.grid import Grid
from recd.daemon.align.joints import (
    JointRule,
    ValueFlag,
    Wrap,
    align_joints,
    hold_actions,
    room,
)
from tests.align.streams import MS, T0

GRID = Grid(T0, 30)
PERIOD = 4 * MS
REACH = 3 * PERIOD


@st.composite
def samples(draw):
    count, joints = draw(st.integers(0, 40)), draw(st.integers(1, 3))
    gaps = st.lists(
        st.sampled_from([0, 1, PERIOD, PERIOD, PERIOD, REACH, 10 * PERIOD]),
        min_size=count, max_size=count,
    )  # fmt: skip
    times = T0 + draw(st.integers(-50 * MS, 50 * MS)) + np.cumsum(draw(gaps)).astype(np.int64)
    number = st.floats(-200, 200, width=32)
    values = np.array(
        draw(st.lists(number, min_size=count * joints, max_size=count * joints)), dtype=np.float32
    ).reshape(count, joints)
    valid = np.array(
        draw(st.lists(st.booleans(), min_size=count * joints, max_size=count * joints)), dtype=bool
    ).reshape(count, joints)
    rules = draw(st.lists(st.sampled_from(JointRule), min_size=joints, max_size=joints))
    wrap = st.sampled_from([None, Wrap(360.0, -180.0)])
    wraps = draw(st.lists(wrap, min_size=joints, max_size=joints))
    return times.astype(np.int64), values, valid, rules, wraps


def _python_form(times, values, valid, ticks, rules, wraps):
    shape, joints = (len(ticks), len(rules)), list(range(len(rules)))
    out, flags = np.full(shape, 7.0, np.float32), np.zeros(shape, np.uint8)
    source, error = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    plan = [*map(int, rules), *(joint + 1 for joint in joints), *joints]
    turns = [word for wrap in wraps for word in ((wrap.turn, wrap.low) if wrap else (0.0, 0.0))]
    passes.align_samples(
        times, values.ravel(), valid.ravel(), len(times), ticks, len(ticks), plan, turns,
        len(rules), len(rules), 1, REACH, np.nan,
        np.empty(3 * passes.BLOCK, np.int64), np.empty(passes.BLOCK),
        np.full(3 * len(rules), -1, np.int64),
        *(a.reshape(-1) for a in (out, source, error, flags)),
    )  # fmt: skip
    return out, source, error, flags


@settings(max_examples=150, deadline=None)
@given(samples(), st.integers(0, 6))
def test_machine_code_and_python_form_give_the_same_bits(stream, rows):
    times, values, valid, rules, wraps = stream
    ticks = GRID.ticks_ns(0, rows)
    got = align_joints(times, values, valid, ticks, rules=rules, reach_ns=REACH, wraps=wraps)
    out, source, error, flags = _python_form(times, values, valid, ticks, rules, wraps)
    assert got.values.tobytes() == out.tobytes()
    assert np.array_equal(got.source, source)
    assert np.array_equal(got.error_ns, error)
    assert np.array_equal(got.flags, flags)


@settings(max_examples=150, deadline=None)
@given(samples(), st.integers(0, 6))
def test_a_value_is_evidence_near_its_row_or_not_valid(stream, rows):
    times, values, valid, rules, wraps = stream
    ticks = GRID.ticks_ns(0, rows)
    got = align_joints(times, values, valid, ticks, rules=rules, reach_ns=REACH, wraps=wraps)
    assert got.values.shape == (rows, len(rules))
    for joint, rule in enumerate(rules):
        assert (np.diff(got.source[:, joint]) >= 0).all() or not valid[:, joint].any()
        for k in range(rows):
            source, flag = int(got.source[k, joint]), ValueFlag(int(got.flags[k, joint]))
            if not valid[:, joint].any():
                assert flag == ValueFlag.NONE
                assert source == -1
                assert np.isnan(got.values[k, joint])
                continue
            assert valid[source, joint]
            assert got.valid[k, joint] == (ValueFlag.STALE not in flag)
            if got.valid[k, joint]:
                assert abs(got.error_ns[k, joint]) <= REACH
                assert rule is not JointRule.HOLD or got.error_ns[k, joint] <= 0
            if ValueFlag.INTERPOLATED in flag:
                assert rule is JointRule.INTERPOLATE
            else:
                assert got.values[k, joint] == values[source, joint]
                assert got.error_ns[k, joint] == times[source] - ticks[k]


def _line(count, *, phase_ns=MS, slope=1.0):
    times = T0 - 40 * MS + phase_ns + np.arange(count, dtype=np.int64) * PERIOD
    values = ((times - T0) / MS * slope).astype(np.float32)[:, None]
    return times, values, np.ones((count, 1), dtype=bool)


def test_a_straight_movement_is_hit_exactly_between_samples():
    times, values, valid = _line(100)
    ticks = GRID.ticks_ns(0, 8)
    got = align_joints(
        times, values, valid, ticks, rules=[JointRule.INTERPOLATE], reach_ns=REACH
    )  # fmt: skip
    assert np.allclose(got.values[:, 0], (ticks - T0) / MS, atol=1e-4)
    assert got.valid.all()
    assert np.abs(got.error_ns).max() <= PERIOD


def test_a_hole_wider_than_the_reach_is_not_bridged():
    times, values, valid = _line(100)
    keep = (times < T0 + 60 * MS) | (times > T0 + 80 * MS)
    got = align_joints(
        times[keep], values[keep], valid[keep], GRID.ticks_ns(0, 4),
        rules=[JointRule.INTERPOLATE], reach_ns=REACH,
    )  # fmt: skip
    assert got.valid[:, 0].tolist() == [True, True, False, True]
    assert ValueFlag(int(got.flags[2, 0])) == ValueFlag.STALE


def test_a_joint_that_turns_without_end_goes_the_short_way_round():
    times = np.array([T0 - 2 * MS, T0 + 2 * MS], dtype=np.int64)
    values = np.array([[179.0, 179.0], [-179.0, -179.0]], dtype=np.float32)
    got = align_joints(
        times, values, np.ones((2, 2), bool), np.array([T0 + MS]),
        rules=[JointRule.INTERPOLATE] * 2, reach_ns=REACH, wraps=[Wrap(360.0, -180.0), None],
    )  # fmt: skip
    assert got.values[0].tolist() == [-179.5, -89.5]


def test_a_silent_joint_is_invalid_alone():
    times, values, valid = _line(100)
    values, valid = np.repeat(values, 2, axis=1), np.repeat(valid, 2, axis=1)
    valid[5:57, 1] = False
    got = align_joints(
        times, values, valid, GRID.ticks_ns(0, 8), rules=[JointRule.INTERPOLATE] * 2, reach_ns=REACH
    )
    assert got.valid[:, 0].all()
    assert got.valid[:, 1].tolist() == [False] * 6 + [True] * 2


def test_grippers_and_actions_are_never_interpolated():
    times, values, valid = _line(100)
    ticks = GRID.ticks_ns(0, 8)
    nearest = align_joints(times, values, valid, ticks, rules=[JointRule.NEAREST], reach_ns=REACH)
    held = hold_actions(times, values, valid, ticks, reach_ns=REACH)
    for got in (nearest, held):
        assert set(got.values[:, 0].tolist()) <= set(values[:, 0].tolist())
    assert (held.error_ns <= 0).all()
    assert (np.abs(nearest.error_ns) <= PERIOD // 2).all()


def test_an_action_that_was_not_yet_in_force_is_not_valid():
    times, values, valid = _line(10, phase_ns=60 * MS)
    got = hold_actions(times, values, valid, GRID.ticks_ns(0, 2), reach_ns=REACH)
    assert got.valid[:, 0].tolist() == [False, True]


@settings(max_examples=150, deadline=None)
@given(samples(), st.integers(0, 6))
def test_joints_that_share_what_is_known_of_them_lose_nothing_of_it(stream, rows):
    times, values, _, rules, wraps = stream
    ticks, every = GRID.ticks_ns(0, rows), np.ones(values.shape, bool)
    apart = _python_form(times, values, every, ticks, rules, wraps)
    for valid in (every, None):
        got = align_joints(times, values, valid, ticks, rules=rules, reach_ns=REACH, wraps=wraps)
        assert got.shared_source.shape == (rows, len(set(rules)))
        for found, wanted in zip(
            (got.values, got.source, got.error_ns, got.flags), apart, strict=True
        ):
            assert found.tobytes() == wanted.tobytes()


@settings(max_examples=60, deadline=None)
@given(samples(), samples(), st.integers(0, 6))
def test_memory_that_is_used_again_tells_nothing_of_what_stood_in_it(first, second, rows):
    ticks, made = GRID.ticks_ns(0, rows), {}
    for times, values, valid, rules, wraps in (first, second):
        shape = (rows, len(rules))
        memory = made.setdefault(shape, room(*shape))
        plan = {"rules": rules, "reach_ns": REACH, "wraps": wraps}
        got = align_joints(times, values, valid, ticks, **plan, out=memory)
        fresh = align_joints(times, values, valid, ticks, **plan)
        assert rows == 0 or np.shares_memory(got.values, memory)
        for name in ("values", "valid", "source", "error_ns", "flags"):
            assert getattr(got, name).tobytes() == getattr(fresh, name).tobytes(), name


STREAMS = {
    "regular": lambda draw, n: np.full(n, PERIOD),
    "jittery": lambda draw, n: draw.integers(0, 2 * PERIOD, n),
    "gappy": lambda draw, n: np.where(draw.random(n) < 0.03, draw.integers(0, 90) * PERIOD, PERIOD),
    "in bursts": lambda draw, n: np.where(np.arange(n) % 50 == 0, 50 * PERIOD, 10),
    "with doubles": lambda draw, n: draw.integers(0, 3, n) * PERIOD,
    "slower than the rows": lambda draw, n: np.full(n, 100 * MS),
    "all at once": lambda draw, n: np.zeros(n, np.int64),
}


def _found_by_looking_at_all(times, values, valid, tick, rule, wrap):
    usable = [at for at in range(len(times)) if valid[at]]
    older = [at for at in usable if times[at] <= tick]
    newer = [at for at in usable if times[at] > tick]
    if not usable:
        return np.float32(np.nan), -1, 0, ValueFlag.NONE
    if not older or not newer:
        at = older[-1] if older else newer[0]
        off = times[at] - tick
        stale = abs(off) > REACH or (rule is JointRule.HOLD and off > 0)
        return values[at], at, off, ValueFlag.STALE if stale else 0
    before, after = older[-1], newer[0]
    early, late = times[before] - tick, times[after] - tick
    at = after if rule is not JointRule.HOLD and late < -early else before
    if rule is JointRule.INTERPOLATE and early != 0 and late - early <= REACH:
        turn = (wrap.turn, wrap.low) if wrap else (0.0, 0.0)
        ends = float(values[before]), float(values[after])
        value = np.float32(passes.between(*ends, -early / (late - early), *turn))
        return value, before, max(early, late, key=abs), ValueFlag.INTERPOLATED
    off = times[at] - tick
    bridged = rule is JointRule.INTERPOLATE and early != 0
    return values[at], at, off, ValueFlag.STALE if bridged or abs(off) > REACH else 0


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(sorted(STREAMS)),
    st.sampled_from(["grid", "irregular"]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 3, 4, 60, 400]),
    st.sampled_from([0, 1, passes.BLOCK, passes.BLOCK + 1, 3 * passes.BLOCK - 1]),
    st.sampled_from([0.0, 0.02, 0.5, 1.0]),
)
def test_rows_found_near_a_line_are_those_found_by_looking_at_every_sample(
    kind, grid, seed, count, rows, lost
):
    draw = np.random.default_rng(seed)
    times = T0 + np.cumsum(STREAMS[kind](draw, count)).astype(np.int64)
    values = draw.uniform(-180, 180, (count, 4)).astype(np.float32)
    valid = draw.random((count, 4)) >= lost
    ticks = GRID.ticks_ns(-5, rows - 5)
    if grid == "irregular":
        ticks = T0 + np.sort(draw.integers(-PERIOD, 300, rows) * PERIOD // 2)
    rules = [JointRule.INTERPOLATE, JointRule.INTERPOLATE, JointRule.NEAREST, JointRule.HOLD]
    wraps = [None, Wrap(360.0, -180.0), None, None]
    got = align_joints(times, values, valid, ticks, rules=rules, reach_ns=REACH, wraps=wraps)
    for joint, rule in enumerate(rules):
        for row, tick in enumerate(ticks.tolist()):
            value, at, off, mark = _found_by_looking_at_all(
                times.tolist(), values[:, joint], valid[:, joint], tick, rule, wraps[joint]
            )
            assert got.values[row, joint].tobytes() == np.float32(value).tobytes()
            assert (got.source[row, joint], got.error_ns[row, joint]) == (at, off)
            assert got.flags[row, joint] == mark


class _Counted(list):
    looks = 0

    def __getitem__(self, at):
        self.looks += 1
        return super().__getitem__(at)


@pytest.mark.parametrize("kind", sorted(STREAMS))
@pytest.mark.parametrize("rows", [3, 1000])
def test_the_looks_at_sample_times_do_not_grow_with_the_samples(kind, rows):
    draw, most = np.random.default_rng(5), {}
    for count in (8_000, 64_000):
        times = _Counted((T0 + np.cumsum(STREAMS[kind](draw, count))).tolist())
        ticks = np.linspace(T0, times[-1] + 1, rows).astype(np.int64).tolist()
        cells = [0] * rows
        passes.align_samples(
            times, [0.0] * count, [], count, ticks, rows, [passes.HOLD, 1, 0], [0.0, 0.0],
            1, 1, 0, REACH, np.nan, [0] * 3 * passes.BLOCK, [0.0] * passes.BLOCK, [-1] * 3,
            cells, cells, cells, cells,
        )  # fmt: skip
        most[count] = times.looks / rows
    assert most[64_000] <= most[8_000] + 2 * 2 * np.log2(8)
    if kind == "regular" and rows == 1000:
        assert most[64_000] < 8


def test_memory_of_another_shape_is_refused():
    times, values, valid = _line(10)
    with pytest.raises(ValueError, match="expected out from room"):
        align_joints(
            times, values, valid, times, rules=[JointRule.HOLD], reach_ns=1, out=room(3, 1)
        )


def test_each_joint_is_found_as_if_it_were_alone():
    times, values, valid = _line(200)
    values, valid = np.repeat(values, 4, axis=1), np.repeat(valid, 4, axis=1)
    values += np.arange(4, dtype=np.float32)
    valid[10:30, 1] = valid[50:51, 2] = valid[:60, 3] = valid[120:, 3] = False
    rules = [JointRule.INTERPOLATE, JointRule.INTERPOLATE, JointRule.NEAREST, JointRule.HOLD]
    ticks = GRID.ticks_ns(-3, 24)
    together = align_joints(times, values, valid, ticks, rules=rules, reach_ns=REACH)
    for joint, rule in enumerate(rules):
        one = slice(joint, joint + 1)
        alone = align_joints(
            times, values[:, one], valid[:, one], ticks, rules=[rule], reach_ns=REACH
        )
        assert together.values[:, one].tobytes() == alone.values.tobytes()
        assert together.source[:, joint].tolist() == alone.source[:, 0].tolist()
        assert together.flags[:, joint].tolist() == alone.flags[:, 0].tolist()


def test_disagreeing_shapes_are_refused():
    times, values, valid = _line(10)
    with pytest.raises(ValueError, match="expected values and valid of shape"):
        align_joints(times, values, valid, times, rules=[JointRule.HOLD] * 2, reach_ns=1)
