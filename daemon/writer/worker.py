"""The writer process: drains every record stream, and turns sealed episodes into dataset episodes.

One thread. It may be blocked by the disk for as long as the rings hold (ten seconds of samples);
what overflows after that is counted and told.
"""

import os
import select
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from recd.config.errors import DatasetError, RecdError
from recd.config.models import RobotConfig
from recd.config.policy_streams import chunk_dtype
from recd.config.streams import TICK_DTYPE, arm_sample_dtype, frame_payload, telemetry_dtype
from recd.daemon import lean
from recd.daemon.align.cameras import KERNELS
from recd.daemon.dataset import DatasetStore, Retention
from recd.daemon.dataset.durable import remove_tree
from recd.daemon.faultpoints import fault_point
from recd.daemon.spill import FOLDER as SPILLED
from recd.daemon.spill import SpillWriter
from recd.daemon.worker import OPEN_TAKES, WorkerContext
from recd.daemon.writer.builder import RowBuilder
from recd.daemon.writer.decoding import BackgroundDecode
from recd.daemon.writer.episode import Episode
from recd.daemon.writer.publish import Publisher, dataset_schema
from recd.daemon.writer.streams import RecordStream
from recd.shm import Credit, Segment, aot
from recd.shm.clock import NS_PER_MS, NS_PER_S, now_ns

DRAIN_EVERY_NS = 20 * NS_PER_MS
"""A short sleep instead of a wake-up per sample: 250 Hz samples come five at a time."""

LAST_ROWS_EVERY_NS = 2 * NS_PER_MS
"""The same while an episode waits for its last rows: what is made of them alone is then done
before the encoders have closed their files."""

PROGRESS_EVERY_NS = NS_PER_S // 2

PATIENCE_NS = NS_PER_S // 2
"""A silent bus holds up the end of an episode for this long; its rows are then invalid."""

KEEP_SECONDS = 4
CHUNKS_PER_S = 30
DAY_NS = 86_400 * NS_PER_S
MB = 1_000_000


def run(ctx: WorkerContext) -> int:
    """Life of the writer: open (and recover) the dataset, then serve until told to stop."""
    lean.refuse_pandas()
    robot = RobotConfig.model_validate(ctx.robot)
    open_takes = {str(begin["uid"]): begin for begin in ctx.config.get(OPEN_TAKES, ())}
    with DatasetStore.open_or_create(
        robot.dataset_root, dataset_schema(robot), repo_id=robot.dataset.repo_id
    ) as store:
        set_aside = _recover(ctx, store, spare=frozenset(open_takes))
        writer = Writer(ctx, robot, store, set_aside=set_aside)
        for arm, earlier in writer.publisher.check_calibrations(ctx.spec.runtime_dir).items():
            ctx.event("calibration change accepted", level="warning", arm=arm, earlier=earlier)
        writer.empty_trash()
        writer.resume(open_takes.values())
        ctx.ready(**writer.publisher.facts())
        writer.serve()
    return 0


def _recover(ctx: WorkerContext, store: DatasetStore, *, spare: frozenset[str]) -> dict[str, str]:
    """Publish or put aside what a crash left, and tell the operator what became of it.

    spare: uids that are still being recorded. Returns uid -> reason of what could not be published.
    """
    aot.load(KERNELS)  # compiled now, not in the first episode
    report = store.recover(spare=spare)
    for found in report.recovered:
        ctx.event("episode recovered", level="warning", uid=found.uid, rows=found.rows,
                  episode_index=found.episode_index)  # fmt: skip
    for aside in (*report.quarantined, *report.waiting):
        ctx.event("episode put aside", level="error", uid=aside.uid, reason=aside.reason)
    return {aside.uid: aside.reason for aside in (*report.quarantined, *report.waiting)}


