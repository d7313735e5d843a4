"""What one sync read brought."""

from collections.abc import MutableSequence, Sequence

from recd.daemon.arms.passes import ROOM, integers, octets
from recd.daemon.arms.registers import PRESENT_POSITION


class Reading:
    """What one sync read brought. Reused: the next read overwrites it.

    request_ns, sample_ns, half_width_ns: sent at, midpoint to the last byte, half of that span;
    arrival_ns: when the newest byte was read;
    flags: JointFlag bits; valid: bit per joint; errors, data: error byte and data bytes per joint
    (passes.ROOM each), of a valid joint; position_at: byte at which its position is.
    """

    __slots__ = (
        "arrival_ns", "data", "errors", "flags", "half_width_ns", "position_at", "request_ns",
        "sample_ns", "valid",
    )  # fmt: skip

    def __init__(self, joints: int) -> None:
        self.request_ns = self.sample_ns = self.half_width_ns = self.arrival_ns = 0
        self.flags = self.valid = self.position_at = 0
        self.errors = integers([0] * joints)
        self.data = octets(bytes(joints * ROOM))

    def keep(self, joint: int, error: int, data: Sequence[int]) -> None:
        """The reply of one joint."""
        self.data[joint * ROOM : joint * ROOM + len(data)] = data
        self.errors[joint] = error
        self.valid |= 1 << joint

    def positions(self, out: MutableSequence[int]) -> None:
        """Position (steps) of each valid joint; others keep their value."""
        for joint in range(len(self.errors)):
            if self.valid >> joint & 1:
                out[joint] = PRESENT_POSITION.decode(self.word(joint, self.position_at))

    def byte(self, joint: int, offset: int) -> int:
        """The byte at an offset of a valid joint's data."""
        return self.data[joint * ROOM + offset]

    def word(self, joint: int, offset: int) -> int:
        """Unsigned 16-bit value at a byte offset of a valid joint's data."""
        at = joint * ROOM + offset
        return self.data[at] | self.data[at + 1] << 8
