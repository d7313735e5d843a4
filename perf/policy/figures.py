"""From what was recorded while a policy drove to its figures. Pure: records and marks in.

Everything is read from the follower's own samples (every goal with the time at which it stood on
the wire) and from the gateway's log of chunks; marks are times of CLOCK_MONOTONIC.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recd.config.policy_streams import STATUSES
from recd.config.policy_wire import Status
from recd.config.streams import GoalSource, Motion
from recd.daemon.arms.motion import Cause
from recd.perf.figures import Floats, percentile, quantiles, ratio
from recd.perf.policy.reference import Reference
from recd.shm.clock import NS_PER_MS

Records = npt.NDArray[np.void]

PLAYED = STATUSES.index(Status.APPLIED)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which a policy of one latency drove. latency_ms: of an inference."""

    latency_ms: float
    from_ns: int
    to_ns: int


@dataclass(frozen=True, slots=True)
class Interruption:
    """A person interrupted the policy. asked_ns: command called; back_ns: before it was given
    back."""

    command: str
    asked_ns: int
    back_ns: int


@dataclass(frozen=True, slots=True)
class Freeze:
    """The policy's process was stopped (SIGSTOP). beat_ns: the last sign of life that the gateway
    heard; back_ns: before it was let go on."""

    beat_ns: int
    back_ns: int


def with_p90(values: npt.ArrayLike, *, scale: float = 1.0) -> dict[str, float | None]:
    """The usual quantiles and p90."""
    array = np.asarray(values, np.float64) / scale
    return {**quantiles(array), "p90": percentile(array, 0.9)}


def observed(told: Mapping[str, Any]) -> dict[str, Any]:
    """What `client.Asking` measured over one transport: ms of ours and of the plain socket's."""
    ours = with_p90(told["observed_ns"], scale=NS_PER_MS)
    floor = with_p90(told["floor_ns"], scale=NS_PER_MS)
    return {
        "ms": ours,
        "floor_ms": floor,
        "ratio_p50": ratio(ours["p50"], floor["p50"]),
        "ratio_p99": ratio(ours["p99"], floor["p99"]),
        "picture_age_ms": with_p90(told["age_ns"], scale=NS_PER_MS),
        "bytes": int(sum(told["sizes"])),
        "parts": len(told["sizes"]),
        "refused": told["refused"],
    }


def _on_the_wire(samples: Records) -> Records:
    return samples[samples["goal_written_ns"] > 0]


def _policys(samples: Records) -> Records:
    """Goals that the policy commanded; also on the way from where the arm stood."""
    wire = _on_the_wire(samples)
    return wire[wire["motion"] == Motion.POLICY]


def first_goals(samples: Records, chunks: Records, *, period_ns: int) -> dict[str, Any]:
    """Chunk received by the gateway -> its first goal on the wire.

    before: how many goals went out in between -> how often; unseen: chunks that were applied and
    had no goal, because a newer one or a hold came before their first.
    """
    goals, wire = _policys(samples), _on_the_wire(samples)
    numbers, first = np.unique(goals["chunk"], return_index=True)
    at_of = dict(zip(numbers.tolist(), goals["goal_written_ns"][first].tolist(), strict=True))
    played = chunks[chunks["status"] == PLAYED]
    inside = played[played["received_ns"] >= samples["request_ns"][0]] if len(samples) else played
    pairs = [(int(c["received_ns"]), at_of.get(int(c["chunk"]), 0)) for c in inside]
    seen = np.array([pair for pair in pairs if pair[1] > pair[0]], np.int64).reshape(-1, 2)
    written = wire["goal_written_ns"]
    before = np.searchsorted(written, seen[:, 1]) - np.searchsorted(written, seen[:, 0], "right")
    waits = (seen[:, 1] - seen[:, 0]).astype(np.float64)
    return {
        "ms": with_p90(waits, scale=NS_PER_MS),
        "periods": with_p90(waits, scale=period_ns),
        "before": {str(goals): count for goals, count in sorted(Counter(before.tolist()).items())},
        "unseen": len(pairs) - len(seen),
    }


def interruptions(
    samples: Records, marks: Sequence[Interruption], *, period_ns: int
) -> dict[str, Any]:
    """Command -> last goal that the policy commanded. Negative: that was before the command.

    heard_ms: -> the first tick that obeys; idle: commands that came while the policy did not drive,
    which are not judged.
    """
    goals = _policys(samples)
    each: dict[str, list[int]] = {}
    heard, idle = [], 0
    for mark in marks:
        times = goals["goal_written_ns"][goals["goal_written_ns"] < mark.back_ns]
        if not len(times) or times[-1] < mark.asked_ns - 2 * period_ns:
            idle += 1
            continue
        each.setdefault(mark.command, []).append(int(times[-1]) - mark.asked_ns)
        others = samples[(samples["request_ns"] > times[-1]) & (samples["motion"] != Motion.POLICY)]
        heard.append(int(others["request_ns"][0]) - mark.asked_ns)
    last = [wait for waits in each.values() for wait in waits]
    return {
        "ms": {name: quantiles(waits, scale=NS_PER_MS) for name, waits in each.items()},
        "last_goal_ms": quantiles(last, scale=NS_PER_MS),
        "periods": quantiles(last, scale=period_ns),
        "heard_ms": quantiles(heard, scale=NS_PER_MS),
        "idle": idle,
    }


