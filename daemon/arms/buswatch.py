"""Watches a follower's bus: who answers, and whether its servos hold the torque they should.

Tells facts for the motion machine; keeps which joints get no goals, and whether any may be written.
"""

from recd.daemon.arms.feetech.bus import ServoBus
from recd.daemon.arms.feetech.reading import Reading
from recd.daemon.arms.goalpath import GoalPath
from recd.daemon.arms.leader import tell_silence
from recd.daemon.arms.motion import Event, MotionState, Phase
from recd.daemon.arms.registers import GOAL_POSITION, TORQUE_BLOCK
from recd.daemon.arms.samples import Telemetry
from recd.daemon.arms.side import ArmSide
from recd.daemon.arms.silence import Silence
from recd.daemon.worker import WorkerContext
from recd.shm.clock import NS_PER_MS, now_ns

GLIDE_AFTER_NS = 100 * NS_PER_MS
"""After a silence of this length, the leader's or its own, the follower glides back."""


class BusWatch:
    """absent: bit per joint that did not answer; doubt: torque has to be looked at before a goal
    goes out: some servos take torque when they are given one."""

    def __init__(
        self, ctx: WorkerContext, bus: ServoBus, side: ArmSide, path: GoalPath,
        telemetry: Telemetry,
    ) -> None:  # fmt: skip
        self._ctx, self._bus, self._side, self._path = ctx, bus, side, path
        self._telemetry = telemetry
        self._joints = len(side.joints)
        self._everybody = (1 << self._joints) - 1
        self.doubt = False
        self.begin()

    def begin(self) -> None:
        """All servos were spoken to just now: nobody is silent, torque is known."""
        self._silence = Silence(self._joints, now_ns())
        self.absent = 0
        self.doubt = False
        self._path.frozen[:] = [0] * self._joints

    def look(
        self, reading: Reading, state: MotionState, *, due: bool, torque_read: bool
    ) -> Event | None:
        """After each tick's reading. due: time to look at the torque; torque_read: `reading` is of
        CHECK_BLOCK. The fact that it found."""
        at_ns, valid = now_ns(), reading.valid
        if valid & self.absent:
            self.doubt = True  # it may have lost its power meanwhile
        absent = self._everybody & ~valid
        if absent != self.absent:
            # A joint that does not answer may be on its way up from a power loss, and some servos
            # take torque when they are given a goal: it gets none until its torque was looked at.
            self.absent = absent
            self._path.frozen[:] = [absent >> joint & 1 for joint in range(self._joints)]
        if valid and at_ns - self._silence.bus_heard_ns > GLIDE_AFTER_NS:
            self._path.glide()
        for finding in self._silence.note(valid, at_ns):
            tell_silence(self._ctx, self._side, finding)
        if self._silence.bus_silent:
            return Event.BUS_SILENT
        if (due or self.doubt) and valid and self._bus.line.in_step:
            return self._check_torque(
                reading if torque_read else self._bus.sync_read(TORQUE_BLOCK), state
            )
        return None

    def _check_torque(self, reading: Reading, state: MotionState) -> Event | None:
        torque = self._telemetry.torque
        for joint in range(self._joints):
            if reading.valid >> joint & 1:
                torque[joint] = reading.byte(joint, 0)
        if reading.valid != self._everybody:
            return None
        self.doubt = False
        if state.trait.torque and not all(torque):
            return Event.TORQUE_LOST
        if state.phase is Phase.DISARMED and all(torque):
            words = [reading.word(joint, 2) for joint in range(self._joints)]
            self._path.rest_at([GOAL_POSITION.decode(word) for word in words])
            return Event.TORQUE_FOUND
        return None
