"""What a loss does to the session: one table, walked again at every turn of the loop. Pure.

Whether a process is started again is its restart policy's business; here is only what its absence
means meanwhile, and what it means once it was given up.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from recd.daemon.supervisor.processes import Required


class Loss(StrEnum):
    """How a process fails its duty."""

    STARTING = "starting"  # never was there yet
    ABSENT = "absent"  # ended, starting again, or its device is away
    GIVEN_UP = "given_up"  # its restart window is used up
    SPENT = "spent"  # a step source whose every step is a row: no fault, but nothing more comes


class Action(StrEnum):
    """What the session does about it."""

    NOTE = "note"  # the operator is told, nothing else
    DEGRADE = "degrade"  # the flag `degraded` with the name; the episode is marked
    END_EPISODE = "end_episode"  # the running episode is ended and kept
    FAULT = "fault"  # the session is in FAULT until `reset`


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: kind of process ("" any) and what it is required for (None any)."""

    kind: str
    required: Required | None
    loss: Loss
    idle: Action
    recording: Action


FAILURES: Final[tuple[Row, ...]] = (
    Row("", None, Loss.STARTING, Action.NOTE, Action.NOTE),
    # The recording ends its episode with the last step (steps.py).
    Row("", None, Loss.SPENT, Action.NOTE, Action.NOTE),
    # An arm that was away is never driven on by itself, so its episode is over.
    Row("arm", Required.EPISODE, Loss.ABSENT, Action.DEGRADE, Action.END_EPISODE),
    Row("arm", Required.EPISODE, Loss.GIVEN_UP, Action.FAULT, Action.FAULT),
    # Rings outlive their consumers: an encoder goes on where it stopped.
    Row("encoder", Required.EPISODE, Loss.ABSENT, Action.DEGRADE, Action.DEGRADE),
    Row("encoder", Required.EPISODE, Loss.GIVEN_UP, Action.FAULT, Action.FAULT),
    # So does a writer: from its logs in staging and from the rings.
    Row("writer", Required.ALL, Loss.ABSENT, Action.DEGRADE, Action.DEGRADE),
    Row("writer", Required.ALL, Loss.GIVEN_UP, Action.FAULT, Action.FAULT),
    Row("sim", Required.ALL, Loss.ABSENT, Action.DEGRADE, Action.END_EPISODE),
    Row("sim", Required.ALL, Loss.GIVEN_UP, Action.FAULT, Action.FAULT),
    # Cameras and everything else: by what they are required for.
    Row("", Required.ALL, Loss.ABSENT, Action.DEGRADE, Action.END_EPISODE),
    Row("", Required.ALL, Loss.GIVEN_UP, Action.FAULT, Action.FAULT),
    Row("", Required.EPISODE, Loss.ABSENT, Action.DEGRADE, Action.END_EPISODE),
    Row("", Required.EPISODE, Loss.GIVEN_UP, Action.FAULT, Action.FAULT),
    Row("", Required.MARK, Loss.ABSENT, Action.DEGRADE, Action.DEGRADE),
    Row("", Required.MARK, Loss.GIVEN_UP, Action.FAULT, Action.DEGRADE),
    Row("", Required.NOTHING, Loss.ABSENT, Action.NOTE, Action.NOTE),
    Row("", Required.NOTHING, Loss.GIVEN_UP, Action.DEGRADE, Action.DEGRADE),
)
"""First row that fits decides."""


@dataclass(frozen=True, slots=True)
class Absence:
    """One process that does not do its duty now. why: in words for the operator."""

    process: str
    kind: str
    required: Required
    loss: Loss
    why: str


def action_for(absence: Absence, *, recording: bool) -> Action:
    """What to do about one absence."""
    for row in FAILURES:
        if (
            row.loss is absence.loss
            and row.kind in ("", absence.kind)
            and row.required in (None, absence.required)
        ):
            return row.recording if recording else row.idle
    raise AssertionError(f"no row for {absence}: the table above is not complete")


@dataclass(frozen=True, slots=True)
class Consequences:
    """What all absences together mean. why: one reason in words for each of waiting_for;
    fault, end_episode: reasons in words, "" none."""

    degraded: frozenset[str]
    waiting_for: tuple[str, ...]
    why: tuple[str, ...]
    end_episode: str
    fault: str


def consequences(absences: Iterable[Absence], *, recording: bool) -> Consequences:
    """Walk the table for everything that is away now; what is only starting is waited for."""
    degraded: set[str] = set()
    waiting: dict[str, str] = {}
    end, fault = "", ""
    for absence in absences:
        action = action_for(absence, recording=recording)
        if absence.required is not Required.NOTHING:
            waiting[absence.process] = f"{absence.process} ({absence.why})"
        if action is not Action.NOTE:
            degraded.add(absence.process)
        text = f"{absence.process}: {absence.why}"
        if action is Action.END_EPISODE:
            end = end or text
        if action is Action.FAULT:
            fault = fault or text
    return Consequences(frozenset(degraded), tuple(waiting), tuple(waiting.values()), end, fault)
