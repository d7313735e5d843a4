"""Whether a daemon may be restarted: only when nothing is recorded and no arm is driven. Pure."""

from collections.abc import Mapping
from typing import Any

RESTING = ("DISARMED", "FAULT")
"""States of motion in which no goal is written."""


def reasons_to_wait(status: Mapping[str, Any]) -> list[str]:
    """Why the daemon of this `status` must not be restarted now, in words; [] when it may."""
    reasons = []
    if episode := status.get("episode"):
        reasons.append(f"episode {episode['uid']} is being recorded")
    elif status.get("state") in ("RECORDING", "FINALIZING"):
        reasons.append("an episode is being recorded")
    if status.get("committing"):
        reasons.append(f"{len(status['committing'])} episode(s) are being saved")
    if (status.get("plan") or {}).get("active"):
        reasons.append("a plan is running")
    for pair, arm in status.get("arms", {}).items():
        state = arm.get("motion", {}).get("state", "DISARMED")
        if state not in RESTING:
            reasons.append(f"arm {pair} is in {state}")
    return reasons
