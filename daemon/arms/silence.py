"""Who on a bus has been silent for how long: one finding when it lasts, one when it ends.

Pure: validity and time in, findings out.
"""

from dataclasses import dataclass

from recd.shm.clock import NS_PER_MS, NS_PER_S

BUS_SILENT_NS = 250 * NS_PER_MS
"""A follower bus that is silent for longer is not driven again before an arm command. Shorter
stalls (a hub that resets, a computer that is busy elsewhere) cost their ticks and no more."""

UNWATCHED_NS = BUS_SILENT_NS
"""After longer than this between two readings it was this process that did not run: that time is
nobody's silence. A process stopped in a read comes back to a reading that is worth nothing."""

JOINT_SILENT_NS = NS_PER_S
"""A single joint that is silent for longer is named to the operator."""


@dataclass(frozen=True, slots=True)
class SilenceFinding:
    """joint: index, or None for the whole bus; began: False when it answers again."""

    joint: int | None
    began: bool


class Silence:
    """Silence of one bus. bus_heard_ns: when anybody answered last; bus_silent: nobody has answered
    for BUS_SILENT_NS."""

    def __init__(self, joints: int, at_ns: int) -> None:
        self._everybody = (1 << joints) - 1
        self._joints = range(joints)
        self._heard_ns: list[int] | None = None  # per joint; None: all when the bus was heard
        self._told = [False] * joints
        self._noted_ns = at_ns
        self.bus_heard_ns = at_ns
        self.bus_silent = False

    def note(self, valid: int, at_ns: int) -> tuple[SilenceFinding, ...]:
        """Take the validity bits of one reading. Nothing stays allocated while all is well."""
        unwatched_ns, self._noted_ns = at_ns - self._noted_ns, at_ns
        if valid == self._everybody and not self.bus_silent and True not in self._told:
            self._heard_ns = None
            self.bus_heard_ns = at_ns
            return ()
        heard_ns = self._heard_ns or [self.bus_heard_ns for _ in self._joints]
        self._heard_ns = heard_ns
        if unwatched_ns > UNWATCHED_NS:
            heard_ns[:] = [since_ns + unwatched_ns for since_ns in heard_ns]
            self.bus_heard_ns += unwatched_ns
        found = []
        silent = not valid and at_ns - self.bus_heard_ns > BUS_SILENT_NS
        if valid:
            self.bus_heard_ns = at_ns
        if silent != self.bus_silent and (silent or valid):
            self.bus_silent = silent
            found.append(SilenceFinding(None, began=silent))
        for joint in self._joints:
            if valid >> joint & 1:
                heard_ns[joint] = at_ns
            missing = at_ns - heard_ns[joint] > JOINT_SILENT_NS and not self.bus_silent
            if missing != self._told[joint]:
                self._told[joint] = missing
                found.append(SilenceFinding(joint, began=missing))
        return tuple(found)
