"""Streams as cameras and arms deliver them: what hypothesis draws and what the sweeps build."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from recd.daemon.align.cameras import CameraAligner, CameraAlignment, CameraRule, FrameRule
from recd.daemon.align.grid import Grid

MS = 1_000_000
S = 1_000 * MS
T0 = 7 * S + 123


@dataclass(frozen=True)
class Take:
    grid: Grid
    ticks: int
    rule: CameraRule
    capture: np.ndarray
    known: np.ndarray


@st.composite
def takes(draw, max_frames=60) -> Take:
    rate = draw(st.sampled_from([(30, 1), (30_000, 1_001), (10, 1), (60, 1)]))
    grid = Grid(T0, *rate)
    camera_hz = draw(st.sampled_from([10, 15, 20, 25, 29.97, 30, 50, 60, 120]))
    period = int(S / camera_hz)
    kind = draw(st.sampled_from(FrameRule))
    rule = CameraRule.of(grid, period_ns=period, kind=kind)
    count = draw(st.integers(0, max_frames))
    phase = draw(st.integers(-3 * period, period))
    jitter = draw(st.sampled_from([0, MS, 5 * MS, period, 3 * period]))
    captures, now = [], T0 + phase
    for _ in range(count):
        fate = draw(st.sampled_from(["ok"] * 8 + ["lost", "long gap", "twice", "clock back"]))
        now += period * {"lost": 2, "long gap": 9, "twice": 0, "clock back": -1}.get(fate, 1)
        captures.append(now + draw(st.integers(-jitter, jitter)))
    delays = draw(
        st.lists(
            st.one_of(st.integers(0, 10 * MS), st.integers(0, 6 * period)),
            min_size=count, max_size=count,
        )
    )  # fmt: skip
    capture = np.array(captures, dtype=np.int64)
    known = np.maximum.accumulate(capture + np.array(delays, dtype=np.int64)) if count else capture
    ticks = draw(st.integers(0, 40))
    return Take(grid, ticks, rule, capture, known)


def live(
    take: Take, *, wakes: list[int] | None = None, first_row: int = 0, shown: int = -1
) -> CameraAlignment:
    """The same take through the incremental form, at given times of waking (default: many).

    first_row, shown: only from this row on, with the frames from `shown` on.
    """
    aligner = CameraAligner(take.grid, take.rule, first_row=first_row, shown=shown)
    end = take.grid.tick_ns(take.ticks) + 10 * take.rule.wait_ns
    times = sorted({*wakes, end}) if wakes is not None else _default_wakes(take, end)
    decisions, pushed = [], max(0, shown)
    for now in times:
        while pushed < len(take.capture) and take.known[pushed] <= now:
            aligner.push(pushed, int(take.capture[pushed]), int(take.known[pushed]))
            pushed += 1
        while aligner.k < take.ticks and (decision := aligner.decide(now)) is not None:
            decisions.append(decision)
    assert [d.k for d in decisions] == list(range(first_row, take.ticks))
    assert [d.tick_ns for d in decisions] == take.grid.ticks_ns(0, take.ticks)[first_row:].tolist()
    columns = [
        np.array([getattr(d, name) for d in decisions], dtype=np.int64)
        for name in ("source_index", "error_ns", "flags")
    ]
    return CameraAlignment(*columns)


def _default_wakes(take: Take, end: int) -> list[int]:
    deadlines = take.grid.ticks_ns(0, take.ticks) + take.rule.wait_ns + MS
    return sorted({*take.known.tolist(), *deadlines.tolist(), end})


def same(a, b) -> bool:
    fields = type(a).__dataclass_fields__
    return all(np.array_equal(getattr(a, f), getattr(b, f)) for f in fields)
