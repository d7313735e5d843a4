"""What can go wrong with a simulated camera, as a table, and which faults act on which exposure.

A fault covers a range of exposures (slots of the camera's own clock), so a script that is replayed
damages the same pictures.
"""

from dataclasses import dataclass, field
from enum import StrEnum

FOREVER = 2**62


class CameraFault(StrEnum):
    """One thing that goes wrong; `value` is its parameter where it has one."""

    FREEZE = "freeze"  # the last picture again and again, numbers and stamps go on
    SKIP = "skip"  # taken and numbered but lost on the way: a gap in the numbers
    STALL = "stall"  # nothing is taken, the connection stays open; numbers go on where they were
    HALF_RATE = "half_rate"  # every second exposure is not taken, as in low light; no gap
    CORRUPT = "corrupt"  # the JPEG ends in the middle
    GARBLE = "garble"  # bytes in the middle of the JPEG are overwritten
    WRONG_SIZE = "wrong_size"  # pictures of half the width and height
    BLACK = "black"  # behind a lens cap
    DELAY = "delay"  # delivered `value` ms later than usual, in order
    DISCONNECT = "disconnect"  # connections are cut and refused
    CLOCK_STEP = "clock_step"  # once: the camera's clock jumps by `value` ms


@dataclass(slots=True)
class _Span:
    first: int
    end: int
    value: float


@dataclass(slots=True)
class FaultPlan:
    """The faults of one camera. Exposures are numbered by slot; every query is for one slot."""

    _spans: dict[CameraFault, _Span] = field(default_factory=dict)

    def add(self, fault: CameraFault, *, first: int, slots: int, value: float = 0.0) -> None:
        """`fault` from slot `first` on, for `slots` slots; 0 or less: until `clear`.

        A fault of the same kind that was still planned is replaced.
        """
        end = first + slots if slots > 0 else FOREVER
        self._spans[fault] = _Span(first, end, value)

    def clear(self) -> None:
        """Nothing is wrong any more."""
        self._spans.clear()

    @property
    def planned(self) -> bool:
        """True when any fault is planned or acts."""
        return bool(self._spans)

    def acts(self, fault: CameraFault, slot: int) -> bool:
        """True when `fault` covers `slot`."""
        span = self._spans.get(fault)
        return span is not None and span.first <= slot < span.end

    def value(self, fault: CameraFault, slot: int) -> float:
        """Parameter of `fault` at `slot`, 0.0 where it does not act."""
        span = self._spans.get(fault)
        return span.value if span is not None and span.first <= slot < span.end else 0.0

    def exposes(self, slot: int) -> bool:
        """False when no picture is taken in `slot`, so that it gets no number either."""
        if self.acts(CameraFault.STALL, slot):
            return False
        return not (self.acts(CameraFault.HALF_RATE, slot) and slot % 2)

    def active(self, slot: int) -> list[str]:
        """Names of the faults that cover `slot`."""
        return [str(fault) for fault in self._spans if self.acts(fault, slot)]
