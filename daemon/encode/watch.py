"""What the operator is told about the ring of an encoder: lag, losses, flawed JPEGs. Once each."""

from recd.daemon.worker import WorkerContext
from recd.shm import RingReader

LAG_WARN, LAG_OVER = 0.5, 0.25
"""Shares of the ring waiting to be encoded: above the first the operator is told, below the second
that it is over."""


class RingWatch:
    """Remembers what was told. Asked a few times a second."""

    def __init__(self, ctx: WorkerContext, reader: RingReader, *, camera: str) -> None:
        self._ctx = ctx
        self._reader = reader
        self._camera = camera
        self._waits = bool(reader.spec.meta.get("step"))
        self._lagging = self._told_flawed = False
        self._lost = reader.lost

    def lag(self) -> int:
        """Frames waiting in the ring. Half a ring of them is worth an event, unless their source
        waits for us."""
        lag = self._reader.peek_head() - self._reader.cursor
        share = 0.0 if self._waits else lag / self._reader.spec.slots
        if share > LAG_WARN and not self._lagging:
            self._lagging = True
            self._ctx.event(
                "encoder.lag", level="warning", camera=self._camera, frames=lag,
                reason="encoding is slower than the camera: its frames wait, and are lost only "
                "when there is no more room for them",
                mend="recctl doctor measures what this computer carries.",
            )  # fmt: skip
        elif share < LAG_OVER and self._lagging:
            self._lagging = False
            self._ctx.event("encoder.lag_over", camera=self._camera, frames=lag)
        return lag

    def losses(self, *, recording: bool) -> int:
        """Frames that the ring lost for this reader so far; new ones are an event in a take."""
        lost = self._reader.lost
        if lost > self._lost and recording:
            self._ctx.event(
                "encoder.lost", level="warning", camera=self._camera, frames=lost - self._lost,
                reason="the ring was full before they were encoded",
            )  # fmt: skip
        self._lost = lost
        return lost

    def jpegs(self, *, lenient: bool) -> None:
        """Tell when damage in this camera's JPEGs can no longer be seen."""
        if lenient and not self._told_flawed:
            self._told_flawed = True
            self._ctx.event(
                "encoder.flawed_jpegs", level="warning", camera=self._camera,
                reason="most JPEGs of this camera end early; damage can no longer be told",
            )  # fmt: skip
