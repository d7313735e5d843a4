"""The gateway: the one process that policies talk to. It looks, checks and passes on; arms decide.

One thread, one poll loop. Nothing here can move an arm: a chunk goes into a ring, and the arm's own
process plays it while lease, heartbeat and a person's permission are good.
"""

import secrets
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zmq

from recd import __version__
from recd.config.errors import RecdError
from recd.config.messages import (
    REQUEST_LIMITS,
    CommandError,
    MessageError,
    decode,
    encode,
    parse_request,
    reply_error,
    reply_ok,
    request_id_of,
)
from recd.config.models import RobotConfig
from recd.config.policy_streams import Held
from recd.config.policy_wire import (
    MODEL_BYTES,
    MOST_STEPS,
    POLICY_VERSION,
    REQUESTS,
    Mode,
    Representation,
    Status,
    is_line,
    pack,
    read_clock,
    unpack,
)
from recd.daemon.policy.desk import Answer, Desk
from recd.daemon.policy.journal import TEXT_MOST, Journal
from recd.daemon.policy.layout import ActionLayout, layout_of
from recd.daemon.policy.leases import Lease, Leases
from recd.daemon.policy.lookout import Lookout, ident_of
from recd.daemon.policy.observe import Observer
from recd.daemon.policy.seats import Seats
from recd.daemon.policy.sockets import Peer, Sockets, policy_access
from recd.daemon.supervisor.access import Caller, RefusedError, check_role
from recd.daemon.supervisor.doors import Letter
from recd.daemon.supervisor.patience import Patience
from recd.daemon.worker import WorkerContext
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

TURN_MS = 20
"""Longest wait of a turn: leases and unanswered chunks are looked at this often."""

BEAT_NS = NS_PER_S // 5
STATS_NS = NS_PER_S
LATENCIES = 512


def run(ctx: WorkerContext) -> int:
    """Life of the gateway: open the doors, serve until told to stop."""
    robot = RobotConfig.model_validate(ctx.robot)
    assert robot.policy is not None, "there is no gateway without the section"
    access = policy_access(robot.control, robot.policy)
    sockets = Sockets(Path(ctx.spec.runtime_dir), access)
    try:
        gateway = Gateway(ctx, robot, sockets)
        ctx.ready(endpoints=[door.endpoint.text for door in sockets.doors])
        while not ctx.stopping:
            gateway.turn()
        gateway.end()
    finally:
        sockets.close()
    return 0


