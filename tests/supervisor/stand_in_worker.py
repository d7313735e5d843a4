"""A small worker process for tests of the supervisor: real process, real link, scripted manners.

It speaks the messages of encoders, writers and arms, without devices and files. `config.manners`
says how it misbehaves.
"""

import os
import select
import signal
from pathlib import Path
from typing import Any

from recd.config.errors import DeviceError
from recd.config.streams import STATUS_STATES
from recd.daemon.worker import WorkerContext
from recd.shm.clock import now_ns, sleep_until_ns


def run(ctx: WorkerContext) -> int:
    manners = ctx.config.get("manners", {})
    if manners.get("refuse"):
        raise DeviceError("camera 7 is not there", mend="plug it in")
    if manners.get("die_at_once"):
        return 3
    if manners.get("crash"):
        raise RuntimeError("as it was told to")
    if manners.get("ignore_term"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker = StandIn(ctx, manners)
    if (gate := manners.get("ready_after")) is not None:
        ctx.status.beat("CONNECTING" if ctx.kind == "arm" else None)
    while gate and not Path(gate).exists() and not ctx.link.closed:
        ctx.status.beat()
        sleep_until_ns(now_ns() + 10_000_000)
    if not manners.get("never_ready"):
        ctx.ready(**_facts(ctx))
    if reason := manners.get("device_away"):
        worker.state = "reconnecting"
        ctx.event("camera.lost", level="warning", reason=reason, mend="plug it in")
    return worker.serve()


def _facts(ctx: WorkerContext) -> dict[str, Any]:
    if ctx.kind == "sim":
        cameras = {name: f"http://127.0.0.1:1/{name}" for name in ctx.robot["cameras"]}
        buses = {
            f"{pair}.{side}": f"/dev/null#{pair}.{side}"
            for pair in ctx.robot["arms"]
            for side in ("leader", "follower")
        }
        return {"cameras": cameras, "endpoints": buses, "config": ctx.config}
    if ctx.kind == "writer":
        return {"totals": {"episodes": ctx.config["manners"].get("episodes", 0)}}
    return {"config": ctx.config}


class StandIn:
    def __init__(self, ctx: WorkerContext, manners: dict[str, Any]) -> None:
        self.ctx = ctx
        self.manners = manners
        self.episodes = int(manners.get("episodes", 0))
        self.rows: dict[str, int] = {}
        self.trash: set[str] = set()
        self.open = Path(ctx.config.get("root", ".")).parent / "open"
        resumed = {begin["uid"] for begin in ctx.config.get("open_takes", ())}
        self.found = (set(os.listdir(self.open)) if self.open.is_dir() else set()) - resumed
        if ctx.kind == "writer" and resumed and manners.get("dies_of_takes"):
            os.kill(os.getpid(), signal.SIGKILL)
        self.dies_at = now_ns() + int(manners["dies_after_s"] * 1e9) if (
            "dies_after_s" in manners
        ) else None  # fmt: skip
        words = STATUS_STATES.get(ctx.kind, ())
        good = {"camera": "running", "arm": "DISARMED", "sim": "running"}.get(ctx.kind, "ready")
        self.state = good if good in words else None

    def serve(self) -> int:
        poller = select.poll()
        poller.register(self.ctx.link.fd, select.POLLIN)
        while not self.ctx.stopping or (self.manners.get("ignore_term") and not self._orphan()):
            poller.poll(50)
            if self.dies_at is not None and now_ns() > self.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.manners.get("no_beat"):
                sleep_until_ns(now_ns() + 3_600_000_000_000)
            self.ctx.status.beat(self.state)
            for message in self.ctx.messages():
                self.hear(message)
        return 0

    def _orphan(self) -> bool:
        return self.ctx.link.closed

    def hear(self, message: dict[str, Any]) -> None:
        match self.ctx.kind:
            case "encoder":
                self.encode(message)
            case "writer":
                self.write(message)
            case "arm":
                self.move(message)

    def encode(self, message: dict[str, Any]) -> None:
        uid = message.get("uid", "")
        match message["ty"]:
            case "begin":
                self.ctx.link.send("opened", uid=uid)
                self.ctx.link.send("closed")
                self.ctx.link.send("event", fields=[1])
                if self.manners.get("fail_begin"):
                    self.ctx.link.send("failed", uid=uid, reason="codec broke")
                if self.manners.get("die_in_episode") and not message.get("resume"):
                    os.kill(os.getpid(), signal.SIGKILL)
            case "end" if not self.manners.get("never_close"):
                camera = self.ctx.config["camera"]
                self.ctx.link.send(
                    "closed", uid=uid, camera=camera, packets=message["ticks"], bytes=1000
                )

    def write(self, message: dict[str, Any]) -> None:
        uid, link = message.get("uid", ""), self.ctx.link
        if message["ty"] in ("begin", "end", "seal") and uid in self.found:
            if message["ty"] == "begin":
                link.send("durable", uid=uid, episode_index=7, rows=5, recovered=True)
            return
        match message["ty"]:
            case "begin":
                self.open.mkdir(exist_ok=True)
                (self.open / uid).touch()
            case "end":
                self.rows[uid] = message["ticks"]
            case "seal" if self.manners.get("fail_commit"):
                link.send("failed", uid=uid, reason="disk full", kept_at="/somewhere")
            case "seal" if not message["keep"]:
                self.trash.add(uid)
                (self.open / uid).unlink()
                link.send("discarded", uid=uid)
            case "seal":
                self._commit(uid, message)
            case "undo":
                self.episodes -= 1
                self.trash.add(uid)
                link.send("undone", uid=uid, totals={"episodes": self.episodes})
            case "undelete" if uid in self.trash:
                self.trash.discard(uid)
                self.episodes += 1
                link.send("undeleted", uid=uid, episode_index=self.episodes - 1)
            case "undelete":
                link.send("refused_op", uid=uid, op="undelete", reason="not in the trash")

    def _commit(self, uid: str, message: dict[str, Any]) -> None:
        sleep_until_ns(now_ns() + int(self.manners.get("commit_s", 0.0) * 1e9))
        held_by = Path(self.manners.get("commit_held_by", ""))
        while held_by.is_file() and not self.ctx.link.closed:
            self.ctx.status.beat(self.state)
            sleep_until_ns(now_ns() + 10_000_000)
        self.episodes += 1
        (self.open / uid).unlink()
        with open(os.path.join(self.ctx.config["root"], "..", "committed"), "a") as file:
            file.write(f"saved {uid}\n")
        self.ctx.link.send(
            "durable",
            uid=uid,
            episode_index=self.episodes - 1,
            rows=message["ticks"],
            duration_ns=message["ticks"] * 33_333_333,
            totals={"episodes": self.episodes},
            verdict={"level": "good", "reasons": []},
            summary={"failed": message["failed"], "restarts": message["restarts"]},
        )

    def move(self, message: dict[str, Any]) -> None:
        states = {"arm": "TELEOP", "hold": "HOLD", "estop": "HOLD", "disarm": "DISARMED",
                  "resume": "TELEOP", "teleop": "TELEOP"}  # fmt: skip
        if message["ty"] == "hold" and self.manners.get("fault_on_hold"):
            self.state = "FAULT"
            self.ctx.link.send("motion", state="FAULT", cause="bus_silent", waiting_joints=[])
        elif (state := states.get(message["ty"])) is not None:
            self.state = state
            self.ctx.link.send("motion", state=state, cause="COMMAND", waiting_joints=[])
            self.ctx.link.send("obeyed", number=message["number"])
