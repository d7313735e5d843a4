"""The fault matrix as a table, by the sections of docs/reliability.md, and how bouts are drawn.

A bout is up to `MOST` faults in one episode; only the last may end it. Faults of disks, clocks and
memory stand with what makes them (disks.py, shims.py, memory.py): they need rights or a compiler.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from recd.perf.storm.devices import (
    clear_bus,
    clear_cameras,
    picture,
    plug_elsewhere,
    unplug,
    wire,
    wrong_size_after_reconnect,
)
from recd.perf.storm.disks import BREAK_FAULTS, DISK_FAULTS, may_break, may_mount
from recd.perf.storm.edits import bring_back, discard_killed, edit_killed, undo_killed
from recd.perf.storm.fault import SECOND_MS, Fault, Heal, Outcome, Strike
from recd.perf.storm.gateways import DRIVEN, follow_the_leader
from recd.perf.storm.memory import MEMORY_FAULTS, may_limit
from recd.perf.storm.processes import (
    POINTS_AT_STOP,
    POINTS_OF_SUPERVISOR,
    POINTS_RECORDING,
    die_and_die_in_recovery,
    die_at,
    die_at_resume,
    dies_every_time,
    give_files_back,
    go_on,
    hog_processors,
    kill_as_it_begins,
    kill_everything,
    kill_fork_server,
    kill_supervisor,
    kill_while_arming,
    kill_while_gliding,
    kill_while_saving,
    kill_worker,
    reset,
    send,
    send_to_all,
    stop_everything,
    stop_worker,
    stuck_clients,
    until_killed,
    use_up_files,
)
from recd.perf.storm.settings import POLICY, SETTINGS, STRICT, Setting
from recd.perf.storm.shims import SHIM_FAULTS, may_preload

MOST: Final = 8

KILLS: Final[tuple[Fault, ...]] = (
    Fault("supervisor killed", 1, kill_supervisor, Outcome.DAEMON_DIES, SECOND_MS),
    Fault("everything killed", 1, kill_everything, Outcome.DAEMON_DIES, SECOND_MS),
    Fault("everything killed, recovery killed too", 1, die_and_die_in_recovery,
          Outcome.DAEMON_DIES, SECOND_MS),
    Fault("supervisor killed at a named point", 1, die_at(POINTS_OF_SUPERVISOR),
          Outcome.AT_STOP, SECOND_MS),
    Fault("killed at a named point while saving", 1, die_at(POINTS_AT_STOP), Outcome.AT_STOP,
          weight=2),
    Fault("a worker killed while the episode is saved", 1, kill_while_saving, Outcome.AT_STOP,
          heal=until_killed, until_end=True, rearms=True, weight=2),
    Fault("killed at a named point while an episode begins", 1, kill_as_it_begins,
          Outcome.BETWEEN, None),
    Fault("killed while arming", 1, kill_while_arming, Outcome.BETWEEN, None, rearms=True),
    Fault("writer killed at a named point", 1, die_at(POINTS_RECORDING), Outcome.GOES_ON,
          lasts_s=(1.5, 2.5), reads=("writer",)),
    Fault("writer killed", 1, kill_worker("writer"), Outcome.GOES_ON, reads=("writer",)),
    Fault("writer killed, the next one while it resumes", 1, die_at_resume, Outcome.GOES_ON,
          reads=("writer",)),
    Fault("encoder killed", 1, kill_worker("encoder:front"), Outcome.GOES_ON,
          reads=("encoder:front",)),
    Fault("encoder and fork server killed", 1, kill_fork_server, Outcome.GOES_ON,
          reads=("encoder:front",)),
    Fault("camera process killed, required: mark", 1, kill_worker("camera:front"),
          Outcome.GOES_ON, None, reads=("camera:front",), setting=STRICT.name),
    Fault("camera process killed, required: optional", 1, kill_worker("camera:front"),
          Outcome.GOES_ON, None, reads=("camera:front",), setting=POLICY.name),
    Fault("camera process killed, required: abort", 1, kill_worker("camera:wrist"),
          Outcome.ENDS, None, reads=("camera:wrist",), setting=STRICT.name),
    Fault("follower process killed", 1, kill_worker("arm:main.follower"), Outcome.ENDS,
          reads=("arm:main.follower",), rearms=True),
    Fault("leader process killed", 1, kill_worker("arm:main.leader"), Outcome.ENDS,
          reads=("arm:main.leader",), rearms=True),
    Fault("follower killed while it glides to its leader", 1, kill_while_gliding, Outcome.ENDS,
          SECOND_MS, reads=("arm:main.follower",), rearms=True),
    Fault("all devices gone at once", 1, kill_worker("sim"), Outcome.ENDS, None,
          reads=("sim", "camera:", "arm:"), rearms=True),
    Fault("gateway killed", 1, kill_worker("gateway"), Outcome.GOES_ON, reads=("gateway",),
          setting=POLICY.name),
    *(Fault(name, 1, strike, Outcome.GOES_ON, heal=follow_the_leader, rearms=True,
            reads=("gateway",) if "killed" in name else (), setting=POLICY.name)
      for name, strike in DRIVEN.items()),
    Fault("killed in an undo through the daemon", 1, undo_killed, Outcome.BETWEEN, None,
          heal=bring_back),
    Fault("killed in a discard through the daemon", 1, discard_killed, Outcome.BETWEEN, None,
          heal=bring_back),
    *(Fault(f"recctl killed in a {edit}", 1, edit_killed(edit), Outcome.BETWEEN, None,
            heal=bring_back) for edit in ("pack", "delete", "relabel")),
)  # fmt: skip

SIGNALS: Final[tuple[Fault, ...]] = (
    *(Fault(f"{number.name}", 2, send(number), Outcome.DAEMON_ENDS)
      for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)),
    *(Fault(f"{number.name} to every process, {like}", 2, send_to_all(number),
            Outcome.DAEMON_ENDS, SECOND_MS)
      for number, like in ((signal.SIGINT, "Ctrl-C"), (signal.SIGHUP, "closed terminal"),
                           (signal.SIGTERM, "shutdown"))),
)  # fmt: skip

STALLS: Final[tuple[Fault, ...]] = (
    Fault("encoder stopped for 1 s", 3, stop_worker("encoder:wrist"), Outcome.GOES_ON,
          lasts_s=(1.0, 1.0), heal=go_on, weight=2),
    Fault("encoder stopped for 10 s", 3, stop_worker("encoder:wrist"), Outcome.GOES_ON,
          lasts_s=(10.0, 10.0), heal=go_on, reads=("encoder",)),
    Fault("writer stopped for 10 s", 3, stop_worker("writer"), Outcome.GOES_ON,
          lasts_s=(10.0, 10.0), heal=go_on),
    Fault("all cores busy", 3, hog_processors, Outcome.GOES_ON),
    Fault("viewer and client that stop reading", 3, stuck_clients, Outcome.GOES_ON, weight=2),
)  # fmt: skip


def _on_the_bus(name: str, strike: Strike, **more: object) -> Fault:
    return Fault(name, 4, strike, Outcome.EITHER, rearms=True, weight=6, **more)  # type: ignore[arg-type]


BUSES: Final[tuple[Fault, ...]] = (
    _on_the_bus("servo reply late once", wire("late", ms=(60, 80))),
    _on_the_bus("servo replies late in a burst", wire("late", ms=(60, 80), count=(3, 8))),
    _on_the_bus("bad checksums", wire("checksum", count=(1, 40))),
    _on_the_bus("garbage on the line", wire("garbage", count=(1, 20), size=(1, 60))),
    _on_the_bus("short replies", wire("short", count=(1, 20), size=(1, 8))),
    _on_the_bus("one servo silent", wire("missing", ident=(1, 6)), lasts_s=(0.5, 1.5),
                heal=clear_bus),
    Fault("bus silent for 2 s", 4, wire("silent", for_ms=2000), Outcome.ENDS,
          lasts_s=(2.0, 2.0), heal=clear_bus, reads=("bus_silent",), rearms=True),
    Fault("brown-out", 4, wire("brown_out"), Outcome.ENDS,
          reads=("torque_lost", "bus_silent"), rearms=True),
    _on_the_bus("overload bits", wire("error_bits", ident=(1, 6), bits=32), lasts_s=(0.5, 1.5),
                heal=clear_bus),
    Fault("adapter unplugged, back under another name", 4, unplug, Outcome.ENDS,
          lasts_s=(1.0, 2.0), heal=plug_elsewhere, reads=("arm:main.follower",), rearms=True),
)  # fmt: skip


def _of_camera(
    name: str, kind: str, lasts_s: tuple[float, float], **fields: object
) -> tuple[Fault, ...]:
    """One row for each `required` of a camera; only `abort` may end the episode."""
    return tuple(
        _camera_row(name, required, picture(kind, required=required, **fields), lasts_s)
        for required in ("mark", "optional", "abort")
    )


def _camera_row(
    name: str, required: str, strike: Strike, lasts_s: tuple[float, float],
    heal: Heal | None = clear_cameras,
) -> Fault:  # fmt: skip
    setting = {"abort": STRICT.name, "optional": POLICY.name}.get(required, "")
    outcome = Outcome.EITHER if required == "abort" else Outcome.GOES_ON
    return Fault(f"{name}, required: {required}", 5, strike, outcome, None, lasts_s, heal,
                 setting=setting, weight=3)  # fmt: skip


def _never_back(required: str) -> Fault:
    row = _camera_row(
        "camera never back in its episode", required, picture("disconnect", required=required),
        (2.0, 5.0),
    )  # fmt: skip
    ends = Outcome.ENDS if required == "abort" else row.outcome
    return Fault(row.name, 5, row.strike, ends, None, row.lasts_s, row.heal,
                 reads=("camera:", "no picture of their time"), until_end=True,
                 setting=row.setting)  # fmt: skip


CAMERAS: Final[tuple[Fault, ...]] = (
    *_of_camera("camera frozen", "freeze", (1.0, 2.5), frames=(20, 60)),
    *_of_camera("camera at half rate", "half_rate", (1.0, 2.5), frames=(30, 90)),
    *_of_camera("corrupt JPEGs", "corrupt", (1.0, 1.0), frames=(1, 25)),
    *_of_camera("garbled JPEGs", "garble", (1.0, 1.0), frames=(1, 25)),
    *_of_camera("wrong picture size", "wrong_size", (1.0, 2.0), frames=(5, 60)),
    *(_camera_row("wrong size after reconnect", required,
                  wrong_size_after_reconnect(required=required), (1.0, 2.5))
      for required in ("mark", "optional", "abort")),
    *_of_camera("camera stalled", "stall", (1.0, 2.0), frames=(10, 60)),
    *_of_camera("camera gone and back", "disconnect", (0.5, 3.0)),
    *(_never_back(required) for required in ("mark", "optional", "abort")),
)  # fmt: skip

EXHAUSTION: Final[tuple[Fault, ...]] = tuple(
    Fault(f"{name} may open no file", 6, use_up_files(name), Outcome.GOES_ON,
          lasts_s=(2.0, 4.0), heal=give_files_back)
    for name in ("supervisor", "writer", "encoder:front")
)  # fmt: skip

SUSPENDED: Final = Fault(
    "all processes stopped for seconds, as in a suspend", 8, stop_everything, Outcome.EITHER,
    None, rearms=True,
)  # fmt: skip

STORMS: Final[tuple[Fault, ...]] = (
    Fault("camera process dies every time, required: abort", 9, dies_every_time("camera:wrist"),
          Outcome.ENDS, None, heal=reset, until_end=True, reads=("FAULT", "camera:wrist"),
          setting=STRICT.name),
    Fault("follower process dies every time", 9, dies_every_time("arm:main.follower"),
          Outcome.ENDS, heal=reset, until_end=True, reads=("FAULT",), rearms=True),
    Fault("camera process dies every time, required: optional", 9,
          dies_every_time("camera:front"), Outcome.GOES_ON, None, heal=reset, until_end=True,
          reads=("camera:front",), setting=POLICY.name),
    Fault("gateway dies every time", 9, dies_every_time("gateway"), Outcome.GOES_ON, heal=reset,
          until_end=True, reads=("gateway",), setting=POLICY.name),
)  # fmt: skip

FAULTS: Final = (*KILLS, *SIGNALS, *STALLS, *BUSES, *CAMERAS, *EXHAUSTION, SUSPENDED, *STORMS)
"""What needs neither rights nor a compiler."""

EVERY_FAULT: Final = (*FAULTS, *DISK_FAULTS, *BREAK_FAULTS, *MEMORY_FAULTS, *SHIM_FAULTS)
BY_NAME: Final = {fault.name: fault for fault in EVERY_FAULT}


def possible_faults(*, disk: bool) -> tuple[Fault, ...]:
    """The rows that can be made on this computer; `disk`: with file systems of its own."""
    return (
        *FAULTS,
        *(DISK_FAULTS if disk and not may_mount() else ()),
        *(BREAK_FAULTS if disk and not may_break() else ()),
        *(() if may_limit() else MEMORY_FAULTS),
        *(() if may_preload() else SHIM_FAULTS),
    )


@dataclass(frozen=True, slots=True)
class Bout:
    """Faults that strike one after the other, under one setting; number: in its storm."""

    number: int
    setting: Setting
    faults: tuple[Fault, ...]


def draw_bouts(table: Sequence[Fault], *, seed: int, count: int, bouts: int = 0) -> list[Bout]:
    """At least `bouts` bouts, of at least `count` faults together: deck after deck, each row as
    often as its weight, in an order of the seed's; within a deck one setting after the other."""
    draw = Random(seed)
    drawn: list[Bout] = []
    while len(drawn) < bouts or sum(len(bout.faults) for bout in drawn) < count:
        deck = _deck(table, draw)
        for setting in SETTINGS:
            groups = _groups(deck[setting.name], draw)
            drawn += [Bout(len(drawn) + at, setting, group) for at, group in enumerate(groups)]
    return drawn


def _deck(table: Sequence[Fault], draw: Random) -> dict[str, list[Fault]]:
    deck: dict[str, list[Fault]] = {setting.name: [] for setting in SETTINGS}
    for fault in (row for row in table for _ in range(row.weight)):
        deck[fault.setting or draw.choice(SETTINGS).name].append(fault)
    return deck


def _groups(faults: list[Fault], draw: Random) -> list[tuple[Fault, ...]]:
    """Those that let an episode go on, spread over those that end it."""
    enders = [fault for fault in faults if fault.ends_bout]
    others = [fault for fault in faults if not fault.ends_bout]
    draw.shuffle(enders)
    draw.shuffle(others)
    count = max(len(enders), -(-len(others) // (MOST - 1)))
    groups = [(*others[at::count], *enders[at : at + 1]) for at in range(count)]
    return [group for group in groups if group]
