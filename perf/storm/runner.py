"""The storm: faults drawn from a seed, an episode and a fault after the other, checked each time.

Every bout draws from its own generator, `seed:number`, so that a failing one is replayed alone.
What is drawn is exact; when a fault meets the episode is as exact as the computer is.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from recd.config.errors import RecdError
from recd.daemon.dataset.survey import EpisodeFacts
from recd.perf.storm.disks import RESERVED, small_disk
from recd.perf.storm.faults import FOLLOWER, Fault, Outcome
from recd.perf.storm.invariants import (
    PERIOD_NS,
    goal_jumps,
    inspect,
    left_behind,
    rows_without_picture,
    servo_entries,
    staging_left,
)
from recd.perf.storm.shims import may_preload, preloaded
from recd.perf.storm.subject import StormSubject, await_true
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

Say = Callable[[str], None]

CHAPTER = 25
"""Bouts on one dataset; then a new one is begun, so that checking stays cheap."""

BACK_WITHIN_S = 90.0
SETTINGS = (
    "cameras.wrist.required=abort",
    "cameras.front.ring_seconds=3",
    "cameras.wrist.ring_seconds=3",
    "arms.main.rate_hz=100",
    RESERVED,
)
"""front is marked when it is lost, wrist ends the episode. Rings are shorter than the longest
stall. The arms are slow, so that a storm tells of faults and not of how busy the computer is."""


@dataclass(frozen=True, slots=True)
class Bout:
    """One fault and what came of it. loss_ms: of the running episode; None: nothing was running
    any more, or its own outage is what is lost. recover_s: until everything required was back."""

    seed: int
    number: int
    fault: str
    made: dict[str, Any]
    rows: int
    loss_ms: float | None
    allowed_ms: float | None
    recover_s: float
    ended: str
    verdict: str
    read: tuple[str, ...]
    findings: tuple[str, ...]
    without_picture: dict[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return not self.findings


@dataclass(slots=True)
class _Struck:
    """A bout in the making."""

    uid: str
    t0_ns: int
    heard_from: int
    made: dict[str, Any] = field(default_factory=dict)
    at_ns: int = 0
    ended_ns: int = 0
    healed_ns: int = 0
    back_s: float | None = None
    reply: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, int] = field(default_factory=dict)
    read: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


class Storm:
    """A daemon, its dataset, and all that was ever reported saved in it."""

    def __init__(self, subject: StormSubject, *, seed: int) -> None:
        self.subject = subject
        self.seed = seed
        self.saved: dict[str, int] = {}
        self.known: set[str] = set()
        self._log_from = 0

    def run(self, fault: Fault, number: int) -> Bout:
        """One bout. Never raises for what the daemon does wrong: that is a finding."""
        draw = Random(f"{self.seed}:{number}")
        subject = self.subject
        began_ns = now_ns()
        struck = _Struck("", 0, 0)
        recover_s = -1.0
        try:
            self._be_ready()
            self._begin(struck, draw)
            self._strike(fault, struck, draw)
            self._end(fault, struck, draw)
            recover_s = self._come_back(fault, struck)
            struck.findings += self._points_left()
        except RecdError as error:
            struck.findings.append(f"{error.message} (bout of {_s(now_ns() - began_ns):.0f} s)")
        episode = self._check(struck)
        self._judge_reading(fault, struck, episode)
        loss_ms = None if episode is None else self._loss(fault, struck, episode)
        if loss_ms is not None and fault.loss_ms is not None and loss_ms > fault.loss_ms + 1:
            struck.findings.append(f"lost {loss_ms:.0f} ms, {fault.loss_ms:.0f} ms are allowed")
        without = {} if episode is None else rows_without_picture(subject.dataset, episode)
        manifest = {} if episode is None else episode.manifest
        if struck.findings:
            self._start_anew()
        return Bout(
            seed=self.seed, number=number, fault=fault.name, made=struck.made,
            rows=0 if episode is None else episode.length, loss_ms=loss_ms,
            allowed_ms=fault.loss_ms, recover_s=round(recover_s, 2),
            ended=str(manifest.get("end_reason", "")),
            verdict=str((manifest.get("verdict") or {}).get("level", "")),
            read=tuple(dict.fromkeys(struck.read)), findings=tuple(struck.findings),
            without_picture=without,
        )  # fmt: skip

    # --- one bout, step by step --------------------------------------------------------------

    def _be_ready(self) -> None:
        subject = self.subject
        if subject.dead:
            subject.start()
            self._log_from = 0
        self._follow_again()

    def _follow_again(self) -> None:
        """READY and TELEOP. An arm that was lost waits for `arm`, and the session for the arm."""
        client = self.subject.client

        def following() -> bool:
            if self._motion() == "TELEOP":
                return True
            with suppress(RecdError):  # its bus is not back yet
                client.arm()
            client.pause(0.5)
            return self._motion() == "TELEOP"

        await_true(following, "the arms to follow again", BACK_WITHIN_S)
        client.wait_until("READY", timeout_s=BACK_WITHIN_S)

    def _arms_back(self) -> bool:
        """The arms follow, or would: an armed follower waits until the leader is led to where it
        holds. The simulated leader comes by there once in its round of some ten seconds; that is a
        person's time and not the recovery's."""
        motion = self.subject.client.status()["arms"]["main"]["motion"]
        if motion.get("state") == "TELEOP" or motion.get("waiting_joints"):
            return True
        with suppress(RecdError):  # its bus is not back yet
            self.subject.client.arm()
        self.subject.client.pause(0.5)
        return False

    def _state(self) -> str:
        return str(self.subject.client.status()["state"])

    def _motion(self) -> str:
        return str(self.subject.client.status()["arms"]["main"]["motion"].get("state"))

    def _begin(self, struck: _Struck, draw: Random) -> None:
        subject = self.subject
        assert subject.ear is not None
        struck.heard_from = len(subject.ear.heard)
        struck.losses = subject.losses()
        told = subject.client.start(task=f"bout {draw.randrange(3)}")
        struck.uid, struck.t0_ns = told["uid"], told["t0_ns"]
        wanted = draw.randint(25, 80)
        await_true(lambda: self._rows() >= wanted, f"{wanted} rows", BACK_WITHIN_S)
        sleep_until_ns(now_ns() + draw.randrange(PERIOD_NS))

    def _whole_again(self, fault: Fault) -> float | None:
        """Seconds until nothing is degraded any more while the episode goes on; None when it ended
        or nothing was seen to be away."""
        began_ns = now_ns()

        def whole() -> bool:
            status = self.subject.client.status()
            return status["state"] != "RECORDING" or not status["degraded"]

        if fault.outcome is not Outcome.GOES_ON or whole():
            return None
        await_true(whole, "nothing to be degraded", BACK_WITHIN_S)
        return _s(now_ns() - began_ns)

    def _rows(self) -> int:
        episode = self.subject.client.status()["episode"]
        return int(episode["rows"]) if episode else 0

    def _strike(self, fault: Fault, struck: _Struck, draw: Random) -> None:
        tree = self.subject.tree()
        struck.at_ns = now_ns()
        struck.made = fault.strike(self.subject, draw)
        if fault.outcome in (Outcome.DAEMON_DIES, Outcome.DAEMON_ENDS):
            await_true(lambda: self.subject.dead, "the daemon's end", BACK_WITHIN_S)
            self._hear(struck)
            self.subject.forget()
            in_order = fault.outcome is Outcome.DAEMON_ENDS
            await_true(
                lambda: not left_behind(tree, Path("/nonexistent")), "all processes to end", 20
            )
            if in_order:
                struck.findings += left_behind(tree, self.subject.directory)
            return
        sleep_until_ns(now_ns() + round(draw.uniform(*fault.lasts_s) * NS_PER_S))
        if fault.heal is not None and not fault.until_end:
            fault.heal(self.subject, struck.made)

    def _end(self, fault: Fault, struck: _Struck, draw: Random) -> None:
        """Stop the episode if it still runs; wait until it is known what became of it."""
        if self.subject.dead:
            return
        struck.back_s = self._whole_again(fault)
        if fault.outcome is Outcome.GOES_ON:
            more = self._rows() + draw.randint(20, 45)
            await_true(
                lambda: self._rows() >= more, f"{more} rows: the episode to go on", BACK_WITHIN_S
            )
        if fault.outcome is Outcome.ENDS:
            await_true(lambda: self._state() != "RECORDING", "the episode to end by itself", 30)
        if fault.outcome is Outcome.AT_STOP:
            struck.at_ns = now_ns()
        struck.ended_ns = now_ns()
        try:
            if self._state() == "RECORDING":
                struck.reply = self.subject.client.stop(timeout_s=BACK_WITHIN_S)
            else:
                struck.reply = self._settled(struck.uid)
        except RecdError as error:
            struck.read.append(error.message)
            if not (self.subject.dead or fault.outcome is Outcome.SAVED_LATER):
                struck.reply = self._settled(struck.uid)
        if not self.subject.dead:
            self._read_state(struck)
        if struck.reply.get("state") == "saved":
            self.saved[struck.uid] = int(struck.reply["rows"])
        if fault.heal is not None and fault.until_end:
            struck.healed_ns = now_ns()
            fault.heal(self.subject, struck.made)

    def _settled(self, uid: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            if self.subject.dead:
                return {}
            takes = self.subject.client.call("episodes", limit=5)["episodes"]
            take = next((take for take in takes if take["uid"] == uid), None)
            return take if take and take["state"] in ("saved", "failed", "discarded") else None

        return dict(await_true(look, f"the end of episode {uid}", BACK_WITHIN_S))

    def _come_back(self, fault: Fault, struck: _Struck) -> float:
        """Everything required is there again; seconds since the fault ended or the new start."""
        subject = self.subject
        self._hear(struck)
        if subject.dead:
            subject.forget()
            return self._restart(struck)
        if fault.outcome is Outcome.SAVED_LATER and struck.reply.get("state") != "saved":
            subject.end()
            return self._restart(struck)
        if fault.rearms:
            await_true(self._arms_back, "the arms to be back", BACK_WITHIN_S)
        subject.client.wait_until("READY", timeout_s=BACK_WITHIN_S)
        since_ns = struck.healed_ns or struck.ended_ns
        took_s = _s(now_ns() - since_ns) if struck.back_s is None else struck.back_s
        if fault.rearms:
            self._follow_again()
        struck.findings += self._goal_jumps()
        return took_s

    def _restart(self, struck: _Struck) -> float:
        """Start again; a start that a fault point kills is only the first of two."""
        self._log_from = 0
        if not any(self.subject.armed_points.iterdir()):
            return self.subject.start()
        with suppress(RecdError):
            return self.subject.start()
        struck.read.append("the first start was killed in its recovery")
        await_true(lambda: self.subject.dead, "the end of a start that was killed", 30)
        return self.subject.start()

    def _points_left(self) -> list[str]:
        """Disarm the points that nobody has passed: a fault that did not happen proves nothing."""
        left = sorted(self.subject.armed_points.iterdir())
        for armed in left:
            armed.unlink()
        return [f"nobody has passed {armed.name}" for armed in left]

    def _start_anew(self) -> None:
        """After a finding the next bout must not suffer from this one."""
        self._points_left()
        self.subject.destroy()
        await_true(lambda: self.subject.dead, "the daemon's end", 20)

    # --- what came of it -----------------------------------------------------------------------

    def _hear(self, struck: _Struck) -> None:
        ear = self.subject.ear
        if ear is None:
            return
        for message in ear.heard[struck.heard_from :]:
            if message["topic"] == "fault" or message.get("level") in ("warning", "error"):
                struck.read.append(_words(message))
        struck.heard_from = len(ear.heard)

    def _read_state(self, struck: _Struck) -> None:
        status = self.subject.client.status()
        struck.read += [str(why) for why in status.get("why", ())]
        struck.read += [f"FAULT: {status['fault']}"] if status.get("fault") else []
        reply = struck.reply
        if reply.get("end_reason") not in (None, "", "stop"):
            struck.read.append(f"episode ended: {reply['end_reason']}")
        verdict = reply.get("verdict") or {}
        struck.read += [str(reason.get("words", reason)) for reason in verdict.get("reasons", ())]

    def _check(self, struck: _Struck) -> EpisodeFacts | None:
        """The invariants; the struck episode if it is in the dataset."""
        subject = self.subject
        if not subject.dataset.exists():
            struck.findings.append("the dataset is not there")
            return None
        found = inspect(subject.dataset, self.saved, self.known)
        struck.findings += found.findings
        self.known |= {episode.uid for episode in found.new}
        self.saved |= {episode.uid: episode.length for episode in found.new}
        strangers = [e.uid for e in found.new if e.uid != struck.uid]
        struck.findings += [f"episode {uid} came from nowhere" for uid in strangers]
        if struck.uid and (left := staging_left(subject.dataset)) and not subject.dead:
            struck.findings.append(f"left in staging: {left}")
        episode = next((e for e in found.new if e.uid == struck.uid), None)
        if episode is None and struck.uid:
            struck.findings.append(f"episode {struck.uid} is not in the dataset")
        return episode

    def _loss(self, fault: Fault, struck: _Struck, episode: EpisodeFacts) -> float:
        """Milliseconds of the running episode that are gone: its end before the fault or the stop,
        and what rings lost for encoders and writer."""
        last_ns = struck.t0_ns + episode.length * PERIOD_NS
        died = fault.outcome in (Outcome.DAEMON_DIES, Outcome.SAVED_LATER)
        end_ns = struck.at_ns if died or not struck.ended_ns else struck.ended_ns
        if fault.outcome in (Outcome.ENDS, Outcome.EITHER):
            end_ns = struck.at_ns
        tail_ms = max(0, end_ns - last_ns) / NS_PER_MS
        return round(max(tail_ms, self._ring_loss_ms(struck)), 1)

    def _ring_loss_ms(self, struck: _Struck) -> float:
        if self.subject.dead or not struck.losses:
            return 0.0
        try:
            now = self.subject.losses()
        except RecdError:
            return 0.0
        frames = [
            count - struck.losses.get(ring, 0)
            for ring, count in now.items() if ring.startswith("cam.")
        ]  # fmt: skip
        return max([0, *frames]) * PERIOD_NS / NS_PER_MS

    def _judge_reading(self, fault: Fault, struck: _Struck, episode: EpisodeFacts | None) -> None:
        if episode is not None:
            reasons = (episode.manifest.get("verdict") or {}).get("reasons", ())
            struck.read += [str(reason.get("words", reason)) for reason in reasons]
        if fault.reads and not any(word in line for word in fault.reads for line in struck.read):
            struck.findings.append(f"the operator read nothing of {' or '.join(fault.reads)}")

    def _goal_jumps(self) -> list[str]:
        entries = []
        try:
            while True:
                answer = self.subject.bus("log", since=self._log_from, limit=500, bus=FOLLOWER)
                if not answer["entries"]:
                    break
                entries += servo_entries(answer)
                self._log_from = answer["next"]
        except RecdError as error:
            return [f"servo log: {error.message}"]
        return goal_jumps(entries, bus=FOLLOWER)[:3]


def _words(message: dict[str, Any]) -> str:
    hidden = (
        "topic",
        "seq",
        "t_ns",
        "event",
        "level",
        "code",
        "wanted",
        "phase",
        "summary",
        "ty",
        "v",
        "sid",
    )
    told = {k: v for k, v in message.items() if k not in hidden and v not in ("", None, {}, [])}
    inner = told.pop("fields", {})
    facts = ", ".join(f"{key} {value}" for key, value in {**told, **inner}.items())
    return f"{message.get('event', '')}: {facts}"[:200]


def _s(ns: int) -> float:
    return ns / NS_PER_S


def draw_faults(table: Sequence[Fault], *, seed: int, count: int) -> list[Fault]:
    """`count` faults: every one of the table as often as the others, in an order of the seed's."""
    draw = Random(seed)
    drawn: list[Fault] = []
    while len(drawn) < count:
        deck = list(table)
        draw.shuffle(deck)
        drawn += deck
    return drawn[:count]


