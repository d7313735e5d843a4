"""One arm process: attach to its bus, serve it on the grid, take it up again when it comes back.

Role `leader` or `follower` by configuration. The process never turns torque on by itself, and
touches it at its end only when the daemon itself says that this is the end: no signal does.
"""

import os
from typing import Any, Protocol

from recd.config.errors import DeviceError, RecdError, StateError
from recd.config.streams import Motion
from recd.daemon import realtime
from recd.daemon.arms.attach import Attached, attach
from recd.daemon.arms.exchange import WAITED_NS
from recd.daemon.arms.feetech.bus import ServoBus
from recd.daemon.arms.feetech.port import BusLostError, BusPort
from recd.daemon.arms.follower import Follower
from recd.daemon.arms.leader import Leader
from recd.daemon.arms.loop import ROLE_PHASE, Pacer
from recd.daemon.arms.ports import find_again, usb_serial_of
from recd.daemon.arms.side import ArmSide, arm_side, period_ns
from recd.daemon.arms.tickcode import machine_code
from recd.daemon.policy.seat import seat_streams
from recd.daemon.worker import WorkerContext
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

_USUAL_SHARE = 0.75
"""Share of a period that a reply may usually take; a line that is always slower is refused."""

_BEAT_HZ = 10
_RETRY_FIRST_NS = 100 * NS_PER_MS
_RETRY_CAP_NS = 2 * NS_PER_S
_STEP_NS = 50 * NS_PER_MS
_SLOW_REPLY_NS = 8 * NS_PER_MS
"""No adapter that is set up well needs this long at its best; a badly set one needs 16 ms."""


class Arm(Protocol):
    """What the loop serves: a Leader or a Follower."""

    @property
    def motion(self) -> Motion: ...

    @property
    def finished(self) -> bool: ...

    def command(self, message: dict[str, Any]) -> None: ...

    def tick(self, tick: int, woke_ns: int, skipped: int) -> Motion: ...

    def stop(self) -> None: ...


def run(ctx: WorkerContext) -> int:
    """Life of an arm process. Returns 0, or 1 when a signal ended it that its daemon did not send.

    DeviceError when the arm cannot be taken up at first.
    """
    pair, role = ctx.config["pair"], ctx.config["side"]
    side = arm_side(pair, role, ctx.config, runtime_dir=ctx.spec.runtime_dir)
    service = Service(ctx, side)
    service.connect()
    while service.serve():
        service.reconnect()
    ctx.messages()
    return 0 if ctx.told_to_stop or ctx.link.closed else 1


