"""The rollout in the daemon: does what the pure strategy says, and saves highlights.

At most one for one recording. A person's own `start` and `stop` go before it; a plan and a rollout
that records by itself exclude each other.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from recd.config.errors import RecdError, StateError
from recd.config.models import RobotConfig, RolloutConfig
from recd.daemon.session.machine import State
from recd.daemon.session.rollout import (
    Corrections,
    Do,
    RolloutSpec,
    Seen,
    Strategy,
    next_act,
    seen_of,
    unled_ns,
)
from recd.daemon.supervisor.recording import Recording
from recd.daemon.supervisor.takes import Take
from recd.shm.clock import NS_PER_S

RECORDING_BY_ITSELF = (Strategy.SENTRY, Strategy.DAGGER, Strategy.EPISODIC)
TIMED = (Strategy.SENTRY, Strategy.EPISODIC)


class Rollout:
    """arms: what every follower last said; pause: interrupts the policy; announce: publishes."""

    def __init__(
        self, robot: RobotConfig, recording: Recording, *,
        arms: Callable[[], Mapping[str, Mapping[str, Any]]], pause: Callable[[], None],
        announce: Callable[..., None],
    ) -> None:  # fmt: skip
        self._recording = recording
        self._arms, self._pause, self._announce = arms, pause, announce
        self._configured = robot.rollout or RolloutConfig()
        self._back_ns = round(self._configured.highlight_s * NS_PER_S)
        self._ready_ns = 0
        self._uid = ""
        self._uids: list[str] = []
        self.spec = None if robot.rollout is None else spec_of(self._configured, {})

    @property
    def records(self) -> bool:
        """True while it begins episodes by itself."""
        return self.spec is not None and self.spec.strategy in RECORDING_BY_ITSELF

    def start(self, args: Mapping[str, Any], now: int) -> dict[str, Any]:
        """Begin a rollout, in place of the one before."""
        self.stop(now)
        self.spec = spec_of(self._configured, args)
        self._uids = []
        self._announce("episode", "rollout_started", **self.describe())
        return self.describe()

    def stop(self, now: int) -> dict[str, Any]:
        """End it; its running episode is kept."""
        if self._take() is not None:
            self._recording.stop(now, "rollout")
        self.spec, self._uid = None, ""
        return self.describe()

    def _take(self) -> Take | None:
        """Its running episode."""
        take = self._recording.current
        running = self._recording.session.state is State.RECORDING
        return take if running and take is not None and take.uid == self._uid else None

    def watch(self, now: int) -> None:
        """Do what the strategy wants now."""
        ready = self._recording.session.state is State.READY
        if self._recording.session.available:
            self._ready_ns = self._ready_ns or now
        else:
            self._ready_ns = 0
        if self.spec is None:
            return
        take = self._take()
        arms = self._arms()
        seen = Seen(ready, take is not None, 0 if take is None else take.t0_ns, **seen_of(arms))
        unled = None
        if take is not None and self.spec.own_corrections:
            grid = self._recording.spec.grid
            unled = unled_ns(arms, take.t0_ns, (grid.num, grid.den), now)
            seen = replace(seen, led=unled is None)
        match next_act(self.spec, seen, now):
            case Do.START:
                self._start(now)
            case Do.STOP:
                self._recording.stop(now, "rollout")
            case Do.STOP_AND_PAUSE:
                self._recording.stop(now, "rollout")
                self._pause()
            case Do.CUT:
                self._recording.cut(now, (unled or now) - 1, "correction")

    def _start(self, now: int) -> None:
        assert self.spec is not None, "only a rollout starts its episodes"
        if self._recording.session.low_disk or self._recording.spent:
            return  # said already; it goes on once there is room
        try:
            take = self._recording.start(now)
        except RecdError as error:
            self._announce("fault", "rollout_ended", reason=error.message, mend=error.mend)
            self.spec = None
            return
        self._note(take)

    def _note(self, take: Take) -> None:
        assert self.spec is not None, "only a rollout notes its episodes"
        self._uid = take.uid
        self._uids.append(take.uid)
        take.notes["rollout"] = {
            "strategy": self.spec.strategy.value, "corrections": self.spec.corrections.value,
        }  # fmt: skip

    def highlight(self, now: int, *, go_on: bool) -> Take:
        """Save the last seconds; go_on: and what comes, until `stop`. StateError or RecdError."""
        if not self._back_ns:
            raise RecdError(
                "highlight: nothing is kept of the past", code="rollout",
                mend="Set rollout.highlight_s (seconds, at most 50) and start recd again.",
            )  # fmt: skip
        if self._recording.steps:
            raise RecdError("highlight: a step source has no past", code="rollout")
        session = self._recording.session
        if session.state is not State.READY:
            raise StateError(
                f"highlight: not possible while {session.state.value}",
                state=session.state.value, legal=session.legal,
                mend="A running episode holds these seconds already: recctl mark, recctl stop.",
            )  # fmt: skip
        take = self._recording.start(now, back_ns=min(self._back_ns, now - self._ready_ns))
        take.notes["rollout"] = {"strategy": Strategy.HIGHLIGHT.value}
        self._uids.append(take.uid)
        if not go_on:
            self._recording.stop(now, "highlight")
        return take

    def next_deadline_ns(self, now: int) -> int | None:
        """When `watch` has something to do by time alone."""
        take = self._take()
        if self.spec is None or take is None:
            return None
        if self.spec.own_corrections:
            return now + self._recording.spec.grid.period_ns
        return take.t0_ns + self.spec.episode_ns if self.spec.strategy in TIMED else None

    def describe(self) -> dict[str, Any]:
        """For `status`."""
        spec = self.spec
        return {
            "strategy": None if spec is None else spec.strategy.value,
            "corrections": None if spec is None else spec.corrections.value,
            "episode_s": None if spec is None else spec.episode_ns / NS_PER_S,
            "highlight_s": self._back_ns / NS_PER_S,
            "uid": "" if self._take() is None else self._uid,
            "uids": self._uids[-100:],
        }


def spec_of(configured: RolloutConfig, args: Mapping[str, Any]) -> RolloutSpec:
    """What the configuration says, changed by the arguments of `rollout.start`."""
    return RolloutSpec(
        Strategy(args.get("strategy") or configured.strategy),
        round((args.get("episode_s") or configured.episode_s) * NS_PER_S),
        Corrections(args.get("corrections") or configured.corrections),
    )
