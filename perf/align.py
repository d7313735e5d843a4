"""The alignment kernel against pandas `merge_asof`: ten minutes of 250 Hz samples onto 30 Hz rows.

Also its growth with the samples, and the cost of a tick in the incremental form. Both must find the
same values; then they are timed in turn, from arrays to the same arrays. Beside it the merge alone,
of ready frames to a frame, and the floor. Needs pandas (`pip install 'recd[bench]'`).
"""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from recd.config.errors import RecdError
from recd.daemon.align.cameras import CameraAligner, CameraRule
from recd.daemon.align.grid import Grid
from recd.daemon.align.joints import JointAlignment, JointRule, align_joints, room
from recd.perf.figures import percentile, quantiles
from recd.perf.report import table
from recd.shm.clock import NS_PER_S, NS_PER_US, now_ns

SAMPLE_HZ, ROW_HZ, JOINTS = 250, 30, 6
MINUTES = 10
GROWTH_MINUTES = (1, 2, 5, 10, 20, 60)
GOAL_TIMES_FASTER = 20.0
GOAL_TICK_US = 5.0
JITTER_NS = 300_000

_FAR_NS = NS_PER_S
_T0_NS = 10**12

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

DIRECTIONS = {"backward": JointRule.HOLD, "nearest": JointRule.NEAREST}
"""`direction` of merge_asof -> the rule that means the same."""

ROW_RULES = (*[JointRule.INTERPOLATE] * (JOINTS - 1), JointRule.NEAREST)
"""As rows are made: joints on the line between their neighbours, the gripper from the nearest."""


