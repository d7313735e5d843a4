"""The commands of the control plane: each row of config/messages.COMMANDS has its method here.

A method either returns its result or says under which key the outcome will come (Later).
"""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from recd import __version__
from recd.config.errors import RecdError, StateError
from recd.config.load import dump
from recd.config.messages import COMMANDS, PROTOCOL_VERSION, Request
from recd.daemon.session.machine import State
from recd.daemon.supervisor import status
from recd.daemon.supervisor.access import Caller
from recd.daemon.supervisor.control import Later, Outcome
from recd.daemon.supervisor.disk import check_room
from recd.daemon.supervisor.recording import Recording
from recd.daemon.supervisor.takes import LONGEST_NS, SUMMARIES_KEPT, Fate, Take
from recd.shm.clock import NS_PER_S, now_ns
from recd.shm.dump import describe_cell, describe_ring

if TYPE_CHECKING:
    from recd.daemon.supervisor.supervisor import Supervisor

NOTES_MAX = 64
"""Commands by keys that are noted with one episode."""

Args = Mapping[str, Any]
Method = Callable[[Args, int], Outcome]


class Commands:
    """Dispatches requests to the parts of one supervisor."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self._s = supervisor
        self._methods: dict[str, Method] = {
            name: getattr(self, f"_{name.replace('.', '_')}") for name in COMMANDS
        }

    def handle(self, request: Request, caller: Caller) -> Outcome:
        """Carry out one request of a caller who may. RecdError with the reason of a refusal."""
        if not self._s.ending.running and COMMANDS[request.cmd].role not in ("observe", "admin"):
            raise StateError(
                f"{request.cmd}: the daemon is ending", state="ENDING", legal=("status", "estop")
            )
        now = now_ns()
        before = self._s.recording.current
        outcome = self._methods[request.cmd](request.args, now)
        if caller.fingerprint and COMMANDS[request.cmd].role != "observe":
            self._note(request.cmd, caller, before or self._s.recording.current, now)
        if request.cmd == "hello" and not isinstance(outcome, Later):
            return {**outcome, "you": caller.describe()}
        return outcome

    def _note(self, cmd: str, caller: Caller, take: Take | None, now: int) -> None:
        """Whose key commanded: in the log, and with the episode that runs."""
        self._s.log.info("command of a key", cmd=cmd, **caller.describe())
        if take is not None and len(take.commanded) < NOTES_MAX:
            note = {"cmd": cmd, **caller.describe(), "at_s": (now - take.t0_ns) / NS_PER_S}
            take.commanded.append(note)
        if cmd == "plan.start":
            self._s.planner.commissioned(caller.describe(), now)

    def _recording(self, args: Args) -> Recording:
        name = args.get("recording", "main")
        recording = self._s.recordings.get(name)
        if recording is None:
            raise RecdError(
                f"no recording {name!r}",
                mend=f"recordings of this daemon: {', '.join(self._s.recordings)}",
                code="argument",
            )
        return recording

    # --- about the daemon ------------------------------------------------------------------

    def _hello(self, args: Args, now: int) -> Outcome:
        del args
        robot = self._s.robot
        return {
            "version": __version__,
            "protocol": PROTOCOL_VERSION,
            "instance": robot.instance_name,
            "robot": robot.name,
            "robot_type": robot.robot_type,
            "station": robot.station,
            "session_id": self._s.session_id,
            "pid": os.getpid(),
            "t_ns": now,
            "state": self._s.recording.session.state.value,
            "commands": list(COMMANDS),
        }

    def brief(self, now: int) -> dict[str, Any]:
        """The part of `status` that changes all the time; also the topic `state`."""
        s, session = self._s, self._s.recording.session
        take = s.recording.current
        episode = None
        if take is not None and session.take is not None:
            episode = {
                **take.describe(),
                "t0_ns": take.t0_ns,
                "elapsed_s": max(0, now - take.t0_ns) / NS_PER_S,
                "closes_in_s": (take.t0_ns + LONGEST_NS - now) / NS_PER_S if take.warned else None,
                "marks": [mark.label for mark in session.take.marks],
            }
        return {
            "state": session.state.value,
            "recording": session.recording,
            "legal": list(session.legal),
            "flags": session.flags,
            "waiting_for": list(session.waiting_for),
            "waiting_why": list(session.why),
            "degraded": sorted(session.degraded),
            "fault": session.fault,
            "stage": s.ending.stage.value,
            "episode": episode,
            "committing": [*session.committing, *session.discarding],
            "plan": s.planner.describe(now),
            "disk": s.disk.describe(),
            "cameras": status.describe_cameras(s.robot, s.fleet, s.meters, s.looks.ages_ms(now)),
            "policy": self._policy_brief(),
            "rollout": s.rollout.describe(),
            "arms": status.describe_arms(s.robot, s.fleet, s.meters, s.motion.describe()),
        }

    def _policy_brief(self) -> Mapping[str, Any] | None:
        """Who holds which lease; None without a gateway."""
        if "gateway" not in self._s.fleet.seats:
            return None
        said = self._s.policy_said
        told = {"leases": said.get("leases", {}), "chunks": said.get("chunks", {})}
        return {**told, "adapter": self._s.adapter_said} if self._s.adapter_said else told

    def _status(self, args: Args, now: int) -> Outcome:
        del args
        s, robot = self._s, self._s.robot
        ended = [take for take in s.recording.takes.values() if take.ended_ns]
        return {
            **self.brief(now),
            "version": __version__,
            "instance": robot.instance_name,
            "robot": robot.name,
            "station": robot.station,
            "session_id": s.session_id,
            "pid": os.getpid(),
            "t_ns": now,
            "uptime_s": (now - s.started_ns) / NS_PER_S,
            "task": s.recording.task,
            "operator": s.recording.operator,
            "last_episode": ended[-1].describe() if ended else None,
            "undecodable": [
                {
                    "uid": take.uid,
                    "episode_index": take.outcome.get("episode_index"),
                    "findings": take.decode["findings"],
                }
                for take in s.recording.takes.values()
                if take.fate is Fate.SAVED and take.decode.get("good") is False
            ],
            "dataset": {
                "root": str(robot.dataset_root),
                "repo_id": robot.dataset.repo_id,
                "fps": robot.dataset.fps,
                **dict(s.recording.totals),
            },
            "processes": status.describe_processes(s.fleet, s.meters, now),
            "serial_delivery": s.serial.answer,
            "shm_bytes": s.resources.nbytes,
            "rejected_messages": s.control.rejected if s.control is not None else 0,
            "control": s.control.describe() if s.control is not None else {},
        }

    def _shm(self, args: Args, now: int) -> Outcome:
        del args, now
        resources = self._s.resources
        cells = [describe_cell(segment) for segment in resources.cells.values()]
        for cell in cells:
            del cell["value"]
        return {
            "nbytes": resources.nbytes,
            "rings": [_without_dtype(describe_ring(ring)) for ring in resources.rings.values()],
            "cells": cells,
        }

    def _snapshot(self, args: Args, now: int) -> Outcome:
        wanted = args.get("camera")
        if wanted:
            return {"pictures": [self._s.looks.snapshot(wanted, now)], "failed": {}}
        pictures, failed = [], {}
        for camera in self._s.robot.cameras:
            try:
                pictures.append(self._s.looks.snapshot(camera, now))
            except RecdError as error:
                failed[camera] = error.message
        return {"pictures": pictures, "failed": failed}

    def _devices(self, args: Args, now: int) -> Outcome:
        del args, now
        devices = [
            {
                "process": name,
                "kind": seat.row.kind,
                "pid": seat.pid,
                "devices": _devices_in(seat.row.config),
                "facts": dict(seat.facts),
            }
            for name, seat in self._s.fleet.seats.items()
            if seat.row.kind in ("camera", "arm")
        ]
        return {"devices": devices}

    def _config(self, args: Args, now: int) -> Outcome:
        del args, now
        return {"config": dict(dump(self._s.robot))}

    def _shutdown(self, args: Args, now: int) -> Outcome:
        del args
        if self._s.ending.running:
            self._s.end(now, "shutdown")
        return Later("shutdown")

    # --- episodes --------------------------------------------------------------------------

    def _start(self, args: Args, now: int) -> Outcome:
        recording = self._recording(args)
        if self._s.planner.active:
            raise self._plan_runs("start", "the plan starts its episodes by itself; key n goes on")
        take = recording.start(now, task=args.get("task"), operator=args.get("operator"))
        return {
            "uid": take.uid,
            "t0_ns": take.t0_ns,
            "task": take.begin["task"],
            "operator": take.begin["operator"],
            "state": recording.session.state.value,
        }

    def _stop(self, args: Args, now: int) -> Outcome:
        recording = self._recording(args)
        take = recording.current
        if self._s.planner.active and recording.session.state is State.RECORDING:
            self._s.planner.key("stop", now)
            assert take is not None, "RECORDING has a take"
        else:
            take = recording.stop(now)
        if args.get("wait", True):
            return Later(f"saved:{take.uid}")
        return take.describe()

    def _discard(self, args: Args, now: int) -> Outcome:
        recording = self._recording(args)
        if self._s.planner.active:
            raise self._plan_runs("discard", "key r throws the episode away and records it again")
        return Later(f"discarded:{recording.discard(now).uid}")

    def _rerecord(self, args: Args, now: int) -> Outcome:
        recording = self._recording(args)
        if self._s.planner.active:
            return self._s.planner.key("rerecord", now)
        if recording.session.state is State.RECORDING:
            return Later(f"restarted:{recording.discard(now, restart=True).uid}")
        return Later(f"undone:{recording.undo(args.get('uid'))}")

    def _undelete(self, args: Args, now: int) -> Outcome:
        del now
        self._recording(args).undelete(args["uid"])
        return Later(f"undeleted:{args['uid']}")

    def _mark(self, args: Args, now: int) -> Outcome:
        take = self._recording(args).mark(now, args["label"])
        return {"uid": take.uid, "label": args["label"], "at_s": (now - take.t0_ns) / NS_PER_S}

    def _episodes(self, args: Args, now: int) -> Outcome:
        del now
        limit = args.get("limit", SUMMARIES_KEPT)
        takes = [take.describe() for take in self._s.recording.takes.values()][-limit:]
        if limit > SUMMARIES_KEPT:
            for take in takes:
                take.pop("summary", None)
        return {"episodes": takes}

    def _task(self, args: Args, now: int) -> Outcome:
        del now
        if args.get("text"):
            self._s.recording.task = args["text"]
        return {"task": self._s.recording.task}

    def _operator(self, args: Args, now: int) -> Outcome:
        del now
        if "name" in args:
            self._s.recording.operator = args["name"]
        return {"operator": self._s.recording.operator}

    def _reset(self, args: Args, now: int) -> Outcome:
        del args, now
        recording, revived = self._s.recording, self._s.fleet.revive()
        # What nobody requires is given up without a fault, and comes back in any state.
        if recording.session.state is State.FAULT or not revived:
            recording.reset()
        return {"state": self._s.recording.session.state.value}

    # --- motion ----------------------------------------------------------------------------

    def _move(self, ty: str, args: Args, now: int) -> Outcome:
        fields = {"policy": args["policy"]} if args.get("policy") else {}
        return Later(self._s.motion.command(ty, now, pair=args.get("pair"), **fields))

    def _arm(self, args: Args, now: int) -> Outcome:
        return self._move("arm", args, now)

    def _disarm(self, args: Args, now: int) -> Outcome:
        return self._move("disarm", args, now)

    def _teleop(self, args: Args, now: int) -> Outcome:
        return self._move("teleop", args, now)

    def _hold(self, args: Args, now: int) -> Outcome:
        return self._move("hold", args, now)

    def _resume(self, args: Args, now: int) -> Outcome:
        return self._move("resume", args, now)

    def _estop(self, args: Args, now: int) -> Outcome:
        return self._move("estop", args, now)

    # --- policies --------------------------------------------------------------------------

    def _policy_attach(self, args: Args, now: int) -> Outcome:
        self._check_gateway("policy.attach", now)
        self._check_adapter("policy.attach", now)
        return self._move("policy attach", args, now)

    def _policy_resume(self, args: Args, now: int) -> Outcome:
        self._check_gateway("policy.resume", now)
        self._check_adapter("policy.resume", now)
        return self._move("policy attach", args, now)

    def _policy_pause(self, args: Args, now: int) -> Outcome:
        return self._move("policy pause", args, now)

    def _policy_takeover(self, args: Args, now: int) -> Outcome:
        return self._move("policy takeover", args, now)

    def _policy_detach(self, args: Args, now: int) -> Outcome:
        """The arm first: whatever the gateway is at, the policy does not drive any more. An arm
        that is away has nothing to hold; its lease goes all the same."""
        self._check_section("policy.detach")
        outcome: Outcome
        try:
            outcome = self._move("policy detach", args, now)
        except RecdError as error:
            if error.code == "argument":
                raise
            outcome = {"motion": self._s.motion.describe()}
        self._check_gateway("policy.detach", now)
        self._s.fleet.send("gateway", "revoke", pair=args.get("pair"))
        return outcome

    def _policy_stats(self, args: Args, now: int) -> Outcome:
        del args
        self._check_gateway("policy.stats", now)
        said = self._s.adapter_said
        return {**self._s.policy_said, "adapter": said} if said else self._s.policy_said

    def _check_adapter(self, command: str, now: int) -> None:
        """RecdError with the adapter's own reason while it has nothing to offer."""
        if "adapter" not in self._s.fleet.seats:
            return
        said = self._s.adapter_said
        if (why := self._s.fleet.unready("adapter", now)) is not None:
            raise RecdError(f"{command}: {why.message}", mend=why.mend, code=why.code)
        if said.get("state") != "offering":
            words = (str(said.get("state", "starting")).replace("_", " "), said.get("reason", ""))
            raise RecdError(
                f"{command}: the adapter is {': '.join(word for word in words if word)}",
                mend=said.get("mend") or "Try again when it has warmed up: recctl policy stats",
                code="adapter",
            )

    def _check_section(self, command: str) -> None:
        """RecdError at a robot without policies."""
        if "gateway" not in self._s.fleet.seats:
            raise RecdError(
                f"{command}: this robot's configuration has no section 'policy'",
                mend="Add one ('policy: {}' is enough) and start recd again.", code="policy",
            )  # fmt: skip

    def _check_gateway(self, command: str, now: int) -> None:
        """RecdError while no policy can be there."""
        self._check_section(command)
        if (why := self._s.fleet.unready("gateway", now)) is not None:
            raise RecdError(f"{command}: {why.message}", mend=why.mend, code=why.code)

    # --- rollouts --------------------------------------------------------------------------

    def _rollout_start(self, args: Args, now: int) -> Outcome:
        if self._s.planner.active:
            raise self._plan_runs("rollout.start", "recctl attach joins it; key q ends it")
        return self._s.rollout.start(args, now)

    def _rollout_stop(self, args: Args, now: int) -> Outcome:
        del args
        return self._s.rollout.stop(now)

    def _highlight(self, args: Args, now: int) -> Outcome:
        go_on = bool(args.get("go_on"))
        take = self._s.rollout.highlight(now, go_on=go_on)
        waits = args.get("wait", True) and not go_on
        return Later(f"saved:{take.uid}") if waits else take.describe()

    # --- the plan --------------------------------------------------------------------------

    def _plan_start(self, args: Args, now: int) -> Outcome:
        self._recording(args)
        if self._s.rollout.records:
            session = self._s.recording.session
            raise StateError(
                "plan.start: a rollout records by itself", state=session.state.value,
                legal=session.legal, mend="End it first: recctl rollout --stop",
            )  # fmt: skip
        if not self._s.planner.active:
            check_room(self._s.disk, episodes=args["episodes"], episode_s=args["episode_s"])
        return self._s.planner.start(now, args, had_episodes=self._s.had_episodes)

    def _plan_key(self, args: Args, now: int) -> Outcome:
        return self._s.planner.key(args["key"], now)

    def _plan_status(self, args: Args, now: int) -> Outcome:
        if args.get("client"):
            self._s.planner.seen(args["client"], now)
        return self.brief(now)

    def _plan_attach(self, args: Args, now: int) -> Outcome:
        return self._s.planner.attach(args["client"], now)

    def _plan_detach(self, args: Args, now: int) -> Outcome:
        return self._s.planner.detach(args["client"], now)

    def _plan_runs(self, command: str, mend: str) -> StateError:
        session = self._s.recording.session
        legal = ("stop", "rerecord", "mark", "plan.key")
        return StateError(
            f"{command}: a plan is running", state=session.state.value, legal=legal, mend=mend
        )


def _without_dtype(described: dict[str, Any]) -> dict[str, Any]:
    meta = {key: value for key, value in described["meta"].items() if key != "dtype"}
    return {**described, "meta": meta}


def _devices_in(config: Mapping[str, Any]) -> list[str]:
    """Paths and URLs that a process has open, as far as its section names them."""
    found = [str(config["device"])] if config.get("device") else []
    side = config.get("side")
    if side and config.get(side):
        found.append(str(config[side]["port"]))
    return found