class Service:
    """The bus of this process over all its losses."""

    def __init__(self, ctx: WorkerContext, side: ArmSide) -> None:
        self._ctx = ctx
        self._side = side
        self._usb_serial = usb_serial_of(side.port)
        self._rings = (
            ctx.ring_writer(f"arm.{side.bus}"),
            ctx.ring_writer(f"telemetry.{side.bus}"),
        )
        name = f"leader.{side.bus.partition('.')[0]}"
        self._cell: Any = None
        if role_writes_cell(side.role):
            self._cell = ctx.cell_writer(name)
        elif name in ctx.spec.cells:
            self._cell = ctx.cell_reader(name)
        pair = side.bus.partition(".")[0]
        self._meeting: Any = None
        if f"meeting.{pair}" in ctx.spec.cells:
            reads = side.role == "leader"
            self._meeting = (ctx.cell_reader if reads else ctx.cell_writer)(f"meeting.{pair}")
        self._seat = seat_streams(ctx, pair) if side.role == "follower" else None
        wanted = ctx.robot.get("realtime", {})
        spin_us = wanted.get("spin_us", 0) if wanted.get("enabled") else 0
        self._pacer = Pacer(
            ctx.config["rate_hz"],
            phase_ns=round(ROLE_PHASE[side.role] * period_ns(ctx.config)),
            spin_ns=spin_us * 1000,
            status=ctx.status.record,
            code=machine_code(),
        )
        self._arm: Arm | None = None
        self._bus: ServoBus | None = None
        self._had_torque = False

    def connect(self) -> None:
        """Open, check, configure; then this process is ready. Raises DeviceError."""
        self._ctx.status.beat("CONNECTING")
        attached = self._attach()
        self._ctx.ready(**attached.facts(), port=self._side.port, usb_serial=self._usb_serial)

    def reconnect(self) -> None:
        """Try until the bus is back or the process is told to end; the operator hears why."""
        ctx, wait_ns, told = self._ctx, _RETRY_FIRST_NS, ""
        while not ctx.stopping:
            self._rest(wait_ns)
            wait_ns = min(2 * wait_ns, _RETRY_CAP_NS)
            try:
                attached = self._attach()
            except DeviceError as error:
                if error.message != told:
                    told = error.message
                    ctx.event(
                        "bus away", level="error", bus=self._side.bus, reason=error.message,
                        mend=error.mend,
                    )  # fmt: skip
                continue
            ctx.status.count("reconnects")
            ctx.event("bus back", bus=self._side.bus, torque=list(attached.torque))
            return

    def serve(self) -> bool:
        """Ticks until told to end (False) or until the bus is lost (True)."""
        try:
            return self._serve()
        except BusLostError as error:
            self._ctx.event(
                "bus lost", level="error", bus=self._side.bus, reason=error.message, mend=error.mend
            )
            if isinstance(self._arm, Follower):
                self._had_torque |= self._arm.state.trait.torque
                self._arm.report_away()
            self._arm = None
            return True
        finally:
            if self._bus is not None:
                self._bus.close()

    def _serve(self) -> bool:
        ctx, pacer, arm = self._ctx, self._pacer, self._arm
        if arm is None or self._bus is None:
            return False
        words = self._bus.port.words
        realtime.freeze_garbage()
        pacer.restart()
        beat_every = max(1, pacer.rate_hz // _BEAT_HZ)
        stopping, told = False, None
        waiting = ctx.link.waiting
        while True:
            woke_ns = pacer.wait(words[WAITED_NS])
            if waiting(0):
                for message in ctx.messages():
                    self._hear(arm, message)
            if ctx.stopping and not stopping:
                stopping = True
                for message in ctx.messages():  # the daemon's word precedes its signal
                    self._hear(arm, message)
                if ctx.told_to_stop and not ctx.link.closed:
                    arm.stop()
            if stopping and (arm.finished or ctx.link.closed):
                self._beat(arm)
                return False
            motion = arm.tick(pacer.tick, woke_ns, pacer.skipped)
            if motion is not told or pacer.tick % beat_every == 0 or pacer.skipped:
                told = motion
                self._beat(arm)

    def _beat(self, arm: Arm) -> None:
        status, pacer = self._ctx.status, self._pacer
        status.set("overruns", pacer.overruns)
        status.set("ticks", self._rings[0].head)
        if self._bus is not None:
            status.set("read_errors", self._bus.bad_packets)
        status.beat(arm.motion.name, progress=self._rings[0].head)

    def _hear(self, arm: Arm | None, message: dict[str, Any]) -> None:
        if message["ty"] == "stop":
            return
        try:
            if arm is None:
                raise StateError(
                    f"{message['ty']}: the bus {self._side.bus} is away", state="CONNECTING",
                    legal=(), mend="Check power and cable; recctl status tells what is missing.",
                )  # fmt: skip
            arm.command(message)
            self._ctx.link.send("obeyed", number=message.get("number", 0))
        except BusLostError:
            raise
        except RecdError as error:
            self._ctx.link.send(
                "refused_op", op=message["ty"], number=message.get("number", 0),
                reason=error.message, mend=error.mend,
                code=error.code, state=getattr(error, "state", ""),
                legal=list(getattr(error, "legal", ())),
            )  # fmt: skip

    def _attach(self) -> Attached:
        ctx, side = self._ctx, self._side
        self._arm = None
        port = BusPort(find_again(side.port, self._usb_serial), baud=side.baud, bus=side.bus)
        bus = ServoBus(port, side.ids, machine_code())
        bus.open()
        try:
            attached = attach(bus, side, alive=self._alive)
        except BaseException:
            bus.close()
            raise
        self._bus = bus
        self._judge(attached)
        self._usb_serial = self._usb_serial or usb_serial_of(port.port_name)
        bus.serve_every(period_ns(ctx.config))
        if side.role == "leader":
            self._arm = Leader(
                ctx, bus, side, attached, rings=self._rings, cell=self._cell,
                meeting=self._meeting,
            )  # fmt: skip
        else:
            follower = Follower(
                ctx, bus, side, attached, rings=self._rings, cell=self._cell, seat=self._seat,
                meeting=self._meeting, had_torque=self._had_torque,
            )  # fmt: skip
            follower.report()
            self._arm = follower
        ctx.link.send("attached", **attached.facts(), port=port.port_name,
                      usb_serial=self._usb_serial)  # fmt: skip
        return attached

    def _judge(self, attached: Attached) -> None:
        """Refuse a line too slow for the rate; say what else is odd about the arm."""
        ctx, side = self._ctx, self._side
        patience_ns = round(_USUAL_SHARE * period_ns(ctx.config))
        if attached.reply_ns > max(patience_ns, _SLOW_REPLY_NS):
            path = f"/sys/bus/usb-serial/devices/{os.path.basename(os.path.realpath(side.port))}"
            raise DeviceError(
                f"arms.{side.bus}: a reply takes at least {attached.reply_ns / NS_PER_MS:.1f} ms; "
                f"{ctx.config['rate_hz']} Hz leave {patience_ns / NS_PER_MS:.1f} ms",
                mend=f"echo 1 | sudo tee {path}/latency_timer (adapters of FTDI kind wait 16 ms), "
                "or lower the pair's rate_hz.",
            )
        if len(set(attached.firmware)) > 1:
            ctx.event("firmware differs", level="warning", bus=side.bus,
                      firmware=list(attached.firmware))  # fmt: skip
        if attached.deferred:
            ctx.event(
                "settings differ", level="warning", bus=side.bus, registers=list(attached.deferred),
                mend="They are written at the next arming without torque.",
            )  # fmt: skip

    def _alive(self) -> None:
        self._ctx.status.beat("CONNECTING")

    def _rest(self, for_ns: int) -> None:
        """Wait, with a heartbeat and an ear for commands."""
        until_ns = now_ns() + for_ns
        while now_ns() < until_ns and not self._ctx.stopping:
            self._alive()
            for message in self._ctx.messages():
                self._hear(None, message)
            sleep_until_ns(min(until_ns, now_ns() + _STEP_NS))


def role_writes_cell(role: str) -> bool:
    """A leader writes the pair's cell, a follower reads it."""
    return role == "leader"
