"""The storm: bout after bout at one daemon, everything checked after every episode.

Every bout draws from its own generator, `seed:number`, so that a failing one is replayed alone.
What is drawn is exact; when a fault meets the episode is as exact as the computer is.
"""

from collections.abc import Collection
from contextlib import suppress
from random import Random

from recd.config.errors import RecdError
from recd.daemon.dataset.survey import EpisodeFacts
from recd.perf.storm.devices import FOLLOWER
from recd.perf.storm.fault import Outcome
from recd.perf.storm.injection import Draft, Injection, Running
from recd.perf.storm.invariants import (
    PERIOD_NS,
    goal_jumps,
    inspect,
    left_behind,
    living,
    rows_without_picture,
    servo_entries,
    staging_left,
)
from recd.perf.storm.judge import outage_ms, ring_loss_ms, tail_ms, too_much
from recd.perf.storm.matrix import Bout
from recd.perf.storm.readings import of_reply, of_status, of_verdict, silence, worth_reading
from recd.perf.storm.subject import StormSubject, await_true
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

BACK_WITHIN_S = 90.0
USUAL_ROWS = 30
"""Rows that are told late anyway. An encoder that is further behind catches up: until then a fault
is not over; the next one waits for it, lest its loss be that of a busy computer."""

KEEPS_UP_WITHIN_S = 15.0

DIED = (Outcome.DAEMON_DIES, Outcome.DAEMON_ENDS)