class Gateway:
    """Everything that one gateway knows, and its loop."""

    def __init__(self, ctx: WorkerContext, robot: RobotConfig, sockets: Sockets) -> None:
        policy = robot.policy
        assert policy is not None
        self._ctx, self._robot, self._sockets = ctx, robot, sockets
        self.session_id = secrets.token_hex(8)
        self._policy = policy
        self._observer = Observer(ctx, robot)
        self._seats = Seats(ctx, robot)
        self._leases = Leases.begin(
            self._seats.epochs(),
            keep_ns=round(policy.lease_kept_s * NS_PER_S),
            stuck_ns=round(policy.stuck_s * NS_PER_S),
        )
        self._seats.tell_leases(self._leases)
        self._desk = Desk(ctx, robot, self._leases, self._observer, self._seats)
        self._patience = Patience()
        self._journal = Journal()
        self._lookout = Lookout(
            self._observer, sockets, self._journal, task=robot.dataset.task,
            row_ns=round(NS_PER_S / robot.dataset.fps), words=self._words, count=self._count,
            prefix=self._seats.prefix,
        )  # fmt: skip
        self._layout: ActionLayout | None = None
        self._statuses: Counter[str] = Counter()
        self._latency_ms: deque[float] = deque(maxlen=LATENCIES)
        self._task = robot.dataset.task
        self._refusal: dict[str, Any] | None = None
        self._seq = 0
        self._beat_at_ns = self._stats_at_ns = 0

    # --- the loop --------------------------------------------------------------------------

    def turn(self) -> None:
        """Wait for something, then bring everything up to date."""
        self._poll()
        now = now_ns()
        for message in self._ctx.messages():
            if message["ty"] == "task":
                self._task = self._lookout.task = str(message["text"])
            if message["ty"] == "revoke":
                pair = message.get("pair")
                pairs = [pair] if pair in self._leases.by_pair else self._leases.by_pair
                self._free(self._leases.release(pairs), "revoked")
        self._sockets.watch_keys()
        for peer, letter in self._sockets.letters("actions"):
            self._hear_action(peer, letter, now_ns())
        for answer in self._desk.answers(now_ns()):
            self._send_answer(answer)
        for peer, letter in self._sockets.letters("requests"):
            self._hear_request(peer, letter, now_ns())
        for peer, letter in self._sockets.letters("observations"):
            self._hear_wanted(peer, letter, now_ns())
        self._free(self._leases.expire(now), "silent")
        self._lookout.serve()
        self._tell(now)

    def _poll(self) -> None:
        poller = zmq.Poller()
        poller.register(self._ctx.link.fd, zmq.POLLIN)
        for socket in self._sockets.polled():
            poller.register(socket, zmq.POLLIN)
        poller.register(self._lookout.shaped_fd, zmq.POLLIN)
        bells = [reader.doorbell for reader in self._seats.verdicts.values()]
        bells += self._lookout.bells()
        for bell in bells:
            if bell is not None:
                poller.register(bell.fd, zmq.POLLIN)
        poller.poll(TURN_MS)
        for bell in bells:
            if bell is not None:
                bell.drain()

    def end(self) -> None:
        """Nobody may act any more; who waits is told."""
        self._free(self._leases.release(self._leases.by_pair), "the gateway ends")
        self._lookout.close()

    # --- actions ---------------------------------------------------------------------------

    def _hear_action(self, peer: Peer, letter: Letter, now: int) -> None:
        if self._patience.ignores(peer, now):
            return
        if not self._patience.has_credit(peer, now):
            self._count("busy")
            if self._patience.tell_busy(peer, now):
                self._ack(peer, None, {"status": Status.BUSY, "reason": "too many messages"})
            return
        header: Mapping[str, Any] = {}
        try:
            header, buffers = unpack(_whole(letter))
            caller = self._sockets.caller(peer, letter)
            match header.get("ty"):
                case "hb":
                    self._hear_beat(peer, header, now)
                case "act":
                    check_role(caller, "act", "policy")
                    refused = self._desk.take(peer, header, buffers, self._known_layout(), now)
                    self._journal.heard(peer, header, buffers, now)
                    if refused is not None:
                        self._send_answer(refused)
                case other:
                    raise MessageError(f"ty: expected act or hb, found {str(other)[:40]!r}")
        except RefusedError as error:
            self._ack(peer, header, self._noted(_complaint(Status.REFUSED, error)))
            return
        except MessageError as error:
            self._reject(peer, error, now)
            self._ack(peer, header, self._noted(_complaint(Status.MALFORMED, error)))
            return
        except RecdError as error:
            self._ack(peer, header, _complaint(Status.LOST, error))
            return
        self._patience.good(peer, now)

    def _hear_beat(self, peer: Peer, header: Mapping[str, Any], now: int) -> None:
        """A heartbeat: of the holder or of somebody who only looks. Answered with the state."""
        lease, progress = header.get("lease"), header.get("progress")
        ident = lease.get("id") if isinstance(lease, Mapping) else None
        if type(progress) is not int or not isinstance(ident, str):
            raise MessageError("hb: expected lease.id and a whole number `progress`")
        clock = read_clock(header.get("clock"))
        pairs = self._leases.beat(ident, now, progress=progress, clock=clock)
        self._seats.tell_leases(self._leases)
        self._count("beats")
        told = {"ty": "hb", "re": ident_of(header), "held": pairs, "rx": now,
                **self._state_words(), "tx": now_ns()}  # fmt: skip
        self._sockets.send(peer, pack(told))

    def _send_answer(self, answer: Answer) -> None:
        status = str(answer.told["status"])
        self._statuses[status] += 1
        self._count("chunks")
        good = status in (Status.APPLIED, Status.SHADOW, Status.STOPPED)
        self._count("applied" if good else "refused")
        if answer.latency_ns:
            self._latency_ms.append(answer.latency_ns / NS_PER_MS)
        self._ack(answer.peer, answer.header, answer.told)
        self._write_journal(answer)
        if not good:
            self._noted(answer.told)
            reason = {"status": status, "reason": answer.told.get("reason", "")}
            self._publish("chunk", "refused", {"chunk": answer.told.get("chunk"), **reason})

    def _noted(self, told: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keep the newest refusal for people: a policy may not show what it was answered."""
        words = {key: str(told.get(key, ""))[:TEXT_MOST] for key in ("status", "reason", "mend")}
        self._refusal = {**words, "at_ns": now_ns()}
        return told

    def _write_journal(self, answer: Answer) -> None:
        """For whoever logs a policy; after its answer has gone out."""
        obs, lease = answer.header.get("obs"), answer.header.get("lease")
        seen = self._observer.seen(obs) if type(obs) is int else None
        held = self._leases.held_by(str(lease.get("id"))) if isinstance(lease, Mapping) else ()
        by = self._leases.of(held[0]) if held else Lease(0)
        self._journal.answered(answer, seen, by.holder, now_ns(), adapter=by.adapter)

    def _ack(self, peer: Peer, header: Mapping[str, Any] | None, told: Mapping[str, Any]) -> None:
        re = "" if header is None else ident_of(header)
        self._sockets.send(peer, pack({"ty": "ack", "re": re, "tx": now_ns(), **told}))

    def _known_layout(self) -> ActionLayout:
        """The layout, once every follower has said its limits. RecdError before."""
        limits = self._seats.limits()
        if limits is None:
            raise RecdError(
                "the arms are still starting: their limits are not known yet", code="starting",
                mend="Try again in a few seconds; recctl status tells more.",
            )  # fmt: skip
        if self._layout is None or limits != self._seats.known_limits:
            self._layout = layout_of(self._robot, limits)
            self._seats.known_limits = limits
        return self._layout

    # --- requests --------------------------------------------------------------------------

    def _hear_request(self, peer: Peer, letter: Letter, now: int) -> None:
        if self._patience.ignores(peer, now) or not self._patience.has_credit(peer, now):
            self._count("busy")
            return
        request_id = ""
        try:
            caller = self._sockets.caller(peer, letter)
            message = decode(_whole(letter)[0], REQUEST_LIMITS)
            request_id = request_id_of(message)
            request = parse_request(message, REQUESTS)
            check_role(caller, request.cmd, REQUESTS[request.cmd].role)
            told = reply_ok(request.id, self._carry_out(request.cmd, request.args, caller, now))
        except MessageError as error:
            self._reject(peer, error, now)
            told = reply_error(request_id, error)
        except RecdError as error:
            told = reply_error(request_id, error)
        self._sockets.send(peer, [encode(told)])

    def _carry_out(
        self, cmd: str, args: Mapping[str, Any], caller: Caller, now: int
    ) -> Mapping[str, Any]:
        match cmd:
            case "describe":
                return self._describe()
            case "clock":
                return {"rx": now, "tx": now_ns(), "t_client": args.get("t_client", ""),
                        "sid": self.session_id}  # fmt: skip
            case "lease.acquire":
                return self._acquire(args, caller, now)
            case "lease.release":
                return {"released": self._free(
                    self._leases.release(self._leases.held_by(args["lease"])), "released"
                )}  # fmt: skip
        return self.stats(now)

    def _acquire(self, args: Mapping[str, Any], caller: Caller, now: int) -> Mapping[str, Any]:
        kind = Held[str(args.get("kind", "policy")).upper()]
        if kind is Held.TELEOP:
            check_role(caller, "lease.acquire (teleop)", "teleop")
        model = str(args.get("model", ""))
        if not is_line(model, MODEL_BYTES):
            raise CommandError(
                f"lease.acquire.model: expected one line of at most {MODEL_BYTES} bytes, found "
                f"{len(model.encode('utf-8', 'surrogatepass'))}", mend="Name it shorter.",
            )  # fmt: skip
        pairs = [args["pair"]] if args.get("pair") else list(self._leases.by_pair)
        before = {pair: self._leases.of(pair) for pair in pairs}
        self._leases.acquire(
            pairs,
            kind,
            now,
            ident=args["lease"],
            holder=args["name"],
            key=caller.fingerprint,
            adapter=args.get("adapter", ""),
            model=model,
        )
        self._seats.tell_leases(self._leases)
        self._stats_at_ns = 0
        for pair in pairs:
            if self._leases.of(pair) != before[pair]:
                self._ctx.event("lease acquired", pair=pair, holder=args["name"],
                                kind=kind.name.lower(), key=caller.fingerprint)  # fmt: skip
                told = {"pair": pair, **self._leases.of(pair).describe(now)}
                self._publish("lease", "acquired", told)
        epoch = self._leases.of(pairs[0]).epoch
        return {"pairs": pairs, "epoch": epoch, "heartbeat_ms": self._policy.heartbeat_ms // 3}

    def _free(self, pairs: list[str], why: str) -> list[str]:
        if pairs:
            self._seats.tell_leases(self._leases)
            self._stats_at_ns = 0
        for pair in pairs:
            self._ctx.event("lease ended", level="warning" if why == "silent" else "info",
                            pair=pair, reason=why)  # fmt: skip
            self._publish("lease", "ended", {"pair": pair, "reason": why})
        return pairs

    def _describe(self) -> Mapping[str, Any]:
        policy = self._policy
        return {
            "version": __version__,
            "protocol": POLICY_VERSION,
            "sid": self.session_id,
            "robot": self._robot.name,
            "robot_type": self._robot.robot_type,
            "task": self._task,
            "action": self._known_layout().describe(),
            "cameras": self._observer.describe(),
            "wishes": self._lookout.describe(),
            "control_hz": {pair: arm.rate_hz for pair, arm in self._robot.arms.items()},
            "chunk": {
                "most_steps": MOST_STEPS,
                "representations": list(Representation),
                "modes": list(Mode),
                "seam": policy.seam,
                "warm_up": policy.warm_up_chunks,
            },
            "timers_ms": {
                "heartbeat": policy.heartbeat_ms,
                "lease_kept": round(policy.lease_kept_s * 1000),
                "observation": round(policy.observation_s * 1000),
            },
        }

    def stats(self, now: int) -> dict[str, Any]:
        """What `stats` and `recctl policy stats` show."""
        ordered = sorted(self._latency_ms)
        return {
            "sid": self.session_id,
            "leases": {p: lease.describe(now) for p, lease in self._leases.by_pair.items()},
            "seats": self._seats.describe(now),
            "chunks": dict(self._statuses),
            "refused": self._refusal
            and {**self._refusal, "ago_s": (now - self._refusal["at_ns"]) / NS_PER_S},
            "latency_ms": {
                "count": len(ordered),
                "median": ordered[len(ordered) // 2] if ordered else None,
                "p99": ordered[len(ordered) * 99 // 100] if ordered else None,
            },
            "waiting_observations": self._lookout.waiting,
            "ignored_messages": self._patience.ignored,
            "handshakes_refused": self._sockets.handshakes_refused,
        }

    # --- observations ----------------------------------------------------------------------

    def _hear_wanted(self, peer: Peer, letter: Letter, now: int) -> None:
        if self._patience.ignores(peer, now) or not self._patience.has_credit(peer, now):
            self._count("busy")
            return
        header: Mapping[str, Any] = {}
        try:
            header, _ = unpack(_whole(letter))
            self._sockets.caller(peer, letter)
            self._lookout.hear(peer, header, now)
        except (MessageError, RefusedError) as error:
            if isinstance(error, MessageError):
                self._reject(peer, error, now)
            self._lookout.refuse(peer, ident_of(header), error.message, code=error.code,
                                 mend=error.mend)  # fmt: skip
            return
        self._patience.good(peer, now)

    def _words(self) -> dict[str, Any]:
        """What every observation says of the session, leases and arms."""
        return {"sid": self.session_id, **self._state_words()}

    def _state_words(self) -> dict[str, Any]:
        """What every answer says of leases and arms."""
        leases = self._leases.by_pair
        clocks = {p: lease.clock.told() for p, lease in leases.items() if lease.clock is not None}
        return {
            "lease": {pair: lease.epoch for pair, lease in leases.items()},
            "arms": self._seats.words(),
            **({"clock": clocks} if clocks else {}),
        }

    # --- what is told ----------------------------------------------------------------------

    def _tell(self, now: int) -> None:
        for pair, words in self._seats.changes():
            self._publish("motion", "motion", {"pair": pair, **words})
        if now >= self._beat_at_ns:
            self._beat_at_ns = now + BEAT_NS
            held = any(lease.kind is not Held.NOBODY for lease in self._leases.by_pair.values())
            self._ctx.status.beat("serving" if held else "waiting",
                                  progress=int(self._statuses.total()))  # fmt: skip
        if now >= self._stats_at_ns:
            self._stats_at_ns = now + STATS_NS
            stats = self.stats(now)
            self._seats.usual_ns = round((stats["latency_ms"]["p99"] or 0.0) * NS_PER_MS)
            self._ctx.link.send("policy", **stats)

    def _publish(self, topic: str, event: str, fields: Mapping[str, Any]) -> None:
        self._seq += 1
        head = {"v": POLICY_VERSION, "sid": self.session_id, "seq": self._seq, "t_ns": now_ns()}
        self._sockets.publish(topic, encode({**fields, **head, "event": event}))

    def _reject(self, peer: Peer, error: RecdError, now: int) -> None:
        self._count("malformed")
        if self._patience.strike(peer, now):
            self._ctx.log.warning("peer not heard for a while", reason=error.message)

    def _count(self, name: str, by: int = 1) -> None:
        self._ctx.status.count(name, by)


def _whole(letter: Letter) -> list[bytes]:
    """The parts of a letter. MessageError when it had more than a message has."""
    if letter.count != len(letter.parts) or not letter.parts:
        raise MessageError(f"expected a header and at most 2 buffers, found {letter.count} parts")
    return letter.parts


def _complaint(status: Status, error: RecdError) -> dict[str, Any]:
    return {"status": status, "reason": error.message, "mend": error.mend, "code": error.code}
