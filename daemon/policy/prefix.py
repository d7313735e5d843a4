"""What the arms will be told if no new chunk comes: the prefix of an observation. Pure.

Between two rows a goal moves linearly, so rows at the plans' own times say all of it, as long as no
limit of the arm holds it back. Pairs with different times are brought to the same ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recd.shm.clock import NS_PER_S

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

NOTHING_NS: Times = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Queue:
    """The plan of one pair. due_ns, goal: where the arm is told to be now, float64 [J], and when
    that is due; targets_ns: int64 [N], growing; rows: float64 [N, J], NaN where a joint holds;
    velocity: bool [N], rows that are velocities until their target; until_ns: nothing is played
    after; low, high: range of each joint.
    """

    due_ns: int
    goal: Floats
    targets_ns: Times
    rows: Floats
    velocity: npt.NDArray[np.bool_]
    until_ns: int
    low: Floats
    high: Floats


def prefix_of(queues: Mapping[str, Queue], widths: Mapping[str, int]) -> tuple[Times, Floats]:
    """(times, positions): int64 [N], growing, float64 [N, D], NaN where a pair has no plan (any
    more). The first row is what the arms are told now.

    widths: pair -> joints, in the order of the layout; queues: of those that play a plan.
    """
    paths = {pair: _path(queue) for pair, queue in queues.items()}
    begin_ns = max((times[0] for times, _ in paths.values()), default=0)
    whole = np.unique(np.concatenate([NOTHING_NS, *(times for times, _ in paths.values())]))
    whole = whole[whole >= begin_ns]
    columns = []
    for pair, width in widths.items():
        if pair not in paths:
            columns.append(np.full((len(whole), width), np.nan))
            continue
        times, places = paths[pair]
        columns.append(along(whole, times, places))
    return whole, np.concatenate(columns, axis=1)


def _path(queue: Queue) -> tuple[Times, Floats]:
    """Times and positions of one pair, from now to its last row, or to when it may not be played
    any more."""
    ahead = queue.targets_ns > queue.due_ns
    times = np.concatenate([[queue.due_ns], queue.targets_ns[ahead]])
    places = np.empty((len(times), len(queue.goal)))
    places[0] = queue.goal
    rows, velocity = queue.rows[ahead], queue.velocity[ahead]
    for k, row in enumerate(rows):
        here = places[k]
        # A joint that a row leaves out stays where it is told to be.
        asked = here + row * (times[k + 1] - times[k]) / NS_PER_S if velocity[k] else row
        places[k + 1] = np.clip(np.where(np.isnan(row), here, asked), queue.low, queue.high)
    if times[-1] <= queue.until_ns:
        return times, places
    end_ns = max(queue.until_ns, queue.due_ns)
    kept = times < end_ns
    last = along(np.array([end_ns], np.int64), times, places)
    return np.append(times[kept], end_ns), np.concatenate([places[kept], last])


def along(at_ns: Times, times: Times, places: Floats) -> Floats:
    """float64 [K, J]: positions at `at_ns`, linear between those of `times`, NaN beyond them."""
    if not len(times):
        return np.full((len(at_ns), places.shape[1]), np.nan)
    seconds = (at_ns - times[0]) / NS_PER_S  # nanoseconds of a clock lose digits as float64
    known = (times - times[0]) / NS_PER_S
    found = np.empty((len(at_ns), places.shape[1]))
    for joint in range(places.shape[1]):
        found[:, joint] = np.interp(seconds, known, places[:, joint], np.nan, np.nan)
    return found
