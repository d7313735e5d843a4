"""One recording: drives encoders and writer through begin, end, closed, seal and durable.

The pure machine (daemon/session/machine.py) says what is legal; this sends the messages and keeps
what came back. It never waits: answers arrive through `hear`, time through `watch`.

    supervisor -> encoder, writer   begin {uid, recording, staging, t0_ns, rate_num, rate_den, grid,
                                           codec, task, operator, episode_hint, source, resume}
                                    end {uid, ticks, keep}
    encoder -> supervisor           opened, closed {uid, ...}, failed {uid, reason}
    supervisor -> writer            seal {uid, keep, cameras, failed, arms, marks, task, operator,
                                          end_reason, restarts, ticks, commanded, resume}
    writer -> supervisor            progress {uid, rows}, durable {uid, ...}, discarded {uid},
                                    failed {uid, reason, kept_at}, later decoded {uid, decode}
    supervisor -> writer            undo {uid}, undelete {uid}
    writer -> supervisor            undone {uid}, undeleted {uid}, or refused_op {uid, op, reason}
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from recd.config.errors import RecdError
from recd.daemon.faultpoints import fault_point
from recd.daemon.session import machine
from recd.daemon.session.machine import Session, State
from recd.daemon.supervisor.steps import SOURCE_ENDED
from recd.daemon.supervisor.takes import (
    LIMIT_REASON,
    LONGEST_NS,
    LONGEST_WARN_NS,
    Fate,
    Listener,
    Post,
    RecordingSpec,
    Take,
    check_calibrations,
    first_tick_ns,
    forget,
    make_staging,
    rows_at_stop,
)
from recd.shm.clock import NS_PER_MS, NS_PER_S, tick_at_or_before

CLOSE_PATIENCE_NS = 30 * NS_PER_S
"""Encoders that have neither decided a row nor closed their file for so long are given up for this
take. Who is behind at its end may take longer: a stall, or a computer too busy for a while."""

JOIN_NS_PER_ROW = 5 * NS_PER_MS
"""Added where an encoder had died in the take: its parts are joined and decoded once more."""

TEXT_LIMIT = 300


class Recording:
    """State and takes of one recording id."""

    def __init__(self, spec: RecordingSpec, post: Post, listener: Listener) -> None:
        self.spec = spec
        self.session = Session(recording=spec.name)
        self.takes: dict[str, Take] = {}
        self.task = spec.task
        self.operator = spec.operator
        self.sources: dict[str, Mapping[str, Any]] = {}
        self.arms: dict[str, Mapping[str, Any]] = {}
        self.calibrations: Mapping[str, Sequence[str]] = {}
        self.totals: Mapping[str, Any] = {}
        self.spent = False
        """True once a step source is at its end: no further episode can come."""
        self._post = post
        self._listener = listener
        self.watchers: list[Callable[[str, str], None]] = []
        """Told (what, uid): started, ended, saved, discarded, failed, undone, undeleted, or
        unwanted: failed before it could be undone."""

    @property
    def current(self) -> Take | None:
        """The take that is running or closing."""
        take = self.session.take
        return None if take is None else self.takes[take.uid]

    @property
    def settled(self) -> bool:
        """True when nothing is running, closing, committing or being undone."""
        session = self.session
        return not (session.take or session.committing or session.discarding or session.undoing)

    def _tell(self, what: str, uid: str) -> None:
        for watcher in self.watchers:
            watcher(what, uid)

    # --- commands --------------------------------------------------------------------------

    def start(
        self, now: int, *, task: str | None = None, operator: str | None = None, back_ns: int = 0
    ) -> Take:
        """Begin an episode. Raises StateError; never waits and syncs nothing.

        back_ns: so long ago; rings and histories have to reach back as far.
        """
        check_calibrations(self.arms, self.calibrations)
        uid = secrets.token_hex(16)
        t0_ns = first_tick_ns(now, self.spec.grid) - back_ns
        facts = machine.Take(uid, t0_ns, task=task or self.task, operator=operator or self.operator)
        session = machine.start(self.session, facts)
        staging = self.spec.root / ".recd" / "staging" / uid
        make_staging(staging)
        self.session = session
        begin = {
            "uid": uid,
            "recording": self.spec.name,
            "staging": str(staging),
            "t0_ns": t0_ns,
            "rate_num": self.spec.grid.num,
            "rate_den": self.spec.grid.den,
            "grid": self.spec.grid.kind,
            "codec": dict(self.spec.codec),
            "task": facts.task,
            "operator": facts.operator,
            **({"back": True} if back_ns else {}),
            "episode_hint": self.totals.get("episodes", 0) + len(self.session.committing),
        }
        take = Take(uid, staging, t0_ns, begin, tuple(self.spec.encoders))
        self.takes[uid] = take
        forget(self.takes)
        for camera, process in self.spec.encoders.items():
            self._post.send(process, "begin", **begin, source=self.sources.get(camera, {}))
        for process in self.spec.writers:
            self._post.send(process, "begin", **begin)
        fault_point("supervisor.begun")
        self._listener.announce("episode", "started", **take.describe())
        self._tell("started", uid)
        return take

    def stop(self, now: int, reason: str = "stop", *, rows: int = 0) -> Take:
        """End the running episode and keep it. rows: as many were planned, if that is still
        possible; steps cannot be planned."""
        self.session = machine.stop(self.session, reason)
        return self._end(now, Fate.CLOSING, rows=0 if self.steps else rows)

    def cut(self, now: int, upto_ns: int, reason: str) -> None:
        """End the running episode with its last row not later than `upto_ns`, although later ones
        may be in its files already; without any row it goes to the trash."""
        take, grid = self.current, self.spec.grid
        assert take is not None, "only a running episode is cut"
        rows = tick_at_or_before(take.t0_ns, upto_ns, grid.num, grid.den) + 1
        if rows < 1:
            self.discard(now)
            return
        self.session = machine.stop(self.session, reason)
        self._end(now, Fate.CLOSING, exactly=rows)

    @property
    def steps(self) -> bool:
        """True when a source makes the rows, not the clock."""
        return self.spec.grid.kind == "step"

    def source_ended(self, now: int, rows: int) -> None:
        """The sources of a step recording have no further row: `rows` are all of this episode."""
        if rows:
            self.session = machine.stop(self.session, SOURCE_ENDED)
            self._end(now, Fate.CLOSING, exactly=rows)
            return
        reason = "the source was at its end: there was no step for this episode"
        self._listener.announce("fault", "nothing_to_record", reason=reason)
        self.discard(now)

    def abort(self, now: int, reason: str) -> None:
        """A failure ends the running episode; it is kept. Nothing happens when none runs."""
        if self.session.state is State.RECORDING:
            self.session = machine.abort(self.session, reason[:TEXT_LIMIT])
            self._end(now, Fate.CLOSING)

    def discard(self, now: int, *, restart: bool = False) -> Take:
        """End the running episode and put it in the trash; `restart` begins anew at once."""
        closing, restarting = self.session.state is State.FINALIZING, self.session.restart
        self.session = machine.discard(self.session, restart=restart)
        if closing:
            take = self.current
            assert take is not None, "FINALIZING always has a take"
            take.fate = Fate.DISCARDING
            if restarting:
                error = RecdError("the take was discarded, nothing was started", code="state")
                self._listener.resolve(f"restarted:{take.uid}", error)
            return take
        return self._end(now, Fate.DISCARDING)

    def fault(self, now: int, reason: str) -> None:
        """Something required is gone for good."""
        if self.session.fault:
            return
        recording = self.session.state is State.RECORDING
        self.session = machine.fault(self.session, reason[:TEXT_LIMIT])
        self._listener.announce("fault", "fault", reason=reason)
        if recording:
            self._end(now, Fate.CLOSING)

    def mark(self, now: int, label: str) -> Take:
        """Put a word on the running episode."""
        self.session = machine.mark(self.session, label, now)
        take = self.current
        assert take is not None, "a mark needs a running episode"
        self._listener.announce("episode", "marked", uid=take.uid, label=label)
        return take

    def undo(self, uid: str | None = None) -> str:
        """Take back the last episode that this session saved; returns its uid."""
        self.session, latest = machine.undo(self.session, uid)
        if latest not in self.session.committing:
            self._send_undo(latest)
        return latest

    def undelete(self, uid: str) -> None:
        """Bring a take back from the trash."""
        self.session = machine.undeleted(self.session)
        for process in self.spec.writers:
            if not self._post.send(process, "undelete", uid=uid):
                raise RecdError("the writer is not there", mend="recctl status tells why")

    def reset(self) -> None:
        """Leave FAULT."""
        self.session = machine.advance(self.session, machine.Event.RESET)

    def _end(self, now: int, fate: Fate, *, rows: int = 0, exactly: int = 0) -> Take:
        take = self.current
        facts = self.session.take
        assert take is not None and facts is not None, "only a running take is ended"  # noqa: PT018
        take.fate, take.stop_ns = fate, now
        take.ticks = exactly or max(rows, self._rows_at_stop(take, now))
        for process in (*self.spec.encoders.values(), *self.spec.writers):
            self._post.send(process, "end", uid=take.uid, ticks=take.ticks, keep=facts.keep)
        fault_point("supervisor.ending")
        self._listener.announce("episode", "ending", uid=take.uid, reason=facts.end_reason)
        self._close_when_ready(take, now)
        return take

    def _rows_at_stop(self, take: Take, now: int) -> int:
        decided = max(self.spec.decided(take.uid).values(), default=0)
        if self.steps:
            return max(1, decided)
        return max(decided, rows_at_stop(take.t0_ns, now, self.spec.grid))

    def _send_undo(self, uid: str) -> None:
        for process in self.spec.writers:
            self._post.send(process, "undo", uid=uid)

    # --- what workers say ------------------------------------------------------------------

    def hear(self, process: str, kind: str, ty: str, fields: Mapping[str, Any], now: int) -> None:
        """One message of an encoder or writer about a take. Unknown takes are none of ours."""
        uid = str(fields.get("uid", ""))
        if kind == "writer" and ty in ("undone", "undeleted", "refused_op"):
            self._hear_edit(ty, uid, fields, now)
            return
        take = self.takes.get(uid)
        if take is None:
            return
        match kind, ty:
            case "encoder", "closed":
                take.closed[_camera_of(process)] = fields
                self._close_when_ready(take, now)
            case "encoder", "failed":
                take.failed[_camera_of(process)] = str(fields.get("reason", "failed"))
                self._listener.announce("fault", "encoder failed", process=process, **fields)
                self._encoder_failed(take, process, now)
            case "writer", "progress":
                take.rows = int(fields.get("rows", 0))
            case "writer", "durable":
                self._durable(take, fields, now)
            case "writer", "decoded":
                take.decode = dict(fields.get("decode") or {})
            case "writer", "discarded":
                self._settle(take, Fate.DISCARDED, fields, now)
            case "writer", "failed":
                self._writer_failed(take, fields, now)

    def _encoder_failed(self, take: Take, process: str, now: int) -> None:
        if self.current is take and self.session.state is State.RECORDING:
            self.abort(now, f"{process}: {take.failed[_camera_of(process)]}")
        self._close_when_ready(take, now)

    def _writer_failed(self, take: Take, fields: Mapping[str, Any], now: int) -> None:
        """The writer gave a take up; one that still runs ends, and is settled once it is closed."""
        if take is not self.current:
            self._settle(take, Fate.FAILED, fields, now)
            return
        take.lost = fields
        self.abort(now, f"writer: {fields.get('reason', 'failed')}")

    def _close_when_ready(self, take: Take, now: int) -> None:
        if take is not self.current or self.session.state is not State.FINALIZING:
            return
        if not take.all_closed:
            return
        facts = self.session.take
        assert facts is not None, "FINALIZING always has a take"
        restart = self.session.restart
        self.session = machine.closed(self.session)
        take.fate = Fate.COMMITTING if facts.keep else Fate.DISCARDING
        self._tell("ended", take.uid)
        if take.lost:
            self._settle(take, Fate.FAILED, take.lost, now)
        else:
            take.seal = self._seal(take, facts)
            for process in self.spec.writers:
                self._post.send(process, "seal", **take.seal)
            fault_point("supervisor.sealed")
            self._listener.announce("episode", "closed", **take.describe())
        if restart:
            self._restart(take, now)

    def _restart(self, old: Take, now: int) -> None:
        self.session = replace(self.session, restart=False)
        try:
            take = self.start(now, task=old.begin["task"], operator=old.begin["operator"])
        except RecdError as error:
            self._listener.resolve(f"restarted:{old.uid}", error)
            return
        result = {"uid": take.uid, "t0_ns": take.t0_ns, "discarded": old.uid}
        self._listener.resolve(f"restarted:{old.uid}", {**result, "task": take.begin["task"]})

    def _seal(self, take: Take, facts: machine.Take) -> dict[str, Any]:
        return {
            "uid": take.uid,
            "keep": facts.keep,
            "cameras": dict(take.closed),
            "failed": dict(take.failed),
            "arms": dict(self.arms),
            "marks": [
                {"label": mark.label, "at_ns": mark.at_ns, "at_s": (mark.at_ns - take.t0_ns) / 1e9}
                for mark in facts.marks
            ],
            "task": facts.task,
            "operator": facts.operator,
            "end_reason": facts.end_reason,
            "restarts": dict(take.restarts),
            "ticks": take.ticks,
            "commanded": list(take.commanded),
            "notes": dict(take.notes),
        }

    def _durable(self, take: Take, fields: Mapping[str, Any], now: int) -> None:
        if take.fate is Fate.DISCARDING:
            # A writer's recovery published it before it could be told to throw it away.
            self._send_undo(take.uid)
            return
        fault_point("supervisor.durable")
        take.outcome, take.rows, take.ended_ns = fields, int(fields.get("rows", 0)), now
        take.fate = Fate.SAVED
        undo_now = take.uid in self.session.undoing
        self.session = machine.durable(self.session, take.uid)
        if isinstance(totals := fields.get("totals"), Mapping):
            self.totals = totals
        if isinstance(known := fields.get("calibrations"), Mapping):
            self.calibrations = known
        described = take.describe()
        self._listener.announce("episode", "saved", **described)
        self._listener.resolve(f"saved:{take.uid}", described)
        self._tell("saved", take.uid)
        if undo_now:
            self._send_undo(take.uid)

    def _settle(self, take: Take, fate: Fate, fields: Mapping[str, Any], now: int) -> None:
        """A take ended without a new episode: in the trash, or failed and kept aside."""
        undoing = take.uid in self.session.undoing
        take.outcome, take.fate, take.ended_ns = fields, fate, now
        self.session = machine.settled(self.session, take.uid)
        described = take.describe()
        topic = "fault" if fate is Fate.FAILED else "episode"
        self._listener.announce(topic, fate.value, **described)
        self._tell("unwanted" if undoing else fate.value, take.uid)
        outcome: Mapping[str, Any] | RecdError = described
        if fate is Fate.FAILED:
            reason, kept_at = fields.get("reason", "unknown"), fields.get("kept_at", take.staging)
            outcome = RecdError(
                f"episode {take.uid} could not be saved: {reason}",
                mend=f"everything recorded is kept at {kept_at}; recctl recover takes it up",
                code="not_saved",
            )
        for key in ("saved", "discarded", *(("undone",) if undoing else ())):
            self._listener.resolve(f"{key}:{take.uid}", outcome)

    def _hear_edit(self, ty: str, uid: str, fields: Mapping[str, Any], now: int) -> None:
        if isinstance(totals := fields.get("totals"), Mapping):
            self.totals = totals
        if ty == "refused_op":
            operation = str(fields.get("op", "undo"))
            error = RecdError(
                f"{operation} {uid}: {fields.get('reason', 'refused')}",
                mend=str(fields.get("mend", "")),
                code="dataset",
            )
            self.session = machine.undone(self.session, uid)
            take = self.takes.get(uid)
            if take is not None and take.fate is Fate.DISCARDING:
                self._settle(take, Fate.FAILED, fields, now)
            key = "undone" if operation == "undo" else "undeleted"
            self._listener.resolve(f"{key}:{uid}", error)
            return
        if ty == "undone":
            self.session = machine.undone(self.session, uid)
        take = self.takes.get(uid)
        if take is not None and take.fate is Fate.DISCARDING:
            self._settle(take, Fate.DISCARDED, {}, now)
            return
        if take is not None:
            take.fate = Fate.UNDONE if ty == "undone" else Fate.SAVED
            numberless = {k: v for k, v in take.outcome.items() if k != "episode_index"}
            take.outcome = {**numberless, **_number_of(fields)}
        told = {"uid": uid, **{k: v for k, v in fields.items() if k != "uid"}}
        self._listener.announce("episode", ty, **told)
        self._listener.resolve(f"{ty}:{uid}", told)
        self._tell(ty, uid)

    # --- time and restarts -----------------------------------------------------------------

    def watch(self, now: int) -> None:
        """End an episode at its longest; give up on encoders that do not close, so that one of
        them never blocks the session."""
        take = self.current
        if take is not None and self.session.state is State.RECORDING:
            self._watch_length(take, now)
        if take is None or self.session.state is not State.FINALIZING:
            return
        decided = sum(self.spec.decided(take.uid).values())
        if decided != take.decided:
            take.decided, take.decided_ns = decided, now
        joins = any(take.restarts.get(self.spec.encoders.get(c, "")) for c in take.cameras)
        patience_ns = CLOSE_PATIENCE_NS + joins * (take.ticks or 0) * JOIN_NS_PER_ROW
        if now - max(take.stop_ns, take.decided_ns) > patience_ns:
            for camera in take.cameras:
                if camera not in take.closed:
                    take.failed.setdefault(camera, "did not close its file in time")
        self._close_when_ready(take, now)

    def _watch_length(self, take: Take, now: int) -> None:
        """Announce the longest episode that a dataset can hold, and close it there."""
        length_ns = now - take.t0_ns
        if self.spec.grid.kind == "step":
            length_ns = self._rows_at_stop(take, now) * self.spec.grid.period_ns
        if length_ns >= LONGEST_NS:
            self._listener.announce("fault", "longest_episode", uid=take.uid, action="closed")
            self.stop(now, LIMIT_REASON)
        elif length_ns >= LONGEST_NS - LONGEST_WARN_NS and not take.warned:
            take.warned = True
            left_s = (LONGEST_NS - length_ns) / NS_PER_S
            self._listener.announce("fault", "longest_episode", uid=take.uid, left_s=left_s)

    def worker_back(self, process: str, kind: str) -> None:
        """An encoder or writer is ready (again): tell it everything that is still open."""
        for take in self.open_takes():
            if kind == "encoder" and (
                _camera_of(process) in take.closed or _camera_of(process) in take.failed
            ):
                continue
            extra = {"source": self.sources.get(_camera_of(process), {})}
            self._post.send(process, "begin", **take.begin, resume=True, **extra)
            if take.ticks is not None:
                keep = take.fate is not Fate.DISCARDING
                again = {"uid": take.uid, "ticks": take.ticks, "keep": keep}
                self._post.send(process, "end", **again, resume=True)
            if kind == "writer" and take.seal is not None:
                self._post.send(process, "seal", **take.seal, resume=True)
        if kind == "writer":
            for uid in self.session.undoing:
                if uid not in self.session.committing:
                    self._send_undo(uid)

    def open_takes(self) -> list[Take]:
        """Takes of which nobody knows yet what becomes of them, oldest first."""
        return [take for take in self.takes.values() if take.open]

    def worker_left(self, process: str, kind: str, now: int) -> None:
        """A worker of this recording ended while a take was open: the take remembers it."""
        current = self.current
        concerned = self.open_takes() if kind == "writer" else [current] if current else []
        for take in concerned:
            take.restarts[process] = take.restarts.get(process, 0) + 1
        if kind == "writer" and current is not None and not current.resumable(process):
            self.abort(now, f"{process}: ended {current.restarts[process]} times in this episode")


def _number_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The number that an episode has now, if it has one."""
    return {"episode_index": fields["episode_index"]} if "episode_index" in fields else {}


def _camera_of(process: str) -> str:
    return process.partition(":")[2]
