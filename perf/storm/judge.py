"""What an episode lost by each of the faults that met it. Pure: takes what was seen."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from recd.daemon.dataset.survey import EpisodeFacts
from recd.perf.storm.fault import Outcome
from recd.perf.storm.injection import Draft, Running
from recd.perf.storm.invariants import PERIOD_NS
from recd.shm.clock import NS_PER_MS

Flags = Mapping[str, np.ndarray[Any, Any]]


def tail_ms(draft: Draft, running: Running, episode: EpisodeFacts) -> float:
    """Milliseconds between the last row and when the episode should have ended: at the fault that
    ended it, or at the stop; less what encoders were behind before it."""
    last_ns = running.t0_ns + episode.length * PERIOD_NS
    died = draft.fault.outcome in (Outcome.DAEMON_DIES, Outcome.SAVED_LATER, Outcome.ENDS)
    by_itself = draft.fault.outcome is Outcome.EITHER and draft.ended not in ("", "stop")
    end_ns = draft.at_ns if died or by_itself or not draft.ended_ns else draft.ended_ns
    return max(0.0, (end_ns - last_ns) / NS_PER_MS - draft.behind_ms)


def ring_loss_ms(before: Mapping[str, int], now: Mapping[str, int]) -> float:
    """Milliseconds of frames that readers which must keep all have lost meanwhile."""
    frames = [
        count - before.get(ring, 0) for ring, count in now.items() if ring.startswith("cam.")
    ]  # fmt: skip
    return max([0, *frames]) * PERIOD_NS / NS_PER_MS


def outage_ms(draft: Draft, running: Running, without: Flags) -> float:
    """Milliseconds of rows without a picture of their own, of the worst camera, from this fault to
    the next one. without: camera -> bool [rows]."""
    first = max(0, (draft.at_ns - running.t0_ns) // PERIOD_NS)
    later = [other.at_ns for other in running.drafts if other.at_ns > draft.at_ns]
    end = (min(later) - running.t0_ns) // PERIOD_NS if later else None
    rows = max([0, *(int(flags[first:end].sum()) for flags in without.values())])
    return rows * PERIOD_NS / NS_PER_MS


def too_much(draft: Draft) -> list[str]:
    """The finding that more was lost than is allowed, if it is so."""
    allowed = draft.fault.loss_ms
    if draft.loss_ms is None or allowed is None or draft.loss_ms <= allowed + 1:
        return []
    return [f"lost {draft.loss_ms:.0f} ms, {allowed:.0f} ms are allowed"]