def freezes(
    samples: Records, marks: Sequence[Freeze], *, heartbeat_ns: int, period_ns: int
) -> dict[str, Any]:
    """Last sign of life -> last goal that the policy commanded, and -> the arm's goals stand still.

    late_periods: by how much the former is later than the heartbeat's limit; causes: of the holds.
    """
    wire, last, still, causes = _on_the_wire(samples), [], [], Counter[str]()
    for mark in marks:
        inside = samples[(samples["request_ns"] > mark.beat_ns)
                         & (samples["request_ns"] < mark.back_ns)]  # fmt: skip
        held = inside[inside["motion"] != Motion.POLICY]
        causes[Cause(int(held["cause"][0])).name.lower() if len(held) else "none"] += 1
        goals = wire[(wire["goal_written_ns"] > mark.beat_ns)
                     & (wire["goal_written_ns"] < mark.back_ns)]  # fmt: skip
        commanded = goals[goals["motion"] == Motion.POLICY]
        if len(held) and len(commanded):
            last.append(int(commanded["goal_written_ns"][-1]) - mark.beat_ns)
            moved = np.flatnonzero((np.diff(goals["sent_raw"], axis=0) != 0).any(axis=1))
            at = int(moved[-1]) + 1 if len(moved) else 0
            still.append(int(goals["goal_written_ns"][at]) - mark.beat_ns)
    late = [wait - heartbeat_ns for wait in last]
    return {
        "last_goal_ms": quantiles(last, scale=NS_PER_MS),
        "still_ms": quantiles(still, scale=NS_PER_MS),
        "late_periods": quantiles(late, scale=period_ns),
        "causes": dict(causes),
    }


def tracking(
    samples: Records, chunks: Records, reference: Reference, stretch: Stretch, *,
    degrees: Sequence[bool], dt_ns: int,
) -> dict[str, Any]:  # fmt: skip
    """How far goals and arm were from the reference at their own times; degrees: which joints.

    arrival: what the same chunks would have given, had each been played from its arrival on.
    queue_empty: how often the arm held because nothing was planned any more.
    """
    inside = samples[(samples["request_ns"] >= stretch.from_ns)
                     & (samples["request_ns"] < stretch.to_ns)]  # fmt: skip
    goals = _policys(inside)
    goals = goals[goals["source"] == GoalSource.POLICY]
    columns = np.flatnonzero(degrees)
    sent = goals["sent"][:, columns] - reference.at(goals["goal_written_ns"])[:, columns]
    reached = inside["present"][:, columns] - reference.at(inside["sample_ns"])[:, columns]
    mine = chunks[(chunks["received_ns"] >= stretch.from_ns)
                  & (chunks["received_ns"] < stretch.to_ns)]  # fmt: skip
    played = mine[mine["status"] == PLAYED]
    return {
        "commanded_deg": _error(sent),
        "reached_deg": _error(reached),
        "arrival_deg": _error(_from_arrival(goals, played, reference, dt_ns)[:, columns]),
        "goals": len(goals),
        "held_share": float(np.mean(inside["motion"] != Motion.POLICY)) if len(inside) else 0.0,
        "queue_empty": _begun(inside, Cause.QUEUE_EMPTY),
        "chunks": len(mine),
        "statuses": dict(Counter(str(STATUSES[int(number)]) for number in mine["status"])),
        "margin_ms": quantiles(played["margin_ns"], scale=NS_PER_MS),
        "latency_ms": quantiles(played["received_ns"] - played["obs_ns"], scale=NS_PER_MS),
        "late_rows": quantiles(played["late"]),
    }


def _error(differences: Floats) -> dict[str, float | None]:
    """Root of the mean square, and the largest, of all joints; None where there is nothing."""
    known = np.asarray(differences, np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return {"rms": None, "max": None}
    return {"rms": float(np.sqrt(np.mean(known**2))), "max": float(np.abs(known).max())}


def _from_arrival(
    goals: Records, played: Records, reference: Reference, dt_ns: int
) -> npt.NDArray[np.float64]:
    """Error at the times of `goals`, had row k been played k steps after its chunk's arrival."""
    at = np.searchsorted(played["received_ns"], goals["goal_written_ns"], "right") - 1
    known, at = goals[at >= 0], at[at >= 0]
    times = known["goal_written_ns"]
    since_ns = times - played["received_ns"][at]
    row_ns = played["obs_ns"][at] + since_ns + dt_ns
    return np.asarray(reference.at(row_ns) - reference.at(times), np.float64)


def _begun(samples: Records, cause: Cause) -> int:
    """How often a hold of this cause began."""
    holds = (samples["motion"] == Motion.HOLD) & (samples["cause"] == cause)
    return int((holds & ~np.concatenate([[False], holds[:-1]])).sum())


def fastest_deg_s(reference: Reference, degrees: Sequence[bool]) -> float:
    """Largest speed of the reference, degrees per second: a time error costs that much a second."""
    each = zip(reference.reach, reference.rates_hz, degrees, strict=True)
    return float(max(np.pi * abs(reach) * rate for reach, rate, of_angle in each if of_angle))
