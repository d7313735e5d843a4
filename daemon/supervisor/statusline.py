"""The one line that `systemctl status` shows: what the daemon does now and what is wrong. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

LONGEST = 240
"""Characters; the reason of a fault may be longer, and its end matters least."""


def starting_line(waiting_for: Sequence[str]) -> str:
    """Before READY: what is still awaited. The writer recovers an earlier session."""
    if "writer" in waiting_for:
        return "starting: recovering what an earlier session left"
    return _cut(f"starting: waiting for {', '.join(waiting_for)}" if waiting_for else "starting")


def status_line(brief: Mapping[str, Any]) -> str:
    """From the part of `status` that changes all the time.

    READY; arms TELEOP; degraded: camera:wrist
    """
    parts = [_doing(brief)]
    if brief["fault"]:
        parts.append(str(brief["fault"]))
    elif brief["waiting_for"]:
        parts.append(f"waiting for {', '.join(brief['waiting_for'])}")
    if arms := _arms(brief["arms"]):
        parts.append(f"arms {arms}")
    if brief["degraded"]:
        parts.append(f"degraded: {', '.join(brief['degraded'])}")
    if brief["flags"].get("low_disk"):
        parts.append("disk nearly full")
    if brief["committing"]:
        parts.append(f"saving {len(brief['committing'])}")
    return _cut("; ".join(parts))


def _doing(brief: Mapping[str, Any]) -> str:
    if brief["stage"] != "running":
        return "ending: saving the last episode" if brief["stage"] == "finishing" else "ending"
    episode = brief["episode"]
    return f"{brief['state']} {episode['uid']}" if episode else str(brief["state"])


def _arms(arms: Mapping[str, Any]) -> str:
    """`TELEOP`, or `left TELEOP, right HOLD` for two pairs."""
    words = {pair: arm["motion"].get("state", "away") for pair, arm in arms.items()}
    if len(words) == 1:
        return str(next(iter(words.values())))
    return ", ".join(f"{pair} {word}" for pair, word in words.items())


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
