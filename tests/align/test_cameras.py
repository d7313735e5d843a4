import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recd.config.streams import TickFlag
from recd.daemon.align import passes
from recd.daemon.align.cameras import (
    CameraAligner,
    CameraRule,
    FrameRule,
    StepAligner,
    align_camera,
)
from recd.daemon.align.grid import Grid
from tests.align.streams import MS, T0, S, Take, live, same, takes

REPEAT, EXPECTED, MISSING = TickFlag.REPEAT, TickFlag.EXPECTED, TickFlag.MISSING
LATE, SKIP = TickFlag.LATE, TickFlag.SKIP_BEFORE
GRID = Grid(T0, 30)
PERIOD = GRID.period_ns


def batch(take: Take):
    return align_camera(
        take.capture, take.grid, take.ticks, rule=take.rule, known_ns=take.known
    )  # fmt: skip


def regular(frames, *, hz=30.0, phase=0.0, drift_ppm=0.0, jitter_ms=0.0, seed=1):
    rng = np.random.default_rng(seed)
    times = (np.arange(frames) - 2 + phase) * (S / hz) * (1 - drift_ppm * 1e-6)
    return (T0 + times + rng.uniform(-1, 1, frames) * jitter_ms * MS).astype(np.int64)


@settings(max_examples=150, deadline=None)
@given(takes())
def test_machine_code_and_python_form_decide_alike(take):
    newer = np.ones(len(take.capture), dtype=bool)
    newer[1:] = take.capture[1:] > np.maximum.accumulate(take.capture)[:-1]
    capture, known = take.capture[newer], take.known[newer]
    chosen, error, flags = (np.zeros(take.ticks, dtype=np.int64) for _ in range(3))
    words = np.array(take.rule.words(take.grid), dtype=np.int64)
    passes.align_frames(capture, known, len(capture), words, take.ticks, chosen, error, flags)
    compiled = batch(take)
    positions = np.append(np.flatnonzero(newer), -1)
    assert positions[chosen].tolist() == compiled.source_index.tolist()
    assert error.tolist() == compiled.error_ns.tolist()
    assert flags.tolist() == compiled.flags.tolist()


@settings(max_examples=200, deadline=None)
@given(takes(), st.data())
def test_live_and_whole_take_decide_alike_however_often_the_encoder_wakes(take, data):
    whole = batch(take)
    assert same(live(take), whole)
    span = take.grid.tick_ns(take.ticks) + 3 * take.rule.wait_ns
    assert same(live(take, wakes=data.draw(st.lists(st.integers(T0, span)))), whole)


@settings(max_examples=200, deadline=None)
@given(takes(), st.data())
def test_rows_after_a_restart_are_those_of_an_encoder_that_never_died(take, data):
    whole = live(take)
    rows = np.flatnonzero(whole.source_index >= 0)
    if len(rows):
        last = int(data.draw(st.sampled_from(rows.tolist())))
        rest = live(take, first_row=last + 1, shown=int(whole.source_index[last]))
        for name in ("source_index", "error_ns", "flags"):
            assert getattr(rest, name).tolist() == getattr(whole, name)[last + 1 :].tolist()


@given(takes())
def test_every_row_has_one_honest_decision(take):
    done = batch(take)
    assert same(done, batch(take))
    used = done.source_index
    assert len(used) == take.ticks
    assert (np.diff(used) >= 0).all()
    flags = [TickFlag(int(f)) for f in done.flags]
    ticks = take.grid.ticks_ns(0, take.ticks)
    for k, (source, error, flag) in enumerate(zip(used, done.error_ns, flags, strict=True)):
        if source < 0:
            assert flag == MISSING | LATE
            assert error == 0
            continue
        assert error == take.capture[source] - ticks[k]
        assert abs(error) <= take.rule.tolerance_ns or MISSING in flag
        if take.rule.kind is FrameRule.PREVIOUS:
            assert error <= 0 or MISSING in flag
        repeated = k > 0 and used[k - 1] == source
        assert (REPEAT in flag) == repeated
        assert EXPECTED not in flag or (REPEAT in flag and MISSING not in flag)
        assert take.known[source] <= ticks[k] + take.rule.wait_ns


@pytest.mark.parametrize("drift_ppm", [-100, -30, 0, 30, 100])
def test_repeats_and_skips_stay_below_their_bound_at_every_phase(drift_ppm):
    ticks = 60 * 30
    bound = 1 + abs(drift_ppm) * 1e-6 * 60 * S / PERIOD
    rule = CameraRule.of(GRID)
    for tenth, seed in itertools.product(range(10), range(3)):
        capture = regular(
            ticks + 8, phase=tenth / 10, drift_ppm=drift_ppm, jitter_ms=2, seed=seed
        )  # fmt: skip
        done = align_camera(capture, GRID, ticks, rule=rule, known_ns=capture + 5 * MS)
        repeats = int((done.flags & REPEAT > 0).sum())
        skips = int((np.diff(done.source_index) > 1).sum())
        assert repeats <= bound
        assert skips <= bound
        assert not (done.flags & (MISSING | LATE | EXPECTED)).any()
        assert np.abs(done.error_ns).max() <= 0.75 * PERIOD


def test_plain_nearest_would_break_the_bound_that_hysteresis_keeps():
    ticks = GRID.ticks_ns(0, 1800)
    capture = regular(1810, phase=0.5, jitter_ms=2)
    nearest = np.abs(capture[None, :] - ticks[:, None]).argmin(axis=1)
    assert (np.diff(nearest) == 0).sum() > 100
    done = align_camera(capture, GRID, 1800, rule=CameraRule.of(GRID))
    assert (np.diff(done.source_index) == 1).all()


