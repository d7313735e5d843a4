"""What the operator reads of a fault: events, the reason of a state, the words of a verdict."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from recd.perf.storm.injection import Draft

_HIDDEN: Final = frozenset({
    "topic", "seq", "t_ns", "event", "level", "code", "wanted", "phase", "summary", "ty", "v",
    "sid",
})  # fmt: skip
LINE: Final = 200


def worth_reading(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Warnings, errors and faults among what the daemon published, in words."""
    return [
        in_words(message)
        for message in messages
        if message["topic"] == "fault" or message.get("level") in ("warning", "error")
    ]


def in_words(message: Mapping[str, Any]) -> str:
    """One event as a line."""
    told = {
        key: value
        for key, value in message.items()
        if key not in _HIDDEN and value not in ("", None, {}, [])
    }
    inner = told.pop("fields", {})
    facts = ", ".join(f"{key} {value}" for key, value in {**told, **inner}.items())
    return f"{message.get('event', '')}: {facts}"[:LINE]


def of_status(status: Mapping[str, Any]) -> list[str]:
    """Why the session is in its state."""
    fault = [f"FAULT: {status['fault']}"] if status.get("fault") else []
    return [str(why) for why in status.get("why", ())] + fault


def of_reply(reply: Mapping[str, Any]) -> list[str]:
    """Why an episode ended, and the words of its verdict."""
    reason = reply.get("end_reason")
    ended = [f"episode ended: {reason}"] if reason not in (None, "", "stop") else []
    return ended + of_verdict(reply)


def of_verdict(told: Mapping[str, Any]) -> list[str]:
    """The reasons of a verdict, of a reply or of a manifest."""
    reasons = (told.get("verdict") or {}).get("reasons", ())
    return [str(reason.get("words", reason)) for reason in reasons]


def silence(draft: Draft) -> list[str]:
    """The finding that the operator read nothing of the fault, if it is so."""
    wanted = draft.fault.reads
    if not wanted or any(word in line for word in wanted for line in draft.read):
        return []
    return [f"the operator read nothing of {' or '.join(wanted)}"]
