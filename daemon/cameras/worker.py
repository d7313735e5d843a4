"""Process of one camera: takes frames from its source, judges them, publishes `cam.<name>`.

One Python thread. A device that is gone, silent or not there yet is opened again with growing
pauses for as long as the process lives; what only a person can mend ends it with the mend.
"""

import gc
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from recd.config.errors import DeviceError
from recd.config.streams import FrameFlag, histogram_bucket
from recd.daemon import realtime
from recd.daemon.cameras import access
from recd.daemon.cameras.health import Health, HealthSettings, Judgement
from recd.daemon.cameras.registry import make_source
from recd.daemon.cameras.request import FOURCC_OF_PAYLOAD, CameraRequest
from recd.daemon.cameras.source import (
    CameraEndedError,
    CameraFormat,
    CameraLostError,
    CameraRefusedError,
    CameraSource,
    FrameInfo,
)
from recd.daemon.cameras.step_credit import StepCredit
from recd.daemon.worker import WorkerContext
from recd.shm import OBSERVER, ReaderPolicy, RingReader, RingWriter, Segment
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns, sleep_until_ns

BEAT_NS = 100 * NS_PER_MS
"""Longest time between two heartbeats while the source keeps to its deadlines."""

BACK_OFF_NS = (250 * NS_PER_MS, 500 * NS_PER_MS, NS_PER_S, 2 * NS_PER_S)
"""Pauses before opening again; the last one repeats."""

CLOCK_WITHIN_NS = 3 * NS_PER_S
"""A sender whose clock is not understood by then is used with its times of arrival, flagged."""

FIRST_FRAME_WITHIN_NS = 5 * NS_PER_S
"""Some webcams need seconds for their first picture."""

NEVER_READY_NS = 20 * NS_PER_S
"""A device that is still not there this long after the start ends the process with the reason: the
supervisor shows it and starts again. Shorter than the supervisor's own patience."""

SILENT_PERIODS, SILENT_AT_LEAST_NS = 10, NS_PER_S
"""A camera without a frame for this long has stopped: it is opened again."""

WRONG_SIZES_TO_REFUSE = 5
RATE_PROBATION_NS = 12 * NS_PER_S
"""A wrong rate measured this soon after opening is refused; later it is told and counted, for a
camera may slow down in the dark."""


