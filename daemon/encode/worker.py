"""Process of one encoder: ring `cam.<camera>` in, one picture per row and one tick record out.

One thread encodes; others wait for the disk, once a second and at the end of a take. The ring holds
what this process has not done yet; it never makes a camera wait.
"""

import os
import queue
import select
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recd.config.errors import RecdError
from recd.config.streams import TICK_DTYPE
from recd.daemon.encode.assess import Assessment
from recd.daemon.encode.choice import CodecPolicy
from recd.daemon.encode.closing import Closed, Closing, failure
from recd.daemon.encode.codecs import CodecSettings, set_aside
from recd.daemon.encode.colour import Converter, PictureFormat
from recd.daemon.encode.gops import GopPictures, Gops
from recd.daemon.encode.images import ImageSink
from recd.daemon.encode.mp4 import Mp4Sink
from recd.daemon.encode.parts import Part, earlier_parts, next_part
from recd.daemon.encode.pass_sink import PassSink
from recd.daemon.encode.pictures import Pictures, PictureSource
from recd.daemon.encode.probe import CodecChoice
from recd.daemon.encode.sinks import PictureSink, SinkError
from recd.daemon.encode.take import Counts, Take, TakeSpec, make_aligner
from recd.daemon.encode.watch import RingWatch
from recd.daemon.faultpoints import fault_point
from recd.daemon.pixels.passes import KERNELS
from recd.daemon.spill import SpilledSlot, SpillReader, spill_path, take_back
from recd.daemon.worker import WorkerContext
from recd.shm import OBSERVER, Doorbell, ReaderPolicy, RingReader, Segment, Slot, aot
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

BEAT_NS = 100 * NS_PER_MS
"""Longest time between two heartbeats while nothing else happens."""

SPARE_AFTER_NS = NS_PER_S // 4
"""The next take's encoder is opened so long after a take is closed, when its save is over: opened
at once (3 to 9 ms of CPU in every encoder) it made stop wait, on two cores with three cameras."""

MARGIN_FRAMES = 4
RECENT = 16
"""Frames from before `begin` that are looked at again: its row 0 may lie a little back."""


def run(ctx: WorkerContext) -> int:
    """Life of an encoder process; 0 when asked to end. RecdError ends it with exit 2."""
    import av

    av.logging.set_level(av.logging.PANIC)  # damaged JPEGs are counted, not printed
    os.environ.setdefault("SVT_LOG", "1")  # errors only
    worker = EncoderWorker(ctx)
    try:
        return worker.run()
    finally:
        worker.close()


@dataclass(frozen=True, slots=True)
class _Open:
    """A take being encoded. final: its file; earlier: parts of encoders that died before."""

    take: Take
    final: Path
    earlier: tuple[Part, ...]
    lost_before: int


