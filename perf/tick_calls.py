"""The system calls that one tick of a control loop makes, listed: which, how often, and why.

Calls of real processes are judged against this list tick by tick. Limit: the reply of the servos
comes in as many pieces as the line makes of it, at most one a servo; each piece is one look and
one read. Pure.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from recd.config.models import RobotConfig
from recd.daemon.arms.leader import every
from recd.daemon.supervisor.processes import process_table

LEADER, FOLLOWER = "leader", "follower"

TICK_CALL: Final = "poll"
"""Made once in each tick, by the loop itself: from one to the next is one tick."""

PIECE_CALL: Final = "read"

MOST_OTHER_PERCENT = 1.0
"""Goal. The others are ticks of a computer that woke us late: a sleep is left out, a wait added."""


@dataclass(frozen=True, slots=True)
class Call:
    """One row. count: in each tick; per_piece: for each piece of the servos' reply; check: in ticks
    that ask for the servos' torque apart; early: once for each request whose sleep ended before the
    first piece was there, so nought or one; seldom: known, but a tick that makes it is one of the
    others."""

    name: str
    why: str
    count: int = 0
    per_piece: int = 0
    check: int = 0
    early: int = 0
    seldom: bool = False
    roles: tuple[str, ...] = (LEADER, FOLLOWER)


CALLS: Final[tuple[Call, ...]] = (
    Call("clock_nanosleep", "asleep until the tick", 1),
    Call("poll", "has the supervisor sent a command?", 1),
    Call("ppoll", "is there old input to throw away before the request?", 1, check=1),
    Call("write", "the request to the servos", 1, check=1),
    Call("clock_nanosleep", "asleep until shortly before the last reply is due", 1, check=1),
    Call("ppoll", "wait or look for a piece of the reply", 0, 1),
    Call("read", "a piece of the reply", 0, 1),
    Call("ppoll", "a look on waking, before there is a piece", early=1),
    Call("pselect6", "replies that are late or damaged, by the SDK", seldom=True),
    Call("write", "the goals to the servos, which answer nothing", 1, roles=(FOLLOWER,)),
)
"""Beside these each process that sleeps until the loop's rings have news (the policies' gateway) is
woken by one `write` a record (`doorbells`). What has no row is not made: no allocation's `brk` or
`mmap`, no `futex`, no log."""


@dataclass(frozen=True, slots=True)
class Doorbells:
    """Who is woken by one loop. sample: process names, at each tick; telemetry: the same, at one
    tick in `telemetry_every`."""

    sample: tuple[str, ...]
    telemetry: tuple[str, ...]
    telemetry_every: int


def doorbells(robot: RobotConfig, bus: str) -> Doorbells:
    """From the table of processes: who is not in it, or looks by itself, is not woken. bus:
    `main.leader`."""
    pair = robot.arms[bus.partition(".")[0]]
    rows = process_table(robot)

    def readers(stream: str) -> tuple[str, ...]:
        return tuple(row.name for row in rows if row.wants.woken and stream in row.wants.rings_read)

    return Doorbells(readers(f"arm.{bus}"), readers(f"telemetry.{bus}"),
                     every(pair.rate_hz, pair.telemetry_hz))  # fmt: skip


def expected(
    role: str, bells: Doorbells, *, pieces: int = 1, telemetry: bool = False, check: bool = False,
    early: int = 0,
) -> dict[str, int]:  # fmt: skip
    """Calls of one tick by name, for so many pieces of the reply. check: of a follower whose line
    has no time for torque in the same request, so that it asks for it apart a few times a second;
    early: sleeps that ended before there was a piece."""
    calls: Counter[str] = Counter()
    for call in CALLS:
        if role in call.roles:
            calls[call.name] += (
                call.count + call.per_piece * pieces + call.check * check + call.early * early
            )
    calls["write"] += len(bells.sample) + (len(bells.telemetry) if telemetry else 0)
    return {name: count for name, count in calls.items() if count}


def split(calls: Iterable[str]) -> list[Counter[str]]:
    """The calls of a loop in their order, as ticks; what lies before the first and after the last
    `TICK_CALL` is left out."""
    ticks: list[Counter[str]] = []
    for name in calls:
        if name == TICK_CALL:
            ticks.append(Counter())
        if ticks:
            ticks[-1][name] += 1
    return ticks[:-1]


def judge(
    ticks: Sequence[Mapping[str, int]], role: str, bells: Doorbells, *, servos: int
) -> dict[str, Any]:
    """What the ticks made, against the list. Keys: list (rows for people), ticks, listed_percent,
    pieces (how many -> ticks), others (calls more or fewer than listed, in words -> ticks),
    unlisted (name -> calls)."""
    pieces: Counter[int] = Counter()
    others: Counter[str] = Counter()
    unlisted: Counter[str] = Counter()
    names = {call.name for call in CALLS if role in call.roles}
    for tick in ticks:
        count = tick.get(PIECE_CALL, 0)
        unlisted.update({name: n for name, n in tick.items() if name not in names})
        kinds = [
            expected(role, bells, pieces=max(1 + check, min(count, servos * (1 + check))),
                     telemetry=telemetry, check=check, early=early)
            for check in ((False, True) if role == FOLLOWER else (False,))
            for telemetry in (False, True)
            for early in range(2 + check)
        ]  # fmt: skip
        if dict(tick) in kinds:
            pieces[count] += 1
        else:
            others[_difference(tick, kinds[0])] += 1
    listed = sum(pieces.values())
    percent = 100.0 * listed / len(ticks) if ticks else 0.0
    return {
        "list": listing(role, bells), "ticks": len(ticks), "listed_percent": percent,
        "pieces": {str(count): n for count, n in sorted(pieces.items())},
        "others": dict(others.most_common()), "unlisted": dict(unlisted.most_common()),
    }  # fmt: skip


def listing(role: str, bells: Doorbells) -> list[dict[str, str]]:
    """The list for one loop, doorbells included. Keys: name, times, why."""
    rows = []
    for call in CALLS:
        if role in call.roles:
            times = (
                f"{call.count}" if call.count else "0 or 1" if call.early
                else "in no ordinary tick" if call.seldom else "1 a piece"
            )  # fmt: skip
            if call.check and role == FOLLOWER:
                times += f", +{call.check} in ticks that ask for torque apart"
            rows.append({"name": call.name, "times": times, "why": call.why})
    rows += [{"name": "write", "times": "1", "why": f"doorbell of {name}: a sample"}
             for name in bells.sample]  # fmt: skip
    rows += [{"name": "write", "times": f"1 in {bells.telemetry_every} ticks",
              "why": f"doorbell of {name}: telemetry"} for name in bells.telemetry]  # fmt: skip
    return rows


def _difference(tick: Mapping[str, int], listed: Mapping[str, int]) -> str:
    names = sorted({*tick, *listed})
    found = ((name, tick.get(name, 0) - listed.get(name, 0)) for name in names)
    return ", ".join(f"{name} {more:+d}" for name, more in found if more)