def series(minutes: float) -> tuple[Int64s, Floats, Int64s]:
    """Sample times (jittered, rising), values [N, JOINTS] and row times of so many minutes."""
    draw = np.random.default_rng(7)
    count = round(minutes * 60 * SAMPLE_HZ)
    times = _T0_NS + np.arange(count, dtype=np.int64) * NS_PER_S // SAMPLE_HZ
    times = times + draw.integers(-JITTER_NS, JITTER_NS, count)
    values = draw.normal(0, 40, (count, JOINTS)).astype(np.float32)
    rows = Grid(_T0_NS + NS_PER_S // 10, ROW_HZ).ticks_ns(0, round(minutes * 60 * ROW_HZ) - 6)
    return times, values, rows


def measure(*, repeats: int) -> dict[str, Any]:
    """All figures. RecdError without pandas, or when both do not find the same values."""
    if importlib.util.find_spec("pandas") is None:
        raise RecdError(
            "expected pandas to compare with, found none",
            mend="Run: pip install 'recd[bench]'", code="no_pandas",
        )  # fmt: skip
    times, values, rows = series(MINUTES)
    compared = {
        f"{name}, {count} value{'s' if count > 1 else ''}": against_pandas(
            times, values[:, :count], rows, direction=name, repeats=repeats
        )
        for name in DIRECTIONS
        for count in (1, JOINTS)
    }
    compared["as rows are made, 6 values"] = rows_against_pandas(
        times, values, rows, repeats=repeats
    )
    grown = growth(repeats)
    return {
        "samples": len(times),
        "rows": len(rows),
        "against_pandas": compared,
        "growth": grown,
        "growth_exponent": exponent(grown),
        "tick_us": {"camera": incremental_us(), "joints": joints_live_us()},
    }


def kernel(
    times: Int64s, values: Floats, rows: Int64s, rules: Sequence[JointRule]
) -> Callable[[], JointAlignment]:
    """A call of our kernel into memory of its own, which each call uses again; every sample is
    valid."""
    memory = room(len(rows), len(rules))
    return lambda: align_joints(
        times, values, None, rows, rules=rules, reach_ns=_FAR_NS, out=memory
    )


def floor(times: Int64s, values: Floats, rows: Int64s) -> Callable[[], None]:
    """What no kernel can leave out: read every time (one cache line holds eight, a row passes
    eight), and copy the values of each row, whose sample is known here without a search."""
    known = np.searchsorted(times, rows, side="right") - 1
    found = np.empty((len(rows), values.shape[1]), np.float32)

    def work() -> None:
        times.sum()
        values.take(known, axis=0, out=found, mode="clip")

    return work


def against_pandas(
    times: Int64s, values: Floats, rows: Int64s, *, direction: str, repeats: int
) -> dict[str, float]:
    """Time (ms) of both for all columns of `values`, and their ratio. RecdError when they differ.

    Both make, from arrays: values, which sample each is, how far off, and whether within reach.
    """
    import pandas as pd

    names = [f"j{joint}" for joint in range(values.shape[1])]
    rules = [DIRECTIONS[direction]] * len(names)
    values = np.ascontiguousarray(values)
    left = pd.DataFrame({"t": rows})
    right = pd.DataFrame(values, columns=names).assign(t=times)

    def alone() -> Any:
        return pd.merge_asof(left, right, on="t", direction=direction)

    def merged() -> Any:
        right = pd.DataFrame(values, columns=names)
        right["t"], right["at"], right["source"] = times, times, np.arange(len(times))
        found = pd.merge_asof(
            pd.DataFrame({"t": rows}), right, on="t", direction=direction, tolerance=_FAR_NS
        )
        off, source = found["at"].to_numpy() - rows, found["source"].to_numpy()
        return found[names].to_numpy(np.float32), source, off, ~np.isnan(off)

    ours = kernel(times, values, rows, rules)
    made, found = ours(), merged()
    wanted: tuple[Any, ...] = (
        made.values, made.source[:, 0], made.error_ns[:, 0], made.valid[:, 0]
    )  # fmt: skip
    if not all(np.array_equal(one, other) for one, other in zip(wanted, found, strict=True)):
        raise RecdError(f"alignment, {direction}: the kernel and pandas find different values")
    return _ratio(ours, merged, alone, floor(times, values, rows), repeats=repeats)


def rows_against_pandas(
    times: Int64s, values: Floats, rows: Int64s, *, repeats: int
) -> dict[str, float]:
    """The same for what rows need: both neighbours, values between them, and how far off they are.

    pandas finds both neighbours with two merges; what follows is numpy. RecdError when values
    differ by more than rounding.
    """
    import pandas as pd

    names = [f"j{joint}" for joint in range(JOINTS)]
    ready = pd.DataFrame({"t": rows}), pd.DataFrame(values, columns=names).assign(t=times)

    def alone() -> Any:
        return [pd.merge_asof(*ready, on="t", direction=way) for way in ("backward", "forward")]

    def merged() -> Any:
        left, right = pd.DataFrame({"t": rows}), pd.DataFrame(values, columns=names)
        right["t"], right["at"], right["source"] = times, times, np.arange(len(times))
        before = pd.merge_asof(left, right, on="t", direction="backward")
        after = pd.merge_asof(left, right, on="t", direction="forward")
        early = before["at"].to_numpy() - rows
        late = after["at"].to_numpy() - rows
        older, newer = before[names].to_numpy(), after[names].to_numpy()
        span = np.maximum(late - early, 1)
        between = older + (newer - older) * (-early / span)[:, None]
        between[:, -1] = np.where(late < -early, newer[:, -1], older[:, -1])
        off = np.where(late > -early, late, early)
        valid = (late - early <= _FAR_NS) & (np.abs(off) <= _FAR_NS)
        return between.astype(np.float32), before["source"].to_numpy(), off, valid

    ours = kernel(times, values, rows, ROW_RULES)
    if not np.allclose(merged()[0], ours().values, atol=1e-3):
        raise RecdError("alignment of rows: the kernel and pandas find different values")
    return _ratio(ours, merged, alone, floor(times, values, rows), repeats=repeats)


def _ratio(
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    alone: Callable[[], Any],
    bare: Callable[[], Any],
    *,
    repeats: int,
) -> dict[str, float]:
    """Medians (ms) of all, timed in turn, and of the ratios of each turn. Ours and the floor run
    after a merge each: both find the caches as pandas left them."""
    works = (theirs, ours, alone, bare)
    turns = np.array([[_took_ms(work) for work in works] for _ in range(repeats + 1)][1:])
    pandas_ms, kernel_ms, merge_ms, floor_ms = turns.T
    return {
        "kernel_ms": float(np.median(kernel_ms)),
        "pandas_ms": float(np.median(pandas_ms)),
        "merge_ms": float(np.median(merge_ms)),
        "floor_ms": float(np.median(floor_ms)),
        "times_faster": float(np.median(pandas_ms / kernel_ms)),
        "times_faster_than_merge": float(np.median(merge_ms / kernel_ms)),
        "times_floor": float(np.median(kernel_ms / floor_ms)),
    }


def growth(repeats: int) -> list[dict[str, float]]:
    """Time of the kernel over longer and longer takes; linear: `ns_per_sample` stays."""
    told = []
    for minutes in GROWTH_MINUTES:
        times, values, rows = series(minutes)
        once = kernel(times, values, rows, ROW_RULES)
        took_ms = _middle([_took_ms(once) for _ in range(repeats + 1)][1:])
        told.append({"minutes": minutes, "samples": len(times), "ms": took_ms,
                     "ns_per_sample": took_ms * 1e6 / len(times)})  # fmt: skip
    return told


def exponent(grown: Sequence[dict[str, float]]) -> float:
    """e of time ~ samples ** e, by least squares over the logarithms; linear is 1."""
    samples = np.log([one["samples"] for one in grown])
    return float(np.polyfit(samples, np.log([one["ms"] for one in grown]), 1)[0])


def incremental_us() -> dict[str, float | None]:
    """Time (us) of one row decided live: a frame pushed and a decision taken."""
    grid = Grid(_T0_NS, ROW_HZ)
    aligner = CameraAligner(grid, CameraRule.of(grid))
    took = []
    for number in range(MINUTES * 60 * ROW_HZ):
        capture = grid.tick_ns(number) + 3_000_000
        began = now_ns()
        aligner.push(number, capture, capture)
        decision = aligner.decide(capture + NS_PER_S)
        took.append(now_ns() - began)
        assert decision is not None
    return quantiles(took, scale=NS_PER_US)


LIVE_ROWS = 3
"""Rows that the writer finds decided at once when it looks ten times a second at 30 Hz."""


def joints_live_us() -> dict[str, float | None]:
    """Time (us) of one row's joints when the writer decides them `LIVE_ROWS` at a time, from the
    samples around these rows, result memory and all that the writer reads of it included."""
    times, values, rows = series(1)
    valid = np.ones(values.shape, np.bool_)
    took = []
    for first in range(0, len(rows) - LIVE_ROWS, LIVE_ROWS):
        due = rows[first : first + LIVE_ROWS]
        low, high = np.searchsorted(times, (due[0], due[-1])) + np.array((-2, 2))
        began = now_ns()
        got = align_joints(
            times[low:high], values[low:high], valid[low:high], due, rules=ROW_RULES,
            reach_ns=_FAR_NS,
        )  # fmt: skip
        _ = got.valid, got.error_ns, got.source
        took.append((now_ns() - began) / LIVE_ROWS)
    return quantiles(took, scale=NS_PER_US)


def _took_ms(work: Callable[[], Any]) -> float:
    began = now_ns()
    work()
    return (now_ns() - began) / 1e6


def _middle(values: Sequence[float]) -> float:
    return percentile(values, 0.5) or 0.0


def show(told: dict[str, Any], screen: Console) -> None:
    """Print what `measure` found."""
    made = table(
        f"{MINUTES} minutes of {SAMPLE_HZ} Hz onto {ROW_HZ} Hz, ms", "rule", "kernel", "pandas",
        "times faster", "merge alone", "times faster", "floor",
    )  # fmt: skip
    for name, one in told["against_pandas"].items():
        made.add_row(
            name, f"{one['kernel_ms']:.3f}", f"{one['pandas_ms']:.3f}",
            f"{one['times_faster']:.1f}", f"{one['merge_ms']:.3f}",
            f"{one['times_faster_than_merge']:.1f}", f"{one['floor_ms']:.3f}",
        )  # fmt: skip
    screen.print(made)
    grown = table("longer takes, as rows are made", "minutes", "samples", "ms",
                  "ns a sample")  # fmt: skip
    for one in told["growth"]:
        grown.add_row(f"{one['minutes']:g}", f"{one['samples']}", f"{one['ms']:.2f}",
                      f"{one['ns_per_sample']:.2f}")  # fmt: skip
    screen.print(grown)
    screen.print(f"time grows with samples ** {told['growth_exponent']:.2f} (1: linear)")
    screen.print(f"goals: {GOAL_TIMES_FASTER:g} times faster, {GOAL_TICK_US:g} us a row live")
    for name, tick in told["tick_us"].items():
        screen.print(f"a row decided live, {name}: {tick['p50']:.1f} us, p99 {tick['p99']:.1f}, "
                     f"p99.9 {tick['p99_9']:.1f}")  # fmt: skip
