"""How a daemon ends: the running episode is saved, then the workers are stopped, then it is over.

Asked a second time it does not wait for the episode any more, a third time it kills.
"""

from collections.abc import Iterable
from enum import Enum

from recd.daemon.session.machine import State
from recd.daemon.supervisor.fleet import Fleet, Phase
from recd.daemon.supervisor.recording import Recording
from recd.shm.clock import NS_PER_S

FINISH_NS = 120 * NS_PER_S
"""How long the last episode may take to be durable; recovery does what is left."""


class Stage(Enum):
    """How far the end has come."""

    RUNNING = "running"
    FINISHING = "finishing"  # the running episode and its commit
    STOPPING = "stopping"  # the workers
    ENDED = "ended"


class Ending:
    """The stages of one daemon."""

    def __init__(self, fleet: Fleet, recordings: Iterable[Recording]) -> None:
        self.stage = Stage.RUNNING
        self._fleet = fleet
        self._recordings = tuple(recordings)
        self._from_ns = 0

    @property
    def running(self) -> bool:
        """True until somebody asked for the end."""
        return self.stage is Stage.RUNNING

    def ask(self, now: int) -> None:
        """Go one stage further."""
        match self.stage:
            case Stage.RUNNING:
                self.stage, self._from_ns = Stage.FINISHING, now
                for recording in self._recordings:
                    if recording.session.state is State.RECORDING:
                        recording.stop(now, "shutdown")
            case Stage.FINISHING if now > self._from_ns:
                self._stop_workers(now)
            case Stage.STOPPING:
                self._fleet.kill_all()

    def watch(self, now: int) -> None:
        """Move on when a stage is over."""
        if self.stage is Stage.FINISHING and self._finished(now):
            self._stop_workers(now)
        if self.stage is Stage.STOPPING and self._fleet.empty:
            self.stage = Stage.ENDED

    def _finished(self, now: int) -> bool:
        if now - self._from_ns > FINISH_NS:
            return True
        writers = [self._fleet.seats[name] for name in self._fleet.of_kind("writer")]
        if writers and all(seat.phase in (Phase.GIVEN_UP, Phase.ENDED) for seat in writers):
            return True  # nobody is left who could save anything
        return all(recording.settled for recording in self._recordings)

    def _stop_workers(self, now: int) -> None:
        self.stage = Stage.STOPPING
        self._fleet.stop(now)