class Storm:
    """A daemon, its dataset, and all that was ever reported saved in it."""

    def __init__(self, subject: StormSubject, *, seed: int) -> None:
        self.subject = subject
        self.seed = seed
        self.saved: dict[str, int] = {}
        self.known: set[str] = set()
        self._running: Running | None = None
        self._heard = 0
        self._log_from = 0

    def run(self, bout: Bout) -> list[Injection]:
        """One bout. Never raises for what the daemon does wrong: that is a finding."""
        draw = Random(f"{self.seed}:{bout.number}")
        drafts = [Draft(fault, place) for place, fault in enumerate(bout.faults)]
        for draft in drafts:
            began_ns = now_ns()
            try:
                self._one(draft, draw, last=draft is drafts[-1])
            except RecdError as error:
                draft.findings.append(f"{error.message} (after {_s(now_ns() - began_ns):.0f} s)")
                self._give_up(draft)
            draft.took_s = _s(now_ns() - began_ns)
            draft.findings += silence(draft) if not draft.findings else []
        name = bout.setting.name
        return [draft.done(seed=self.seed, bout=bout.number, setting=name) for draft in drafts]

    def _one(self, draft: Draft, draw: Random, *, last: bool) -> None:
        if draft.fault.outcome is Outcome.BETWEEN:
            self._between(draft, draw)
            return
        running = self._running or self._begin(draw)
        draft.uid = running.uid
        running.drafts.append(draft)
        self._hear()
        draft.losses = self.subject.losses()
        self._more_rows(draw.randint(5, 35))
        with suppress(RecdError):  # a computer too busy for that: noted in `behind_ms`
            await_true(lambda: not self._behind_rows(running), "the encoders", KEEPS_UP_WITHIN_S)
        draft.behind_ms = self._behind_rows(running) * PERIOD_NS / NS_PER_MS
        sleep_until_ns(now_ns() + draw.randrange(PERIOD_NS))
        self._strike(draft, draw)
        if self.subject.dead or last or draft.fault.ends_bout or not self._goes_on(draft, draw):
            self._finish(draft, draw)
        draft.read += self._hear()

    # --- one fault, step by step ---------------------------------------------------------------

    def _be_ready(self) -> None:
        if self.subject.dead:
            self._start()
        self._follow_again()

    def _start(self) -> float:
        took_s = self.subject.start()
        self._heard = self._log_from = 0
        return took_s

    def _follow_again(self) -> None:
        """READY and TELEOP. An arm that was lost waits for `arm`, and the session for the arm."""
        client = self.subject.client

        def following() -> bool:
            if self.subject.motion() == "TELEOP":
                return True
            with suppress(RecdError):  # its bus is not back yet
                client.arm()
            client.pause(0.3)
            return self.subject.motion() == "TELEOP"

        await_true(following, "the arms to follow again", BACK_WITHIN_S)
        client.wait_until("READY", timeout_s=BACK_WITHIN_S)

    def _begin(self, draw: Random) -> Running:
        self._be_ready()
        client = self.subject.client
        await_true(lambda: not client.status()["flags"]["low_disk"], "room on the disk", 10)
        told = self.subject.client.start(task=f"task {draw.randrange(3)}")
        self._running = Running(told["uid"], told["t0_ns"])
        return self._running

    def _more_rows(self, count: int) -> None:
        """Until the episode has so many more rows; or has ended, which what follows will see."""
        wanted = self.subject.rows() + count

        def there() -> bool:
            status = self.subject.client.status()
            return bool(status["state"] != "RECORDING" or status["episode"]["rows"] >= wanted)

        await_true(there, f"{wanted} rows: the episode to go on", BACK_WITHIN_S)

    def _strike(self, draft: Draft, draw: Random) -> None:
        fault, subject = draft.fault, self.subject
        tree = subject.tree()
        draft.at_ns = now_ns()
        draft.made = fault.strike(subject, draw)
        if fault.outcome in DIED:
            await_true(lambda: subject.dead, "the daemon's end", BACK_WITHIN_S)
            draft.read += self._hear()
            subject.forget()
            await_true(lambda: not living(tree), "all processes to end", 20)
            if fault.outcome is Outcome.DAEMON_ENDS:
                draft.findings += left_behind(tree, subject.directory)
            return
        sleep_until_ns(now_ns() + round(draw.uniform(*fault.lasts_s) * NS_PER_S))
        if fault.heal is not None and not fault.until_end:
            fault.heal(subject, draft.made)

    def _goes_on(self, draft: Draft, draw: Random) -> bool:
        """The episode still runs, everything is back, and this fault is judged as far as it can."""
        draft.back_s = self._whole_again(draft)
        self._more_rows(draw.randint(8, 20) if draft.fault.outcome is Outcome.GOES_ON else 20)
        if self.subject.state() != "RECORDING":
            return False
        if draft.fault.rearms:
            self._follow_again_if_it_can()
        draft.recover_s = draft.back_s or 0.0
        draft.loss_ms = ring_loss_ms(draft.losses, self.subject.losses())
        draft.findings += too_much(draft) + self._goal_jumps()
        return self.subject.state() == "RECORDING"

    def _follow_again_if_it_can(self) -> None:
        """The arms follow again while the episode goes on, for the next fault's sake."""
        with suppress(RecdError):
            await_true(
                lambda: self.subject.motion() == "TELEOP"
                or self.subject.client.arm(timeout_s=3), "arms", 5,
            )  # fmt: skip

    def _whole_again(self, draft: Draft) -> float | None:
        """Seconds until nothing is degraded and the encoders have caught up, while the episode goes
        on; None when it ended or nothing was seen to be away."""
        running, began_ns = self._running, now_ns()

        def whole() -> bool:
            status = self.subject.client.status()
            return status["state"] != "RECORDING" or not status["degraded"]

        def caught_up() -> bool:
            return running is None or not self._behind_rows(running)

        if draft.fault.outcome is not Outcome.GOES_ON or draft.fault.until_end:
            return None
        if whole() and caught_up():
            return None
        await_true(whole, "nothing to be degraded", BACK_WITHIN_S)
        with suppress(RecdError):  # too busy a computer: the next fault notes it
            await_true(caught_up, "the encoders to catch up", KEEPS_UP_WITHIN_S)
        return _s(now_ns() - began_ns)

    def _behind_rows(self, running: Running) -> int:
        """Rows that are due and not decided by all cameras, beyond what is usual; 0 at its end."""
        status = self.subject.client.status()
        if status["state"] != "RECORDING":
            return 0
        due = (now_ns() - running.t0_ns) // PERIOD_NS
        return max(0, due - int(status["episode"]["rows"]) - USUAL_ROWS)

    def _finish(self, draft: Draft, draw: Random) -> None:
        """End the episode, wait until everything is back, look at what came of it."""
        running = self._running
        assert running is not None
        draft.finished = True
        if self.subject.dead and draft.fault.outcome in (Outcome.GOES_ON, Outcome.ENDS):
            draft.findings.append("the daemon ended")
        if not self.subject.dead:
            self._end(draft, running, draw)
        draft.recover_s = self._come_back(draft, running)
        draft.findings += self._points_left()
        self._judge(draft, running)
        self._running = None

    def _end(self, draft: Draft, running: Running, draw: Random) -> None:
        """Stop the episode if it still runs; wait until it is known what became of it."""
        fault, subject = draft.fault, self.subject
        draft.back_s = self._whole_again(draft)
        if fault.outcome is Outcome.GOES_ON:
            self._more_rows(draw.randint(10, 25))
            if subject.state() != "RECORDING":
                draft.findings.append("the episode did not go on")
        elif fault.outcome is Outcome.EITHER:
            self._more_rows(20)
        elif fault.outcome is Outcome.ENDS:
            await_true(lambda: subject.state() != "RECORDING", "the episode to end by itself", 30)
        elif fault.outcome is Outcome.AT_STOP:
            draft.at_ns = now_ns()
        draft.ended_ns = now_ns()
        try:
            if subject.state() == "RECORDING":
                running.reply = subject.client.stop(timeout_s=BACK_WITHIN_S)
            else:
                running.reply = self._settled(running.uid)
        except RecdError as error:
            draft.read.append(error.message)
            if not (subject.dead or fault.outcome is Outcome.SAVED_LATER):
                running.reply = self._settled(running.uid)
        self._note_saved(draft, running)
        draft.read += self._hear()
        if fault.heal is not None and fault.until_end:
            draft.healed_ns = now_ns()
            fault.heal(subject, draft.made)

    def _note_saved(self, draft: Draft, running: Running) -> None:
        if not self.subject.dead:
            draft.read += of_status(self.subject.client.status()) + of_reply(running.reply)
        if running.reply.get("state") == "saved":
            self.saved[running.uid] = int(running.reply["rows"])

    def _settled(self, uid: str) -> dict[str, object]:
        def look() -> dict[str, object] | None:
            if self.subject.dead:
                return {"state": "unknown"}
            takes = self.subject.client.call("episodes", limit=5)["episodes"]
            take = next((take for take in takes if take["uid"] == uid), None)
            return take if take and take["state"] in ("saved", "failed", "discarded") else None

        return dict(await_true(look, f"the end of episode {uid}", BACK_WITHIN_S))

    def _come_back(self, draft: Draft, running: Running) -> float:
        """Everything required is there again; seconds since the fault ended or the new start."""
        subject, fault = self.subject, draft.fault
        if not subject.dead:
            draft.read += self._hear()
        elif subject.connected:
            subject.forget()
        if subject.dead:
            return self._restart(draft)
        if fault.outcome is Outcome.SAVED_LATER and running.reply.get("state") != "saved":
            subject.end()
            return self._restart(draft)
        since_ns = draft.healed_ns or draft.ended_ns
        if fault.rearms:
            self._follow_again()
        subject.client.wait_until("READY", timeout_s=BACK_WITHIN_S)
        draft.findings += self._goal_jumps()
        return _s(now_ns() - since_ns) if draft.back_s is None else draft.back_s

    def _restart(self, draft: Draft) -> float:
        """Start again; a start that a fault point kills is only the first of two."""
        if not any(self.subject.armed_points.iterdir()):
            return self._start()
        with suppress(RecdError):
            return self._start()
        draft.read.append("the first start was killed in its recovery")
        await_true(lambda: self.subject.dead, "the end of a start that was killed", 30)
        self.subject.forget()
        return self._start()

    def _between(self, draft: Draft, draw: Random) -> None:
        """A fault while nothing is recorded, after an episode that is plain if no other ran."""
        if self._running is None:
            self._begin(draw)
            self._more_rows(draw.randint(15, 30))
        running = self._running
        assert running is not None
        running.reply = self.subject.client.stop(timeout_s=BACK_WITHIN_S)
        self._note_saved(draft, running)
        self._follow_again()
        self._judge(draft, running)
        self._running = None
        self._strike_between(draft, draw)
        self._look(draft, draft.made.get("uids", ()))
        draft.findings += self._points_left()

    def _strike_between(self, draft: Draft, draw: Random) -> None:
        fault, subject = draft.fault, self.subject
        draft.at_ns = now_ns()
        draft.made = fault.strike(subject, draw)
        if draft.made.get("dies"):
            await_true(lambda: subject.dead, "the daemon's end", BACK_WITHIN_S)
            if subject.connected:
                subject.forget()
            draft.recover_s = self._restart(draft)
        else:
            draft.read += self._hear()
            subject.client.wait_until("READY", "WAITING", timeout_s=BACK_WITHIN_S)
            self._follow_again()
            draft.recover_s = _s(now_ns() - draft.at_ns)
        if fault.heal is not None:
            fault.heal(subject, draft.made)
        self._follow_again()
        draft.findings += self._goal_jumps()

    def _points_left(self) -> list[str]:
        """Disarm the points that nobody has passed: a fault that did not happen proves nothing."""
        left = sorted(self.subject.armed_points.iterdir())
        for armed in left:
            armed.unlink()
        return [f"nobody has passed {armed.name}" for armed in left]

    def _give_up(self, draft: Draft) -> None:
        """After a finding the next fault must not suffer from this one; nothing is forgotten."""
        self._points_left()
        self._running = None
        fault = draft.fault
        self.subject.destroy()
        if fault.heal is not None and fault.until_end and not draft.healed_ns:
            with suppress(RecdError, AssertionError, OSError):  # it may need the daemon that died
                fault.heal(self.subject, draft.made)
        self.known |= set(draft.made.get("uids", ())) | {draft.uid}

    # --- what came of it -----------------------------------------------------------------------

    def _hear(self) -> list[str]:
        """What the operator has read since the last time."""
        ear = self.subject.ear
        if ear is None:
            return []
        news, self._heard = ear.heard[self._heard :], len(ear.heard)
        return worth_reading(news)

    def _look(self, draft: Draft, expected: Collection[str]) -> tuple[EpisodeFacts, ...]:
        """The invariants; new episodes, of which each must be an expected one."""
        found = inspect(self.subject.dataset, self.saved, self.known)
        draft.findings += found.findings
        self.known |= {episode.uid for episode in found.new}
        self.saved |= {episode.uid: episode.length for episode in found.new}
        draft.findings += [
            f"episode {e.uid} came from nowhere" for e in found.new if e.uid not in expected
        ]
        if not self.subject.dead and (left := staging_left(self.subject.dataset)):
            draft.findings.append(f"left in staging: {left}")
        return found.new

    def _judge(self, draft: Draft, running: Running) -> None:
        """The invariants for the whole, the allowed loss for every fault of the episode; `draft`
        is the one that it ended with, or that comes after it."""
        new = self._look(draft, (running.uid,))
        episode = next((episode for episode in new if episode.uid == running.uid), None)
        if episode is None:
            draft.findings.append(f"episode {running.uid} is not in the dataset")
            return
        self._tell(running, episode)
        if draft.finished:
            draft.loss_ms = tail_ms(draft, running, episode)
            if not self.subject.dead:
                lost_ms = ring_loss_ms(draft.losses, self.subject.losses())
                draft.loss_ms = max(draft.loss_ms, lost_ms)
            draft.findings += too_much(draft)
        without = rows_without_picture(self.subject.dataset, episode)
        for met in running.drafts:
            if met.fault.loss_ms is None:
                met.loss_ms = outage_ms(met, running, without)

    def _tell(self, running: Running, episode: EpisodeFacts) -> None:
        for draft in running.drafts:
            draft.rows = episode.length
            draft.ended = str(episode.manifest.get("end_reason", ""))
            draft.verdict = str((episode.manifest.get("verdict") or {}).get("level", ""))
            draft.read += of_verdict(episode.manifest)

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


def _s(ns: int) -> float:
    return ns / NS_PER_S
