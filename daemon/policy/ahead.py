"""Joints that have to be told earlier than the others of their pair: their columns of a plan are
moved ahead, once, when it comes. Pure. What lies between two rows is taken at the rows' times.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from recd.daemon.policy.playback import Plan

Floats = npt.NDArray[np.float64]


def ahead(plan: Plan, more_ns: Sequence[int]) -> Plan:
    """The plan with each joint so much earlier; the last row stays the last, and holds.

    more_ns: per joint, beyond what the whole pair is told earlier by.
    """
    if not any(more_ns) or not plan.targets_ns:
        return plan
    times = np.array(plan.targets_ns, np.int64) - plan.targets_ns[0]
    rows = np.array(plan.rows, np.float64)
    moved = _velocities if plan.velocity else _positions
    for joint, more in enumerate(more_ns):
        if more:
            rows[:, joint] = moved(times, rows[:, joint], more, plan.dt_ns)
    return replace(plan, rows=rows.tolist())


def _positions(times: npt.NDArray[np.int64], column: Floats, more_ns: int, dt_ns: int) -> Floats:
    del dt_ns
    return np.interp(times + more_ns, times, column)


def _velocities(times: npt.NDArray[np.int64], column: Floats, more_ns: int, dt_ns: int) -> Floats:
    """The mean velocity of each row's time, later by `more_ns`: no way is lost or added but what
    lies before the plan."""
    edges = np.concatenate([[times[0] - dt_ns], times])
    length = np.diff(edges)
    way = np.concatenate([[0.0], np.cumsum(column * length)])
    return np.diff(np.interp(edges + more_ns, edges, way)) / length
