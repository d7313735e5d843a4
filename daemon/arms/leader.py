"""A leader's tick: read it, publish it. The arm is held by a person; its own servos move it only
where the configuration says so, to meet its follower (leaderdrive.py).

Its newest position goes into a cell that the follower reads; a joint that did not answer keeps its
last position there with its bit cleared.
"""

from typing import Any

from recd.config.errors import StateError
from recd.config.streams import JointFlag, Motion
from recd.daemon.arms.attach import Attached
from recd.daemon.arms.feetech.bus import ServoBus
from recd.daemon.arms.feetech.reading import Reading
from recd.daemon.arms.leaderdrive import LeaderDrive
from recd.daemon.arms.leaderview import FACTS, position_bytes, positions_in
from recd.daemon.arms.registers import POSITION_BLOCK, TELEMETRY_BLOCK
from recd.daemon.arms.samples import Samples, Telemetry
from recd.daemon.arms.side import ArmSide, goal_path
from recd.daemon.arms.silence import Silence, SilenceFinding
from recd.daemon.arms.tickcode import machine_code
from recd.daemon.worker import WorkerContext
from recd.shm import CellReader, CellWriter, RingWriter
from recd.shm.clock import now_ns

TELEMETRY_SLOT = 7
NEVER = 1 << 62
OVERRUN_BEFORE = int(JointFlag.OVERRUN_BEFORE)


class Leader:
    """One leader between attach and loss of its bus. `tick` serves one period.

    motion: DISARMED, or HOLD while its servos drive it; finished: it has nothing to bring down.
    """

    def __init__(
        self,
        ctx: WorkerContext,
        bus: ServoBus,
        side: ArmSide,
        attached: Attached,
        *,
        rings: tuple[RingWriter, RingWriter],
        cell: CellWriter,
        meeting: CellReader | None,
    ) -> None:
        """rings: samples and telemetry; meeting: its follower's wish, None: it is never driven."""
        self._ctx = ctx
        self._bus = bus
        self._side = side
        scales = attached.calibration.scales(side.units)
        self._samples = Samples(rings[0], scales, ctx.status, bus.reading, machine_code())
        self._drive: LeaderDrive | None = None
        if meeting is not None:
            pair = side.bus.partition(".")[0]
            path = goal_path(pair, ctx.config, scales, side.names, machine_code())
            self._drive = LeaderDrive(ctx, bus, path, meeting)
        self._telemetry = Telemetry(rings[1], len(side.joints), machine_code())
        self._telemetry_every = every(ctx.config["rate_hz"], ctx.config["telemetry_hz"])
        self._everybody = (1 << len(side.joints)) - 1
        self._cell = cell
        self._newest = positions_in(cell, len(side.joints))
        self._newest_bytes = position_bytes(cell, len(side.joints))
        self._epoch = rings[0].epoch
        self._telemetry.set_torque(attached.torque)
        self._silence = Silence(len(side.joints), now_ns())
        self.motion = Motion.DISARMED
        self.finished = True
        if any(attached.torque):
            names = [n for n, on in zip(side.names, attached.torque, strict=True) if on]
            ctx.event(
                "leader holds torque",
                level="warning",
                bus=side.bus,
                joints=names,
                mend="It cannot be led by hand. Stop the daemon, then: recctl release CONFIG "
                f"{side.bus}",
            )

    def command(self, message: dict[str, Any]) -> None:
        """Refused: a leader takes no commands."""
        raise StateError(
            f"{message['ty']}: {self._side.bus} is a leader and takes no commands",
            state=self.motion.name,
            legal=(),
        )

    def tick(self, tick: int, woke_ns: int, skipped: int) -> Motion:
        """Read, publish, pass on. Returns `motion`."""
        full = tick % self._telemetry_every == TELEMETRY_SLOT % self._telemetry_every
        reading = self._bus.sync_read(TELEMETRY_BLOCK if full else POSITION_BLOCK)
        index = self._samples.publish(tick, OVERRUN_BEFORE if skipped else 0)
        for finding in self._silence.note(reading.valid, now_ns()):
            tell_silence(self._ctx, self._side, finding)
        if not reading.valid:
            return self.motion
        self._pass_on(reading, index)
        if full:
            self._telemetry.take(reading)
            self._telemetry.publish()
            self._ctx.status.count("telemetry")
        if self._drive is not None:
            self._drive_on(self._drive, reading, woke_ns)
        return self.motion

    def _pass_on(self, reading: Reading, index: int) -> None:
        """The newest position of each joint to the follower."""
        if reading.valid == self._everybody:
            self._newest_bytes[:] = self._samples.position_bytes
        else:
            for joint, position in enumerate(self._samples.position):
                if reading.valid >> joint & 1:
                    self._newest[joint] = position
        FACTS.pack_into(
            self._cell.memory, 0,
            reading.sample_ns, index, reading.valid, self._epoch,
            self.motion is Motion.HOLD, self._drive is not None and self._drive.refused,
        )  # fmt: skip
        self._cell.publish()

    def _drive_on(self, drive: LeaderDrive, reading: Reading, woke_ns: int) -> None:
        """Last in a tick: taking torque and letting go read the bus, and `reading` is its own."""
        if reading.valid != self._everybody:
            return
        drive.tick(self._samples.position, woke_ns)
        self.motion = Motion.HOLD if drive.driven else Motion.DISARMED
        self._telemetry.set_torque([drive.driven] * len(self._side.joints))

    def stop(self) -> None:
        """Let go, if its own servos hold it."""
        if self._drive is not None:
            self._drive.let_go()


def every(rate_hz: int, wanted_hz: float) -> int:
    """Every how many ticks something of `wanted_hz` happens; `NEVER` for 0."""
    return max(1, round(rate_hz / wanted_hz)) if wanted_hz > 0 else NEVER


def tell_silence(ctx: WorkerContext, side: ArmSide, finding: SilenceFinding) -> None:
    """Tell the operator who fell silent or answers again."""
    who = side.bus if finding.joint is None else side.names[finding.joint]
    if finding.began:
        mend = "Check the arm's power and the cable."
        ctx.event("silent", level="error", bus=side.bus, who=who, mend=mend)
    else:
        ctx.event("answers again", bus=side.bus, who=who)