class EncoderWorker:
    """State of one encoder process."""

    def __init__(self, ctx: WorkerContext) -> None:
        self._ctx = ctx
        self._camera = str(ctx.config["camera"])
        self._key = f"observation.images.{self._camera}"
        self._reader = ctx.ring_reader(f"cam.{self._camera}")
        self._ticks = ctx.ring_writer(f"ticks.{self._camera}")
        self._format = PictureFormat.from_ring(self._reader.spec.meta)
        self._holds_steps = bool(self._reader.spec.meta.get("step"))
        aot.load(KERNELS)  # compiled now, not while a first episode waits for its row 0
        self._policy = CodecPolicy(ctx.robot, self._key, self._format.size, self._format.payload)
        self._gops = Gops() if self._policy.passes_through else None
        self._pictures: PictureSource | None = None
        self._settings = CodecSettings.from_plain(ctx.config.get("encoder", {}))
        self._sync = ctx.robot["dataset"].get("durability", "resilient") == "resilient"
        self._open: dict[str, _Open] = {}
        self._recent: deque[Slot | SpilledSlot] = deque(
            maxlen=min(RECENT, self._reader.spec.slots // 4 or 1)
        )
        self._spare: PictureSink | None = None
        self._spare_due_ns = 0
        self._closing: dict[str, threading.Thread] = {}
        self._closed: queue.SimpleQueue[Closed] = queue.SimpleQueue()
        self._closed_bell = Doorbell.create()
        self._assessment: Assessment | None = None
        self._next_beat_ns = 0
        self._watch = RingWatch(ctx, self._reader, camera=self._camera)

    # ------------------------------------------------------------------ life

    def run(self) -> int:
        """Prepare an encoder, then serve until asked to end."""
        facts: dict[str, Any] = {"camera": self._camera, "key": self._key}
        if self._policy.makes_video:
            wanted = self._settings
            self._settings, choice = self._policy.choose(wanted)
            if wanted.vcodec != "auto" and (aside := set_aside(wanted, self._settings)):
                self._ctx.event("encoder.pinned", camera=self._camera, asked_and_used=aside)
            if self._camera == next(iter(self._policy.encoded()), ""):  # all choose alike
                self._assess(choice)
            facts["codec"] = self._settings.plain()
            facts["probe"] = choice.plain() if choice else {}
        self._open_spare()
        self._ctx.ready(**facts)
        poller = select.poll()
        bells = [bell for bell in (self._closed_bell, self._reader.doorbell) if bell is not None]
        for fd in (self._ctx.link.fd, *(bell.fd for bell in bells)):
            poller.register(fd, select.POLLIN)
        while not self._ctx.stopping:
            self._pump()
            if not self._ctx.stopping:
                poller.poll(self._sleep_ms())
                for bell in bells:
                    bell.drain()
        return 0

    def close(self) -> None:
        """Leave: takes that are still open stay in staging as they are, for recovery."""
        for uid, opened in self._open.items():
            self._ctx.log.warning("take abandoned", episode=uid, rows=opened.take.row)
            opened.take.sink.abandon()
        if self._spare is not None:
            self._spare.discard()
        for thread in self._closing.values():
            thread.join()
        self._tell_closed()
        self._reader.close()
        self._ticks.close()

    def _sleep_ms(self) -> int:
        due = [self._next_beat_ns, *(opened.take.deadline_ns for opened in self._open.values())]
        if self._lacks_spare:
            due.append(self._spare_due_ns)
        if self._reader.doorbell is None:
            due.append(now_ns() + 5 * NS_PER_MS)
        return max(0, -(-(min(due) - now_ns()) // NS_PER_MS))

    def _assess(self, choice: CodecChoice | None) -> None:
        """Tell when all cameras together are much for this computer; a codec that was not probed is
        looked at while others go on."""
        if choice is not None:
            self._tell_too_much(choice)
            return
        sizes = list(self._policy.encoded().values())
        fps = float(self._ctx.robot["dataset"]["fps"])
        self._assessment = Assessment(self._settings, sizes, fps=fps)
        self._assessment.begin(self._closed_bell.ring)

    def _tell_assessed(self) -> None:
        if self._assessment is not None and self._assessment.choice is not None:
            self._tell_too_much(self._assessment.choice)
            self._assessment = None

    def _tell_too_much(self, choice: CodecChoice) -> None:
        if told := choice.too_much():
            self._ctx.event("machine too small", level="warning", **told)

    # ------------------------------------------------------------------ one round

    def _pump(self) -> None:
        """Everything that can be done now: messages, frames in order, rows, reports."""
        while not self._ctx.stopping:
            for message in self._ctx.messages():
                self._handle(message)
            # Every frame published before this moment was taken before or is taken next.
            horizon_ns = now_ns()
            slot = self._next_slot()
            if slot is not None:
                horizon_ns = slot.t_publish_ns
                self._recent.append(slot)
                if self._gops is not None:
                    self._gops.follow(slot)
                for opened in self._open.values():
                    opened.take.push(slot)
            for opened in list(self._open.values()):
                self._advance(opened, horizon_ns)
            self._tell_closed()
            self._tell_assessed()
            self._report()
            if self._lacks_spare and now_ns() >= self._spare_due_ns:
                self._open_spare()
            if slot is None:
                break

    def _next_slot(self) -> Slot | SpilledSlot | None:
        # Steps wait in the ring for their take; a device's frames go by.
        if self._holds_steps and not self._open:
            return None
        spills = [opened.take.spill for opened in self._open.values()]
        return take_back(self._reader, spills) or self._reader.take()

    def _advance(self, opened: _Open, horizon_ns: int) -> None:
        take = opened.take
        try:
            flags = take.advance(horizon_ns)
            if take.complete:
                take.sink.finish()
        except SinkError as error:
            self._fail(opened, error)
            return
        if flags:
            self._count(take, flags)
        if take.complete:
            self._close(opened)

    def _fail(self, opened: _Open, error: Exception) -> None:
        """The take cannot go on. What its file holds stays for recovery."""
        uid = opened.take.spec.uid
        del self._open[uid]
        opened.take.sink.abandon()
        fields = failure(opened.take, self._camera, opened.final, error)
        self._ctx.log.error("take failed", episode=uid, reason=fields["reason"])
        self._ctx.link.send("failed", **fields)

    def _close(self, opened: _Open) -> None:
        """Hand a complete take to a thread that waits for the disk."""
        take = opened.take
        uid = take.spec.uid
        fault_point("encoder.rows_done")
        del self._open[uid]
        take.lost += self._reader.lost - opened.lost_before
        if take.spec.step and (surplus := take.first_surplus()) is not None:
            # Taken while `end` was on its way: the next episode begins with it. The ring still
            # holds it, for its source leaves the two slots behind a reader alone.
            self._reader.seek(max(surplus, self._oldest_held()))
        self._come_back()
        closing = Closing(take, self._camera, self._key, opened.final, opened.earlier)
        self._closing[uid] = closing.start(self._closed_from_thread)

    def _come_back(self) -> None:
        """Pass over what was published while a take kept this process behind: it is of no take, and
        no loss."""
        if self._open or self._holds_steps or self._gops is not None:
            return
        newest = self._reader.peek_head() - (self._recent.maxlen or 0)
        if newest > self._reader.cursor:
            self._reader.seek(newest)

    def _closed_from_thread(self, closed: Closed) -> None:
        self._closed.put(closed)
        self._closed_bell.ring()

    def _tell_closed(self) -> None:
        while not self._closed.empty():
            closed = self._closed.get()
            self._closing.pop(closed.uid).join()
            if not closed.ok:
                self._ctx.log.error("take failed", episode=closed.uid, **closed.message)
            fault_point("encoder.closed")
            self._ctx.link.send("closed" if closed.ok else "failed", **closed.message)
            self._spare_due_ns = now_ns() + SPARE_AFTER_NS

    # ------------------------------------------------------------------ messages

    def _handle(self, message: Mapping[str, Any]) -> None:
        handlers: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "begin": self._begin,
            "end": self._end,
            "discard": self._discard,
        }
        handler = handlers.get(str(message["ty"]))
        if handler is not None:
            handler(message)

    def _begin(self, message: Mapping[str, Any]) -> None:
        uid = str(message["uid"])
        if uid in self._open or uid in self._closing:
            return
        try:
            self._open_take(message)
        except (RecdError, OSError) as error:
            reason = error.message if isinstance(error, RecdError) else str(error)
            self._ctx.log.error("take not begun", episode=uid, reason=reason)
            self._ctx.link.send("failed", uid=uid, camera=self._camera, reason=reason, rows=0)
            return
        self._ctx.link.send("opened", uid=uid, camera=self._camera)

    def _open_take(self, message: Mapping[str, Any]) -> None:
        suffix = Mp4Sink.suffix if self._policy.makes_video else ImageSink.suffix
        final = Path(message["staging"]) / f"{self._key}{suffix}"
        earlier = earlier_parts(final, sync=self._sync) if message.get("resume") else ()
        first_row = earlier[-1].end if earlier else 0
        spec = TakeSpec.from_begin(message, first_row=first_row)
        sink = self._sink_for(message, spec)
        fault_point("encoder.begin")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            sink.bind(next_part(final, earlier))
        except OSError:
            sink.discard()
            raise
        self._pictures = self._new_pictures(spec.source, sink)
        shown = self._shown_last(spec) if spec.first_row else -1
        aligner = make_aligner(
            spec,
            camera_period_ns=self._camera_period_ns(spec.source),
            rule=str(self._ctx.config.get("alignment", "hysteresis")),
            shown=shown,
        )
        spill = SpillReader(spill_path(spec.staging, self._camera))
        take = Take(
            spec, aligner=aligner, sink=sink, pictures=self._pictures, ticks=self._ticks,
            spill=spill, since=shown,
        )  # fmt: skip
        self._open[spec.uid] = _Open(take, final, earlier, self._reader.lost)
        if spec.first_row:
            self._go_back(spec, spill, shown)
        elif message.get("back"):
            self._go_into_past(spec)
        elif not spec.step:
            for slot in self._recent:
                take.push(slot)

    def _end(self, message: Mapping[str, Any]) -> None:
        opened = self._open.get(str(message["uid"]))
        if opened is not None:
            opened.take.end(int(message["ticks"]))

    def _discard(self, message: Mapping[str, Any]) -> None:
        """Delete a take altogether. A take that shall come to the trash is ended, not discarded."""
        opened = self._open.pop(str(message["uid"]), None)
        if opened is None:
            return
        opened.take.sink.discard()
        for part in opened.earlier:
            part.path.unlink(missing_ok=True)
        self._come_back()
        self._ctx.link.send("discarded", uid=opened.take.spec.uid, camera=self._camera)

    # ------------------------------------------------------------------ preparing takes

    def _new_pictures(self, source: Mapping[str, Any], sink: PictureSink) -> PictureSource:
        """source: what the camera found out about its device since the ring was made."""
        if self._gops is not None and isinstance(sink, PassSink):
            return GopPictures(self._gops, sink.stores, size=self._format.size)
        full_range = source.get("range", "full" if self._format.full_range else "limited") == "full"
        picture = replace(self._format, full_range=full_range)
        scale = bool(self._ctx.config.get("accept_mismatch"))
        return Pictures(Converter(picture, scale=scale))

    def _camera_period_ns(self, source: Mapping[str, Any]) -> int:
        num, den = int(source.get("fps_num") or 0), int(source.get("fps_den") or 1)
        if not num:
            meta = self._reader.spec.meta
            num, den = int(meta.get("fps_num", 0)), int(meta.get("fps_den", 1))
        return NS_PER_S * den // num if num else 0

    def _sink_for(self, message: Mapping[str, Any], spec: TakeSpec) -> PictureSink:
        """The encoder that was opened ahead if it fits, else a new one. Raises RecdError."""
        settings = self._settings_for(message.get("codec") or {})
        spare, self._spare = self._spare, None
        if spare is not None:
            if settings == self._settings and spec.rate == self._dataset_rate():
                return spare
            spare.discard()
        self._settings = settings
        return self._new_sink(spec.rate)

    def _settings_for(self, codec: Mapping[str, Any]) -> CodecSettings:
        wanted = CodecSettings.from_plain({**self._settings.plain(), **codec})
        if wanted.vcodec == "auto":  # chosen at the start of this process
            return self._settings
        return self._policy.pinned(wanted) or wanted

    def _dataset_rate(self) -> Fraction:
        return Fraction(self._ctx.robot["dataset"]["fps"])

    def _new_sink(self, rate: Fraction) -> PictureSink:
        size = self._format.size
        if not self._policy.makes_video:
            return ImageSink(size=size, rate=rate, sync=self._sync)
        if self._gops is not None:
            decode = partial(self._gops.decode, exact=False)
            return PassSink(self._settings, size=size, rate=rate, decode=decode, sync=self._sync)
        return Mp4Sink(self._settings, size=size, rate=rate, sync=self._sync)

    @property
    def _lacks_spare(self) -> bool:
        return self._spare is None and not self._open and not self._closing

    def _open_spare(self) -> None:
        """Open the next take's encoder ahead, so that its row 0 need not wait for it."""
        self._spare = self._new_sink(self._dataset_rate())

    def _go_back(self, spec: TakeSpec, spill: SpillReader, shown: int) -> None:
        """After a restart: take up again what the ring still holds of rows not in the file, and
        what was spilled before it. shown: index of the frame in the file's last row, or -1."""
        oldest = self._oldest_held()
        # A few frames further on the ring is sure to hold them when they are asked for.
        held = oldest + self._reader.spec.slots // 8
        oldest = min(oldest, spill.reaching_back(held))
        if self._gops is not None:  # the group of the frame shown last began before it
            self._reader.seek(oldest)
            return
        self._reader.seek(max(oldest, shown + 1 if spec.step else shown))

    def _go_into_past(self, spec: TakeSpec) -> None:
        """An episode that began before it was asked for: its first frames are still in the ring."""
        meta = self._reader.spec.meta
        past_ns = max(0, now_ns() - spec.grid.t0_ns)
        frames = past_ns * int(meta["fps_num"]) // (int(meta["fps_den"]) * NS_PER_S)
        wanted = self._reader.peek_head() - frames - MARGIN_FRAMES
        self._reader.seek(max(self._oldest_held(), wanted))

    def _oldest_held(self) -> int:
        """Index of the oldest frame that the ring has for sure."""
        return max(0, self._reader.peek_head() - self._reader.spec.slots + 2)

    def _shown_last(self, spec: TakeSpec) -> int:
        """Ring index of the frame in the row before this process's first one; -1: not known."""
        told = self._rows_told(spec.owner)
        newest = max((row for row in told if row < spec.first_row), default=-1)
        if newest < 0:
            return -1
        unsaid = spec.first_row - 1 - newest  # rows in the file whose records were never written
        if spec.step:
            return told[newest] + unsaid
        return -1 if unsaid else told[newest]

    def _rows_told(self, owner: int) -> dict[int, int]:
        """Row of this take -> ring index of its frame, of the records that the tick ring holds."""
        fd = os.dup(self._ctx.spec.rings[f"ticks.{self._camera}"].fd)
        reader = RingReader(Segment.attach(fd), OBSERVER, policy=ReaderPolicy.BEST_EFFORT)
        reader.seek(reader.peek_head() - reader.spec.slots + 2)
        told = {}
        while (slot := reader.take()) is not None:
            if slot.aux == owner:
                record = np.array(slot.payload).view(TICK_DTYPE)[0]
                told[int(record["k"])] = int(record["source_index"])
        return told

    # ------------------------------------------------------------------ reports

    def _count(self, take: Take, flags: Sequence[int]) -> None:
        status, counts = self._ctx.status, Counts.of(flags)
        status.count("rows", len(flags))
        for name in ("repeated", "expected", "missing", "late", "corrupt"):
            status.count(name, getattr(counts, name))
        status.set("bytes", take.sink.nbytes)
        self._beat()

    def _report(self) -> None:
        if now_ns() >= self._next_beat_ns:
            self._watch.jpegs(lenient=self._pictures is not None and self._pictures.lenient)
            self._beat()

    def _beat(self) -> None:
        self._next_beat_ns = now_ns() + BEAT_NS
        status = self._ctx.status
        status.set("ring_lost", self._watch.losses(recording=bool(self._open)))
        status.set("lag_frames", self._watch.lag())
        state = "recording" if self._open else "closing" if self._closing else "ready"
        status.beat(state, progress=int(status.counters[0]))
