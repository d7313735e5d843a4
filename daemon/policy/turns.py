"""Joints that turn all the way round: a plan's rows continued over the seam, nearest to the arm.

Pure. -179 degrees after 179 is 181: taken as it stands, the way between two such rows is a whole
turn back. No joint turns half a turn from one row to the next.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import inf, isnan

from recd.daemon.policy.playback import Plan


def continued(plan: Plan, turns: Sequence[float], near: Sequence[float], at_ns: int) -> Plan:
    """The plan with such joints unrolled, whatever its rows called their places.

    turns: units per turn of each joint, inf for those that have no seam; near: where the arm is
    told to be at `at_ns`, NaN not known: the row that is due then has the turn nearest to it.
    """
    if plan.velocity or not plan.targets_ns or all(turn == inf for turn in turns):
        return plan
    rows = [list(row) for row in plan.rows]
    due = next((k for k, due_ns in enumerate(plan.targets_ns) if due_ns >= at_ns), len(rows) - 1)
    for joint, turn in enumerate(turns):
        if turn == inf or isnan(rows[0][joint]):
            continue
        for k in range(1, len(rows)):
            rows[k][joint] = _nearest(rows[k][joint], rows[k - 1][joint], turn)
        if not isnan(near[joint]):
            shift = _nearest(rows[due][joint], near[joint], turn) - rows[due][joint]
            for row in rows:
                row[joint] += shift
    return replace(plan, rows=rows)


def _nearest(place: float, to: float, turn: float) -> float:
    """The same place, whole turns away, that lies nearest; one that lies near stays bit for bit."""
    apart = round((to - place) / turn)
    return place + apart * turn if apart else place


def within(place: float, low: float, turn: float) -> float:
    """The same place as the joint itself would be read: in the turn that begins at `low`."""
    if turn == inf or low <= place < low + turn:
        return place
    return low + (place - low) % turn
