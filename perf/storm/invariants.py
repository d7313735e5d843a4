"""What must hold after every fault, whatever it was. Reads the dataset as a stranger does.

`inspect` looks at what is in the dataset and at every picture of the episodes that came since the
last look; `inspect_all` at the whole dataset; `left_behind` for processes and sockets of a daemon
that has ended; `goal_jumps` at the servo log.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from recd.config.streams import TickFlag
from recd.daemon.dataset.layout import Layout
from recd.daemon.dataset.survey import EpisodeFacts, survey
from recd.daemon.dataset.verify import verify_dataset
from recd.daemon.sim.servolog import Entry, writes_of
from recd.perf.episode import StoredEpisode
from recd.perf.truth import compare, read_stamps
from recd.shm.clock import NS_PER_MS, NS_PER_S

CAMERAS: Final = ("front", "wrist")
"""Cameras of the preset `demo` in the order of their numbers in the stamps."""

FPS = 30
PERIOD_NS = NS_PER_S // FPS

STAMP_SLACK: Final = 75
"""A capture time may be claimed half of so many periods off: right after a reconnection arrival is
all there is to go by, and on a busy computer the simulated cameras fall up to a second behind
before they pass pictures over [550 ms seen with three daemons on two cores]. The frame has to be
the named one.
"""

UNTIL_FROZEN = FPS
"""Rows until a picture that stands still is told from a scene that does."""

STEPS_PER_S: Final = 360.0 * 4096 / 360.0
"""Default velocity limit of a joint's goal in servo steps a second (limits.velocity_per_s)."""

GRIPPER_ID = 6
GRIPPER_STEPS_PER_S: Final = 3.6 * 4096
"""The gripper's limit is 3.6 of its calibrated range a second; a range is at most one turn."""

SLACK_STEPS = 8
TICK_NS = 10 * NS_PER_MS


@dataclass(frozen=True, slots=True)
class Inspection:
    """findings: every broken invariant in words; new: episodes since the last look."""

    findings: tuple[str, ...]
    new: tuple[EpisodeFacts, ...] = field(default=())


def inspect(root: Path, saved: Mapping[str, int], known: Iterable[str]) -> Inspection:
    """Check what came since the last look, and that nothing is gone: saved: uid -> rows of every
    episode that was reported saved; known: uids of which the pictures were looked at before."""
    episodes = survey(root)
    findings = _numbering(episodes, len(episodes))
    there = {episode.uid: episode.length for episode in episodes}
    findings += [
        f"saved episode {uid} is gone" if uid not in there
        else f"saved episode {uid} has {there[uid]} rows, {rows} were reported"
        for uid, rows in saved.items() if there.get(uid) != rows
    ]  # fmt: skip
    old = set(known)
    new = tuple(episode for episode in episodes if episode.uid not in old)
    for episode in new:
        findings += _pictures(root, episode)
    return Inspection(tuple(findings), new)


def inspect_all(root: Path) -> list[str]:
    """Everything that `recctl verify` looks at, every picture decoded."""
    report = verify_dataset(root, decode=True)
    findings = [f"verify: {found}" for found in report.findings if found.bad]
    return findings + _numbering(survey(root), report.episodes)


def _numbering(episodes: Sequence[EpisodeFacts], told: int) -> list[str]:
    numbers = [episode.episode_index for episode in episodes]
    findings = []
    if numbers != list(range(len(numbers))) or told != len(numbers):
        findings.append(f"numbers {numbers}, {told} episodes in info.json")
    uids = [episode.uid for episode in episodes]
    if len(set(uids)) != len(uids) or "" in uids:
        findings.append(f"uids are not one an episode: {uids}")
    return findings


def _pictures(root: Path, episode: EpisodeFacts) -> list[str]:
    """Rows = packets, and every picture the one that its row names, by the stamp burned in."""
    stored = StoredEpisode(root, episode.uid, episode.episode_index)
    findings = []
    for number, camera in enumerate(CAMERAS):
        ticks = stored.tick_log(camera)[: episode.length]
        if len(ticks) < episode.length:
            findings.append(f"{episode.uid} {camera}: {len(ticks)} of {episode.length} records")
            continue
        stamps = list(read_stamps(stored.video(camera)))
        truth = compare(stamps, ticks, camera=number, period_ns=STAMP_SLACK * PERIOD_NS)
        findings += [
            f"{episode.uid} {camera} row {found.row}: {found.wrong}: {found.shown}"
            for found in truth.findings
            if not _just_frozen(ticks["flags"], found.row)
        ]
    return findings[:6]


def _just_frozen(flags: np.ndarray[Any, Any], row: int) -> bool:
    """A camera that sends one picture under new numbers is found out after some pictures only: the
    rows just before the first one flagged so cannot know."""
    return bool((flags[row : row + UNTIL_FROZEN] & TickFlag.FROZEN).any())


def rows_without_picture(root: Path, episode: EpisodeFacts) -> dict[str, np.ndarray[Any, Any]]:
    """Camera -> bool [rows]: the row shows no frame of its own although one was due."""
    stored = StoredEpisode(root, episode.uid, episode.episode_index)
    none = TickFlag.MISSING | TickFlag.CORRUPT
    return {
        camera: (stored.tick_log(camera)["flags"][: episode.length] & none) != 0
        for camera in CAMERAS
    }


def staging_left(root: Path) -> list[str]:
    """uids that still lie in staging while nothing is recorded."""
    folder = Layout(root).own / "staging"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def living(tree: Iterable[psutil.Process]) -> list[str]:
    """Processes that live on."""
    found = []
    for process in tree:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"process {process.pid} {process.name()} lives on")
    return found


def left_behind(tree: Iterable[psutil.Process], directory: Path) -> list[str]:
    """What a daemon that has ended in order left: processes, sockets."""
    sockets = [f"socket {path} is left" for path in sorted(directory.rglob("*.sock"))]
    return living(tree) + sockets


def goal_jumps(entries: Iterable[Entry], *, bus: str) -> list[str]:
    """Goals on the follower's line that moved faster than the limits allow, servo by servo.

    After a pause the next goal may lie as far as the limit allows within 100 ms: an arm process
    that comes back begins where the arm is, not where the leader went meanwhile.
    """
    last: dict[int, tuple[int, int]] = {}
    findings = []
    for entry in entries:
        if entry.bus != bus:
            continue
        for write in writes_of(entry):
            if write.name != "Goal_Position" or write.value < 0:
                continue
            before = last.get(write.ident)
            last[write.ident] = (write.t_ns, write.value)
            if before is None:
                continue
            span_ns = float(np.clip(write.t_ns - before[0], 2 * TICK_NS, NS_PER_S // 10))
            speed = GRIPPER_STEPS_PER_S if write.ident == GRIPPER_ID else STEPS_PER_S
            allowed = speed * span_ns / NS_PER_S + SLACK_STEPS
            if abs(write.value - before[1]) > allowed:
                findings.append(
                    f"servo {write.ident}: goal {before[1]} -> {write.value} in "
                    f"{(write.t_ns - before[0]) / NS_PER_MS:.1f} ms, {allowed:.0f} steps allowed"
                )
    return findings


def servo_entries(answer: Mapping[str, Any]) -> list[Entry]:
    """Entries of one answer of the simulator's `log`."""
    return [
        Entry(number, t_ns, bus, kind, frame, tuple(heard), fields)
        for number, t_ns, bus, kind, frame, heard, fields in answer["entries"]
    ]
