"""A leader's own servos, while they bring it to its follower for a hand-over.

Torque comes on only by the follower's fresh wish (a policy was paused by a person, and the
configuration says `driven`), and goes with it. Speed is that of gliding in.
"""

from collections.abc import Sequence

from recd.config.errors import DeviceError
from recd.daemon.arms.feetech.bus import ServoBus
from recd.daemon.arms.feetech.port import BusLostError
from recd.daemon.arms.goalpath import GoalPath
from recd.daemon.arms.handover import wish_of
from recd.daemon.arms.torque import disengage, engage
from recd.daemon.worker import WorkerContext
from recd.shm import CellReader


class LeaderDrive:
    """Drives one leader. driven: its servos hold it now; refused: they could not when asked to."""

    def __init__(self, ctx: WorkerContext, bus: ServoBus, path: GoalPath, cell: CellReader) -> None:
        self._ctx, self._bus, self._path, self._cell = ctx, bus, path, cell
        self.refused = False
        self.driven = False

    def tick(self, present: Sequence[float], at_ns: int) -> None:
        """One period: take torque, go on, or let go."""
        wish = wish_of(self._cell, at_ns)
        if not wish.position:
            self.refused = False
            self.let_go()
        elif not self.driven and not self.refused:
            self._engage()
        elif self.driven and self._bus.line.in_step:
            self._path.approach(wish.position, present)
            self._bus.write_goals(self._path.steps, skip=0)

    def _engage(self) -> None:
        try:
            self._path.rest_at(engage(self._bus))
        except BusLostError:
            raise
        except DeviceError as error:
            self.refused = True
            self._say("leader not driven", error)
            return
        self.driven = True
        self._path.begin()
        self._ctx.event("leader driven to its follower", bus=self._bus.port.bus)

    def let_go(self) -> None:
        """Torque off, if it is on by this."""
        if not self.driven:
            return
        try:
            disengage(self._bus)
        except BusLostError:
            raise
        except DeviceError as error:
            self._say("leader not let go", error)
            return
        self.driven = False
        self._ctx.event("leader let go", bus=self._bus.port.bus)

    def _say(self, event: str, error: DeviceError) -> None:
        self._ctx.event(event, level="error", bus=self._bus.port.bus, reason=error.message,
                        mend=error.mend)  # fmt: skip
