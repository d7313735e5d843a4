"""The plan in the daemon: feeds the pure plan with time, keys and facts, and does what it says.

Clients only press keys and look; one that attached under a name has to show itself at least every
few seconds, or the plan does what it was told to do when its client vanishes.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from recd.config.errors import RecdError, StateError
from recd.daemon.session import plan as planning
from recd.daemon.session.machine import State
from recd.daemon.session.plan import Act, Fact, Key, OnClientLost, Phase, Plan, PlanSpec, Step
from recd.daemon.supervisor.recording import Recording
from recd.daemon.supervisor.takes import LONGEST_NS
from recd.shm.clock import NS_PER_S

LEASE_NS = 5 * NS_PER_S
"""A client that was not seen for so long has vanished."""

SOURCES_ENDED = "the sources are at their end"
"""Outcome of a plan over step sources that has no further step to record."""


class Planner:
    """At most one plan for one recording.

    hold: told True and False when the arms have to stand still and to go on; announce: publishes.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        hold: Callable[[bool], None],
        announce: Callable[..., None],
        client_lost: str,
    ) -> None:
        self._recording = recording
        self._hold = hold
        self._announce = announce
        self._client_lost = client_lost
        self.plan: Plan | None = None
        self._clients: dict[str, int] = {}
        self._uid = ""
        self._uids: list[str] = []
        self._told: tuple[object, ...] = ()
        self._by: dict[str, str] = {}
        self._by_ns = 0

    @property
    def active(self) -> bool:
        """True from `start` until the last episode of the plan is saved."""
        return self.plan is not None and self.plan.phase is not Phase.DONE

    def start(self, now: int, args: Mapping[str, Any], *, had_episodes: bool) -> dict[str, Any]:
        """Begin a plan. had_episodes: the dataset held some before this daemon started."""
        if self.active:
            raise self._refused("a plan is running", "recctl attach joins it; key q ends it")
        if had_episodes and not args.get("resume"):
            raise RecdError(
                f"the dataset {self._recording.spec.root} already holds episodes",
                mend="add --resume to record more of them, or configure another dataset.root",
                code="dataset",
            )
        if self._recording.session.state is State.RECORDING:
            raise self._refused("an episode is being recorded", "recctl stop saves it")
        if args["episode_s"] * NS_PER_S > LONGEST_NS:
            raise RecdError(
                f"plan.start: episode_s: expected at most {LONGEST_NS / NS_PER_S:g}, found "
                f"{args['episode_s']:g}: LeRobot cannot address longer videos",
                mend="plan more and shorter episodes",
                code="argument",
            )
        spec = PlanSpec(
            episodes=args["episodes"],
            episode_ns=int(args["episode_s"] * NS_PER_S),
            reset_ns=int(args["reset_s"] * NS_PER_S),
            task=args.get("task") or self._recording.task,
            on_client_lost=OnClientLost(args.get("on_client_lost") or self._client_lost),
            resume=bool(args.get("resume")),
            early_ns=2 * self._recording.spec.grid.period_ns,
        )
        try:
            self.plan = planning.begin(spec, now)
        except ValueError as error:
            raise RecdError(f"plan.start: {error}", code="argument") from error
        self._uid, self._uids, self._by = "", [], {}
        self._clients = {args["client"]: now} if args.get("client") else {}
        self.watch(now)
        return self.describe(now) or {}

    def commissioned(self, by: Mapping[str, str], now: int) -> None:
        """Whose key (name, role, key) has started this plan: noted with each episode that it begins
        from now on."""
        self._by, self._by_ns = dict(by), now

    def key(self, key: str, now: int) -> dict[str, Any]:
        """A key of the operator."""
        if not self.active:
            raise self._refused("no plan is running", "recctl record starts one")
        self._feed(Key(key), now)
        return self.describe(now) or {}

    def attach(self, client: str, now: int) -> dict[str, Any]:
        """From now on the plan counts on this client."""
        if not self.active:
            raise self._refused("no plan is running", "recctl record starts one")
        self._clients[client] = now
        return self.describe(now) or {}

    def detach(self, client: str, now: int) -> dict[str, Any]:
        """The client leaves on purpose: the plan goes on without it."""
        self._clients.pop(client, None)
        return self.describe(now) or {}

    def seen(self, client: str, now: int) -> None:
        """An attached client showed itself."""
        if client in self._clients:
            self._clients[client] = now

    def on_take(self, what: str, uid: str, now: int) -> None:
        """What became of a take; only those of the plan matter."""
        if self.plan is None or uid not in self._uids:
            return
        match what:
            case "ended" if uid == self._uid:
                self._uid = ""
                if self._recording.spent:
                    self.plan = replace(self.plan, last=True, outcome=SOURCES_ENDED)
                self._feed(Fact.ENDED, now)
            case "saved" | "unwanted":
                self._do(planning.saved(self.plan), now)
            case "failed":
                self._do(planning.failed(self.plan), now)

    def watch(self, now: int) -> None:
        """Time passes: phases end, clients vanish, a waiting plan starts when it can."""
        if self.plan is None or not self.active:
            return
        gone = [name for name, seen in self._clients.items() if now - seen > LEASE_NS]
        for name in gone:
            del self._clients[name]
            self._announce("plan", "client_lost", client=name)
        if gone and not self._clients:
            self._feed(Fact.CLIENT_LOST, now)
        if self.plan.phase is Phase.WAITING and self._recording.session.state is State.READY:
            self._feed(Fact.AVAILABLE, now)
        self._feed(Fact.TIME, now)

    def next_deadline_ns(self, now: int) -> int | None:
        """When `watch` has something to do."""
        if self.plan is None or not self.active:
            return None
        times = [seen + LEASE_NS for seen in self._clients.values()]
        if self.plan.phase_ns() and not self.plan.held:
            times.append(self.plan.due_ns(now))
        return min(times, default=None)

    def _feed(self, happened: Key | Fact, now: int) -> None:
        assert self.plan is not None, "only a plan is fed"
        self._do(planning.advance(self.plan, happened, now), now)

    def _do(self, step: Step, now: int) -> None:
        self.plan = step.plan
        for act in step.acts:
            self._act(act, now)
        self._tell(now)

    def _act(self, act: Act, now: int) -> None:
        recording = self._recording
        match act:
            case Act.START:
                self._start_episode(now)
            case Act.STOP if recording.session.state is not State.RECORDING:
                pass  # a fault has ended the episode in the same moment: it is closing already
            case Act.STOP:
                recording.stop(now, "plan", rows=self._planned_rows(now))
            case Act.DISCARD:
                recording.discard(now)
            case Act.UNDO:
                self._undo()
            case Act.HOLD | Act.RESUME:
                held = act is Act.HOLD
                recording.session = replace(recording.session, paused=held)
                self._hold(held)
            case Act.RESET:
                self._announce("plan", "reset", **(self.describe(now) or {}))
            case Act.FINISH:
                self._announce("plan", "finished", **(self.describe(now) or {}))

    def _start_episode(self, now: int) -> None:
        assert self.plan is not None, "only a plan starts its episodes"
        try:
            take = self._recording.start(now, task=self.plan.spec.task)
        except StateError as error:
            if self._recording.session.low_disk or self._recording.spent:
                self._give_up(error, now)
            return  # not READY: the plan waits for it
        except RecdError as error:
            self._give_up(error, now)
            return
        if self._by:
            at_s = (self._by_ns - take.t0_ns) / NS_PER_S
            take.commanded.append({"cmd": "plan.start", **self._by, "at_s": at_s})
        self._uid = take.uid
        self._uids.append(take.uid)
        self._feed(Fact.STARTED, take.t0_ns)

    def _planned_rows(self, now: int) -> int:
        """Rows of an episode that ran its whole time; 0 when it was ended before."""
        plan, take, grid = self.plan, self._recording.current, self._recording.spec.grid
        if plan is None or take is None:
            return 0
        if now - take.t0_ns < plan.spec.episode_ns - plan.spec.early_ns:
            return 0
        return plan.spec.episode_ns * grid.num // (NS_PER_S * grid.den)

    def _undo(self) -> None:
        try:
            self._recording.undo()
        except StateError as error:
            self._announce("plan", "not_undone", reason=error.message)

    def _give_up(self, error: RecdError, now: int) -> None:
        assert self.plan is not None, "only a plan gives up"
        self._announce("fault", "plan_ended", reason=error.message, mend=error.mend)
        self.plan = replace(self.plan, outcome=error.message)
        self._feed(Key.STOP, now)

    def _tell(self, now: int) -> None:
        """Publish when something changed that a person would notice."""
        plan = self.plan
        if plan is None:
            return
        told = (plan.phase, plan.done, plan.held, plan.last, plan.unsaved)
        if told != self._told:
            self._told = told
            self._announce("plan", "changed", **(self.describe(now) or {}))

    def _refused(self, message: str, mend: str) -> StateError:
        session = self._recording.session
        return StateError(message, state=session.state.value, legal=session.legal, mend=mend)

    def describe(self, now: int) -> dict[str, Any] | None:
        """The plan as clients see it; None before the first one."""
        plan = self.plan
        if plan is None:
            return None
        return {
            "active": self.active,
            "phase": plan.phase.value,
            "episode": plan.episode,
            "episodes": plan.spec.episodes,
            "done": plan.done,
            "rerecorded": plan.rerecorded,
            "unsaved": plan.unsaved,
            "held": plan.held,
            "last": plan.last,
            "phase_s": plan.phase_ns() / NS_PER_S,
            "elapsed_s": plan.elapsed_ns(now) / NS_PER_S,
            "left_s": plan.left_ns(now) / NS_PER_S,
            "task": plan.spec.task,
            "on_client_lost": plan.spec.on_client_lost.value,
            "outcome": plan.outcome,
            "clients": sorted(self._clients),
            "uid": self._uid,
            "uids": self._uids[-100:],
            "lease_s": LEASE_NS / NS_PER_S,
        }