@pytest.mark.parametrize("hz", [10, 15, 20, 25, 29, 29.97])
@pytest.mark.parametrize("jitter_ms", [0, 2])
def test_the_repeats_of_a_slower_camera_are_expected_and_no_fault(hz, jitter_ms):
    ticks, period = 900, int(S / hz)
    rule = CameraRule.of(GRID, period_ns=period)
    for tenth in range(10):
        capture = regular(int(32 * hz), hz=hz, phase=tenth / 10, jitter_ms=jitter_ms, seed=tenth)
        done = align_camera(capture, GRID, ticks, rule=rule, known_ns=capture + 5 * MS)
        repeats = (done.flags & REPEAT) > 0
        assert not (done.flags & (MISSING | LATE)).any()
        assert ((done.flags & EXPECTED) > 0).tolist() == repeats.tolist()
        assert abs(repeats.sum() - 30 * (30 - hz)) <= 2
        assert (np.diff(done.source_index) <= 1).all()


@pytest.mark.parametrize("hz", [50, 60, 120])
def test_a_faster_camera_is_used_evenly(hz):
    rule = CameraRule.of(GRID, period_ns=int(S / hz))
    for tenth in range(10):
        capture = regular(32 * hz, hz=hz, phase=tenth / 10, jitter_ms=1, seed=tenth)
        done = align_camera(capture, GRID, 900, rule=rule)
        assert not done.flags.any()
        assert np.abs(done.error_ns).max() <= 0.75 * S / hz


@pytest.mark.parametrize("tenth", range(10))
@pytest.mark.parametrize("hz", [25, 30])
def test_a_lost_frame_costs_just_the_rows_it_would_have_shown_all_flagged(tenth, hz):
    rule = CameraRule.of(GRID, period_ns=int(S / hz))
    whole = regular(int(32 * hz), hz=hz, phase=tenth / 10)
    lost = [100, 200, 201, 400]
    capture = np.delete(whole, lost)
    done = align_camera(capture, GRID, 900, rule=rule, known_ns=capture + 5 * MS)
    clean = align_camera(whole, GRID, 900, rule=rule, known_ns=whole + 5 * MS)
    missing = (done.flags & MISSING) > 0
    shown = np.isin(clean.source_index, lost).sum()
    assert missing.sum() <= shown
    assert ((done.flags & REPEAT) > 0)[missing].all()
    more = int((done.flags & REPEAT > 0).sum()) - int((clean.flags & REPEAT > 0).sum())
    assert more <= len(lost)
    assert missing.sum() >= more


def test_a_camera_that_stops_gives_rows_by_deadline_and_comes_back():
    rule = CameraRule.of(GRID)
    capture = np.delete(regular(200), range(50, 110))
    take = Take(GRID, 150, rule, capture, capture + 5 * MS)
    done = live(take)
    assert same(done, batch(take))
    dead = (done.flags & MISSING) > 0
    assert dead.sum() == 60
    saw_newer = rule.wait_ns // GRID.period_ns  # rows whose deadline lies after the camera is back
    assert ((done.flags & LATE) > 0)[dead].sum() >= 60 - saw_newer
    assert not done.flags[~dead].any()


def test_a_dead_camera_still_gives_every_row():
    take = Take(GRID, 30, CameraRule.of(GRID), np.zeros(0, np.int64), np.zeros(0, np.int64))
    done = live(take)
    assert done.source_index.tolist() == [-1] * 30
    assert done.flags.tolist() == [int(MISSING | LATE)] * 30


def test_rows_are_decided_as_soon_as_their_own_frame_is_there():
    aligner = CameraAligner(GRID, CameraRule.of(GRID))
    for n, capture in enumerate(regular(60, phase=0.1).tolist()):
        arrival = capture + 8 * MS
        aligner.push(n, capture, arrival)
        decision = aligner.decide(arrival)
        if n >= 2:
            assert decision is not None
            assert decision.source_index == n
            assert aligner.needed_from == n
            assert aligner.decide(arrival) is None


def test_duplicates_and_frames_from_the_past_are_refused_and_counted():
    aligner = CameraAligner(GRID, CameraRule.of(GRID))
    assert aligner.push(0, T0, T0 + 1)
    assert not aligner.push(1, T0, T0 + 2)
    assert not aligner.push(2, T0 - 5, T0 + 3)
    assert aligner.push(3, T0 + PERIOD, T0 + PERIOD)
    assert aligner.refused == 2


def test_previous_never_takes_a_picture_from_the_future():
    rule = CameraRule.of(GRID, kind=FrameRule.PREVIOUS)
    for tenth in range(10):
        capture = regular(1000, phase=tenth / 10 + 0.05)
        done = align_camera(capture, GRID, 900, rule=rule)
        assert done.error_ns.max() <= 0
        assert done.error_ns.min() > -PERIOD
        assert not done.flags.any()


def test_frames_held_while_nothing_can_be_decided_stay_few():
    aligner = CameraAligner(Grid(T0 + 3600 * S, 30), CameraRule.of(GRID))
    for n in range(10_000):
        aligner.push(n, T0 + n * PERIOD, T0 + n * PERIOD)
    assert aligner.needed_from == 9_999


def test_a_step_source_gives_a_row_per_step_at_its_own_time():
    aligner = StepAligner()
    times = [5, 9, 20_000 * MS, 20_001 * MS]
    for n, t in enumerate(times):
        assert aligner.push(10 + n, t, t)
    rows = [aligner.decide(0) for _ in times]
    assert [r.source_index for r in rows] == [10, 11, 12, 13]
    assert [r.tick_ns for r in rows] == times
    assert [r.k for r in rows] == [0, 1, 2, 3]
    assert aligner.decide(2**62) is None