class Writer:
    """Streams, open episodes and the handlers of the supervisor's messages.

    set_aside: uid -> reason of episodes that recovery could not publish.
    """

    def __init__(
        self, ctx: WorkerContext, robot: RobotConfig, store: DatasetStore, *,
        set_aside: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.ctx = ctx
        self.robot = robot
        self.store = store
        self.publisher = Publisher(robot, store)
        self.set_aside = set_aside
        self.decoding = BackgroundDecode(store.root, self._decoded)
        self.episodes: dict[str, Episode] = {}
        self.builders: dict[str, RowBuilder] = {}
        self.keep_s = KEEP_SECONDS + round(robot.highlight_s)
        self.arms = [self._arm_stream(bus) for bus in robot.buses()]
        telemetry = [self._telemetry_stream(bus) for bus in robot.buses()]
        self.logged = [*telemetry, *self._chunk_streams()]
        self.cameras = [self._tick_stream(name) for name in robot.cameras]
        self.streams = (*self.arms, *self.logged, *self.cameras)
        self.spills = [self._spill(n) for n in robot.cameras if f"cam.{n}" in ctx.spec.rings]
        self._progress_ns = 0
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "begin": self._begin,
            "end": self._end,
            "seal": self._seal,
            "undo": partial(self._edit, "undo"),
            "undelete": partial(self._edit, "undelete"),
        }

    def _arm_stream(self, bus: str) -> RecordStream:
        pair = bus.partition(".")[0]
        return RecordStream(
            f"arm.{bus}",
            self.ctx.ring_reader(f"arm.{bus}"),
            dtype=arm_sample_dtype(len(self.robot.joints(pair))),
            time_field="request_ns",
            keep=self.robot.arms[pair].rate_hz * self.keep_s,
        )

    def _telemetry_stream(self, bus: str) -> RecordStream:
        pair = bus.partition(".")[0]
        return RecordStream(
            f"telemetry.{bus}",
            self.ctx.ring_reader(f"telemetry.{bus}"),
            dtype=telemetry_dtype(len(self.robot.joints(pair))),
            time_field="sample_ns",
            keep=256,
        )

    def _chunk_streams(self) -> list[RecordStream]:
        """Every chunk of a policy with its ACK; nothing when the robot has no policies."""
        if "chunks" not in self.ctx.spec.rings:
            return []
        return [
            RecordStream(
                "chunks",
                self.ctx.ring_reader("chunks"),
                dtype=chunk_dtype(len(self.robot.feature_joints())),
                time_field="acked_ns",
                keep=64 + round(CHUNKS_PER_S * self.robot.highlight_s),
                bulky=True,
            )
        ]

    def _tick_stream(self, camera: str) -> RecordStream:
        return RecordStream(
            f"ticks.{camera}",
            self.ctx.ring_reader(f"ticks.{camera}"),
            dtype=TICK_DTYPE,
            time_field="encoded_ns",
            keep=self.robot.dataset.fps * self.keep_s,
        )

    def _spill(self, camera: str) -> SpillWriter:
        stream = f"cam.{camera}"
        segment = Segment.attach(os.dup(self.ctx.spec.rings[stream].fd))
        config = self.robot.cameras[camera]
        return SpillWriter(
            camera, self.ctx.ring_reader(stream), Credit(segment, slack=0),
            raw=frame_payload(config.source, config.fourcc) != "mjpeg",
        )  # fmt: skip

    def serve(self) -> None:
        """Until told to stop; then episodes that are sealed are still committed."""
        poller = select.poll()
        poller.register(self.ctx.link.fd, select.POLLIN)
        while not self.ctx.stopping:
            ending = any(e.rows is not None and e.ahead is None for e in self.episodes.values())
            poller.poll((LAST_ROWS_EVERY_NS if ending else DRAIN_EVERY_NS) // NS_PER_MS)
            self.step()
        self.step()
        self.decoding.close()
        for episode in self.episodes.values():
            episode.close_logs()

    def step(self) -> None:
        """One round: streams, messages, episodes that can be finished, heartbeat."""
        for message in self.ctx.messages():
            if (handler := self._handlers.get(message["ty"])) is not None:
                handler(message)
        self._drain()
        self._keep_frames()
        at_ns = now_ns()
        for episode in list(self.episodes.values()):
            # A stop waits for no turn. Its last rows come one by one, and each time costs 5 ms.
            if episode.due(at_ns) or self.builders[episode.uid].decidable() == episode.rows:
                self._keep(episode, at_ns)
            if episode.uid in self.episodes and self._complete(episode):
                self._finish(episode)
        self.decoding.step(recording=bool(self.episodes))
        self._report(at_ns)

    def _keep(self, episode: Episode, at_ns: int) -> None:
        """Build what can be built and hand it to the kernel, once a second to the disk: a kill and
        a power cut cost no more than that."""
        builder = self.builders[episode.uid]
        try:
            builder.extend(builder.decidable())
            fault_point("writer.rows_built")
            if episode.rows is None:  # after the end they go with the last rows
                episode.flush()
            if episode.sync_due(at_ns) and self.robot.dataset.durability == "resilient":
                episode.sync()
                builder.sync()
                fault_point("writer.synced")
            if builder.rows == episode.rows and episode.ahead is None:
                episode.ahead = self.publisher.prepare(episode, builder)
        except (RecdError, OSError) as error:
            self._lose(episode, error)

    def _lose(self, episode: Episode, error: Exception) -> None:
        """The disk takes no more of an episode: what it has stays in staging, for recovery."""
        self._failed(episode.uid, error, episode.staging)
        del self.episodes[episode.uid]
        self._let_go(episode, self.builders.pop(episode.uid))

    def _let_go(self, episode: Episode, builder: RowBuilder) -> None:
        with suppress(OSError):
            builder.close()
        episode.abandon()

    def _drain(self) -> None:
        for stream in self.streams:
            stream.drain(partial(self._consume, stream.name) if self.episodes else None)

    def _keep_frames(self) -> None:
        """Frames that an encoder does not come after, before their ring overwrites them."""
        # An encoder that begins in the past is behind on purpose, and comes after.
        running = next((e for e in self.episodes.values() if e.seal is None and not e.back), None)
        if running is None:
            return
        for spill in self.spills:
            began, kept = spill.spilled == 0, not spill.refused
            try:
                count = spill.keep(running.staging, until_ns=running.frames_until_ns)
            except OSError as error:
                self.ctx.log.warning("frames not kept", camera=spill.camera, reason=str(error))
                continue
            if began and count:
                self.ctx.event(
                    "encoder stalls", level="warning", camera=spill.camera,
                    reason="its frames are kept on disk until it comes after them",
                )  # fmt: skip
            if kept and spill.refused:
                self.ctx.event("frames not kept", level="warning", camera=spill.camera,
                               reason=spill.refused)  # fmt: skip

    def _consume(self, stream: str, record: Any, owner: int) -> None:
        for episode in tuple(self.episodes.values()):
            try:
                episode.consume(stream, record, owner)
            except OSError as error:
                self._lose(episode, error)

    def resume(self, begins: Iterable[Mapping[str, Any]]) -> None:
        """Take up episodes that the writer before this one had open: first what it logged, then
        what the rings still hold. While they reach back far enough nothing is missing."""
        settled = {entry.uid for entry in self.store.trash()}
        for begin in begins:
            if begin["uid"] not in settled and self.publisher.published(begin["uid"]) is None:
                self._open(begin, resumed=True)
        if not self.episodes:
            return
        for stream in self.streams:
            stream.rewind()
        self._drain()
        for episode in list(self.episodes.values()):
            self._settle(episode)

    def _settle(self, episode: Episode) -> None:
        builder = self.builders[episode.uid]
        try:
            builder.extend(builder.decidable())
            builder.sync()
            fault_point("writer.resumed")
            episode.settle()
        except OSError as error:
            self._lose(episode, error)
            return
        self.ctx.event("episode resumed", level="warning", uid=episode.uid,
                       rows=episode.rows_so_far())  # fmt: skip

    def _begin(self, message: dict[str, Any]) -> None:
        if message["uid"] in self.episodes or (message.get("resume") and self._recovered(message)):
            return
        fault_point("writer.begin")
        self._open(message, resumed=bool(message.get("resume")))

    def _open(self, message: Mapping[str, Any], *, resumed: bool) -> None:
        self.decoding.pause()
        try:
            self.store.stage(message["uid"], _recovery_facts(message))
            episode = Episode(
                message,
                arms=self.arms,
                logged=self.logged,
                cameras=self.cameras,
                resumed=resumed,
            )
            self.builders[episode.uid] = RowBuilder(self.robot, self.store.schema, episode)
            self.episodes[episode.uid] = episode
        except (RecdError, OSError) as error:
            self._failed(message["uid"], error, Path(message["staging"]))

    def _recovered(self, message: dict[str, Any]) -> bool:
        """True when recovery has dealt with an episode that the writer before this one had open."""
        uid = message["uid"]
        if (told := self.publisher.published(uid)) is not None:
            self.ctx.link.send("durable", **told, recovered=True)
            return True
        if uid in {entry.uid for entry in self.store.trash()}:
            self.ctx.link.send("discarded", uid=uid)
            return True
        if (reason := self.set_aside.get(uid)) is not None:
            kept_at = self.store.root / ".recd" / "quarantine" / uid
            self._failed(uid, DatasetError(reason), kept_at)
            return True
        return False

    def _end(self, message: dict[str, Any]) -> None:
        if (episode := self.episodes.get(message["uid"])) is not None:
            episode.end(int(message["ticks"]))
            self.builders[episode.uid].cut(int(message["ticks"]))

    def _seal(self, message: dict[str, Any]) -> None:
        if (episode := self.episodes.get(message["uid"])) is not None:
            episode.seal = message
            if episode.rows is None:
                episode.end(int(message["ticks"]))

    def _complete(self, episode: Episode) -> bool:
        """Sealed, and everything that can still come has come."""
        if episode.seal is None or episode.rows is None:
            return False
        if not episode.seal["keep"]:
            return True
        return episode.covered(self.arms, patience_ns=PATIENCE_NS) and (
            episode.rows_so_far() >= episode.rows or bool(episode.seal["failed"])
        )

    def _finish(self, episode: Episode) -> None:
        builder = self.builders[episode.uid]
        del self.episodes[episode.uid], self.builders[episode.uid]
        assert episode.seal is not None
        self.ctx.status.beat("committing")
        fault_point("writer.sealed")
        try:
            remove_tree(episode.staging / SPILLED)
            if episode.seal["keep"]:
                self.publisher.publish(episode, builder, self._durable)
            else:
                episode.close_logs(durable=False)
                builder.extend(builder.decidable())  # so that the take can come back from the trash
                builder.close()
                self.publisher.discard(episode)
                self.ctx.link.send("discarded", uid=episode.uid)
        except (RecdError, OSError) as error:
            self._let_go(episode, builder)
            self._failed(episode.uid, error, episode.staging)
        self.empty_trash()

    def _durable(self, told: Mapping[str, Any]) -> None:
        self.ctx.link.send("durable", **told)
        self.ctx.status.count("episodes")
        self.decoding.want(told["uid"])

    def empty_trash(self) -> None:
        """Remove what the configuration no longer keeps, between episodes, and say so."""
        asked = self.robot.dataset
        if self.episodes or not (asked.trash_keep_days or asked.trash_keep_mb):
            return
        retention = Retention(
            older_than_ns=asked.trash_keep_days * DAY_NS or None,
            keep_bytes=asked.trash_keep_mb * MB or None,
        )
        try:
            freed = self.store.empty_trash(retention)
        except (RecdError, OSError) as error:
            self.ctx.event("trash not emptied", level="warning", reason=str(error))
            return
        if freed:
            nbytes = sum(freed.values())
            self.ctx.event("trash emptied", uids=list(freed), freed_mb=nbytes // MB)

    def _failed(self, uid: str, error: Exception, kept_at: Path) -> None:
        reason = error.message if isinstance(error, RecdError) else str(error)
        mend = error.mend if isinstance(error, RecdError) else ""
        self.ctx.log.error("episode not saved", episode=uid, reason=reason, kept_at=str(kept_at))
        self.ctx.link.send("failed", uid=uid, reason=reason, mend=mend, kept_at=str(kept_at))

    def _edit(self, operation: str, message: dict[str, Any]) -> None:
        uid = message["uid"]
        self.decoding.forget(uid)
        try:
            told = getattr(self.publisher, operation)(uid)
        except DatasetError as error:
            if self.publisher.published(uid) is not None:
                self.decoding.want(uid)
            self.ctx.link.send(
                "refused_op", uid=uid, op=operation, reason=error.message, mend=error.mend
            )
            return
        if operation == "undelete":
            self.decoding.want(uid)
        self.empty_trash()
        self.ctx.link.send({"undo": "undone", "undelete": "undeleted"}[operation], uid=uid, **told)

    def _decoded(self, uid: str, facts: dict[str, Any]) -> None:
        """The decoding after a save has ended: into the manifest, and told where it is not well."""
        decode = facts["decode"]
        try:
            self.store.note(uid, facts)
        except (DatasetError, OSError) as error:
            self.ctx.event("decoding not noted", level="warning", uid=uid, reason=str(error))
        if decode["good"] is False:
            self.ctx.event("episode does not decode", level="error", uid=uid,
                           findings=decode["findings"])  # fmt: skip
        elif decode["good"] is None:
            self.ctx.event("episode not decoded", level="warning", uid=uid,
                           findings=decode["findings"])  # fmt: skip
        self.ctx.link.send("decoded", uid=uid, decode=decode)

    def _report(self, at_ns: int) -> None:
        if at_ns < self._progress_ns:
            return
        self._progress_ns = at_ns + PROGRESS_EVERY_NS
        rows = 0
        for episode in self.episodes.values():
            rows = episode.rows_so_far()
            self.ctx.link.send("progress", uid=episode.uid, rows=rows)
        status = self.ctx.status
        status.set("rows", rows)
        status.set("ring_lost", sum(s.lost for s in self.streams))
        status.beat("recording" if self.episodes else "ready")


def _recovery_facts(begin: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("t0_ns", "rate_num", "rate_den", "grid", "task", "operator")
    return {key: begin[key] for key in keys}
