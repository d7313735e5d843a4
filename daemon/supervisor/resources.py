"""All shared memory of a daemon: created here, kept here, handed out by descriptor.

Segments are nameless and outlive every worker; they are gone with the supervisor and the last
worker. Which process may write or read which stream is read from the process table.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from recd.config.checks import frame_slot_bytes, ring_slots
from recd.config.models import RobotConfig
from recd.config.policy_streams import (
    LEASE_DTYPE,
    VERDICT_DTYPE,
    chunk_dtype,
    plan_dtype,
    queue_dtype,
    seat_dtype,
)
from recd.config.streams import (
    STATUS_DTYPE,
    STREAMS_VERSION,
    TICK_DTYPE,
    arm_sample_dtype,
    frame_payload,
    leader_cell_dtype,
    meeting_dtype,
    telemetry_dtype,
)
from recd.daemon.supervisor.processes import Process
from recd.daemon.worker import RingGrant
from recd.shm import (
    OBSERVER,
    CellReader,
    Doorbell,
    ReaderPolicy,
    RingReader,
    RingSpec,
    Segment,
    create_cell,
    create_ring,
)

RECORD_SECONDS = 60
"""How long the writer may stall before joint samples, telemetry or row records are lost."""

CHUNKS_KEPT = 256
"""Chunks that may wait for the writer: ten seconds of a policy that sends 25 a second."""

READERS = 8


@dataclass(frozen=True, slots=True)
class RingPlan:
    """One ring before it exists. kind: frame or record."""

    name: str
    kind: str
    slots: int
    slot_bytes: int
    meta: dict[str, Any]

    def spec(self) -> RingSpec:
        """The form that shm takes."""
        return RingSpec(
            name=self.name,
            kind=self.kind,
            slots=self.slots,
            slot_bytes=self.slot_bytes,
            readers=READERS,
            meta=self.meta,
        )


def ring_table(robot: RobotConfig) -> tuple[RingPlan, ...]:
    """All rings of `robot`. Pure."""
    return (*_frame_rings(robot), *_bus_rings(robot), *_policy_rings(robot))


def _frame_rings(robot: RobotConfig) -> Iterable[RingPlan]:
    for name, camera in robot.cameras.items():
        num, den = rate_fraction(camera.fps)
        meta = {
            "camera": name,
            "payload": frame_payload(camera.source, camera.fourcc),
            "width": camera.width,
            "height": camera.height,
            "fps_num": num,
            "fps_den": den,
            "stamp": "arrival",
            "range": "full",
            "step": camera.step,
            "rotation": camera.rotation,
        }
        slots = ring_slots(camera, robot.highlight_s)
        yield RingPlan(f"cam.{name}", "frame", slots, frame_slot_bytes(camera), meta)
        ticks = max(64, robot.dataset.fps * RECORD_SECONDS)
        yield _record_ring(f"ticks.{name}", TICK_DTYPE, ticks, camera=name)


def _bus_rings(robot: RobotConfig) -> Iterable[RingPlan]:
    for bus in robot.buses():
        pair = bus.partition(".")[0]
        arm, joints = robot.arms[pair], robot.joints(pair)
        facts = {"bus": bus, "joints": list(joints), "prefix": robot.joint_prefix(pair)}
        samples = arm_sample_dtype(len(joints))
        yield _record_ring(f"arm.{bus}", samples, arm.rate_hz * RECORD_SECONDS, **facts)
        slots = max(16, int(arm.telemetry_hz * RECORD_SECONDS))
        yield _record_ring(f"telemetry.{bus}", telemetry_dtype(len(joints)), slots, **facts)


def _policy_rings(robot: RobotConfig) -> Iterable[RingPlan]:
    """Chunks on their way to the arms, what became of them, and all of it for the writer."""
    if robot.policy is None:
        return
    for pair in robot.arms:
        facts = {"pair": pair}
        yield _record_ring(f"plans.{pair}", plan_dtype(len(robot.joints(pair))), 32, **facts)
        yield _record_ring(f"verdicts.{pair}", VERDICT_DTYPE, 256, **facts)
    yield _record_ring("chunks", chunk_dtype(len(robot.feature_joints())), CHUNKS_KEPT)


def policy_cells(robot: RobotConfig) -> Iterable[tuple[str, np.dtype[np.void]]]:
    """Cells between the gateway and the arm processes."""
    if robot.policy is None:
        return
    for pair in robot.arms:
        yield f"lease.{pair}", LEASE_DTYPE
        yield f"seat.{pair}", seat_dtype(len(robot.joints(pair)))
        yield f"queue.{pair}", queue_dtype(len(robot.joints(pair)))
        if robot.meets(pair):
            yield f"meeting.{pair}", meeting_dtype(len(robot.joints(pair)))


def _record_ring(name: str, dtype: np.dtype[Any], slots: int, **facts: Any) -> RingPlan:
    meta = {"version": STREAMS_VERSION, "dtype": _descr(dtype), **facts}
    return RingPlan(name, "record", slots, dtype.itemsize, meta)


def _descr(dtype: np.dtype[Any]) -> list[list[Any]]:
    """Fields as [name, type, shape, offset]: enough to rebuild a padded dtype elsewhere."""
    assert dtype.names is not None
    assert dtype.fields is not None
    return [
        [name, dtype[name].base.str, list(dtype[name].shape), int(dtype.fields[name][1])]
        for name in dtype.names
    ]


def rate_fraction(fps: float) -> tuple[int, int]:
    """30.0 -> (30, 1); 29.97 -> (2997, 100): frames per second as a fraction."""
    for den in (1, 100, 1001):
        if abs(fps * den - round(fps * den)) < 1e-6 * den:
            return round(fps * den), den
    return round(fps * 1000), 1000


class Resources:
    """Creates the segments of `robot` for the processes of `rows`, and grants them.

    Raises OSError when memory or descriptors run out; nothing is left behind then.
    """

    def __init__(self, robot: RobotConfig, rows: Iterable[Process]) -> None:
        self.rings: dict[str, Segment] = {}
        self.cells: dict[str, Segment] = {}
        self._doorbells: dict[tuple[str, str], Doorbell] = {}
        self._reader_lines: dict[tuple[str, str], int] = {}
        try:
            self._create(robot, tuple(rows))
        except BaseException:
            self.close()
            raise

    def _create(self, robot: RobotConfig, rows: tuple[Process, ...]) -> None:
        for plan in ring_table(robot):
            self.rings[plan.name] = create_ring(plan.spec())
        for pair in robot.arms:
            dtype = leader_cell_dtype(len(robot.joints(pair)))
            self.cells[f"leader.{pair}"] = create_cell(f"leader.{pair}", dtype)
        for name, record in policy_cells(robot):
            self.cells[name] = create_cell(name, record)
        for row in rows:
            self.cells[row.status_cell] = create_cell(row.status_cell, STATUS_DTYPE)
            for stream in row.wants.rings_read:
                taken = sum(1 for other, _ in self._reader_lines if other == stream)
                self._reader_lines[stream, row.name] = taken
                if row.wants.woken:
                    self._doorbells[stream, row.name] = Doorbell.create()

    @property
    def nbytes(self) -> int:
        """Memory of all segments."""
        return sum(s.nbytes for s in (*self.rings.values(), *self.cells.values()))

    def ring_grants(self, row: Process) -> dict[str, RingGrant]:
        """What `row` gets of the rings, by stream."""
        grants = {
            stream: RingGrant(self.rings[stream].fd, -1, "BEST_EFFORT", self._bells(stream))
            for stream in row.wants.rings_write
        }
        for stream, policy in row.wants.rings_read.items():
            bell = self._doorbells.get((stream, row.name))
            line = self._reader_lines[stream, row.name]
            bells = () if bell is None else (bell.fd,)
            grants[stream] = RingGrant(self.rings[stream].fd, line, policy, bells)
        return grants

    def cell_grants(self, row: Process) -> dict[str, int]:
        """Descriptors of the cells of `row`, its status cell among them."""
        names = (row.status_cell, *row.wants.cells_write, *row.wants.cells_read)
        return {name: self.cells[name].fd for name in names}

    def _bells(self, stream: str) -> tuple[int, ...]:
        return tuple(bell.fd for (other, _), bell in self._doorbells.items() if other == stream)

    def watch_ring(self, stream: str) -> RingReader:
        """The supervisor's own look at a ring: newest slot only, never counted as a loss."""
        return RingReader(self.rings[stream], OBSERVER, policy=ReaderPolicy.LATEST)

    def watch_cell(self, name: str) -> CellReader:
        """Reader of any cell."""
        return CellReader(self.cells[name])

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        for bell in self._doorbells.values():
            bell.close()
        for segment in (*self.rings.values(), *self.cells.values()):
            segment.close()
        self._doorbells.clear()
        self.rings.clear()
        self.cells.clear()