@contextmanager
def storm_subject(folder: Path, *, disk: bool) -> Iterator[StormSubject]:
    """A daemon in folders below `folder`; its dataset on a small disk of its own when `disk`, its
    clock and syncs open to faults where there is a compiler."""
    with ExitStack() as stack:
        # A socket's path has at most 107 bytes.
        base = stack.enter_context(tempfile.TemporaryDirectory(prefix="recd-storm-"))
        home = stack.enter_context(small_disk(folder / "disk")) if disk else folder
        variables = {} if may_preload() else preloaded(folder)
        subject = StormSubject(folder, Path(base), home / "dataset", SETTINGS, variables)
        stack.callback(subject.destroy)
        yield subject


def run_storm(
    faults: Sequence[tuple[int, Fault]], *, seed: int, folder: Path, disk: bool, say: Say,
    done: Callable[[Bout], None],
) -> list[Bout]:  # fmt: skip
    """Run numbered faults one after the other; `done` is given every bout at once."""
    bouts: list[Bout] = []
    for first in range(0, len(faults), CHAPTER):
        chapter = folder / f"chapter-{first // CHAPTER}"
        chapter.mkdir(parents=True, exist_ok=True)
        with storm_subject(chapter, disk=disk) as subject:
            storm = Storm(subject, seed=seed)
            for number, fault in faults[first : first + CHAPTER]:
                bout = storm.run(fault, number)
                bouts.append(bout)
                done(bout)
                say(_line(bout))
            if not subject.dead:
                tree = subject.tree()
                subject.end()
                for text in left_behind(tree, subject.directory):
                    say(f"  after the end: {text}")
        if all(bout.good for bout in bouts[-CHAPTER:]):
            shutil.rmtree(chapter, ignore_errors=True)
    return bouts


def _line(bout: Bout) -> str:
    loss = "" if bout.loss_ms is None else f", lost {bout.loss_ms:.0f} ms"
    text = (
        f"{bout.number:4d} {'ok  ' if bout.good else 'FAIL'} {bout.fault}: {bout.rows} rows{loss}"
    )
    return "\n".join(
        [f"{text}, back in {bout.recover_s:.1f} s", *(f"       {f}" for f in bout.findings)]
    )