class _State(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    RECONNECTING = "reconnecting"
    ENDED = "ended"


@dataclass(slots=True)
class _Progress:
    """Of one opening of the source."""

    opened_ns: int
    last_frame_ns: int = 0
    told_frozen: bool = False
    told_rate: bool = False


def run(ctx: WorkerContext) -> int:
    """Life of a camera process; returns 0 when asked to end. DeviceError ends it with exit 2."""
    name = ctx.config["name"] if "name" in ctx.config else ctx.name.partition(":")[2]
    stream = f"cam.{name}"
    writer = ctx.ring_writer(stream)
    request = CameraRequest.from_config(name, ctx.config, slot_bytes=writer.spec.slot_bytes)
    credit = None
    if request.step:
        segment = Segment.attach(ctx.spec.rings[stream].fd)
        credit = StepCredit(segment)
        request = replace(request, last_step=_last_step(segment, request.latency_ns))
    worker = CameraWorker(ctx, request, writer, credit)
    try:
        return worker.run()
    finally:
        worker.close()


class CameraWorker:
    """State of one camera process."""

    def __init__(
        self,
        ctx: WorkerContext,
        request: CameraRequest,
        writer: RingWriter,
        credit: StepCredit | None = None,
    ) -> None:
        self._ctx = ctx
        self._request = request
        self._writer = writer
        self._status = ctx.status.record
        self._credit = credit
        self._source: CameraSource = make_source(request)
        self._format: CameraFormat | None = None
        self._health: Health | None = None
        self._state = _State.STARTING
        self._started_ns = now_ns()
        self._last_capture_ns = 0
        self._facts: dict[str, Any] = {}
        self._silent_ns = max(SILENT_AT_LEAST_NS, SILENT_PERIODS * request.period_ns)
        self._told: str = ""

    def run(self) -> int:
        """Open, stream, open again, until asked to end."""
        failures = 0
        while not self._ctx.stopping:
            try:
                self._open()
                failures = 0
                if self._request.last_step is not None and not self._facts:
                    self._running()  # pictures are in the ring, and a full one lets none come
                self._stream()
            except CameraLostError as error:
                self._lost(error)
                self._pause(BACK_OFF_NS[min(failures, len(BACK_OFF_NS) - 1)])
                failures += 1
            except CameraEndedError:
                self._source.close()
                self._rest()
        return 0

    def close(self) -> None:
        """Give the device and the ring back."""
        self._source.close()
        self._writer.close()

    # ------------------------------------------------------------------ opening

    def _open(self) -> None:
        self._format = got = self._source.open(self._alive)
        self._check_ring(got)
        self._health = Health(
            HealthSettings(
                payload=got.payload,
                raw_bytes=got.raw_bytes(),
                width=self._request.width,
                height=self._request.height,
                fps=float(self._request.fps),
                accept_mismatch=self._request.accept_mismatch,
                latency_ns=self._request.latency_ns,
                step=got.step,
            ),
            last_capture_ns=self._last_capture_ns,
        )

    def _check_ring(self, got: CameraFormat) -> None:
        """The ring was made for one payload kind and, where raw, one size: others cannot go in."""
        meta = self._writer.spec.meta
        ring_payload = meta.get("payload", got.payload)
        if got.payload != ring_payload:
            raise DeviceError(
                f"{self._request.key}.fourcc: the ring holds {ring_payload}, {got.device} delivers "
                f"{got.payload}",
                mend=f"Set fourcc: {FOURCC_OF_PAYLOAD[got.payload]}.",
                code="format",
            )
        asked = (meta.get("width", got.width), meta.get("height", got.height))
        if got.raw_bytes() and (got.width, got.height) != asked:
            raise DeviceError(
                f"{self._request.key}.width/height: raw frames of {asked[0]}x{asked[1]} are "
                f"expected, {got.device} delivers {got.width}x{got.height}",
                mend=f"Set width: {got.width}, height: {got.height}.",
                code="size",
            )

    def _lost(self, error: CameraLostError) -> None:
        self._source.close()
        if self._health is not None:
            self._last_capture_ns = self._health.last_capture_ns
            self._health = None
        if self._state is _State.RUNNING:
            self._ctx.status.count("reconnects")
        elif not self._facts and now_ns() - self._started_ns > NEVER_READY_NS:
            raise error
        self._state = _State.RECONNECTING if self._facts else _State.STARTING
        # One line per reason: a camera that stays away does not fill the log.
        if error.message != self._told:
            self._told = error.message
            self._ctx.event(
                "camera.lost", level="warning", code=error.code, reason=error.message,
                mend=error.mend,
            )  # fmt: skip
        self._beat()

    # ------------------------------------------------------------------ streaming

    def _stream(self) -> None:
        progress = _Progress(opened_ns=now_ns())
        while self._alive():
            if self._credit is not None and not self._credit.may_write():
                progress.opened_ns = progress.last_frame_ns = now_ns()
                sleep_until_ns(now_ns() + self._credit.PAUSE_NS)
                continue
            deadline_ns = now_ns() + BEAT_NS
            info = self._source.next_frame(self._writer.reserve, deadline_ns)
            if info is None:
                self._check_silence(progress)
                continue
            progress.last_frame_ns = info.t_arrival_ns
            self._publish(info, progress)

    def _publish(self, info: FrameInfo, progress: _Progress) -> None:
        assert self._health is not None
        judgement = self._health.judge(self._writer.reserve()[: info.nbytes], info)
        self._writer.commit(
            judgement.nbytes,
            t_capture_ns=judgement.t_capture_ns,
            t_arrival_ns=info.t_arrival_ns,
            source_seq=info.source_seq,
            flags=judgement.flags,
            aux=info.residual_ns,
        )
        self._count(judgement)
        self._status["lateness"][histogram_bucket(info.t_arrival_ns - judgement.t_capture_ns)] += 1
        self._status["work"][histogram_bucket(now_ns() - info.t_arrival_ns)] += 1
        if self._state is not _State.RUNNING and self._fit_to_record(judgement.flags, progress):
            self._running()
        self._complain(judgement, progress)

    def _count(self, judgement: Judgement) -> None:
        status = self._ctx.status
        status.count("frames")
        status.count("bytes", judgement.nbytes)
        if judgement.lost:
            status.count("device_lost", judgement.lost)
            self._writer.add_dropped(judgement.lost)
        for flag, counter in _COUNTED.items():
            if judgement.flags & flag:
                status.count(counter)
        if judgement.wrong_size:
            status.count("wrong_size")

    def _fit_to_record(self, flags: int, progress: _Progress) -> bool:
        """A whole picture, and of a sender with stamps the first whose time is known by them: no
        episode begins with times of arrival. A camera that comes back is not kept waiting."""
        assert self._format is not None
        if flags & FrameFlag.CORRUPT:
            return False
        learning = self._format.stamp == "foreign" and flags & FrameFlag.STAMP_ARRIVAL
        waited_ns = now_ns() - progress.opened_ns
        return not learning or bool(self._facts) or waited_ns > CLOCK_WITHIN_NS

    def _running(self) -> None:
        """The first picture since opening that may go into an episode."""
        assert self._format is not None
        self._state, self._told = _State.RUNNING, ""
        self._beat()
        gc.collect()  # of opening the device, before `ready` spares what lives
        realtime.spare_from_collections()
        facts = source_facts(self._request, self._format)
        if self._facts:
            self._ctx.event("camera.back", device=self._format.device)
        if facts != self._facts:
            self._facts = facts
            self._ctx.ready(**facts)

    def _complain(self, judgement: Judgement, progress: _Progress) -> None:
        """Tell what lasts; refuse what the configuration does not accept."""
        assert self._health is not None
        frozen = bool(judgement.flags & FrameFlag.FROZEN)
        if frozen != progress.told_frozen:
            progress.told_frozen = frozen
            event = "camera.frozen" if frozen else "camera.moving"
            self._ctx.event(event, level="warning" if frozen else "info")
        if (unfit := self._health.unfit) is not None:
            raise CameraRefusedError(
                f"{self._request.key}.fourcc", expected=unfit.expected, found=unfit.found,
                mend=f"{unfit.mend} Or let it be decoded: fourcc: auto.", code="h264",
            )  # fmt: skip
        if judgement.wrong_size and self._health.wrong_sizes >= WRONG_SIZES_TO_REFUSE:
            raise DeviceError(
                f"{self._request.key}.width/height: {judgement.fault}",
                mend="Set width and height to what it delivers, or 'accept_mismatch: true'.",
                code="size",
            )
        if not progress.told_rate and not self._request.step and self._health.wrong_rate():
            progress.told_rate = True
            self._wrong_rate(progress)

    def _wrong_rate(self, progress: _Progress) -> None:
        assert self._health is not None
        assert self._format is not None
        rate, asked = self._health.rate_hz, float(self._request.fps)
        early = now_ns() - progress.opened_ns < RATE_PROBATION_NS
        negotiated = self._format.fps_num > 0
        if early and not negotiated and not self._request.accept_mismatch:
            raise DeviceError(
                f"{self._request.key}.fps: expected {asked:g}, {self._format.device} delivers "
                f"{rate:.2f}",
                mend=f"Set fps: {rate:.0f}, or 'accept_mismatch: true'.",
                code="rate",
            )
        self._ctx.event("camera.rate", level="warning", asked=asked, measured=round(rate, 2))

    def _check_silence(self, progress: _Progress) -> None:
        """Raise CameraLostError when a source keeps its deadlines but has nothing to give.

        A film may pause for as long as it was made to.
        """
        now = now_ns()
        assert self._format is not None
        key, device = self._request.key, self._format.device
        if not progress.last_frame_ns:
            if now - progress.opened_ns > FIRST_FRAME_WITHIN_NS:
                raise access.never_delivers(key, device, waited_ns=now - progress.opened_ns)
            return
        silent_ns = now - progress.last_frame_ns
        if silent_ns > self._silent_ns and self._format.stamp != "device":
            raise access.silent(key, device, silent_ns=silent_ns)

    # ------------------------------------------------------------------ living

    def _alive(self) -> bool:
        """Beat, look at the link; False when asked to end."""
        self._ctx.messages()
        self._beat()
        return not self._ctx.stopping

    def _beat(self) -> None:
        self._ctx.status.beat(self._state, progress=self._writer.head)

    def _pause(self, pause_ns: int) -> None:
        until_ns = now_ns() + pause_ns
        while self._alive() and now_ns() < until_ns:
            sleep_until_ns(min(until_ns, now_ns() + BEAT_NS))

    def _rest(self) -> None:
        """The source has no further frame: wait to be ended. Steps that nobody has taken yet are
        still there, so a step source has ended only when all are taken."""
        told = False
        while self._alive():
            ended = self._credit is None or self._credit.all_taken()
            self._state = _State.ENDED if ended else _State.RUNNING
            if ended and not told:
                told = True
                self._beat()
                self._ctx.event("camera.ended", frames=int(self._writer.head))
            sleep_until_ns(now_ns() + BEAT_NS)


def _last_step(segment: Segment, latency_ns: int) -> tuple[int, int] | None:
    """Number and time of the newest step that a camera process before this one has published."""
    reader = RingReader(segment, OBSERVER, policy=ReaderPolicy.BEST_EFFORT)
    reader.seek(reader.peek_head() - 2)  # the newest may have been left unfinished
    last = None
    while (slot := reader.take()) is not None:
        last = (slot.source_seq, slot.t_capture_ns + latency_ns)
    return last


_COUNTED = {
    FrameFlag.CORRUPT: "corrupt",
    FrameFlag.FROZEN: "frozen",
    FrameFlag.LATE: "late",
}
"""Flag of a frame -> status counter."""


def source_facts(request: CameraRequest, got: CameraFormat) -> dict[str, Any]:
    """Plain values about what was opened, for the supervisor, the encoder and the manifest."""
    facts = asdict(got)
    facts["width"] = got.width or request.width
    facts["height"] = got.height or request.height
    facts["asked"] = {
        "width": request.width,
        "height": request.height,
        "fps": float(request.fps),
        "payload": request.payload or "auto",
    }
    return facts
